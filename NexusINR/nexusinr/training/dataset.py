"""What training draws from: fine images of people and label maps, ready in memory."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from nexusinr.geometry import Grid

#: Intensities (0 ... 1) above this belong to the head: patches are taken around them.
HEAD = 0.05

#: Label values from here on lie outside of the brain.
FIRST_OUTSIDE_BRAIN = 25

#: Axes that differ by more than this (a direction cosine, about 3 degrees) are not parallel.
PARALLEL = 0.05

#: Patches are taken around every second voxel: it is enough, and an eighth of the memory.
STRIDE = 2

Turn = tuple[int, int, int]


@dataclass
class Subject:
    """Fine images of one person, 0 ... 1, (I, J, K) float16; None where a contrast is missing.

    `sharp` are the axes along which they are a true fine reference. The T2w lattice may be moved
    against the T1w lattice (`grids`); `tissues` is on the lattice of the first image there is.
    """

    name: str
    images: tuple[Tensor | None, Tensor | None]
    grids: tuple[Grid | None, Grid | None]
    tissues: Tensor | None
    sharp: tuple[int, ...]

    @property
    def contrasts(self) -> tuple[bool, bool]:
        """Which of T1w and T2w a patch can have.

        A T2w scan of another spacing or direction than the T1w scan is left out.
        """
        first, second = self.grids
        if first is None or second is None:
            return first is not None, second is not None
        spacing = np.allclose(first.spacing, second.spacing, atol=1e-3)
        turned = np.abs(first.affine.direction - second.affine.direction).max()
        return True, bool(spacing and turned < PARALLEL)

    @property
    def lead(self) -> Tensor:
        """The image that patches are placed by: the first there is."""
        image = self.images[0] if self.images[0] is not None else self.images[1]
        assert image is not None
        return image

    @cached_property
    def places(self) -> np.ndarray:
        """Voxels inside the head, (N, 3) int16: where patches are taken from."""
        return _places(self.lead > HEAD)


@dataclass
class LabelMap:
    """A label map (I, J, K) uint8 and the tissue value of each of its labels."""

    name: str
    labels: Tensor
    tissue_of: Tensor
    #: Images made from it are sharp along every axis, and there are both.
    sharp = (0, 1, 2)
    contrasts = (True, True)

    @cached_property
    def places(self) -> np.ndarray:
        """Voxels inside the head, (N, 3) int16."""
        return _places(self.labels > 0)

    @cached_property
    def brain_places(self) -> np.ndarray:
        """Voxels inside the brain, (N, 3) int16; those of the head where there is no brain."""
        brain = (self.labels > 0) & (self.labels < FIRST_OUTSIDE_BRAIN)
        return _places(brain) if brain.any() else self.places


@dataclass
class TrainingData:
    """Everything that training draws from."""

    subjects: list[Subject]
    label_maps: list[LabelMap]

    def named(self, people: Iterable[str]) -> list[Subject]:
        """The subjects of some people, all sessions of each.

        Raises ValueError for a name that no training subject has.
        """
        found = []
        for person in people:
            own = [s for s in self.subjects if belongs(s.name, person)]
            if not own:
                known = ", ".join(sorted(s.name for s in self.subjects)[:5]) or "nobody"
                raise ValueError(
                    f"{person!r} cannot validate: it is not there or not marked train; there are "
                    f"{known}"
                )
            found += own
        return found

    def without(self, people: Iterable[str]) -> TrainingData:
        """The same without some people. Raises ValueError where nothing is left, and as `named`."""
        people = tuple(people)
        self.named(people)
        rest = [s for s in self.subjects if not any(belongs(s.name, p) for p in people)]
        if not rest and not self.label_maps:
            raise ValueError("nothing to train on: all subjects are kept for validation")
        return TrainingData(rest, self.label_maps)

    @property
    def bytes(self) -> int:
        """Memory that the images, label maps and tissues take."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self._tensors())

    def to(self, device: torch.device) -> TrainingData:
        """The same with all voxels on a device."""

        def moved(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor.to(device)

        subjects = []
        for s in self.subjects:
            t1w, t2w = map(moved, s.images)
            subjects.append(replace(s, images=(t1w, t2w), tissues=moved(s.tissues)))
        maps = [
            LabelMap(m.name, m.labels.to(device), m.tissue_of.to(device)) for m in self.label_maps
        ]
        return TrainingData(subjects, maps)

    def _tensors(self) -> Iterable[Tensor]:
        for subject in self.subjects:
            yield from (t for t in (*subject.images, subject.tissues) if t is not None)
        yield from (label_map.labels for label_map in self.label_maps)


def belongs(name: str, person: str) -> bool:
    """Whether a subject's name is that of a person, or of one of their sessions."""
    return name == person or name.startswith(f"{person}_ses-")


def _places(mask: Tensor) -> np.ndarray:
    """Every second voxel of a mask, or every one where those are none."""
    coarse = mask[::STRIDE, ::STRIDE, ::STRIDE].nonzero() * STRIDE
    found = coarse if len(coarse) else mask.nonzero()
    return found.cpu().numpy().astype(np.int16)
