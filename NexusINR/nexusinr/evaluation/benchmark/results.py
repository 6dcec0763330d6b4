"""What a benchmark leaves: benchmark.json, benchmark.md and scaling.png."""

from __future__ import annotations

from typing import Any

from nexusinr.evaluation import markdown
from nexusinr.evaluation.benchmark.picture import draw
from nexusinr.evaluation.benchmark.warm import PLANES
from nexusinr.inference.output import OutputFolder

VALUES, PAGE, PICTURE = "benchmark.json", "benchmark.md", "scaling.png"

NOTES = """\
GFLOP: convolutions and matrix products alone, a multiplication and an addition counted as two, by
torch's FlopCounterMode in a run of its own: what was really computed, air left out. GB: tensors
that operators take and give. Share of peak: of the convolution's speed above; with 8-bit factors,
which the model has where they are quicker, it can be more than all of it. Seconds of the whole are
those of the command in a process of its own, from files to files; warm seconds are those in a
session with the model loaded and the scans in memory.

Baselines: from normalised scans to intensities on the lattice; reading, registration and
consistency are left out of all of them. What was measured on a part is scaled by the number of
voxels. The part was encoded in one piece, one layer after the other, as torch runs a network,
and without 8-bit factors."""


def write(values: dict[str, Any], folder: OutputFolder) -> str:
    """Writes the files into an output folder, and gives the page."""
    text = page(values)
    folder.write_json(VALUES, values)
    folder.file(PAGE).write_text(text, encoding="utf-8")
    if values["scaling"]:
        draw(values, folder.file(PICTURE))
    folder.publish(instead_of=(VALUES, PAGE, PICTURE))
    return text


def page(values: dict[str, Any]) -> str:
    """benchmark.json as Markdown."""
    head = values["whole_head"]
    size = " x ".join(map(str, head["lattice"]))
    parts = [
        f"# Benchmark of {values['model']}",
        f"{values['machine']}; {values['device']}, {values['precision']}; "
        f"nexusinr {values['software']['nexusinr']}, torch {values['software']['torch']}.",
        f"## The main job: {head['head']} head, {size} voxels of {head['spacing_mm']:g} mm",
        markdown.table(_summary(values)),
        "### Step by step",
        markdown.table([{"step": name, **_costs(costs)} for name, costs in head["steps"].items()]),
        "## Side by side, on the same scans",
        markdown.table([_baseline(n, row) for n, row in values["baselines"].items()]),
    ]
    if values["scaling"]:
        parts += ["## How the cost grows", f"![{PICTURE}]({PICTURE})"]
        parts.append(markdown.table([_growth(row) for row in values["scaling"]]))
    return "\n\n".join([*parts, NOTES]) + "\n"


def _summary(values: dict[str, Any]) -> list[dict[str, str]]:
    head = values["whole_head"]
    rows = {
        "from files to files": f"{head['seconds']:.1f} s",
        "in a session": f"{head['warm_seconds']:.2f} s",
        f"another spacing ({values['new_spacing_mm']:g} mm), same session": (
            f"{values['new_spacing_seconds']:.2f} s"
        ),
        **{
            f"an oblique plane of {n} x {n} pixels": f"{1000 * values[f'plane_{n}_seconds']:.0f} ms"
            for n in PLANES
        },
        "computed": f"{head['gflop']:.0f} GFLOP",
        "peak of a 3x3x3 convolution, 32 channels": f"{values['peak_conv_gflops']:.0f} GFLOP/s",
        "peak of a matrix product": f"{values['peak_matmul_gflops']:.0f} GFLOP/s",
        "share of the convolution's peak": f"{head['share_of_peak']:.0%}",
        "peak memory": f"{head['peak_memory_gb']:.2f} GB",
    }
    begun = values["start"]
    rows["`nexusinr --help`"] = f"{begun['help_seconds']:.2f} s"
    rows["a new process: imports, model loaded"] = f"{begun['ready_seconds']:.2f} s"
    rows["installed, with all that it needs"] = f"{begun['installed_gb']:.1f} GB"
    if values["peak_eight_bit_conv_gflops"] is not None:
        found = f"{values['peak_eight_bit_conv_gflops']:.0f} GFLOP/s"
        rows["peak of that convolution with 8-bit factors"] = found
    if head["peak_gpu_memory_gb"] is not None:
        rows["peak memory of the GPU"] = f"{head['peak_gpu_memory_gb']:.2f} GB"
    return [{"": name, " ": value} for name, value in rows.items()]


def _costs(costs: dict[str, float]) -> dict[str, str]:
    return {
        "s": f"{costs['seconds']:.2f}",
        "GFLOP": f"{costs['gflop']:.1f}",
        "GB": f"{costs['gbytes']:.1f}",
        "share of peak": f"{costs['share_of_peak']:.0%}",
    }


def _baseline(name: str, row: dict[str, Any]) -> dict[str, str]:
    share = row["measured_share"]
    return {
        "way": name,
        "s": f"{row['seconds']:.1f}",
        "times ours": f"{row['ratio_to_ours']:.2f}",
        "measured on": "all" if share == 1 else f"{share:.1%}, scaled",
        "what": row["what"],
    }


def _growth(row: dict[str, Any]) -> dict[str, str]:
    return {
        "head": row["head"],
        "spacing, mm": f"{row['spacing_mm']:g}",
        "million voxels": f"{row['voxels'] / 1e6:.2f}",
        "s": f"{row['seconds']:.1f}",
        "encoding, s": f"{row['encoding_seconds']:.1f}",
        "decoding, s": f"{row['decoding_seconds']:.1f}",
    }
