"""Fine patches scanned once more, with thick slices across an axis that was measured finely.

Everything is in a space of the patch's own whose unit is the fine voxel.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from nexusinr.acquisition import Profile, SeparableAcquisition
from nexusinr.geometry import Affine, Grid
from nexusinr.inference.adaptation.lessons import Case, Part, Patches
from nexusinr.models.nexus_inr import scan_conditions

#: Fine voxels at each face of a patch that slice profiles may reach into.
MARGIN = 4

#: Fine voxels further in that are scanned, but not judged.
CONTEXT = 2

#: Headers do not say which it was.
PROFILES: tuple[Profile, ...] = ("gaussian", "box")


@dataclass(frozen=True)
class Protocol:
    """How the patches of a lesson are scanned.

    Attributes:
        axes: across the slices, by modality.
        profile: of the slices.
        flips: axes along which the patches are mirrored before.
    """

    axes: dict[int, int]
    profile: Profile = "gaussian"
    flips: tuple[int, ...] = ()


@dataclass(frozen=True)
class ThickScan:
    """Scans of B patches.

    Attributes:
        image: (B, 1, i, j, k), slice axis last.
        grid: their lattice.
        order: the patch's axes that i, j and k are.
        conditions: what a network is told of them, (B, 6).
    """

    image: Tensor
    grid: Grid
    order: tuple[int, int, int]
    conditions: Tensor


@dataclass(frozen=True)
class Lesson:
    """What is given and what is wanted, for B patches.

    Attributes:
        scans: by modality.
        truths: the fine patches, by modality, (B, I, J, K).
        grid: the lattice of the truths.
        slices: of the scans that the truths come from: the axis across them, and how many voxels
            of it one slice has seen, by modality.
    """

    scans: dict[int, ThickScan]
    truths: dict[int, Tensor]
    grid: Grid
    slices: dict[int, tuple[int, int]]


def lesson(patches: Patches, case: Case, protocol: Protocol) -> Lesson:
    """Scans of some patches, and the patches themselves."""
    edge = next(iter(patches.images.values())).shape[-1]
    whole = Grid((edge,) * 3, Affine.from_parts((1, 1, 1)))
    judged = whole.pad(-MARGIN - CONTEXT)
    inner = (slice(None), *(slice(MARGIN + CONTEXT, -MARGIN - CONTEXT),) * 3)
    mirrored = [1 + axis for axis in protocol.flips]
    images = {m: image.flip(mirrored) for m, image in patches.images.items()}
    millimetres = float(case.grid.spacing[0])
    scans = {
        m: _scanned(images[m], whole, part, protocol.axes[m], protocol.profile, millimetres)
        for m, part in case.parts.items()
    }
    truths = {m: image[inner] for m, image in images.items()}
    slices = {m: (part.across, round(part.thickness)) for m, part in case.parts.items()}
    return Lesson(scans, truths, judged, slices)


def _scanned(
    image: Tensor, whole: Grid, part: Part, axis: int, profile: Profile, millimetres: float
) -> ThickScan:
    first, second = (a for a in range(3) if a != axis)
    order = (first, second, axis)
    scanned = whole.pad(-MARGIN).permuted(order)
    spacing = np.array((part.in_plane, part.in_plane, part.step))
    thickness = np.array((part.in_plane, part.in_plane, part.thickness))
    i, j, k = np.maximum(np.round(scanned.extent / spacing), 1).astype(int).tolist()
    grid = Grid.from_corner((i, j, k), spacing, scanned.affine.direction, scanned.corner)
    model = SeparableAcquisition(grid, whole, thickness, profile)
    told = (torch.tensor(v * millimetres, dtype=torch.float32) for v in (spacing, thickness))
    conditions = scan_conditions(*told).expand(len(image), -1).to(image.device)
    return ThickScan(model.forward(image)[:, None].contiguous(), grid, order, conditions)


def doubled_only(case: Case) -> Case:
    """The same with slices of two or four fine voxels: what stages of doubling lead back from."""

    def fitted(part: Part) -> Part:
        if not part.is_thick:
            return replace(part, in_plane=1.0, step=1.0, thickness=1.0)
        step = 2.0 if part.step < 2**1.5 else 4.0
        thickness = max(step * part.thickness / part.step, 1.0)
        return replace(part, in_plane=1.0, step=step, thickness=thickness)

    return Case(case.grid, {m: fitted(part) for m, part in case.parts.items()})
