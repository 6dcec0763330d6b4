"""Puts measured figures into a model's card, and writes the card's page from it.

    python Testing/Benchmarks/publish_card.py nexus-inr results ...

Every folder of results may hold scores.csv (nexusinr evaluate), table1.csv ... table5.csv,
safety.json (--protocol safety) and benchmark.json (nexusinr benchmark). Rows of other models are
left out. What the card has already stays unless it is measured anew. The check case is added where
the card has none; with --check-case it is made again.
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path
from typing import Any

from nexusinr.evaluation import cards
from nexusinr.evaluation.safety.tables import VALUES
from nexusinr.evaluation.scores import BASELINES, BOTH, NO_LPIPS, SCORES
from nexusinr.models import check_case, weights

Rows = list[dict[str, Any]]

#: What tells one score from another.
SCORE_KEYS = ("protocol", "given", "subject", "modality", "method")

#: Tables of a safety run that a card shows.
SAFETY_TABLES = ("gates", "erasure", "hallucinations_per_litre", "leaked_contrast")


def main() -> None:
    """Publishes folders of results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("results", type=Path, nargs="*")
    parser.add_argument("--check-case", action="store_true", help="make it again")
    arguments = parser.parse_args()
    print(publish(arguments.model, arguments.results, arguments.check_case))


def publish(model: str, folders: list[Path], new_case: bool = False) -> Path:
    """Merges folders of results into a card and gives the path of its page."""
    network, card = weights.load(model)
    details = {key: value for key, value in card.details.items() if key != "sha256"}
    for folder in folders:
        merge(details, folder, model)
    if new_case or weights.CHECK_CASE not in details:
        details[weights.CHECK_CASE] = check_case.compute(network)
    weights.write_card(card.path, details)
    return cards.write_page(card.path.with_suffix(".json"))


def merge(details: dict[str, Any], folder: Path, model: str) -> None:
    """Takes what one folder holds into a card's details."""
    if (folder / SCORES).is_file():
        details["evaluation"] = merged_scores(
            details.get("evaluation", {}), of_model(read_rows(folder / SCORES), model)
        )
    for path in sorted(folder.glob("table[1-5]*.csv")):
        details.setdefault("tables", {})[path.stem] = read_rows(path)
    if (folder / VALUES).is_file():
        values = json.loads((folder / VALUES).read_text(encoding="utf-8"))
        tables = {name: of_model(values[name], model) for name in SAFETY_TABLES}
        details["safety"] = {"plan": values["plan"], **tables}
    if (folder / "benchmark.json").is_file():
        values = json.loads((folder / "benchmark.json").read_text(encoding="utf-8"))
        if values["model"] == model:
            details["whole_head"] = whole_head(values)


def whole_head(values: dict[str, Any]) -> dict[str, Any]:
    """What a benchmark says of a whole head, with model, machine and device; seconds of steps."""
    head = {key: values[key] for key in ("model", "machine", "device")} | values["whole_head"]
    return head | {"steps": {name: step["seconds"] for name, step in head["steps"].items()}}


def of_model(rows: Rows, model: str) -> Rows:
    """Rows of a model and of the interpolations; a gate's row names its model."""
    return [row for row in rows if row.get("method", row.get("model")) in (model, *BASELINES)]


def merged_scores(known: dict[str, Any], found: Rows) -> dict[str, Any]:
    """Scores that the card has, those measured anew replaced; each row names its protocol."""
    old = [
        {"protocol": known.get("protocol"), "given": BOTH, **row} for row in known.get("scores", [])
    ]
    for row in found:  # of what was measured on, a card says the SHA-256 once
        row.pop("weights", None)
        row.pop("data", None)
    rows = {tuple(row[key] for key in SCORE_KEYS): row for row in [*old, *found]}
    return {"scores": list(rows.values())}


def read_rows(path: Path) -> Rows:
    """A CSV, numbers as numbers."""
    with path.open(newline="", encoding="utf-8") as lines:
        return [{key: as_value(text) for key, text in row.items()} for row in csv.DictReader(lines)]


def as_value(text: str) -> str | float | None:
    """A number where it is one; None where the column says why there is none."""
    if text in (NO_LPIPS, "nan"):
        return None
    try:
        return float(text)
    except ValueError:
        return text


if __name__ == "__main__":
    main()
