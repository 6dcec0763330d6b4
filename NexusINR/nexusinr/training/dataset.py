"""Training subjects: reading a data folder, and keeping it ready in memory.

The folder has the layout that the README describes: ``pairs/<subject>/{T1w,T2w,seg}.nii.gz``,
``singles/<name>_{T1w,T2w}.nii.gz``, ``labels/labels_*.nii.gz`` with ``labels.csv``, and
``split.csv`` (subject, split). A subject that is not marked ``train`` is never read.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from nibabel import Nifti1Image
from torch import Tensor

from nexusinr.geometry import Affine, Grid
from nexusinr.labels import from_freesurfer
from nexusinr.training.losses import UNKNOWN

#: Spacings that differ by more than this factor mark thick slices: no truth along that axis.
SHARP_RATIO = 1.5


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
        """Which of T1w and T2w a patch can have; a T2w scan of another spacing is left out."""
        there = (self.images[0] is not None, self.images[1] is not None)
        if all(there):
            assert self.grids[0] is not None
            assert self.grids[1] is not None
            return True, np.allclose(self.grids[0].spacing, self.grids[1].spacing, atol=1e-3)
        return there


@dataclass
class LabelMap:
    """A label map (I, J, K) uint8 and the tissue value of each of its labels."""

    name: str
    labels: Tensor
    tissue_of: Tensor
    #: Images made from it are sharp along every axis, and there are both.
    sharp = (0, 1, 2)
    contrasts = (True, True)


@dataclass
class TrainingData:
    """Everything that training draws from."""

    subjects: list[Subject]
    label_maps: list[LabelMap]


def load(folder: Path, leave_out: tuple[str, ...] = ()) -> TrainingData:
    """Reads the training part of a data folder.

    Args:
        folder: see the module's docstring.
        leave_out: training subjects that are kept for validation.

    Raises ValueError where the folder has no split.csv or nothing to train on, and where a subject
    to be left out is not marked ``train``.
    """
    split_file = folder / "split.csv"
    if not split_file.is_file():
        raise ValueError(f"{folder}: no split.csv that says who trains and who tests")
    with split_file.open(newline="") as lines:
        names = [row["subject"] for row in csv.DictReader(lines) if row["split"] == "train"]
    strangers = sorted(set(leave_out) - set(names))
    if strangers:
        raise ValueError(f"{folder}: {strangers[0]!r} is not marked train and cannot validate")
    subjects = [read_pair(folder / "pairs" / name) for name in names if name not in leave_out]
    subjects += [_read_single(path) for path in sorted((folder / "singles").glob("*.nii.gz"))]
    maps = _read_labels(folder / "labels")
    if not subjects and not maps:
        raise ValueError(f"{folder}: nothing to train on")
    return TrainingData(subjects, maps)


def read_pair(folder: Path) -> Subject:
    """One subject's T1w and T2w with their tissues where there are any."""
    images, grids = zip(*(_read_image(folder / f"{m}.nii.gz") for m in ("T1w", "T2w")), strict=True)
    tissues = None
    if (folder / "seg.nii.gz").is_file():
        labels = np.asarray(Nifti1Image.from_filename(folder / "seg.nii.gz").dataobj)
        if labels.max() > 1:  # a single-valued mask is a lesion mask, no tissue map
            tissues = _tissues(labels, images[0].numpy())
    sharp = _sharp_axes(folder.name, grids[0])
    return Subject(folder.name, images, grids, tissues, sharp)


def _read_single(path: Path) -> Subject:
    image, grid = _read_image(path)
    sharp = _sharp_axes(path.name, grid)
    if "_T1w" in path.name:
        return Subject(path.name, (image, None), (grid, None), None, sharp)
    return Subject(path.name, (None, image), (None, grid), None, sharp)


def _read_image(path: Path) -> tuple[Tensor, Grid]:
    image = Nifti1Image.from_filename(path)
    data = np.asarray(image.dataobj, dtype=np.float32)
    scale = np.percentile(data[data > 0], 99.9)
    grid = Grid(data.shape, Affine(image.affine))
    return torch.from_numpy(np.clip(data / scale, 0, 1.5).astype(np.float16)), grid


def _tissues(labels: np.ndarray, image: np.ndarray) -> Tensor:
    tissues = from_freesurfer(labels)
    tissues[(tissues == 0) & (image > 0)] = UNKNOWN  # inside the brain, but not labelled
    return torch.from_numpy(tissues)


def _sharp_axes(name: str, grid: Grid) -> tuple[int, ...]:
    finest = grid.spacing.min()
    sharp = tuple(a for a in range(3) if grid.spacing[a] < SHARP_RATIO * finest)
    # Resampled by their authors from 3 mm slices onto 1 mm: sharp in-plane alone.
    return (0, 1) if name.startswith("ms") else sharp


def _read_labels(folder: Path) -> list[LabelMap]:
    if not (folder / "labels.csv").is_file():
        return []
    with (folder / "labels.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    tissue_of = np.zeros(max(int(row["id"]) for row in rows) + 1, dtype=np.uint8)
    for row in rows:
        first = int(row["freesurfer_ids"].split(";")[0])
        tissue_of[int(row["id"])] = from_freesurfer(np.array([first]))[0]
    maps = []
    for path in sorted(folder.glob("labels_*.nii.gz")):
        labels = np.asarray(Nifti1Image.from_filename(path).dataobj).astype(np.uint8)
        maps.append(LabelMap(path.name, torch.from_numpy(labels), torch.from_numpy(tissue_of)))
    return maps
