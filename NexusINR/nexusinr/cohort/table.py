"""Sessions listed in a CSV table: subject, session, t1w, t2w.

A row is a session. Paths are relative to the table; ``session``, and one of the two scans, may be
empty. Labels become BIDS labels: letters and digits alone.
"""

from __future__ import annotations

import csv
from pathlib import Path

from nexusinr.cohort.pair import Pair, Scan, as_label, check_unique, label_of
from nexusinr.errors import InputError

COLUMNS = ("subject", "session", "t1w", "t2w")


def table_pairs(file: Path) -> list[Pair]:
    """The sessions in the order of the table.

    Raises InputError for a file that is no such table; whether the scans exist is not asked.
    """
    try:
        with file.open(newline="", encoding="utf-8-sig") as lines:
            reader = csv.DictReader(lines)
            missing = [c for c in COLUMNS if c not in (reader.fieldnames or ())]
            if missing:
                raise InputError(
                    f"{file.name}: its first line does not name the columns {', '.join(missing)}; "
                    f"needed are {', '.join(COLUMNS)}"
                )
            rows = [(reader.line_num, row) for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{file.name}: it cannot be read as a CSV table ({error})") from error
    pairs = [_pair(file, number, row) for number, row in rows]
    check_unique(pairs, [f"line {number} of {file.name}" for number, _ in rows])
    return pairs


def _pair(file: Path, number: int, row: dict[str, str | None]) -> Pair:
    values = {column: (row[column] or "").strip() for column in COLUMNS}
    if not values["t1w"] and not values["t2w"]:
        raise InputError(f"{file.name}: line {number} names neither a T1w nor a T2w scan")
    try:
        subject = as_label(values["subject"], "sub-")
        session = as_label(values["session"], "ses-") if values["session"] else ""
    except InputError as error:
        raise InputError(f"{file.name}: line {number}: {error}") from error
    stem = label_of(subject, session)
    t1w, t2w = (
        Scan(file.parent.resolve() / values[m], stem) if values[m] else None for m in COLUMNS[2:]
    )
    return Pair(subject, session, t1w, t2w)
