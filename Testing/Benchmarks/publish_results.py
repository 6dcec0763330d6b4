"""Writes measured figures where readers look: the results in README (cards: publish_card.py).

COMMANDS has the commands that lead here; they are written beside the figures.
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

README = Path(__file__).resolve().parents[2] / "README.md"
BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"


def main() -> None:
    """Publishes one folder of results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path)
    parser.add_argument("--models", default="nexus-inr,iconet")
    arguments = parser.parse_args()
    models = arguments.models.split(",")
    scores = measured(arguments.results / SCORES, [weights.find(name) for name in models])
    publish_readme(scores, left_out(arguments.results), arguments.models)


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
    """Replaces what stands between the two marks."""
    text = README.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    table = "\n".join([*section(scores), *notes(scores), "", *excepted]).replace("### ", "#### ")
    commands = COMMANDS.format(models=models)
    block = f"{BEGIN}\n\n{table}\n\nMade by\n\n{commands}{END}"
    README.write_text(f"{before}{block}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
