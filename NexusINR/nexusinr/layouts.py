"""Layouts of other data sets that several rooms read: what their files are called.

BraTS: ``<id>/<id>_t1.nii.gz`` and ``<id>_t2.nii.gz``, or ``<id>-t1n.nii.gz`` and
``<id>-t2w.nii.gz``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

#: What T1w and T2w files are called in a BraTS folder, after the subject's name.
BRATS_NAMES = (("_t1", "_t2"), ("-t1n", "-t2w"))

SUFFIXES = (".nii.gz", ".nii")

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
