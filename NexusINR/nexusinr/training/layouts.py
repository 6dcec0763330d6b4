"""Folders of training data: how each layout is told and read.

* Our own: ``pairs/<subject>/{T1w,T2w,seg}.nii.gz``, ``singles/<name>_{T1w,T2w}.nii.gz``,
  ``labels/labels_*.nii.gz`` with ``labels.csv``, and ``split.csv``, which is required there.
* BIDS: ``sub-*/[ses-*/]anat/*_T1w.nii.gz`` and ``*_T2w.nii.gz``. Of several runs the first one
  counts; label maps (``*_dseg``) are not read.
* BraTS: ``<id>/<id>_t1.nii.gz`` and ``<id>_t2.nii.gz``, or ``<id>-t1n.nii.gz`` and
  ``<id>-t2w.nii.gz``.

``split.csv`` (see nexusinr.layouts) tells who trains: a subject that is not marked ``train`` is
never read. Without it, in the last two layouts, all do. Sharpness comes from there or from the
header: an axis whose voxels are much longer than the finest has no truth.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from nibabel import Nifti1Image
from torch import Tensor

from nexusinr.geometry import Affine, Grid
from nexusinr.labels import from_freesurfer
from nexusinr.layouts import SUFFIXES, Files, brats, read_split, sharp_axes
from nexusinr.training.dataset import LabelMap, Subject, TrainingData
from nexusinr.training.losses import UNKNOWN

#: Rows of a split.csv that train, by subject.
Rows = dict[str, dict[str, str]]


def read(folder: Path) -> TrainingData:
    """Reads the training part of a folder of any layout.

    Raises ValueError for a folder of no known layout, without a split.csv where one is required,
    and with nothing to train on.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder of training data, and no packed file")
    if any((folder / name).is_dir() for name in ("pairs", "singles", "labels")):
        data = _read_own(folder)
    else:
        found = dict(_bids(folder)) or dict(brats(folder))
        if not found and not (folder / "split.csv").is_file():
            raise ValueError(
                f"{folder}: neither pairs/, singles/ or labels/ with a split.csv that says who "
                "trains and who tests, nor sub-*/anat/ (BIDS), nor <id>/<id>_t1.nii.gz (BraTS)"
            )
        split = _split(folder)
        subjects = []
        for name, files in found.items():
            row = {} if split is None else split.get(name, split.get(_person(name)))
            if row is not None:
                subjects.append(_read_files(name, files, row.get("sharp")))
        data = TrainingData(subjects, [])
    if not data.subjects and not data.label_maps:
        raise ValueError(f"{folder}: nothing to train on")
    return data


def _split(folder: Path) -> Rows | None:
    """Who is marked train; None where nobody says."""
    file = folder / "split.csv"
    if not file.is_file():
        return None
    return {name: row for name, row in read_split(file).items() if row["split"] == "train"}


# --- our own layout ----------------------------------------------------------------------------


def _read_own(folder: Path) -> TrainingData:
    rows = _split(folder)
    if rows is None:
        raise ValueError(f"{folder}: no split.csv that says who trains and who tests")
    subjects = [read_pair(folder / "pairs" / name, row.get("sharp")) for name, row in rows.items()]
    subjects += [_read_single(path) for path in sorted((folder / "singles").glob("*.nii.gz"))]
    return TrainingData(subjects, _read_labels(folder / "labels"))


def read_pair(folder: Path, sharp: str | None = None) -> Subject:
    """One subject's T1w and T2w with their tissues where there are any.

    Args:
        folder: of the subject.
        sharp: what the split.csv says of that; see `nexusinr.layouts.sharp_axes`.
    """
    images, grids = zip(*(_read_image(folder / f"{m}.nii.gz") for m in ("T1w", "T2w")), strict=True)
    tissues = None
    if (folder / "seg.nii.gz").is_file():
        labels = np.asarray(Nifti1Image.from_filename(folder / "seg.nii.gz").dataobj)
        if labels.max() > 1:  # a single-valued mask is a lesion mask, no tissue map
            tissues = _tissues(labels, images[0].numpy())
    axes = sharp_axes(folder.name, grids[0], sharp)
    return Subject(folder.name, images, grids, tissues, axes)


def _read_single(path: Path) -> Subject:
    image, grid = _read_image(path)
    sharp = sharp_axes(path.name, grid)
    if "_T1w" in path.name:
        return Subject(path.name, (image, None), (grid, None), None, sharp)
    return Subject(path.name, (None, image), (None, grid), None, sharp)


def _tissues(labels: np.ndarray, image: np.ndarray) -> Tensor:
    tissues = from_freesurfer(labels)
    tissues[(tissues == 0) & (image > 0)] = UNKNOWN  # inside the brain, but not labelled
    return torch.from_numpy(tissues)


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


# --- layouts of others -------------------------------------------------------------------------


def _bids(folder: Path) -> Iterator[tuple[str, Files]]:
    """Names such as sub-01 or sub-01_ses-02, and their files."""
    for anat in sorted((*folder.glob("sub-*/anat"), *folder.glob("sub-*/ses-*/anat"))):
        files = [
            next((f for s in SUFFIXES for f in sorted(anat.glob(f"*_{kind}{s}"))), None)
            for kind in ("T1w", "T2w")
        ]
        if any(files):
            yield "_".join(anat.relative_to(folder).parts[:-1]), (files[0], files[1])


def _person(name: str) -> str:
    return name.split("_ses-")[0]


def _read_files(name: str, files: Files, sharp: str | None) -> Subject:
    t1w, t2w = (None if file is None else _read_image(file, reorient=True) for file in files)
    images = (t1w and t1w[0], t2w and t2w[0])
    grids = (t1w and t1w[1], t2w and t2w[1])
    first = next(grid for grid in grids if grid is not None)
    return Subject(name, images, grids, None, sharp_axes(name, first, sharp))


# --- images ------------------------------------------------------------------------------------


def _read_image(path: Path, reorient: bool = False) -> tuple[Tensor, Grid]:
    """Intensities, 0 ... 1 at the 99.9th percentile, float16, and their lattice.

    `reorient` turns the array axes to the nearest of right, anterior, superior: then the scans of
    one person have theirs in one order, however they were acquired.

    Raises ValueError for a file that is no image of three dimensions, or empty.
    """
    try:
        image = Nifti1Image.from_filename(path)
        if reorient:
            image = nib.as_closest_canonical(image)
        data = np.asarray(image.dataobj, dtype=np.float32)
    except (OSError, EOFError, nib.filebasedimages.ImageFileError) as error:
        raise ValueError(f"{path.name}: it cannot be read as NIfTI ({error})") from error
    if data.ndim != 3:
        raise ValueError(f"{path.name}: an image has three dimensions, not {data.ndim}")
    inside = data[data > 0]  # neither air nor what is not a number
    if not inside.size or not np.isfinite(inside).all():
        raise ValueError(f"{path.name}: no voxel is positive, or some are infinite; leave it out")
    scaled = np.clip(np.nan_to_num(data) / np.percentile(inside, 99.9), 0, 1.5)
    return torch.from_numpy(scaled.astype(np.float16)), Grid(data.shape, Affine(image.affine))
