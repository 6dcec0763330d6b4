"""The scans of one session of one subject, and what its derivatives are called."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from nexusinr.errors import InputError

#: Why a session without scans cannot be restored.
NO_SCAN = "there is neither a T1w nor a T2w scan of it"

#: What a BIDS label may not hold.
_NOT_IN_LABELS = re.compile(r"[^A-Za-z0-9]")


@dataclass(frozen=True)
class Scan:
    """One scan.

    Attributes:
        path: file, or folder of a DICOM series; absolute.
        stem: BIDS entities that its derivatives begin with, such as ``sub-01_ses-1_acq-mprage``.
    """

    path: Path
    stem: str


@dataclass(frozen=True)
class Pair:
    """What is restored at once: a T1w scan, a T2w scan, or both.

    Attributes:
        subject: label, without ``sub-``.
        session: label, without ``ses-``; empty where there are no sessions.
        t1w: the T1w scan.
        t2w: the T2w scan.
        notes: sentences on how the scans were chosen.
    """

    subject: str
    session: str
    t1w: Scan | None
    t2w: Scan | None
    notes: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """For example ``sub-01_ses-1``: unique within a cohort."""
        return label_of(self.subject, self.session)

    @property
    def folder(self) -> str:
        """Where its derivatives go, for example ``sub-01/ses-1/anat``."""
        return "/".join((*self.label.split("_"), "anat"))

    @property
    def scans(self) -> dict[str, Scan]:
        """Those that there are, by modality (``T1w``, ``T2w``)."""
        return {m: s for m, s in (("T1w", self.t1w), ("T2w", self.t2w)) if s is not None}


def label_of(subject: str, session: str) -> str:
    """BIDS entities of a subject and a session; the session may be empty."""
    return f"sub-{subject}_ses-{session}" if session else f"sub-{subject}"


def as_label(text: str, prefix: str) -> str:
    """A BIDS label out of a name: without its prefix, letters and digits alone.

    Raises InputError where nothing is left.
    """
    label = _NOT_IN_LABELS.sub("", text.strip().removeprefix(prefix))
    if not label:
        raise InputError(f"{text!r} holds no letter or digit to call a {prefix} folder by")
    return label


def check_unique(pairs: list[Pair], names: list[str]) -> None:
    """Raises InputError where two sessions would share one label.

    Args:
        pairs: the sessions.
        names: what each is called in the source.
    """
    seen: dict[str, str] = {}
    for pair, name in zip(pairs, names, strict=True):
        other = seen.setdefault(pair.label.lower(), name)
        if other is not name:
            raise InputError(
                f"{other} and {name} would both be written as {pair.label}: rename one of them"
            )
