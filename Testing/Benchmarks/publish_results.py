"""Writes measured figures where readers look: README, and Resources/Docs/tables.md.

    python Testing/Benchmarks/publish_results.py results ...

The results in README are those of the first folder; the tables of the paper may lie in any of them
(the last one counts). COMMANDS has the commands that lead here; they are written beside the
figures. Cards: publish_card.py.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from nexusinr.errors import InputError
from nexusinr.evaluation.paired import gains, interval
from nexusinr.evaluation.report import notes, section
from nexusinr.evaluation.scores import BASELINES, BOTH, SCORES, Score, read_scores
from nexusinr.models import weights
from nexusinr.models.nexus_inr import MODALITIES

#: The protocol of README's table, and that both scans were given.
MAIN = ("brats", BOTH)

COMMANDS = """\
```
nexusinr evaluate "$NEXUSINR_DATA" --protocol brats --models {models} --out results
python Testing/Benchmarks/publish_results.py results --models {models}
```
"""

ROOT = Path(__file__).resolve().parents[2]
README, TABLES = ROOT / "README.md", ROOT / "Resources" / "Docs" / "tables.md"

#: Marked parts of the pages.
RESULTS, SLICES = "results", "slices"


def main() -> None:
    """Publishes folders of results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path, nargs="+")
    parser.add_argument("--models", default="nexus-inr,iconet")
    arguments = parser.parse_args()
    models = arguments.models.split(",")
    first = arguments.results[0]
    scores = measured(first / SCORES, [weights.find(name) for name in models])
    publish_readme(scores, left_out(first), arguments.models)
    put(TABLES, tables(arguments.results))
    put(TABLES, other_slices(arguments.results, models), SLICES)


def measured(path: Path, found: list[weights.Card]) -> list[Score]:
    """The scores of the main protocol. Raises InputError without any of a model."""
    scores = [s for s in current(path, found) if (s.trial.protocol, s.trial.given) == MAIN]
    for card in found:
        if not any(score.method == card.name for score in scores):
            raise InputError(
                f"{path}: has no scores of {card.name!r} as it is installed now; evaluate it again"
            )
    return scores


def current(path: Path, found: list[weights.Card]) -> list[Score]:
    """The scores of the interpolations and of these weights."""
    digests = {card.name: card.sha256 for card in found}
    return [
        score
        for score in read_scores(path)
        if score.method in BASELINES
        or digests.get(score.method, "").startswith(score.trial.weights)
    ]


def left_out(results: Path) -> list[str]:
    """What the evaluation could not score, with the reasons, as it wrote them itself."""
    _, title, rest = (results / "scores.md").read_text(encoding="utf-8").partition("Left out:")
    return [title, "", rest.strip()] if title else []


def publish_readme(scores: list[Score], excepted: list[str], models: str) -> None:
    """The scores, with the commands that made them."""
    table = "\n".join([*section(scores), *notes(scores), "", *excepted]).replace("### ", "#### ")
    put(README, f"{table}\n\nMade by\n\n{COMMANDS.format(models=models)}")


def tables(folders: list[Path]) -> str:
    """The tables of the paper that lie in folders, in order."""
    found = {path.name: path for folder in folders for path in folder.glob("table[1-5].md")}
    return "\n\n".join(found[name].read_text(encoding="utf-8").strip() for name in sorted(found))


def other_slices(folders: list[Path], models: list[str]) -> str:
    """Gains over cubic interpolation by the other protocols, and from one scan alone."""
    found = [weights.find(name) for name in models]
    scores = [score for folder in folders for score in current(folder / SCORES, found)]
    scores = [s for s in scores if (s.trial.protocol, s.trial.given) != MAIN]
    models = [name for name in models if any(s.method == name for s in scores)]
    heads = ["slices", "subjects", *(f"{name}, {scan}" for name in models for scan in MODALITIES)]
    lines = ["| " + " | ".join(heads) + " |", "| --- " * len(heads) + "|"]
    for label in dict.fromkeys(score.trial.label for score in scores):
        own = [score for score in scores if score.trial.label == label]
        cells = [label, str(len({score.subject for score in own}))]
        for name in models:
            for scan in MODALITIES:
                rows = [score for score in own if score.modality == scan]
                cells.append(interval(gains(rows, name, "cubic"), 2, "+"))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) if models else "Not measured with these weights."


def put(page: Path, block: str, name: str = RESULTS) -> None:
    """Replaces what stands between the two marks of a page."""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    before, rest = page.read_text(encoding="utf-8").split(begin)
    after = rest.split(end)[1]
    page.write_text(f"{before}{begin}\n\n{block.strip()}\n\n{end}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
