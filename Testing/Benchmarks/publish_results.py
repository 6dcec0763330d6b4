"""Writes measured figures where readers look: README's results and the model's card.

COMMANDS has the commands that lead here; they are written beside the figures.
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path

from nexusinr.evaluation.metrics import Similarity
from nexusinr.evaluation.report import Score, markdown
from nexusinr.models import weights

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
    scores = read_scores(arguments.results / "scores.csv")
    head = json.loads((arguments.results / "whole_head.json").read_text(encoding="utf-8"))
    publish_readme(scores, head, arguments.model)
    card = weights.find(arguments.model)
    details = {key: value for key, value in card.details.items() if key != "sha256"}
    details["evaluation"] = {"protocol": "brats", "scores": [as_dict(score) for score in scores]}
    details["whole_head"] = head
    weights.write_card(card.path, details)


def read_scores(path: Path) -> list[Score]:
    """The scores that `nexusinr evaluate` wrote."""
    with path.open(newline="", encoding="utf-8") as lines:
        return [
            Score(
                row["subject"],
                row["modality"],
                row["method"],
                Similarity(float(row["psnr"]), float(row["ssim"]), as_number(row["lpips"])),
            )
            for row in csv.DictReader(lines)
        ]


def as_number(text: str) -> float | None:
    """A number; None where the column says why there is none."""
    try:
        return float(text)
    except ValueError:
        return None


def as_dict(score: Score) -> dict[str, object]:
    """One score in plain values."""
    value = score.value
    named = {"subject": score.subject, "modality": score.modality, "method": score.method}
    return {**named, "psnr": value.psnr, "ssim": value.ssim, "lpips": value.lpips}


def publish_readme(scores: list[Score], head: dict[str, object], model: str) -> None:
    """Replaces what stands between the two marks."""
    text = README.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    table = markdown(scores, "brats").replace("\n## ", "\n#### ").partition("\n")[2]
    size = " x ".join(str(n) for n in head["lattice"])  # type: ignore[attr-defined]
    time = (
        f"A whole head ({size} voxels of 1 mm, from slices of 2 mm and 4 mm) takes "
        f"{head['seconds']} s and at most {head['peak_memory_gb']} GB "
        f"({head['machine']}, {head['device']})."
    )
    commands = COMMANDS.format(model=model)
    block = f"{BEGIN}\n{table}\n{time}\n\nMade by\n\n{commands}{END}"
    README.write_text(f"{before}{block}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
