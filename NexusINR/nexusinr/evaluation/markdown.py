"""Tables of plain values as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]


def table(rows: Sequence[Row]) -> str:
    """A row a mapping, with the columns of all of them; what a row lacks stays empty."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    lines = [columns, ["---"] * len(columns)]
    lines += [[text(row.get(column, "")) for column in columns] for row in rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def text(value: object) -> str:
    """One value: numbers as they are written in JSON, yes and no, a dash for null."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "-"
    if isinstance(value, list | tuple):
        return ", ".join(text(part) for part in value)
    return " ".join(str(value).replace("|", "\\|").split())


def verdict(passed: bool) -> str:
    """Of a gate."""
    return "passed" if passed else "**FAILED**"
