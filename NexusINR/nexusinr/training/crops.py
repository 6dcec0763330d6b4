"""Fine patches of people and label maps, a whole batch at a time, on the device of the data.

Where a patch comes from is drawn on the host, from plain numbers; its voxels are never looked at
there. Contrast, texture, lesions and noise are drawn on the device. Both begin from the same seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nexusinr.training.dataset import LabelMap, Subject, TrainingData, Turn
from nexusinr.training.losses import UNKNOWN
from nexusinr.training.protocols import turns
from nexusinr.training.synthesis import random_images, randomise_contrast

#: Fine voxels around a patch that the slice profiles may reach into.
MARGIN = 8

#: Of the patches of a label map, how many lie in the brain for sure; the rest anywhere in the head.
BRAIN_SHARE = 0.7

#: How often the contrast of real images is remapped.
REMAP = 0.35

BOTH = (0, 1)


@dataclass(frozen=True)
class Cut:
    """Where one patch comes from.

    Attributes:
        source: the person or label map.
        place: the voxel in its middle, (3,).
        turn: which array axis becomes the patch's first, second and third.
        flips: the patch's axes that are flipped then.
        millimetres: what a fine voxel counts as.
        remap: whether the contrast of a real image is remapped.
    """

    source: Subject | LabelMap
    place: np.ndarray
    turn: Turn
    flips: tuple[int, ...]
    millimetres: float
    remap: bool


@dataclass
class Fine:
    """Fine patches, W voxels along each edge, margins included.

    Attributes:
        images: T1w and T2w, (B, W, W, W) float32; None where it was not wanted or is not there.
        tissues: tissue values on the lattice of the first image there is, (B, W, W, W) uint8.
        offsets: of the T2w lattice against the T1w lattice, (B, 3), fine voxels.
        millimetres: what a fine voxel counts as, (B,).
    """

    images: list[Tensor | None]
    tissues: Tensor
    offsets: np.ndarray
    millimetres: np.ndarray


class CropSource:
    """Cuts patches from training data.

    Args:
        data: people and label maps; patches are made on the device that they are on.
        size: edge of what is scanned, fine voxels.
        seed: of all randomness.
        label_share: share of patches that are synthesised from label maps.
        weights: how often people are drawn, by the start of their name (1 where none fits).
        device: where patches go, if not where the data is.
    """

    def __init__(
        self,
        data: TrainingData,
        size: int,
        seed: int,
        label_share: float = 0.22,
        weights: dict[str, float] | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.data, self.size, self.label_share = data, size, label_share
        self.device = torch.device(device)
        self.reseed((seed,))
        chances = [_chance(s.name, weights or {}) for s in data.subjects]
        self.chances = np.array(chances) / max(sum(chances), 1e-9)

    @property
    def width(self) -> int:
        """Edge of a fine patch with its margins, voxels."""
        return self.size + 2 * MARGIN

    def reseed(self, seeds: tuple[int, ...]) -> None:
        """Starts the randomness anew from some numbers."""
        self.rng = np.random.default_rng(seeds)
        self.generator = torch.Generator(self.device).manual_seed(int(self.rng.integers(2**62)))

    def pick(self) -> Subject | LabelMap:
        """A person or a label map."""
        maps = self.data.label_maps
        if maps and (not self.data.subjects or self.rng.random() < self.label_share):
            return maps[self.rng.integers(len(maps))]
        return self.data.subjects[self.rng.choice(len(self.chances), p=self.chances)]

    def cut(
        self, source: Subject | LabelMap, axes: tuple[int, ...], remap: float = REMAP
    ) -> Cut | None:
        """A random patch, turned so that sharp axes lie across slices; None where none can."""
        ways = turns(axes, source.sharp)
        if not ways:
            return None
        return self.cut_turned(source, ways[self.rng.integers(len(ways))], remap)

    def cut_turned(self, source: Subject | LabelMap, turn: Turn, remap: float) -> Cut:
        """A random patch, turned in a given way. Raises ValueError for an empty image."""
        places = source.places
        if isinstance(source, LabelMap) and self.rng.random() < BRAIN_SHARE:
            places = source.brain_places
        if not len(places):
            raise ValueError(f"{source.name}: an empty image has no place to take a patch from")
        place = places[self.rng.integers(len(places))].astype(int)
        place = place + self.rng.integers(-self.size // 4, self.size // 4 + 1, 3)
        return Cut(
            source=source,
            place=place,
            turn=turn,
            flips=tuple(axis for axis in range(3) if self.rng.random() < 0.5),
            millimetres=float(self.rng.uniform(0.8, 1.1)),
            remap=bool(self.rng.random() < remap),
        )

    def fine(self, cuts: Sequence[Cut], modalities: Sequence[int] = BOTH) -> Fine:
        """The patches themselves; all of a batch lack the same contrasts."""
        there = [m for m in modalities if all(cut.source.contrasts[m] for cut in cuts)]
        shape = (len(cuts), *(self.width,) * 3)
        images = [torch.zeros(shape, device=self.device) if m in there else None for m in BOTH]
        tissues = torch.full(shape, UNKNOWN, dtype=torch.uint8, device=self.device)
        offsets = np.zeros((len(cuts), 3))
        for n, cut in enumerate(cuts):
            if isinstance(cut.source, Subject):
                offsets[n] = self._copy(cut, n, images, tissues)
        self._remap([n for n, cut in enumerate(cuts) if cut.remap], cuts, images)
        self._synthesise(cuts, there, images, tissues)
        return Fine(images, tissues, offsets, np.array([cut.millimetres for cut in cuts]))

    def _copy(
        self, cut: Cut, n: int, images: Sequence[Tensor | None], tissues: Tensor
    ) -> np.ndarray:
        """Cuts a person's images into place; the offset of the T2w lattice, (3,)."""
        subject = cut.source
        assert isinstance(subject, Subject)
        offset, start = np.zeros(3), cut.place - self.width // 2
        first = 0 if subject.images[0] is not None else 1
        for modality, image in enumerate(images):
            own = subject.images[modality]
            if image is None or own is None:
                continue
            begin = start
            if modality != first:
                begin, offset = self._place_there(subject, start)
            image[n] = self._turned(crop(own, begin, self.width), cut)
        if subject.tissues is not None:
            tissues[n] = self._turned(crop(subject.tissues, start, self.width), cut)
        signs = np.array([-1.0 if axis in cut.flips else 1.0 for axis in range(3)])
        return offset[list(cut.turn)] * signs

    def _place_there(self, subject: Subject, start: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where the same patch begins in the T2w image, and by how much the lattices differ."""
        t1w, t2w = subject.grids
        assert t1w is not None
        assert t2w is not None
        half = (self.width - 1) / 2
        there = t2w.affine.to_index(t1w.affine.apply(start + half))
        begin = np.round(there - half).astype(int)
        return begin, begin + half - there

    def _remap(
        self, chosen: list[int], cuts: Sequence[Cut], images: Sequence[Tensor | None]
    ) -> None:
        real = [n for n in chosen if isinstance(cuts[n].source, Subject)]
        for image in images:
            if real and image is not None:
                image[real] = randomise_contrast(image[real], self.generator)

    def _synthesise(
        self,
        cuts: Sequence[Cut],
        modalities: Sequence[int],
        images: Sequence[Tensor | None],
        tissues: Tensor,
    ) -> None:
        """Makes images of the label maps among the patches, all at once."""
        rows = [n for n, cut in enumerate(cuts) if isinstance(cut.source, LabelMap)]
        if not rows:
            return
        labels, tables = [], []
        for n in rows:
            source = cuts[n].source
            assert isinstance(source, LabelMap)
            start = cuts[n].place - self.width // 2
            labels.append(self._turned(crop(source.labels, start, self.width), cuts[n]))
            tables.append(source.tissue_of.to(self.device))
        made, known = random_images(
            torch.stack(labels),
            torch.nn.utils.rnn.pad_sequence(tables, batch_first=True),
            self.generator,
            modalities,
        )
        tissues[rows] = known
        for modality, image in zip(modalities, made, strict=True):
            target = images[modality]
            assert target is not None
            target[rows] = image

    def _turned(self, patch: Tensor, cut: Cut) -> Tensor:
        return patch.to(self.device).permute(cut.turn).flip(cut.flips)


def crop(image: Tensor, start: np.ndarray, width: int) -> Tensor:
    """A cube (width, width, width) from an index that may lie outside: zeros there."""
    out = torch.zeros((width,) * 3, dtype=image.dtype, device=image.device)
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


def _chance(name: str, weights: dict[str, float]) -> float:
    for start, weight in weights.items():
        if name.startswith(start):
            return weight
    return 1.0
