"""Which T1w and which T2w scan of a session are taken, and what is said where there are several.

The rule, in this order:

1. only magnitude images (``part-mag``, or no part) count;
2. a scan without contrast agent (``ce-``) before one with it;
3. a T2w scan that shares acq, rec and run with the chosen T1w scan before one that does not;
4. a scan as it was acquired before one that was reconstructed in another way (``rec-``);
5. the alphabet of ``acq-``, then the first run, then the alphabet of the file names.

Whoever wants other scans names them in a table of pairs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

#: Entities by which scans of one modality in one session differ, and their keys in file names.
KEYS = {"acquisition": "acq", "ceagent": "ce", "reconstruction": "rec", "run": "run"}

#: Those that a T1w and a T2w scan of one examination have in common.
_SHARED = ("acquisition", "reconstruction", "run")


@dataclass(frozen=True)
class Candidate:
    """A scan that may be taken: its file and its BIDS entities by name, as pybids has them."""

    path: Path
    entities: Mapping[str, str | int]

    @property
    def words(self) -> str:
        """What tells it from the others, as in its name: ``acq-mprage_run-1``."""
        stem = self.path.name.partition(".")[0].rpartition("_")[0]
        parts = [p for p in stem.split("_") if not p.startswith(("sub-", "ses-"))]
        return "_".join(parts) or self.path.name

    @property
    def _order(self) -> tuple[bool, str, int, str]:
        given = self.entities
        acquisition, run = str(given.get("acquisition", "")), int(given.get("run", 0))
        return "reconstruction" in given, acquisition, run, self.path.name


def choose(
    t1w: Sequence[Candidate], t2w: Sequence[Candidate]
) -> tuple[Candidate | None, Candidate | None, tuple[str, ...]]:
    """One scan of each modality, None where there is none, and a sentence on each ambiguity."""
    first, first_notes = _best("T1w", t1w, None)
    second, second_notes = _best("T2w", t2w, first)
    return first, second, (*first_notes, *second_notes)


def _best(
    modality: str, found: Sequence[Candidate], partner: Candidate | None
) -> tuple[Candidate | None, list[str]]:
    magnitudes = [c for c in found if c.entities.get("part", "mag") == "mag"]
    if not magnitudes:
        note = f"no {modality} scan is a magnitude image: it is left out"
        return None, [note] if found else []

    def rank(candidate: Candidate) -> tuple[bool, int, tuple[bool, str, int, str]]:
        with_agent = "ceagent" in candidate.entities
        return with_agent, _differences(candidate, partner), candidate._order

    taken, *others = sorted(magnitudes, key=rank)
    if not others:
        return taken, []
    rest = ", ".join(other.words for other in others)
    return taken, [f"{len(magnitudes)} {modality} scans: took {taken.words}, not {rest}"]


def _differences(candidate: Candidate, partner: Candidate | None) -> int:
    if partner is None:
        return 0
    return sum(candidate.entities.get(k) != partner.entities.get(k) for k in _SHARED)
