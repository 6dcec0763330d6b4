"""The page of a model: its card, as JSON beside the weights, put into Markdown.

Nothing is written here that the card does not say, and nothing that it says is left out: tables
that are not known by name are shown as they come.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nexusinr.evaluation import markdown, report
from nexusinr.evaluation.metrics import Similarity
from nexusinr.evaluation.scores import BOTH, Score, Trial

#: Facts at the top of the page, in this order.
FACTS = ("architecture", "version", "licence", "sha256")

#: Sections that come first, in this order; the others follow as the card has them.
FIRST = (
    "intended_use",
    "limits",
    "training",
    "evaluation",
    "tables",
    "ablation",
    "safety",
    "whole_head",
)

#: Titles that the key alone does not give.
TITLES = {
    "sha256": "SHA-256",
    "check_case": "Check case (nexusinr models verify)",
    **{f"table{n}": f"Table {n} of the paper" for n in range(1, 6)},
}


def page(card: Mapping[str, Any]) -> str:
    """The whole page."""
    rows = [{"": title(key), " ": card[key]} for key in FACTS if key in card]
    parts = [f"# {card['name']}", markdown.table(rows)]
    known = [key for key in FIRST if key in card]
    rest = [key for key in card if key not in (*FIRST, *FACTS, "name")]
    for key in (*known, *rest):
        parts += _section(key, card[key], 2)
    return "\n\n".join(parts) + "\n"


def write_page(card_file: Path) -> Path:
    """Writes NAME.md beside NAME.json, and gives its path."""
    card = json.loads(card_file.read_text(encoding="utf-8"))
    path = card_file.with_suffix(".md")
    partial = card_file.with_suffix(".md.partial")
    partial.write_text(page(card), encoding="utf-8")
    os.replace(partial, path)
    return path


def title(key: str) -> str:
    """A key in words."""
    words = key.replace("_", " ")
    return TITLES.get(key, words[:1].upper() + words[1:])


def _section(key: str, value: Any, level: int) -> list[str]:
    """A heading and what belongs under it."""
    heading = f"{'#' * level} {title(key)}"
    if isinstance(value, Mapping):
        return [heading, *_mapping(value, level)]
    if not _is_table(value):
        return [heading, markdown.text(value) or "-"]
    if key == "gates":
        value = [{**row, "passed": markdown.verdict(row["passed"])} for row in value]
    return [heading, markdown.table([_with_intervals(row) for row in value])]


def _with_intervals(row: Mapping[str, Any]) -> dict[str, Any]:
    """X, X low, X high and X subjects in one: ``84.36 [82.39, 85.55] (3)``."""
    found = dict(row)
    for name, value in row.items():
        ends = [found.pop(f"{name} {end}", None) for end in ("low", "high", "subjects")]
        if isinstance(value, float) and None not in ends:
            low, high, subjects = ends
            found[name] = f"{value:.4g} [{low:.4g}, {high:.4g}] ({subjects:.0f})"
    return found


def _mapping(value: Mapping[str, Any], level: int) -> list[str]:
    """Plain values as one table, then a section for each of the others."""
    plain = {k: v for k, v in value.items() if not isinstance(v, Mapping) and not _is_table(v)}
    parts = []
    if plain:
        parts.append(markdown.table([{"": title(k), " ": v} for k, v in plain.items()]))
    for key, inner in value.items():
        if key in plain:
            continue
        if key == "scores":
            parts += _means(inner, str(value.get("protocol", "")), level + 1)
        parts += _section(key, inner, level + 1)
    return parts


def _is_table(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, Mapping) for v in value)


def _means(rows: Sequence[Mapping[str, Any]], protocol: str, level: int) -> list[str]:
    """Means over subjects of the scores of each protocol, with their intervals."""
    scores = [_score(row, protocol) for row in rows]
    parts = []
    for label in dict.fromkeys(score.trial.label for score in scores):
        own = [score for score in scores if score.trial.label == label]
        lines = "\n".join(report.section(own)).strip()
        parts += [f"{'#' * level} Means, {label}", lines.replace("### ", "#" * (level + 1) + " ")]
    return [*parts, "\n".join(report.notes(scores))]


def _score(row: Mapping[str, Any], protocol: str) -> Score:
    trial = Trial(
        str(row.get("protocol", protocol)),
        str(row.get("given", BOTH)),
        str(row["subject"]),
        str(row["method"]),
    )
    value = Similarity(float(row["psnr"]), float(row["ssim"]), row.get("lpips"))
    return Score(trial, str(row["modality"]), value)
