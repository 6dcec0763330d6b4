"""Draws who imports whom, from the code and from the contracts that lint-imports keeps.

    python Testing/Benchmarks/import_diagram.py            writes it into architecture.md
    python Testing/Benchmarks/import_diagram.py --check    says whether it is up to date

The drawing is a Mermaid diagram, which GitHub shows as a picture.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import grimp
from importlinter import api

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "Resources" / "Docs" / "architecture.md"
BEGIN, END = "<!-- imports:begin -->", "<!-- imports:end -->"

PACKAGE, MODULE = "nexusinr", "NexusINRLib"

#: Who imports whom, by room.
Arrows = dict[str, set[str]]


def main(arguments: list[str]) -> int:
    """Writes or checks; exit status 1 where the page is out of date."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args(arguments).check
    text = PAGE.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    fresh = f"{before}{BEGIN}\n\n{diagram()}\n\n{contracts()}\n\n{END}{rest.split(END)[1]}"
    if check:
        if fresh != text:
            print(f"{PAGE.name} is out of date: run python {Path(__file__).relative_to(ROOT)}")
        return int(fresh != text)
    PAGE.write_text(fresh, encoding="utf-8")
    return 0


def diagram() -> str:
    """A box a room, and the arrows that do not follow from others."""
    arrows = without_shortcuts(imports())
    lines = [
        f"    {_short(room)} --> {_short(other)}"
        for room in sorted(arrows)
        for other in sorted(arrows[room])
    ]
    return "\n".join(["```mermaid", "flowchart TD", *lines, "```"])


def contracts() -> str:
    """The layers, the highest first, and what each contract of pyproject.toml is called."""
    found = _configuration()
    layers = next(contract for contract in found if contract["type"] == "layers")["layers"]
    named = [", ".join(map(_short, re.split(r"\s*[|:]\s*", layer))) for layer in layers]
    return "\n".join(
        [
            f"The layers, from the top: {'; '.join(named)}.",
            "",
            "The contracts:",
            "",
            *(f"- {contract['name']}." for contract in found),
        ]
    )


def imports() -> Arrows:
    """Direct imports between rooms, those for type checkers left out."""
    sys.path.insert(0, str(ROOT / "NexusINR"))
    graph = grimp.build_graph(PACKAGE, MODULE, exclude_type_checking_imports=True, cache_dir=None)
    sys.path.remove(str(ROOT / "NexusINR"))
    arrows: Arrows = {}
    for module in graph.modules:
        for other in graph.find_modules_directly_imported_by(module):
            here, there = _room(module), _room(other)
            if PACKAGE not in (here, there) and here != there:
                arrows.setdefault(here, set()).add(there)
    return arrows


def without_shortcuts(arrows: Arrows) -> Arrows:
    """Only arrows between rooms that no longer way joins (rooms of one layer may form a circle)."""
    return {
        room: {
            other
            for other in others
            if not any(other in _reached(arrows, {between}, {room}) for between in others - {other})
        }
        for room, others in arrows.items()
    }


def _reached(arrows: Arrows, start: set[str], closed: set[str]) -> set[str]:
    """Every room that imports lead to from `start`, without passing through `closed`."""
    seen: set[str] = set()
    new: Iterable[str] = start
    while new := set(new) - seen - closed:
        seen |= new
        new = {other for room in new for other in arrows.get(room, ())}
    return seen


def _room(module: str) -> str:
    parts = module.split(".")
    return parts[0] if parts[0] == MODULE else ".".join(parts[:2])


def _short(room: str) -> str:
    return room.removeprefix(f"{PACKAGE}.")


def _configuration() -> list[dict[str, Any]]:
    return api.read_configuration(str(ROOT / "pyproject.toml"))["contracts_options"]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
