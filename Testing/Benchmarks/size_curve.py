"""Draws what models of several sizes gain, and prints it as a table.

    python Testing/Benchmarks/size_curve.py runs/size-* --out size-curve.png

Every run is a folder that `nexusinr train` left, with its card. Size is what the encoders of a scan
compute per voxel of it; gains are those over trilinear interpolation on the validation subject.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import torch
from torch.utils.flop_counter import FlopCounterMode

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from nexusinr.models.encoders import CONDITIONS
from nexusinr.models.nexus_inr import T1W, NexusINR, NexusINRConfig

#: Edge of the scan on which the work is counted.
EDGE = 16

SCANS = {"gain_t1w": "T1w", "gain_t2w": "T2w"}


@dataclass(frozen=True)
class Run:
    """One size: million multiply-adds per voxel, parameters, steps of training, gains in dB."""

    name: str
    size: float
    parameters: int
    steps: int
    gains: dict[str, float]


def main() -> None:
    """Reads the runs that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    runs = sorted((read(folder) for folder in arguments.runs), key=lambda run: run.size)
    print(table(runs))
    draw(runs, arguments.out)


def read(folder: Path) -> Run:
    """The run of a folder; it holds one card."""
    (path,) = folder.glob("*.json")
    card = json.loads(path.read_text(encoding="utf-8"))
    network = NexusINR(NexusINRConfig(**card["config"]))
    training: dict[str, Any] = card["training"]
    return Run(
        folder.name,
        multiply_adds(network) / 1e6,
        sum(parameter.numel() for parameter in network.parameters()),
        training["steps"],
        training["validation_gain_over_trilinear_db"],
    )


@torch.no_grad()
def multiply_adds(network: NexusINR) -> float:
    """What encoding one scan takes per voxel."""
    image = torch.zeros(1, 1, EDGE, EDGE, EDGE)
    with FlopCounterMode(display=False) as counter:
        network.encode(image, torch.zeros(1, CONDITIONS), T1W)
    return counter.get_total_flops() / 2 / image.numel()


def table(runs: list[Run]) -> str:
    """A Markdown table, a row for each run."""
    head = "| run | million multiply-adds per voxel | parameters | steps | T1w / T2w |"
    rows = [
        f"| `{run.name}` | {run.size:.2f} | {run.parameters:,} | {run.steps} | "
        + " / ".join(f"{run.gains[key]:+.2f}" for key in SCANS)
        + " |"
        for run in runs
    ]
    return "\n".join([head, "|---|---|---|---|---|", *rows])


def draw(runs: list[Run], path: Path) -> None:
    """Gains over size, as a picture."""
    figure, axis = plt.subplots(figsize=(5, 3.4), layout="constrained")
    sizes = [run.size for run in runs]
    for key, label in SCANS.items():
        gains = [run.gains[key] for run in runs]
        axis.semilogx(sizes, gains, marker="o", label=label)
    axis.set_xticks(sizes, [f"{size:.2g}" for size in sizes])
    axis.minorticks_off()
    axis.set(xlabel="million multiply-adds per voxel", ylabel="over trilinear (dB)")
    axis.grid(alpha=0.3)
    axis.legend()
    figure.savefig(path, dpi=90)


if __name__ == "__main__":
    main()
