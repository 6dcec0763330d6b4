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
from nexusinr.evaluation.report import notes, section
from nexusinr.evaluation.scores import BASELINES, BOTH, SCORES, Score, read_scores
from nexusinr.models import weights

PROTOCOL = "brats"

COMMANDS = """\
```
nexusinr evaluate "$NEXUSINR_DATA" --protocol brats --models {models} --out results
python Testing/Benchmarks/publish_results.py results --models {models}
```
"""

ROOT = Path(__file__).resolve().parents[2]
README, TABLES = ROOT / "README.md", ROOT / "Resources" / "Docs" / "tables.md"
BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"


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


def measured(path: Path, found: list[weights.Card]) -> list[Score]:
    """The scores of the interpolations and of these weights. Raises InputError without any."""
    digests = {card.name: card.sha256 for card in found}
    scores = [
        score
        for score in read_scores(path)
        if (score.trial.protocol, score.trial.given) == (PROTOCOL, BOTH)
        and (
            score.method in BASELINES
            or digests.get(score.method, "").startswith(score.trial.weights)
        )
    ]
    for name in digests:
        if not any(score.method == name for score in scores):
            raise InputError(
                f"{path}: has no scores of {name!r} as it is installed now; evaluate it again"
            )
    return scores


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


def put(page: Path, block: str) -> None:
    """Replaces what stands between the two marks of a page."""
    before, rest = page.read_text(encoding="utf-8").split(BEGIN)
    after = rest.split(END)[1]
    page.write_text(f"{before}{BEGIN}\n\n{block.strip()}\n\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
