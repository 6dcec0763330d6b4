"""Whose scans are evaluated: folders of pairs, our own and those of BraTS, and their truth."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from nexusinr import registration
from nexusinr.errors import InputError
from nexusinr.evaluation.metrics import Reference
from nexusinr.geometry import Grid
from nexusinr.inference.pipeline import AUTO_DISPLACEMENT
from nexusinr.labels import LESION, from_freesurfer
from nexusinr.layouts import SHARP_RATIO, read_split, sharp_axes
from nexusinr.models import weights
from nexusinr.volume import Volume, read_volume

MODALITIES = ("T1w", "T2w")


@dataclass(frozen=True)
class Layout:
    """How the files of a subject are called, without extension; `{id}` is its folder's name."""

    t1w: str
    t2w: str
    seg: str
    tumour: bool


#: Our own, BraTS until 2021, BraTS since 2023.
LAYOUTS = (
    Layout("T1w", "T2w", "seg", tumour=False),
    Layout("{id}_t1", "{id}_t2", "{id}_seg", tumour=True),
    Layout("{id}-t1n", "{id}-t2w", "{id}-seg", tumour=True),
)


@dataclass(frozen=True)
class Pair:
    """The files of one subject.

    Attributes:
        tumour: whether the label map tells parts of a tumour, no tissues.
        sharp: what the split.csv says of that; see `nexusinr.layouts.sharp_axes`.
    """

    subject: str
    t1w: Path
    t2w: Path
    seg: Path | None = None
    tumour: bool = False
    sharp: str | None = None

    @cached_property
    def digest(self) -> str:
        """Of both scans, 12 hexadecimal digits: what a score was measured on."""
        both = weights.sha256(self.t1w) + weights.sha256(self.t2w)
        return hashlib.sha256(both.encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Truth:
    """A fine scan as a reference; `sharp`: the array axes along which it really is one."""

    modality: str
    scan: Volume
    sharp: tuple[int, ...]

    @cached_property
    def reference(self) -> Reference:
        """For comparisons. Raises InputError where the scan is empty."""
        return Reference(self.scan.data, self.scan.affine)


Truths = tuple[Truth, Truth]


def subjects(folder: Path, split: str | None = "test", chosen: str | None = None) -> list[Pair]:
    """The pairs in a folder, sorted by subject.

    Each subject has a folder of its own: see LAYOUTS (.nii.gz or .nii). A ``pairs`` folder inside
    is looked into, and so are folders one level down where there is no subject above. Where a
    split.csv (see nexusinr.layouts) lies beside, only the subjects of that split count.

    Args:
        folder: of the data set.
        split: name of the split; None: all.
        chosen: a number (the first so many) or a text file with a subject a line.

    Raises InputError where nothing is found.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder: give one that holds a folder for each subject")
    pairs = folder / "pairs" if (folder / "pairs").is_dir() else folder
    wanted = _listed(pairs, split) if split else None
    found = _pairs(pairs)
    if wanted is not None:
        found = [replace(p, sharp=wanted[p.subject]) for p in found if p.subject in wanted]
    if not found:
        of_split = "" if wanted is None else f" of the split {split!r}"
        raise InputError(
            f"{folder} has no pair{of_split}: each subject needs a folder with T1w.nii.gz and "
            "T2w.nii.gz (or, as BraTS has it, ID_t1.nii.gz and ID_t2.nii.gz, or ID-t1n.nii.gz and "
            "ID-t2w.nii.gz)"
        )
    return found if chosen is None else _chosen(found, chosen)


def others(folder: Path, evaluated: Sequence[Pair]) -> list[Pair]:
    """Subjects with a label map that something may be trained on: marked ``train``, else the rest.

    Raises InputError where there is none.
    """
    pairs = folder / "pairs" if (folder / "pairs").is_dir() else folder
    listed = _listed(pairs, "train")
    taken = {pair.subject for pair in evaluated}
    left = [
        pair
        for pair in _pairs(pairs)
        if pair.seg is not None
        and pair.subject not in taken
        and (listed is None or pair.subject in listed)
    ]
    if not left:
        raise InputError(
            f"{folder} has no subject to train a segmenter on: mark some `train` in a split.csv "
            "beside the subjects, or evaluate fewer of them (--subjects)"
        )
    return left


def _pairs(folder: Path) -> list[Pair]:
    folders = [path for path in sorted(folder.iterdir()) if path.is_dir()]
    found = [pair for path in folders if (pair := _pair(path)) is not None]
    if found:
        return found
    below = [path for parent in folders for path in sorted(parent.iterdir()) if path.is_dir()]
    return [pair for path in below if (pair := _pair(path)) is not None]


def _pair(folder: Path) -> Pair | None:
    def there(name: str) -> Path | None:
        stem = name.format(id=folder.name)
        paths = (folder / f"{stem}.nii.gz", folder / f"{stem}.nii")
        return next((path for path in paths if path.is_file()), None)

    for layout in LAYOUTS:
        t1w, t2w = there(layout.t1w), there(layout.t2w)
        if t1w is not None and t2w is not None:
            return Pair(folder.name, t1w, t2w, there(layout.seg), layout.tumour)
    return None


def _listed(pairs: Path, split: str) -> dict[str, str | None] | None:
    """What a split.csv says of the sharpness of the subjects of a split; None without one."""
    beside = (pairs, pairs.parent) if pairs.name == "pairs" else (pairs,)
    table = next((p / "split.csv" for p in beside if (p / "split.csv").is_file()), None)
    if table is None:
        return None
    try:
        rows = read_split(table)
    except ValueError as error:
        raise InputError(str(error)) from error
    return {name: row.get("sharp") for name, row in rows.items() if row["split"] == split}


def _chosen(found: list[Pair], chosen: str) -> list[Pair]:
    if chosen.isdecimal() and int(chosen) > 0:
        return found[: int(chosen)]
    if not Path(chosen).is_file():
        raise InputError(
            f"{chosen!r} chooses no subjects: give how many, or a text file with one a line"
        )
    names = [line.strip() for line in Path(chosen).read_text(encoding="utf-8").splitlines()]
    names = [name for name in names if name]
    by_name = {pair.subject: pair for pair in found}
    missing = [name for name in names if name not in by_name]
    if missing or not names:
        what = f"names {missing[0]!r}, which is not there" if missing else "is empty"
        raise InputError(f"{chosen} {what}: list the folders of subjects, one a line")
    return [by_name[name] for name in dict.fromkeys(names)]


def read_truths(pair: Pair) -> Truths:
    """Both scans of a subject. Raises InputError for a file that cannot be used."""
    t1w, t2w = read_volume(pair.t1w), read_volume(pair.t2w)
    return (
        Truth("T1w", t1w, sharp_axes(pair.subject, t1w.grid, pair.sharp)),
        Truth("T2w", t2w, sharp_axes(pair.subject, t2w.grid, pair.sharp)),
    )


def aligned(truths: Truths) -> Truths:
    """The T2w scan moved (its header only) as the main job would do where the headers disagree.

    For scans that come as the scanner left them; pairs that are references in 3D were aligned by
    whoever made them so.

    Raises InputError where there is too little to align.
    """
    t1w, t2w = truths
    try:
        found = registration.rigid(t1w.scan, t2w.scan)
    except ValueError as error:
        raise InputError(str(error)) from error
    if not found.accepted or found.displacement_mean <= AUTO_DISPLACEMENT:
        return truths
    return t1w, replace(t2w, scan=registration.apply(found, t2w.scan))


def unusable(t1w: Volume, t2w: Volume) -> str | None:
    """Why a pair is no reference in 3D (thick slices already), in words; None where it is one."""
    for modality, scan in zip(MODALITIES, (t1w, t2w), strict=True):
        spacing = scan.affine.spacing
        if spacing.max() > SHARP_RATIO * spacing.min():
            lengths = " x ".join(f"{length:.2f}" for length in spacing)
            return f"its {modality} has voxels of {lengths} mm: no fine reference"
    return None


def data_set(subject: str) -> str:
    """The name up to its first digit: ``ms26`` is of ``ms``, ``BraTS20_001`` of ``BraTS``."""
    digit = next((n for n, letter in enumerate(subject) if letter.isdecimal()), len(subject))
    return subject[:digit].rstrip("-_ ") or "numbered"


def read_tissues(pair: Pair, grid: Grid) -> NDArray[np.uint8] | None:
    """Values of labels.TISSUES, (i, j, k), on the lattice of the T1w scan; None: there are none.

    FreeSurfer ids are translated; of a tumour every part counts as lesion. A mask of lesions alone
    says nothing of tissues and is left out.

    Raises InputError where the label map lies on another lattice.
    """
    if pair.seg is None:
        return None
    image = nib.loadsave.load(pair.seg)
    labels = np.asarray(image.dataobj)  # type: ignore[attr-defined]  # every image has one
    if labels.shape != grid.shape:
        raise InputError(
            f"{pair.seg.name}: has {labels.shape} voxels and its T1w scan {grid.shape}: they have "
            "to share a lattice"
        )
    if pair.tumour:
        return np.where(labels > 0, LESION, 0).astype(np.uint8)
    return from_freesurfer(labels) if labels.max() > 1 else None
