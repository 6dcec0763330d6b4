"""How the cost grows, as a picture: against the spacing, and against the size of the head."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter

#: Key in benchmark.json, name, colour (Okabe and Ito) and marker of each line.
LINES = (
    ("seconds", "whole run", "#000000", "o"),
    ("encoding_seconds", "encoding", "#0072B2", "s"),
    ("decoding_seconds", "decoding", "#D55E00", "^"),
)

Rows = Sequence[dict[str, Any]]


def draw(values: dict[str, Any], path: Path) -> None:
    """Draws the rows of `scaling` in benchmark.json as PNG."""
    rows = values["scaling"]
    reference = rows[0]
    figure = Figure(figsize=(9.6, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    same_head = [row for row in rows if row["head"] == reference["head"]]
    same_spacing = [row for row in rows if row["spacing_mm"] == reference["spacing_mm"]]
    _panel(left, same_head, [f"{row['spacing_mm']:g} mm" for row in same_head])
    left.set_title(f"{reference['head']} head", fontsize="medium")
    _panel(right, same_spacing, [row["head"] for row in same_spacing])
    right.set_title(f"lattice of {reference['spacing_mm']:g} mm", fontsize="medium")
    left.set_ylabel("seconds, nothing encoded before")
    handles, names = left.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=len(names), frameon=False)
    figure.suptitle(
        f"{values['model']}: {values['machine']}; {values['device']}", fontsize="medium"
    )
    figure.savefig(path, dpi=110, metadata={"Software": None})


def _panel(axes: Axes, rows: Rows, labels: Sequence[str]) -> None:
    """Seconds against the lattice's size, both logarithmic, and how they would grow with it."""
    order = sorted(range(len(rows)), key=lambda n: rows[n]["voxels"])
    voxels = [rows[n]["voxels"] / 1e6 for n in order]
    for key, name, colour, marker in LINES:
        axes.plot(voxels, [rows[n][key] for n in order], color=colour, marker=marker, label=name)
    first = rows[order[0]]["seconds"]
    proportional = [first * v / voxels[0] for v in voxels]
    axes.plot(voxels, proportional, color="#7f7f7f", linestyle=":", label="in proportion to voxels")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(voxels, [f"{labels[n]}\n{rows[n]['voxels'] / 1e6:.1f} M" for n in order])
    axes.minorticks_off()
    axes.margins(x=0.12)
    axes.yaxis.set_major_formatter(ScalarFormatter())
    axes.set_xlabel("voxels of the lattice")
    axes.grid(color="#dddddd", linewidth=0.6)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
