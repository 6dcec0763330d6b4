"""Examples for Nexus-INR: fine patches, and what two thick-slice scanners would make of them.

Everything happens in a patient space of the patch's own, whose axes are those of the fine lattice.
The patches of a batch share one protocol, and so their shapes: one acquisition makes all scans of
a modality, one convolution serves them all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nexusinr.acquisition import SeparableAcquisition
from nexusinr.geometry import Affine, Grid
from nexusinr.models.nexus_inr import scan_conditions
from nexusinr.models.sampling import LatticeMap
from nexusinr.training.crops import MARGIN, REMAP, CropSource, Cut, Fine
from nexusinr.training.dataset import LabelMap, Subject, TrainingData, Turn
from nexusinr.training.filters import noisy
from nexusinr.training.protocols import Protocol, draw_protocol, slice_axis_last

#: By default half a slice of context: as there is everywhere but at the very end of a scan.
CONTEXT = 2


@dataclass
class Side:
    """The scans of one modality in a batch of B patches, and their truth.

    Attributes:
        scan: the degraded images, (B, 1, i, j, k), slice axis last.
        grids: their lattices, (i, j, k), parallel to one another.
        conditions: what the network is told of them, (B, 6).
        truth: the fine images, (B, I, J, K).
        truth_grids: their lattices, (I, J, K).
        tissues: tissue values there, (B, I, J, K), UNKNOWN where not known.
    """

    scan: Tensor
    grids: list[Grid]
    conditions: Tensor
    truth: Tensor
    truth_grids: list[Grid]
    tissues: Tensor

    def map_to(self, targets: Sequence[Grid]) -> LatticeMap:
        """From these scans to target lattices grown by one voxel, as decoding wants it."""
        return LatticeMap(self.grids, [target.pad(1) for target in targets])


class Example:
    """A batch of pairs of scans; None where all lack one.

    Args:
        sides: of T1w and T2w.
    """

    def __init__(self, sides: tuple[Side | None, Side | None]) -> None:
        self.sides = sides


class PatchSource(CropSource):
    """Draws examples from training data.

    Args:
        data: people and label maps.
        size: edge of what is scanned, fine voxels.
        seed: of all randomness.
        label_share: share of examples that are synthesised from label maps.
        brats_share: share of examples acquired as protocol `brats` does.
        weights: how often people are drawn, by the start of their name (1 where none fits).
        context: fine voxels at each face of what is scanned that are not restored.
        device: where examples are made.
    """

    def __init__(
        self,
        data: TrainingData,
        size: int,
        seed: int,
        label_share: float = 0.22,
        brats_share: float = 0.6,
        weights: dict[str, float] | None = None,
        context: int = CONTEXT,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(data, size, seed, label_share, weights, device)
        self.brats_share, self.context = brats_share, context

    def draw(self, batch: int = 1) -> Example:
        """The next batch of patches: one protocol, and the same scans present in all."""
        first = self.pick()
        protocol = draw_protocol(self.rng, first.sharp, self.brats_share)
        cuts: list[Cut] = []
        source: Subject | LabelMap = first
        while len(cuts) < batch:
            cut = self.cut(source, protocol.axes)
            if cut is not None and source.contrasts == first.contrasts:
                cuts.append(cut)
            source = self.pick()
        return self.acquired(self.fine(cuts), protocol)

    def from_subject(
        self,
        subject: Subject,
        protocol: Protocol,
        remap: float = REMAP,
        turn: Turn = (0, 1, 2),
    ) -> Example:
        """A patch of a person, its contrast remapped with some probability.

        Args:
            subject: whose images are cut.
            protocol: how they are scanned; its axes are those of the turned patch.
            remap: the probability.
            turn: which of the subject's array axes becomes the patch's first, second and third.
        """
        return self.acquired(self.fine([self.cut_turned(subject, turn, remap)]), protocol)

    def acquired(self, fine: Fine, protocol: Protocol) -> Example:
        """What scanners make of fine patches."""
        there = [image is not None for image in fine.images]
        missing = [not (protocol.present[m] and there[m]) for m in range(2)]
        if all(missing):
            missing = [not present for present in there]
        first, second = (
            None if missing[m] or image is None else self._scan(image, fine, protocol, m)
            for m, image in enumerate(fine.images)
        )
        return Example((first, second))

    def _scan(self, image: Tensor, fine: Fine, protocol: Protocol, modality: int) -> Side:
        lattice = Grid((self.size,) * 3, Affine.from_parts((1, 1, 1)))
        scan, thickness = _scan_lattice(lattice, protocol, modality)
        model = SeparableAcquisition(scan, lattice.pad(MARGIN), thickness, protocol.profile)
        low = model.forward(image)
        if protocol.noise:
            low = noisy(low, torch.full_like(low[:, 0, 0, 0], protocol.noise), self.generator)
        # The T2w lattice lies elsewhere, and its header may be wrong on top of that.
        moved = fine.offsets + np.array(protocol.misalignment) if modality == 1 else None
        grids, truths = (_moved(grid, moved, len(image)) for grid in (scan, lattice))
        inner = slice(MARGIN + self.context, -MARGIN - self.context)
        return Side(
            scan=low[:, None].contiguous(),
            grids=grids,
            conditions=conditions(scan.spacing, thickness, fine.millimetres).to(image.device),
            truth=image[:, inner, inner, inner],
            truth_grids=[grid.pad(-self.context) for grid in truths],
            tissues=fine.tissues[:, inner, inner, inner],
        )


def conditions(spacing: np.ndarray, thickness: np.ndarray, millimetres: np.ndarray) -> Tensor:
    """What the network is told, (B, 6), of lattices in fine voxels of (B,) mm."""
    sizes = (torch.tensor(s * millimetres[:, None]).float() for s in (spacing, thickness))
    return scan_conditions(*sizes)


def _scan_lattice(fine: Grid, protocol: Protocol, modality: int) -> tuple[Grid, np.ndarray]:
    """The scan's lattice, slice axis last, and thickness (3,) in that order."""
    axis = protocol.axes[modality]
    spacing = np.full(3, protocol.in_plane[modality])
    spacing[axis] = protocol.steps[modality]
    thickness = spacing.copy()
    thickness[axis] = protocol.thickness[modality]
    i, j, k = np.maximum(np.round(fine.extent / spacing), 1).astype(int).tolist()
    scan = Grid.from_corner((i, j, k), spacing, np.eye(3), fine.corner)
    order = slice_axis_last(axis)
    return scan.permuted(order), thickness[list(order)]


def _moved(grid: Grid, offsets: np.ndarray | None, count: int) -> list[Grid]:
    """The lattice for each example, moved by (B, 3) in patient space."""
    if offsets is None:
        return [grid] * count
    found = []
    for offset in offsets:
        matrix = np.eye(4)
        matrix[:3, 3] = offset
        found.append(Grid(grid.shape, grid.affine.transformed(matrix)))
    return found
