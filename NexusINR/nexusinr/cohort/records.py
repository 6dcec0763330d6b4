"""What is known of each session: a JSON file each, from which reports are made and runs go on."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from nexusinr.cohort.folder import Folder, write_whole

#: A session that is ``moving`` has some of its files in place; it counts as not done.
State = Literal["done", "failed", "moving"]


@dataclass(frozen=True)
class Record:
    """One session.

    Attributes:
        subject: label, without ``sub-``.
        session: label, without ``ses-``; may be empty.
        state: how far it is.
        digest: of all that the result depends on (`Settings.digest`); empty where it failed.
        files: bytes of each file by its name within the output folder.
        notes: how its scans were chosen.
        code: exit status that the same scans would give alone; 0 where it is done.
        reason: why it failed, in one sentence.
        report: of the run, plain values.
        thumbnail: JPEG, base64.
        contrast: range of the grey values of each scan's head, by modality, in its units.
    """

    subject: str
    session: str
    state: State
    digest: str = ""
    files: dict[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    code: int = 0
    reason: str = ""
    report: dict[str, Any] = field(default_factory=dict)
    thumbnail: str = ""
    contrast: dict[str, float] = field(default_factory=dict)

    def holds(self, digest: str, folder: Folder) -> bool:
        """Whether it is done with exactly these inputs, and its files are in place."""
        return (
            self.state == "done"
            and self.digest == digest
            and all(_size(folder.path / name) == size for name, size in self.files.items())
        )


def write(folder: Folder, label: str, record: Record) -> None:
    """Keeps what is known of a session."""
    content = json.dumps(asdict(record), indent=1) + "\n"
    write_whole(folder.records / f"{label}.json", content.encode())


def read(folder: Folder, label: str) -> Record | None:
    """What is known of a session; None where that is nothing, or not from this version."""
    return _read(folder.records / f"{label}.json")


def read_all(folder: Folder) -> list[Record]:
    """What is known, sorted by label."""
    found = [_read(path) for path in sorted(folder.records.glob("sub-*.json"))]
    return [record for record in found if record is not None]


def _read(path: Path) -> Record | None:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return Record(**{**values, "notes": tuple(values["notes"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None
