"""What a cohort is made of: a BIDS data set, a BraTS folder, or a table of pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nexusinr.cohort.bids import bids_pairs, is_bids
from nexusinr.cohort.pair import Pair, Scan, as_label, check_unique
from nexusinr.cohort.table import table_pairs
from nexusinr.errors import InputError
from nexusinr.layouts import brats


@dataclass(frozen=True)
class Source:
    """The sessions that were found.

    Attributes:
        root: folder that the paths of the scans are given relative to; absolute.
        kind: ``BIDS``, ``BraTS`` or ``table``.
        pairs: one a session.
    """

    root: Path
    kind: str
    pairs: list[Pair]


def find(path: Path) -> Source:
    """Looks for T1w and T2w scans.

    Args:
        path: a BIDS data set, a folder as BraTS has it, or a .csv file (see `table`).

    Raises InputError where it is none of these, or holds no scan.
    """
    root = path.resolve()
    if root.is_file() and root.suffix.lower() == ".csv":
        source = Source(root.parent, "table", table_pairs(root))
    elif not root.is_dir():
        raise InputError(f"{path}: there is no such folder and no such .csv table; check the path")
    elif is_bids(root):
        source = Source(root, "BIDS", bids_pairs(root))
    else:
        source = Source(root, "BraTS", _brats_pairs(root))
    if not source.pairs:
        raise InputError(
            f"{path}: no T1w or T2w scan was found; give a BIDS data set (sub-*/[ses-*/]anat), "
            "folders as in BraTS (<id>/<id>_t1.nii.gz), or a .csv table with the columns subject, "
            "session, t1w, t2w"
        )
    return source


def select(
    pairs: Sequence[Pair], participants: Sequence[str], sessions: Sequence[str]
) -> list[Pair]:
    """Those of some participants and sessions, with or without ``sub-`` and ``ses-``; empty: all.

    Raises InputError for a label that is not there.
    """
    wanted = _labels(participants, "sub-", {pair.subject for pair in pairs}, "participant")
    visits = _labels(sessions, "ses-", {pair.session for pair in pairs if pair.session}, "session")
    chosen = [
        pair
        for pair in pairs
        if (not wanted or pair.subject in wanted) and (not visits or pair.session in visits)
    ]
    if not chosen:
        raise InputError("none of these participants has one of these sessions")
    return chosen


def _labels(given: Sequence[str], prefix: str, known: set[str], what: str) -> set[str]:
    labels = {label.removeprefix(prefix) for text in given for label in text.split(",") if label}
    unknown = ", ".join(sorted(labels - known))
    if unknown:
        there = sorted(known)
        shown = ", ".join(there[:10]) + (", ..." if len(there) > 10 else "")
        raise InputError(f"no {what} {unknown}: there are {shown or 'none'}")
    return labels


def _brats_pairs(folder: Path) -> list[Pair]:
    pairs, names = [], []
    for name, files in brats(folder):
        label = as_label(name, "sub-")
        t1w, t2w = (None if file is None else Scan(file, f"sub-{label}") for file in files)
        pairs.append(Pair(label, "", t1w, t2w))
        names.append(name)
    check_unique(pairs, names)
    return pairs
