"""Draws the loss and the validation gains of training runs, side by side.

    python Testing/Benchmarks/loss_curves.py runs/ablation-* --out curves.png

Every run is a folder that `nexusinr train` left; what it wrote for TensorBoard is what is drawn.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

#: What is drawn, and its title.
CURVES = {
    "loss/t1w": "T1w loss",
    "loss/t2w": "T2w loss",
    "validation/gain_t1w": "T1w over trilinear (dB)",
    "validation/gain_t2w": "T2w over trilinear (dB)",
}


def main() -> None:
    """Draws the runs that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    figure, axes = plt.subplots(
        1, len(CURVES), figsize=(3.4 * len(CURVES), 3.6), layout="constrained"
    )
    for run in arguments.runs:
        found = curves(run)
        for axis, name in zip(axes, CURVES, strict=True):
            axis.plot(*found[name], marker=".", label=run.name)
    for axis, title in zip(axes, CURVES.values(), strict=True):
        axis.set(title=title, xlabel="step")
        axis.grid(alpha=0.3)
    lines, names = axes[0].get_legend_handles_labels()
    figure.legend(lines, names, loc="outside lower center", ncols=4, fontsize="small")
    figure.savefig(arguments.out, dpi=90)


def curves(run: Path) -> dict[str, tuple[list[int], list[float]]]:
    """Steps and values of each curve of a run; of a step that a resumed run repeated, the last."""
    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    known = events.Tags()["scalars"]
    found = {}
    for name in CURVES:
        points = {p.step: p.value for p in events.Scalars(name)} if name in known else {}
        found[name] = (sorted(points), [points[step] for step in sorted(points)])
    return found


if __name__ == "__main__":
    main()
