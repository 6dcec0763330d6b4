"""Sessions of a BIDS data set, found by pybids."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

from nexusinr.cohort.choice import Candidate, choose
from nexusinr.cohort.pair import Pair, Scan
from nexusinr.errors import InputError
from nexusinr.layouts import SUFFIXES

if TYPE_CHECKING:
    from bids.layout import BIDSLayout

#: Folders that hold no raw anatomical scan; to look into them takes minutes in a large data set.
_ELSEWHERE = (
    r"^/(code|derivatives|models|sourcedata|stimuli)(/|$)",
    r"/(beh|dwi|eeg|emg|fmap|func|ieeg|meg|micr|motion|mrs|nirs|perf|pet)(/|$)",
    r"/\.",
)

#: T1w and T2w scans of one session.
_Found = dict[str, list[Candidate]]


def is_bids(folder: Path) -> bool:
    """Whether a folder has subjects as BIDS has them."""
    return any(path.is_dir() for path in folder.glob("sub-*"))


def bids_pairs(folder: Path) -> list[Pair]:
    """One pair a session that has a T1w or a T2w scan, sorted.

    A subject without any such session gives one pair without scans, so that it is not forgotten.
    Files whose names BIDS does not know are not looked at. Raises InputError for a folder that
    pybids cannot index.
    """
    sessions: dict[tuple[str, str], _Found] = defaultdict(lambda: {"T1w": [], "T2w": []})
    layout = _layout(folder)
    for file in layout.get(suffix=["T1w", "T2w"], datatype="anat", extension=list(SUFFIXES)):
        entities = file.get_entities()
        key = entities["subject"], entities.get("session", "")
        sessions[key][entities["suffix"]].append(Candidate(Path(file.path), entities))
    there = {subject for subject, _ in sessions}
    for path in folder.glob("sub-*"):
        subject = path.name.removeprefix("sub-")
        if path.is_dir() and subject not in there:
            sessions[subject, ""]  # a defaultdict makes it
    return [_pair(*key, found) for key, found in sorted(sessions.items())]


def _layout(folder: Path) -> BIDSLayout:
    from bids.exceptions import BIDSValidationError
    from bids.layout import BIDSLayout, BIDSLayoutIndexer

    ignored = [re.compile(pattern) for pattern in _ELSEWHERE]
    indexer = BIDSLayoutIndexer(validate=True, index_metadata=False, ignore=ignored)
    try:
        # The root itself is not checked: a missing dataset_description.json hides no scan.
        return BIDSLayout(folder, validate=False, indexer=indexer)
    except (OSError, ValueError, BIDSValidationError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{folder}: it cannot be read as a BIDS data set ({reason})") from error


def _pair(subject: str, session: str, found: _Found) -> Pair:
    t1w, t2w, notes = choose(found["T1w"], found["T2w"])
    return Pair(subject, session, _scan(t1w), _scan(t2w), notes)


def _scan(candidate: Candidate | None) -> Scan | None:
    if candidate is None:
        return None
    return Scan(candidate.path, candidate.path.name.partition(".")[0].rpartition("_")[0])
