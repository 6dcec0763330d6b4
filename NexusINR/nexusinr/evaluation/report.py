"""What an evaluation leaves behind: a CSV of all scores, a table of means, a picture a subject."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from numpy.typing import NDArray

from nexusinr.evaluation.metrics import (
    Similarity,
    axis_nearest,
    mean_interval,
    scale_and_mask,
    to_unit,
)
from nexusinr.geometry import Affine
from nexusinr.intensity import Intensities
from nexusinr.volume import Volume

#: The method that all others are measured against.
BASELINE = "trilinear"

NO_LPIPS = "weights not on disk"

#: Brightest error in the pictures: this share of the reference's scale.
ERROR_RANGE = 0.2

_COLUMNS = ("subject", "modality", "method", "psnr", "ssim", "lpips")


@dataclass(frozen=True)
class Score:
    """One method on one scan of one subject; modality is ``T1w`` or ``T2w``."""

    subject: str
    modality: str
    method: str
    value: Similarity

    @property
    def group(self) -> str:
        """Subjects of one data set: the name up to its first digit (``ms26`` is of ``ms``)."""
        return re.split(r"\d", self.subject, maxsplit=1)[0].rstrip("-_ ") or "numbered"


def write_csv(scores: Iterable[Score], path: Path) -> None:
    """One row a score: subject, modality, method, PSNR (dB), SSIM, LPIPS."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(_COLUMNS)
        for score in scores:
            v = score.value
            lpips = NO_LPIPS if v.lpips is None else f"{v.lpips:.4f}"
            numbers = (f"{v.psnr:.3f}", f"{v.ssim:.4f}", lpips)
            writer.writerow((score.subject, score.modality, score.method, *numbers))


def markdown(scores: Sequence[Score], title: str) -> str:
    """Means with their 95 % bootstrap intervals, a table for all and one for each group."""
    groups = list(dict.fromkeys(score.group for score in scores))
    lines = [f"# {title}", ""]
    if len(groups) > 1:
        lines += [*_table(scores, "all"), ""]
    for group in groups:
        lines += [*_table([s for s in scores if s.group == group], group), ""]
    lines.append(
        "Mean [95 % bootstrap interval over subjects]. PSNR in dB and SSIM inside the head; "
        f"gain: over {BASELINE}, subject by subject."
    )
    if any(score.value.lpips is None for score in scores):
        lines.append(f"LPIPS: {NO_LPIPS}.")
    return "\n".join(lines) + "\n"


def _table(scores: Sequence[Score], group: str) -> list[str]:
    count = len({score.subject for score in scores})
    lines = [
        f"## {group} ({count} subject{'s' if count > 1 else ''})",
        "",
        "| scan | method | PSNR | gain | SSIM | LPIPS |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for modality in dict.fromkeys(score.modality for score in scores):
        rows = [score for score in scores if score.modality == modality]
        baseline = {s.subject: s.value.psnr for s in rows if s.method == BASELINE}
        for method in dict.fromkeys(score.method for score in rows):
            own = [score for score in rows if score.method == method]
            gains = [s.value.psnr - baseline[s.subject] for s in own if s.subject in baseline]
            cells = [
                modality,
                method,
                _mean(own, lambda v: v.psnr, 2),
                "" if method == BASELINE or not gains else _interval(gains, 2, sign="+"),
                _mean(own, lambda v: v.ssim, 4),
                _mean(own, lambda v: v.lpips, 4),
            ]
            lines.append("| " + " | ".join(cells) + " |")
    return lines


def _mean(scores: Sequence[Score], pick: Callable[[Similarity], float | None], digits: int) -> str:
    numbers = [value for score in scores if (value := pick(score.value)) is not None]
    return _interval(numbers, digits) if numbers else NO_LPIPS


def _interval(values: Sequence[float], digits: int, sign: str = "") -> str:
    mean, low, high = mean_interval(values)
    if len(values) == 1:
        return f"{mean:{sign}.{digits}f}"
    return f"{mean:{sign}.{digits}f} [{low:{sign}.{digits}f}, {high:{sign}.{digits}f}]"


def picture(
    subject: str,
    references: Mapping[str, Volume],
    degraded: Mapping[str, Volume],
    restored: Mapping[str, Mapping[str, NDArray[np.float32]]],
    path: Path,
) -> None:
    """A sagittal slice through the middle of the head, as PNG: scans, errors, profiles.

    references, degraded: T1w and T2w volumes. restored: method to array, for each of them. The
    errors of one picture share one colour scale. The profile runs across the thick slices.
    """
    columns = 1 + max(len(methods) for methods in restored.values())
    figure = Figure(figsize=(3.0 * columns, 5.6 * len(references)), layout="constrained")
    axes = figure.subplots(2 * len(references), columns, squeeze=False)
    error: AxesImage | None = None
    for row, (modality, reference) in enumerate(references.items()):
        upper, lower = axes[2 * row], axes[2 * row + 1]
        scale, mask = scale_and_mask(reference.data)
        view = _Sagittal(reference.affine, mask)
        truth = view.slice(to_unit(reference.data, scale))
        line = view.profile_line(degraded[modality].affine, truth)
        _show(upper[0], truth, view.aspect, f"{subject} {modality}: reference")
        lower[0].plot(line(truth), color="black", label="reference")
        for column, (method, data) in enumerate(restored[modality].items(), start=1):
            image = view.slice(to_unit(data, scale))
            _show(upper[column], image, view.aspect, method)
            error = _show(lower[column], np.abs(image - truth), view.aspect, "", "inferno")
            lower[0].plot(line(image), label=method, linewidth=0.8)
        lower[0].legend(fontsize="x-small")
        lower[0].set_title("profile across the slices", fontsize="small")
        lower[0].set_xlabel("voxel", fontsize="small")
    if error is not None:
        figure.colorbar(error, ax=axes[1::2, 1:], label="error, share of the reference's scale")
    figure.savefig(path, dpi=110, metadata={"Software": None})


class _Sagittal:
    """The sagittal slice through the middle of a mask, superior up, anterior to the right."""

    def __init__(self, affine: Affine, mask: NDArray[np.bool_]) -> None:
        self.order = tuple(axis_nearest(affine, direction) for direction in "RAS")
        self.flips = tuple(affine.orientation[axis] in "LPI" for axis in self.order)
        across = np.flatnonzero(mask.any(axis=self.order[1:]))
        self.index = int(across[len(across) // 2])
        _, right, up = affine.spacing[list(self.order)]
        self.aspect = float(up / right)

    def slice(self, data: Intensities) -> Intensities:
        plane = data.transpose(self.order)[self.index]
        return plane[:: -1 if self.flips[1] else 1, :: -1 if self.flips[2] else 1].T

    def profile_line(
        self, thick: Affine, truth: Intensities
    ) -> Callable[[Intensities], Intensities]:
        """Reads the line across the thick slices along which the reference changes most."""
        upwards = thick.spacing[axis_nearest(thick, "S")] >= thick.spacing[axis_nearest(thick, "A")]
        along = 0 if upwards else 1
        change = np.abs(np.diff(truth.astype(np.float64), axis=along)).sum(axis=along)
        index = int(change.argmax())
        return lambda image: np.take(image, index, axis=1 - along)


def _show(
    axes: Axes, image: Intensities, aspect: float, title: str, colours: str = "gray"
) -> AxesImage:
    top = 1.0 if colours == "gray" else ERROR_RANGE
    axes.set_title(title, fontsize="small")
    axes.set_axis_off()
    return axes.imshow(image, cmap=colours, vmin=0, vmax=top, origin="lower", aspect=aspect)
