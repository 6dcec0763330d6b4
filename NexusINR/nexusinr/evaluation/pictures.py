"""Pictures of an evaluation: a page a subject, and one summary of a whole run.

Every error map has the same colour scale, whatever the subject and the protocol, so that pages can
be laid side by side. Colours are those of Okabe and Ito, told apart by colour-blind eyes too.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.image import AxesImage
from numpy.typing import NDArray

from nexusinr.evaluation.metrics import axis_nearest, mean_interval, to_unit
from nexusinr.evaluation.paired import by_subject, gains
from nexusinr.evaluation.scores import BASELINE, Score
from nexusinr.evaluation.subjects import Truth
from nexusinr.intensity import Intensities

Array = NDArray[np.float32]

#: Brightest error in the pictures: this share of the reference's scale.
ERROR_RANGE = 0.2

#: Voxels shown around the head.
RIM = 4

#: For the baseline, the other interpolations and the models, in this order, then again.
COLOURS = ("#7f7f7f", "#E69F00", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#8C6D00")
MARKERS = ("o", "s", "D", "^", "v", "P", "X", "<")

_DPI = 110

_LEGEND_COLUMNS = 3


@dataclass
class Panel:
    """One plane of one scan.

    Attributes:
        data: digest of the subject's scans.
        reference: [row, column], 0 ... 1, first row at the bottom.
        scanned: the degraded scan, its thick voxels as they are.
        pixel: height and width of a pixel, mm.
        upright: whether the degraded axis runs from bottom to top.
        restored: by method.
        psnr: of the whole scan by method, dB.
    """

    data: str
    reference: Array
    scanned: Array
    pixel: tuple[float, float]
    upright: bool
    restored: dict[str, Array] = field(default_factory=dict)
    psnr: dict[str, float] = field(default_factory=dict)

    @property
    def aspect(self) -> float:
        """Height over width of a pixel."""
        return self.pixel[0] / self.pixel[1]

    @property
    def line(self) -> int:
        """The row or column, along the degraded axis, on which the reference changes most."""
        along = 0 if self.upright else 1
        return int(np.abs(np.diff(self.reference, axis=along)).sum(axis=along).argmax())

    def profile(self, image: Array) -> Array:
        """Intensities along that line."""
        return image[:, self.line] if self.upright else image[self.line]


class Plane:
    """The plane through the middle of a head that shows a degraded axis.

    Sagittal where the slices lie across S or A; axial where they lie across R; in a scan with one
    unsharp axis, the plane of the two others. Superior or anterior is up; anterior is right in a
    sagittal plane, the patient's right is left in the others.
    """

    def __init__(self, truth: Truth, degraded: int) -> None:
        self._truth = truth
        affine = truth.scan.affine
        by_direction = {direction: axis_nearest(affine, direction) for direction in "RAS"}
        unsharp = [axis for axis in range(3) if axis not in truth.sharp]
        if len(unsharp) == 1 and unsharp[0] != degraded:
            look = next(d for d, axis in by_direction.items() if axis == unsharp[0])
        else:
            look = "S" if degraded == by_direction["R"] else "R"
        across, up = {"R": ("A", "S"), "A": ("L", "S"), "S": ("L", "A")}[look]
        self._look, self._up = by_direction[look], by_direction[up]
        self._across = by_direction["R" if across == "L" else across]
        self._flips = (
            affine.orientation[self._up] != up,
            affine.orientation[self._across] != across,
        )
        mask = truth.reference.mask
        depth = np.flatnonzero(mask.any(axis=(self._up, self._across)))
        self._index = int(depth[len(depth) // 2])
        self._window = _window(self._turn(mask))
        self._upright = degraded == self._up
        spacing = affine.spacing
        self._pixel = float(spacing[self._up]), float(spacing[self._across])

    def _turn(self, data: NDArray[np.generic]) -> NDArray[np.generic]:
        plane = data.transpose((self._look, self._up, self._across))[self._index]
        return plane[:: -1 if self._flips[0] else 1, :: -1 if self._flips[1] else 1]

    def cut(self, data: Intensities) -> Array:
        """The plane of an image in the scan's units, 0 ... 1."""
        plane: NDArray[np.floating] = self._turn(data)[self._window]  # type: ignore[assignment]
        return to_unit(plane, self._truth.reference.scale)

    def panel(self, scanned: Intensities, data: str) -> Panel:
        """The reference and the degraded scan, without methods yet."""
        reference = self.cut(self._truth.scan.data)
        return Panel(data, reference, self.cut(scanned), self._pixel, self._upright)


def _window(mask: NDArray[np.generic]) -> tuple[slice, slice]:
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    first, second = (
        slice(max(int(found[0]) - RIM, 0), int(found[-1]) + RIM + 1) for found in (rows, columns)
    )
    return first, second


def write_panels(panels: Mapping[str, Panel], path: Path) -> None:
    """Keeps the planes of a page, so that a method can be added to it later."""
    arrays: dict[str, NDArray[np.generic]] = {}
    for modality, panel in panels.items():
        arrays[f"{modality}/reference"] = panel.reference.astype(np.float16)
        arrays[f"{modality}/scanned"] = panel.scanned.astype(np.float16)
        arrays[f"{modality}/about"] = np.array([*panel.pixel, panel.upright], dtype=np.float64)
        arrays[f"{modality}/data"] = np.array(panel.data)
        for method, image in panel.restored.items():
            arrays[f"{modality}/restored/{method}"] = image.astype(np.float16)
            arrays[f"{modality}/psnr/{method}"] = np.array(panel.psnr[method])
    partial = path.with_name(path.stem + ".partial.npz")
    np.savez_compressed(partial, **arrays)  # type: ignore[arg-type]  # named arrays
    os.replace(partial, path)


def read_panels(path: Path) -> dict[str, Panel]:
    """What `write_panels` kept, by modality; empty where there is nothing."""
    if not path.is_file():
        return {}
    panels: dict[str, Panel] = {}
    with np.load(path, allow_pickle=False) as arrays:
        for key in arrays.files:
            modality, kind = key.split("/")[:2]
            if kind == "reference":
                height, width, upright = arrays[f"{modality}/about"].tolist()
                panels[modality] = Panel(
                    str(arrays[f"{modality}/data"]),
                    arrays[key].astype(np.float32),
                    arrays[f"{modality}/scanned"].astype(np.float32),
                    (height, width),
                    bool(upright),
                )
        for key in arrays.files:
            modality, kind, *method = key.split("/", 2)
            if kind == "restored":
                panels[modality].restored[method[0]] = arrays[key].astype(np.float32)
            elif kind == "psnr":
                panels[modality].psnr[method[0]] = float(arrays[key])
    return panels


def draw_page(title: str, panels: Mapping[str, Panel], path: Path) -> None:
    """One subject as PNG: for each scan the images, their errors, and a profile through edges."""
    columns = 2 + max(len(panel.restored) for panel in panels.values())
    heights = [_tile_height(panel) for panel in panels.values()]
    figure = Figure(figsize=(2.5 * columns, 2 * sum(heights) + 1.0), layout="constrained")
    figure.suptitle(title, fontsize="medium")
    ratios = [*heights, 0.35]
    parts: Any = figure.subfigures(len(panels) + 1, 1, height_ratios=ratios)  # an array of them
    for part, (modality, panel) in zip(parts, panels.items(), strict=False):
        errors = _draw_panel(part, modality, panel, columns)
    place = parts[-1].add_axes((0.3, 0.75, 0.4, 0.2))
    bar = figure.colorbar(errors, cax=place, orientation="horizontal")
    bar.set_label("error, as a share of the reference's 99.9th percentile", fontsize="small")
    bar.ax.tick_params(labelsize="x-small")
    _save(figure, path)


def _tile_height(panel: Panel) -> float:
    rows, columns = panel.reference.shape
    return 2.5 * rows * panel.aspect / columns + 0.35


def _draw_panel(part: SubFigure, modality: str, panel: Panel, columns: int) -> AxesImage:
    """Upper row: images; lower row: a profile and error maps. Returns one of these."""
    cells = part.add_gridspec(2, columns)
    reference = part.add_subplot(cells[0, 0])
    _show(reference, panel.reference, panel, f"{modality}: reference")
    mark = reference.axvline if panel.upright else reference.axhline
    mark(panel.line, color="#56B4E9", linewidth=0.8, linestyle="--")
    errors = _show(part.add_subplot(cells[0, 1]), panel.scanned, panel, "as scanned")
    _draw_profile(part.add_subplot(cells[1, :2]), panel)
    for column, (method, image) in enumerate(panel.restored.items(), start=2):
        title = f"{method}\n{panel.psnr[method]:.2f} dB"
        _show(part.add_subplot(cells[0, column]), image, panel, title)
        difference = np.abs(image - panel.reference)
        errors = _show(part.add_subplot(cells[1, column]), difference, panel, "error", "inferno")
    return errors


def _draw_profile(axes: Axes, panel: Panel) -> None:
    truth = panel.profile(panel.reference)
    millimetres = np.arange(len(truth)) * panel.pixel[0 if panel.upright else 1]
    axes.plot(millimetres, truth, color="black", linewidth=1.6, label="reference")
    for number, (method, image) in enumerate(panel.restored.items()):
        colour = COLOURS[number % len(COLOURS)]
        axes.plot(millimetres, panel.profile(image), color=colour, linewidth=0.9, label=method)
    axes.set_title("along the dashed line, across the thick voxels", fontsize="small")
    axes.set_xlabel("mm", fontsize="small")
    rows = -(-len(axes.lines) // _LEGEND_COLUMNS)
    axes.set_ylim(-0.02, 1.02 + 0.14 * rows)  # the legend lies above every curve
    axes.set_yticks(np.linspace(0, 1, 6))
    axes.tick_params(labelsize="x-small")
    axes.legend(fontsize="x-small", ncols=_LEGEND_COLUMNS, frameon=False, loc="upper center")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _show(axes: Axes, image: Array, panel: Panel, title: str, colours: str = "gray") -> AxesImage:
    top = 1.0 if colours == "gray" else ERROR_RANGE
    axes.set_title(title, fontsize="small")
    axes.set_axis_off()
    return axes.imshow(image, cmap=colours, vmin=0, vmax=top, origin="lower", aspect=panel.aspect)


def draw_summary(scores: Sequence[Score], path: Path) -> None:
    """Gain over trilinear of every method, a panel a scan and a line a protocol, as PNG.

    Large marks: mean and 95 % bootstrap interval over subjects. Small marks: single subjects.
    """
    modalities = list(dict.fromkeys(sorted(score.modality for score in scores)))
    labels = list(dict.fromkeys(score.trial.label for score in scores))
    methods = [m for m in dict.fromkeys(score.method for score in scores) if m != BASELINE]
    size = 4.6 * len(modalities) + 1.2, 1.7 + len(labels) * (0.22 + 0.2 * len(methods))
    figure = Figure(figsize=size, layout="constrained")
    all_axes = figure.subplots(1, len(modalities), squeeze=False, sharex=True, sharey=True)[0]
    for axes, modality in zip(all_axes, modalities, strict=True):
        of_modality = [score for score in scores if score.modality == modality]
        for row, label in enumerate(labels):
            _draw_gains(axes, row, [s for s in of_modality if s.trial.label == label], methods)
        axes.set_title(modality, fontsize="medium")
        axes.axvline(0, color="#7f7f7f", linewidth=1)
        axes.set_xlabel(f"PSNR gain over {BASELINE}, dB")
        axes.set_yticks(range(len(labels)), [_counted(label, scores) for label in labels])
        axes.set_ylim(len(labels) - 0.5, -0.5)
        axes.grid(axis="x", color="#dddddd", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.tick_params(axis="y", length=0)
        for row in range(1, len(labels)):
            axes.axhline(row - 0.5, color="#dddddd", linewidth=0.6)
    handles, names = all_axes[0].get_legend_handles_labels()
    known = dict(zip(names, handles, strict=True))
    figure.legend(
        list(known.values()),
        list(known),
        loc="outside lower center",
        ncols=4,
        frameon=False,
        title="line: 95 % interval of the mean; small marks: single subjects",
        title_fontsize="small",
    )
    _save(figure, path)


def _counted(label: str, scores: Sequence[Score]) -> str:
    subjects = {score.subject for score in scores if score.trial.label == label}
    return f"{label}\n{len(subjects)} subject{'s' if len(subjects) > 1 else ''}"


def _draw_gains(axes: Axes, row: int, scores: Sequence[Score], methods: Sequence[str]) -> None:
    """One protocol on one scan: a mark a method, one below the other."""
    for number, method in enumerate(methods):
        height = row + (number - (len(methods) - 1) / 2) * 0.8 / len(methods)
        style = number + 1  # the first of each belongs to the baseline
        colour, marker = COLOURS[style % len(COLOURS)], MARKERS[style % len(MARKERS)]
        own = gains(scores, method, BASELINE)
        if not own:
            axes.scatter([], [], color=colour, marker=marker, s=36, label=method)
            exact = list(by_subject(scores, method).values())
            if exact:
                text = f"{method}: " + _least(min(exact))
                axes.annotate(text, (0, height), (5, 0), textcoords="offset points", va="center",
                              fontsize="x-small", color=colour)  # fmt: skip
            continue
        mean, low, high = mean_interval(own)
        axes.scatter(own, [height] * len(own), color=colour, s=6, alpha=0.5, linewidths=0)
        axes.plot([low, high], [height] * 2, color=colour, linewidth=2, solid_capstyle="butt")
        axes.scatter([mean], [height], color=colour, marker=marker, s=36, label=method, zorder=3)


def _least(psnr: float) -> str:
    return f"{psnr:.1f} dB at least" if np.isfinite(psnr) else "exact"


def _save(figure: Figure, path: Path) -> None:
    partial = path.with_suffix(".partial.png")
    figure.savefig(partial, dpi=_DPI, metadata={"Software": None})
    os.replace(partial, path)
