"""report.html, the cohort at a glance, and failures.csv."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from nexusinr import __version__
from nexusinr.cohort import records
from nexusinr.cohort.flags import Flag, flags
from nexusinr.cohort.folder import Folder, write_whole
from nexusinr.cohort.records import Record
from nexusinr.inference.report import NOTICE
from nexusinr.labels import TISSUES

REPORT, FAILURES = "report.html", "failures.csv"

#: In the order in which they are sorted.
KINDS = ("failed", "check", "ok")


@dataclass(frozen=True)
class Row:
    """One session in the table.

    Attributes:
        record: what is known of it.
        flag: whether to look at it.
        figure: its comparison picture, relative to the report; empty where there is none.
        numbers: cells by the key of their column; None where there is nothing to tell.
    """

    record: Record
    flag: Flag
    figure: str
    numbers: dict[str, float | None]


@dataclass(frozen=True)
class Column:
    """A column of numbers: key, heading, unit, what it means, decimals."""

    key: str
    heading: str
    unit: str
    meaning: str
    decimals: int = 1


COLUMNS = (
    Column("voxel", "Voxel", "mm", "Smallest edge of a voxel of the result", 2),
    Column("t1w_residual", "T1w residual", "%", "How far the result is from the acquired T1w "
           "slices, of the range of grey values", 2),
    Column("t2w_residual", "T2w residual", "%", "The same for the T2w slices", 2),
    Column("moved", "T2w offset", "mm", "By how much the headers disagree, on average"),
    *(Column(t.name, t.name.capitalize(), "mL", "Volume of the tissue", 0) for t in TISSUES),
    Column("seconds", "Time", "s", "That the session took", 0),
)  # fmt: skip


def write(folder: Folder) -> tuple[Path, Path]:
    """Writes both files from all that is known in an output folder."""
    known = records.read_all(folder)
    page, table = folder.path / REPORT, folder.path / FAILURES
    write_whole(page, html(known).encode())
    write_whole(table, failures(known).encode())
    return page, table


def failures(known: Sequence[Record]) -> str:
    """A CSV table of the sessions that are not done: subject, session, code, reason."""
    stream = io.StringIO()
    rows = csv.writer(stream, lineterminator="\n")
    rows.writerow(("subject", "session", "code", "reason"))
    for record, flag in zip(known, flags(known), strict=True):
        if flag.kind == "failed":
            session = f"ses-{record.session}" if record.session else ""
            rows.writerow((f"sub-{record.subject}", session, record.code or 1, flag.reasons[0]))
    return stream.getvalue()


def html(known: Sequence[Record]) -> str:
    """The page: one file, no network, everything escaped, no script but its own."""
    room = Environment(
        loader=PackageLoader("nexusinr.cohort", "page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    rows = [_row(record, flag) for record, flag in zip(known, flags(known), strict=True)]
    rows.sort(key=lambda row: KINDS.index(row.flag.kind))
    told = {name for row in rows for name, value in row.numbers.items() if value is not None}
    parts = {name: room.loader.get_source(room, name)[0] for name in ("page.css", "page.js")}  # type: ignore[union-attr]
    return room.get_template("page.html").render(
        rows=rows,
        columns=[column for column in COLUMNS if column.key in told],
        has_sessions=any(record.session for record in known),
        kinds=KINDS,
        counts=Counter(row.flag.kind for row in rows),
        made_with=_made_with(known),
        version=__version__,
        notice=NOTICE,
        style=parts["page.css"],
        script=parts["page.js"],
        style_digest=_digest(parts["page.css"]),
        script_digest=_digest(parts["page.js"]),
    )


def _digest(text: str) -> str:
    """As a content security policy has it."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _row(record: Record, flag: Flag) -> Row:
    figure = next((name for name in record.files if "/figures/" in name), "")
    numbers = _numbers(record) if record.state == "done" else {}
    return Row(record, flag, figure, {c.key: numbers.get(c.key) for c in COLUMNS})


def _numbers(record: Record) -> dict[str, float | None]:
    told = record.report
    return {
        "voxel": min(told["lattice"]["spacing_mm"]),
        "t1w_residual": _residual(record, "T1w"),
        "t2w_residual": _residual(record, "T2w"),
        "moved": told["registration"].get("displacement_mean_mm"),
        **told["tissue_volumes_ml"],
        "seconds": sum(told["seconds"].values()),
    }


def _residual(record: Record, modality: str) -> float | None:
    kept: dict[str, Any] | None = record.report["consistency"].get(modality)
    if kept is None:
        return None
    return 100 * float(kept["after"]) / max(record.contrast[modality], 1e-6)


def _made_with(known: Sequence[Record]) -> list[str]:
    """Models and weights behind the results."""
    used = Counter(
        (model["name"], model["version"], model["sha256"])
        for record in known
        if (model := record.report.get("model"))
    )
    return [f"{name} {version} (SHA-256 {sha[:12]})" for name, version, sha in used]
