"""Layouts of data sets that several rooms read: what files are called, what a split.csv says.

BraTS: ``<id>/<id>_t1.nii.gz`` and ``<id>_t2.nii.gz``, or ``<id>-t1n.nii.gz`` and
``<id>-t2w.nii.gz``.

``split.csv`` has the columns subject and split, and may have a column sharp: the axes of patient
space, of R, A and S, along which a subject's scans are a true fine reference, where their headers
do not tell.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from nexusinr.geometry import Grid

#: What T1w and T2w files are called in a BraTS folder, after the subject's name.
BRATS_NAMES = (("_t1", "_t2"), ("-t1n", "-t2w"))

SUFFIXES = (".nii.gz", ".nii")

#: Spacings that differ by more than this factor mark thick slices: no truth along that axis.
SHARP_RATIO = 1.5

#: Subjects of a public data set whose voxels of 1 mm were interpolated by its authors from slices
#: of about 3 mm, and the axes along which they are sharp. No header says so.
INTERPOLATED, IN_PLANE = re.compile(r"ms\d+"), "RA"

#: T1w and T2w file of one subject.
Files = tuple[Path | None, Path | None]


def brats(folder: Path) -> Iterator[tuple[str, Files]]:
    """Subjects of a BraTS folder, sorted, and their files; those without any are left out."""
    for case in sorted(path for path in folder.iterdir() if path.is_dir()):
        for kinds in BRATS_NAMES:
            named = [[case / f"{case.name}{kind}{s}" for s in SUFFIXES] for kind in kinds]
            files = [next((f for f in choice if f.is_file()), None) for choice in named]
            if any(files):
                yield case.name, (files[0], files[1])
                break


def read_split(table: Path) -> dict[str, dict[str, str]]:
    """The rows of a split.csv by subject.

    Raises ValueError where it is no such table, and for axes that are none.
    """
    try:
        with table.open(newline="", encoding="utf-8-sig") as stream:
            rows = list(csv.DictReader(stream))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{table} cannot be read ({error}); save it as CSV in UTF-8") from None
    if not rows or not {"subject", "split"} <= set(rows[0]):
        raise ValueError(f"{table} needs the columns subject and split, and a row a subject")
    for row in rows:
        if not set(row.get("sharp") or "") <= set("RAS"):
            raise ValueError(
                f"{table}: {row['subject']} is sharp along {row['sharp']!r}; name axes of R, A, S"
            )
    return {row["subject"]: row for row in rows}


def sharp_axes(subject: str, grid: Grid, told: str | None = None) -> tuple[int, ...]:
    """The array axes along which a scan is a true fine reference.

    Args:
        subject: the name of its folder.
        grid: its lattice.
        told: in a split.csv, of R, A and S; None or empty: the spacing tells.
    """
    if not told and INTERPOLATED.fullmatch(subject):
        told = IN_PLANE
    if told:
        nearest = np.abs(grid.affine.direction).argmax(axis=0).tolist()
        return tuple(axis for axis in range(3) if "RAS"[nearest[axis]] in told)
    finest = grid.spacing.min()
    return tuple(axis for axis in range(3) if grid.spacing[axis] <= SHARP_RATIO * finest)
