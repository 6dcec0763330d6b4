"""Writes measured figures where readers look: README's results and the model's card.

COMMANDS has the commands that lead here; they are written beside the figures.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from nexusinr.errors import InputError
from nexusinr.evaluation import cards
from nexusinr.evaluation.report import notes, section
from nexusinr.evaluation.scores import BASELINES, BOTH, SCORES, Score, read_scores
from nexusinr.models import weights

PROTOCOL = "brats"

COMMANDS = """\
```
nexusinr evaluate "$NEXUSINR_DATA" --protocol brats --models {model} --out results
python Testing/Benchmarks/whole_head.py --device cpu > results/whole_head.json
python Testing/Benchmarks/publish_results.py results --model {model}
```
"""

README = Path(__file__).resolve().parents[2] / "README.md"
BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"


def main() -> None:
    """Publishes one folder of results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path)
    parser.add_argument("--model", default="nexus-inr")
    arguments = parser.parse_args()
    card = weights.find(arguments.model)
    scores = measured(arguments.results / SCORES, card)
    head = json.loads((arguments.results / "whole_head.json").read_text(encoding="utf-8"))
    publish_readme(scores, head, arguments.model)
    details = {key: value for key, value in card.details.items() if key != "sha256"}
    details["evaluation"] = {"protocol": PROTOCOL, "scores": [as_dict(score) for score in scores]}
    details["whole_head"] = head
    weights.write_card(card.path, details)
    cards.write_page(card.path.with_suffix(".json"))


def measured(path: Path, card: weights.Card) -> list[Score]:
    """The scores of the interpolations and of these weights. Raises InputError without any."""
    scores = [
        score
        for score in read_scores(path)
        if (score.trial.protocol, score.trial.given) == (PROTOCOL, BOTH)
        and (
            score.method in BASELINES
            or (score.method == card.name and card.sha256.startswith(score.trial.weights))
        )
    ]
    if not any(score.method == card.name for score in scores):
        raise InputError(
            f"{path}: has no scores of {card.name!r} as it is installed now; evaluate it again"
        )
    return scores


def as_dict(score: Score) -> dict[str, object]:
    """One score in plain values."""
    value = score.value
    named = {"subject": score.subject, "modality": score.modality, "method": score.method}
    return {**named, "psnr": value.psnr, "ssim": value.ssim, "lpips": value.lpips}


def publish_readme(scores: list[Score], head: dict[str, Any], model: str) -> None:
    """Replaces what stands between the two marks."""
    text = README.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    table = "\n".join([*section(scores), *notes(scores)]).replace("### ", "#### ")
    size = " x ".join(str(n) for n in head["lattice"])
    time = (
        f"A whole head ({size} voxels of 1 mm, from slices of 2 mm and 4 mm) takes "
        f"{head['seconds']} s and at most {head['peak_memory_gb']} GB "
        f"({head['machine']}, {head['device']})."
    )
    commands = COMMANDS.format(model=model)
    block = f"{BEGIN}\n\n{table}\n\n{time}\n\nMade by\n\n{commands}{END}"
    README.write_text(f"{before}{block}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
