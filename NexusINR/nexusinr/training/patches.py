"""Training examples: fine patches, and what thick-slice scanners would have made of them.

Everything happens in a patient space of the patch's own, whose axes are those of the fine lattice.
The patches of a batch share one protocol, and so their shapes: one convolution serves them all.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nexusinr.acquisition import Profile, SeparableAcquisition
from nexusinr.geometry import Affine, Grid
from nexusinr.models.nexus_inr import scan_conditions
from nexusinr.models.sampling import LatticeMap
from nexusinr.training.dataset import LabelMap, Subject, TrainingData
from nexusinr.training.losses import UNKNOWN
from nexusinr.training.synthesis import random_images, randomise_contrast

#: Fine voxels around a patch that the slice profiles may reach into.
MARGIN = 8

#: By default half a slice of context: as there is everywhere but at the very end of a scan.
CONTEXT = 2

#: Label values from here on lie outside of the brain.
FIRST_OUTSIDE_BRAIN = 25

#: Of the patches of a label map, how many lie in the brain for sure; the rest anywhere in the head.
BRAIN_SHARE = 0.7

#: Which array axis becomes the first, the second and the third.
Turn = tuple[int, int, int]


@dataclass(frozen=True)
class Protocol:
    """How the two scans of one example are acquired; lengths in fine voxels.

    Attributes:
        axes: slice axis of the T1w and of the T2w scan.
        steps: distance between slices of each.
        thickness: slice thickness of each.
        in_plane: in-plane voxel size of each.
        profile: slice profile.
        noise: standard deviation of the noise, intensities of 0 ... 1.
        misalignment: shift of the T2w scan against its header, (3,).
        present: whether each scan is there.
    """

    axes: tuple[int, int]
    steps: tuple[float, float]
    thickness: tuple[float, float]
    in_plane: tuple[float, float] = (1.0, 1.0)
    profile: Profile = "box"
    noise: float = 0.0
    misalignment: tuple[float, float, float] = (0.0, 0.0, 0.0)
    present: tuple[bool, bool] = (True, True)


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


@dataclass
class Example:
    """A batch of pairs of scans; None where all lack one."""

    sides: tuple[Side | None, Side | None]


def collate(examples: Sequence[Example]) -> Example:
    """Examples of one protocol and with the same scans present, as one batch."""
    both = [_stack(sides) for sides in zip(*(e.sides for e in examples), strict=True)]
    return Example((both[0], both[1]))


def _stack(sides: Sequence[Side | None]) -> Side | None:
    there = [side for side in sides if side is not None]
    if not there:
        return None
    if len(there) < len(sides):
        raise ValueError("a batch needs the same scans of every example")
    return Side(
        scan=torch.cat([side.scan for side in there]),
        grids=[grid for side in there for grid in side.grids],
        conditions=torch.cat([side.conditions for side in there]),
        truth=torch.cat([side.truth for side in there]),
        truth_grids=[grid for side in there for grid in side.truth_grids],
        tissues=torch.cat([side.tissues for side in there]),
    )


def draw_protocol(rng: np.random.Generator, sharp: tuple[int, ...], brats_share: float) -> Protocol:
    """A random acquisition: the evaluation's own 2x and 4x, or anything from 1 to 6 voxels."""
    first = int(rng.choice(sharp))
    others = [axis for axis in sharp if axis != first] or [first]
    second = int(rng.choice(others))
    if rng.random() < brats_share:
        present = (True, True) if rng.random() < 0.95 else (False, True)
        return Protocol((first, second), (2, 4), (2, 4), present=present)
    if rng.random() < 0.25:
        second = first
    steps = np.exp(rng.uniform(0, np.log(6), 2))
    steps[rng.random(2) < 0.1] = 1.0
    thickness = np.maximum(steps * (1 - rng.uniform(0, 0.3, 2) * (rng.random(2) < 0.5)), 1)
    in_plane = np.where(rng.random(2) < 0.35, rng.uniform(1, 1.5, 2), 1)
    # Where slices were thick already there is no truth along them that could be restored.
    in_plane = np.minimum(in_plane, steps) if len(sharp) == 3 else np.ones(2)
    shift = rng.normal(0, 0.4, 3) * (rng.random() < 0.3)
    alone = rng.random()
    return Protocol(
        (first, second),
        (steps[0], steps[1]),
        (thickness[0], thickness[1]),
        in_plane=(in_plane[0], in_plane[1]),
        profile="gaussian" if rng.random() < 0.5 else "box",
        noise=float(rng.choice([0, 0, 0.01, 0.02, 0.04])),
        misalignment=(shift[0], shift[1], shift[2]),
        present=(alone > 0.1, alone < 0.9),
    )


def turns(protocol: Protocol, sharp: tuple[int, ...]) -> list[Turn]:
    """Every way to turn an image so that the protocol's slice axes were sharp ones before."""
    ways = itertools.permutations((0, 1, 2), 3)
    return [(i, j, k) for i, j, k in ways if all((i, j, k)[a] in sharp for a in protocol.axes)]


class PatchSource:
    """Draws examples from training data.

    Args:
        data: subjects and label maps.
        size: edge of what is scanned, fine voxels.
        seed: of all randomness.
        label_share: share of examples that are synthesised from label maps.
        brats_share: share of examples acquired as protocol `brats` does.
        weights: how often subjects are drawn, by the start of their name (1 where none fits).
        context: fine voxels at each face of what is scanned that are not restored.
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
    ) -> None:
        self.data, self.size, self.context = data, size, context
        self.label_share, self.brats_share = label_share, brats_share
        self.reseed((seed,))
        chances = [_chance(s.name, weights or {}) for s in data.subjects]
        self.chances = np.array(chances) / max(sum(chances), 1e-9)

    def reseed(self, seeds: tuple[int, ...]) -> None:
        """Starts the randomness anew from some numbers."""
        self.rng = np.random.default_rng(seeds)
        self.generator = torch.Generator().manual_seed(int(self.rng.integers(2**62)))

    def draw(self, batch: int = 1) -> Example:
        """The next batch of patches: one protocol, and the same scans present in all."""
        first = self._pick()
        protocol = draw_protocol(self.rng, first.sharp, self.brats_share)
        examples = [self._example(first, protocol)]
        while len(examples) < batch:
            other = self._pick()
            if other.contrasts == first.contrasts and turns(protocol, other.sharp):
                examples.append(self._example(other, protocol))
        return collate(examples)

    def _pick(self) -> Subject | LabelMap:
        if self.data.label_maps and (
            not self.data.subjects or self.rng.random() < self.label_share
        ):
            return self.data.label_maps[self.rng.integers(len(self.data.label_maps))]
        return self.data.subjects[self.rng.choice(len(self.chances), p=self.chances)]

    def _example(self, source: Subject | LabelMap, protocol: Protocol) -> Example:
        """One patch, turned in any way that puts sharp axes across the protocol's slices."""
        ways = turns(protocol, source.sharp)
        turn = ways[self.rng.integers(len(ways))]
        if isinstance(source, Subject):
            return self.from_subject(source, protocol, turn=turn)
        return self._from_labels(source, protocol, turn)

    def _from_labels(self, label_map: LabelMap, protocol: Protocol, turn: Turn) -> Example:
        head = label_map.labels > 0
        brain = head & (label_map.labels < FIRST_OUTSIDE_BRAIN)
        corner = self._corner(brain if self.rng.random() < BRAIN_SHARE else head)
        labels = crop(label_map.labels, corner, self.size + 2 * MARGIN).permute(turn)
        t1w, t2w, tissues = random_images(labels, label_map.tissue_of, self.generator)
        return self._acquire((t1w, t2w), np.zeros(3), tissues, protocol)

    def from_subject(
        self,
        subject: Subject,
        protocol: Protocol,
        remap: float = 0.35,
        turn: Turn = (0, 1, 2),
    ) -> Example:
        """A patch of a subject, its contrast remapped with some probability.

        Args:
            subject: whose images are cut.
            protocol: how they are scanned; its axes are those of the turned patch.
            remap: the probability.
            turn: which of the subject's array axes becomes the patch's first, second and third.
        """
        first = 0 if subject.images[0] is not None else 1
        lead, other = subject.images[first], subject.images[1]
        assert lead is not None
        corner = self._corner(lead > 0.05)
        width = self.size + 2 * MARGIN
        images: list[Tensor | None] = [None, None]
        images[first] = crop(lead, corner, width).float().permute(turn)
        offset = np.zeros(3)
        if all(subject.contrasts):
            grids = subject.grids
            assert grids[0] is not None
            assert grids[1] is not None
            assert other is not None
            centre = corner + (width - 1) / 2
            there = grids[1].affine.to_index(grids[0].affine.apply(centre))
            start = np.round(there - (width - 1) / 2).astype(int)
            images[1] = crop(other, start, width).float().permute(turn)
            offset = (start + (width - 1) / 2 - there)[list(turn)]
        tissues = torch.full((width,) * 3, UNKNOWN, dtype=torch.uint8)
        if subject.tissues is not None:
            tissues = crop(subject.tissues, corner, width).permute(turn)
        if self.rng.random() < remap:
            images = [i if i is None else randomise_contrast(i, self.generator) for i in images]
        return self._acquire((images[0], images[1]), offset, tissues, protocol)

    def _corner(self, inside: Tensor) -> np.ndarray:
        """The first index of a crop around a random voxel of a mask."""
        if not inside.any():
            raise ValueError("a training image is empty: there is no place to take a patch from")
        while True:
            place = np.array([self.rng.integers(n) for n in inside.shape])
            if inside[tuple(place)]:
                jitter = self.rng.integers(-self.size // 4, self.size // 4 + 1, 3)
                return place + jitter - self.size // 2 - MARGIN

    def _acquire(
        self,
        images: tuple[Tensor | None, Tensor | None],
        offset: np.ndarray,
        tissues: Tensor,
        protocol: Protocol,
    ) -> Example:
        flips = [axis for axis in range(3) if self.rng.random() < 0.5]
        signs = np.array([-1.0 if axis in flips else 1.0 for axis in range(3)])
        millimetres = self.rng.uniform(0.8, 1.1)
        missing = [not protocol.present[m] or images[m] is None for m in range(2)]
        if all(missing):
            missing = [image is None for image in images]
        sides: list[Side | None] = []
        for modality, image in enumerate(images):
            if image is None or missing[modality]:
                sides.append(None)
                continue
            moved = offset * signs if modality == 1 else np.zeros(3)
            fine = Grid((self.size,) * 3, Affine.from_parts((1, 1, 1), origin=moved))
            truth, known = image.flip(flips).contiguous(), tissues.flip(flips)
            sides.append(self._scan(truth, known, fine, protocol, modality, millimetres))
        return Example((sides[0], sides[1]))

    def _scan(
        self,
        image: Tensor,
        tissues: Tensor,
        fine: Grid,
        protocol: Protocol,
        modality: int,
        millimetres: float,
    ) -> Side:
        axis = protocol.axes[modality]
        spacing = np.full(3, protocol.in_plane[modality])
        spacing[axis] = protocol.steps[modality]
        thickness = spacing.copy()
        thickness[axis] = protocol.thickness[modality]
        scan = Grid.from_corner(
            tuple(np.maximum(np.round(fine.extent / spacing), 1).astype(int).tolist()),
            spacing,
            np.eye(3),
            fine.corner,
        )
        order = slice_axis_last(axis)
        scan, thickness = scan.permuted(order), thickness[list(order)]
        acquisition = SeparableAcquisition(scan, fine.pad(MARGIN), thickness, protocol.profile)
        low = acquisition.forward(image)
        if protocol.noise:
            noise = torch.randn(low.shape, generator=self.generator) * protocol.noise
            low = (low + noise).clamp(min=0)
        if modality == 1 and any(protocol.misalignment):  # the header is wrong by that much
            scan = Grid(scan.shape, scan.affine.transformed(_shift(protocol.misalignment)))
            fine = Grid(fine.shape, fine.affine.transformed(_shift(protocol.misalignment)))
        inner = slice(MARGIN + self.context, -MARGIN - self.context)
        return Side(
            scan=low[None, None].contiguous(),
            grids=[scan],
            conditions=scan_conditions(
                torch.tensor(scan.spacing * millimetres, dtype=torch.float32)[None],
                torch.tensor(thickness * millimetres, dtype=torch.float32)[None],
            ),
            truth=image[None, inner, inner, inner],
            truth_grids=[fine.pad(-self.context)],
            tissues=tissues[None, inner, inner, inner],
        )


def slice_axis_last(axis: int) -> tuple[int, int, int]:
    """The order of array axes that puts one of them last and keeps the others in order."""
    first, second = (a for a in range(3) if a != axis)
    return first, second, axis


def crop(image: Tensor, start: np.ndarray, width: int) -> Tensor:
    """A cube (width, width, width) from an index that may lie outside: zeros there."""
    out = torch.zeros((width,) * 3, dtype=image.dtype)
    source, target = [], []
    for axis in range(3):
        low = max(int(start[axis]), 0)
        high = max(min(int(start[axis]) + width, image.shape[axis]), low)
        source.append(slice(low, high))
        target.append(slice(low - int(start[axis]), high - int(start[axis])))
    part = image[tuple(source)]
    if part.numel():
        out[tuple(target)] = part
    return out


def _shift(offset: tuple[float, float, float]) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, 3] = offset
    return matrix


def _chance(name: str, weights: dict[str, float]) -> float:
    for start, weight in weights.items():
        if name.startswith(start):
            return weight
    return 1.0
