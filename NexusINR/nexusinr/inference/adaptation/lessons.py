"""What a case can teach: fine patches of it, and how each scan is thickened along its own plane."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nexusinr.geometry import Grid
from nexusinr.inference.measured import keep_measured
from nexusinr.inference.prepared import PreparedScan
from nexusinr.inference.progress import Progress
from nexusinr.inference.session import Session
from nexusinr.resample import covered, interpolate

#: Slices (or the steps between them) that are less than this many in-plane voxels are not thick.
THICK = 1.2

#: Thicker slices than this many fine voxels would leave too few of them in a patch.
THICKEST = 6

#: An axis counts as lying within the slices where it leaves their plane by less than this cosine.
IN_PLANE = 0.35

#: A patch is used where at least this share of it is head in all scans.
LEAST_HEAD = 0.4

#: Fine voxels between the points at which that is looked at; patch edges are multiples of it.
COARSE = 4


@dataclass(frozen=True)
class Part:
    """How one scan is acquired, in fine voxels, on axes of the fine lattice.

    Attributes:
        across: the axis that its slices lie across.
        sharp: the axes along which it is a fine reference.
        in_plane: spacing within a slice.
        step: distance between slices.
        thickness: of its slices.
    """

    across: int
    sharp: tuple[int, ...]
    in_plane: float
    step: float
    thickness: float

    @property
    def is_thick(self) -> bool:
        """Whether something is missing across its slices."""
        return max(self.step, self.thickness) >= THICK * self.in_plane


@dataclass(frozen=True)
class Case:
    """The scans of one person as teachers.

    Attributes:
        grid: a lattice of cubes as fine as the scans are within their slices.
        parts: of each scan, by modality.
    """

    grid: Grid
    parts: dict[int, Part]

    @property
    def pupils(self) -> tuple[int, ...]:
        """The modalities that are restored: thick, and sharp along some axis of the lattice."""
        return tuple(m for m, part in self.parts.items() if part.is_thick and part.sharp)

    def choices(self) -> list[dict[int, int]]:
        """The axes along which the scans can be thickened, by modality.

        Where one scan is fine along what the other lacks, it stays so: the axes of two scans are
        different where those across their slices are.
        """
        names = list(self.parts)
        ways = [
            dict(zip(names, axes, strict=True))
            for axes in itertools.product(*(self.parts[m].sharp or (0, 1, 2) for m in names))
        ]
        crossed = len({part.across for part in self.parts.values()}) > 1
        alike = [way for way in ways if (len(set(way.values())) > 1) == crossed]
        return alike or ways


@dataclass(frozen=True)
class Patches:
    """Fine patches of a case, edges of E voxels.

    Attributes:
        images: normalised intensities by modality, (N, E, E, E) float32.
    """

    images: dict[int, Tensor]

    def __len__(self) -> int:
        return len(next(iter(self.images.values())))

    def part(self, which: slice | list[int]) -> Patches:
        """Some of them."""
        return Patches({m: image[which] for m, image in self.images.items()})


def case_of(scans: Mapping[int, PreparedScan]) -> Case | None:
    """What the scans can teach; None where no scan is coarser across its slices than within."""
    thick = [scan for scan in scans.values() if _thickness(scan) >= THICK * _in_plane(scan)]
    if not thick:
        return None
    lead = min(thick, key=_in_plane)
    coarsest = max(map(_thickness, thick))
    fine = max(_in_plane(lead), coarsest / THICKEST)
    grid = lead.grid.with_spacing(fine)
    return Case(grid, {m: _part(scan, grid, fine) for m, scan in scans.items()})


def _in_plane(scan: PreparedScan) -> float:
    return float(scan.grid.spacing[:2].max())


def _thickness(scan: PreparedScan) -> float:
    return float(max(scan.grid.spacing[2], scan.thickness[2]))


def _part(scan: PreparedScan, grid: Grid, fine: float) -> Part:
    normal = np.cross(scan.grid.affine.direction[:, 0], scan.grid.affine.direction[:, 1])
    cosines = np.abs(grid.affine.direction.T @ normal)
    in_plane, step, thickness = (
        max(float(length) / fine, 1.0)
        for length in (_in_plane(scan), scan.grid.spacing[2], scan.thickness[2])
    )
    part = Part(int(cosines.argmax()), (0, 1, 2), in_plane, step, thickness)
    if not part.is_thick:
        return part
    sharp = tuple(int(axis) for axis in np.flatnonzero(cosines < IN_PLANE))
    return Part(part.across, sharp, in_plane, step, thickness)


def places(
    case: Case, scans: Mapping[int, PreparedScan], edge: int, most: int, seed: int
) -> list[NDArray[np.int64]]:
    """First voxels of patches that do not touch one another, (3,) each, in a random order.

    Args:
        case: the lattice.
        scans: the scans.
        edge: of a patch, a multiple of COARSE.
        most: patches that are wanted at most.
        seed: of the order.
    """
    coarse = case.grid.with_spacing(case.grid.spacing * COARSE)
    head = np.ones(coarse.shape, dtype=bool)
    for scan in scans.values():
        head &= (interpolate(scan.head, coarse) > 0.5) & covered(scan.whole.grid, coarse)
    step = edge // COARSE
    counts = np.array(case.grid.shape) // edge
    offset = (np.array(case.grid.shape) - counts * edge) // 2 // COARSE
    found = []
    for index in itertools.product(*map(range, counts)):
        start = offset + np.array(index) * step
        i, j, k = (slice(a, a + step) for a in start)
        if head[i, j, k].mean() >= LEAST_HEAD:
            found.append(start * COARSE)
    order = np.random.default_rng(seed).permutation(len(found))[:most]
    return [found[n] for n in order]


def fine_patches(
    session: Session,
    scans: dict[int, PreparedScan],
    case: Case,
    starts: list[NDArray[np.int64]],
    edge: int,
    progress: Progress,
) -> Patches:
    """Patches of the case as the session's network restores it, on the session's device.

    They reproduce the acquired slices: what is fine in them within the slices was measured.
    """
    for n, (modality, scan) in enumerate(scans.items()):
        share = progress.part(0.8 * n / len(scans), 0.8 / len(scans))
        session.encode(modality, scan, case.grid, share)
    images: dict[int, list[Tensor]] = {m: [] for m in scans}
    for n, start in enumerate(starts):
        lattice = case.grid.crop(start, start + edge)
        restored = session.decode(scans, lattice, progress.quiet(), False, encoded_for=case.grid)
        for modality, image in restored.intensity.items():
            kept = keep_measured(image, scans[modality].whole, lattice, 1.0)
            images[modality].append(torch.from_numpy(kept.image))
        progress.tell(0.8 + 0.2 * (n + 1) / len(starts))
    device = session.device.torch
    return Patches({m: torch.stack(found).to(device) for m, found in images.items()})
