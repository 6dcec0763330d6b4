"""The picture of a run: each scan as acquired, interpolated and restored, in three planes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray
from scipy import ndimage

from nexusinr.geometry import Affine, FloatArray, Grid
from nexusinr.intensity import background_value, head_of
from nexusinr.resample import Kind, covered, interpolate
from nexusinr.volume import Volume

#: Size of the picture's images, all planes side by side, in pixels.
WIDTH = {1: 1400, 2: 2100}

#: Air shown around the head, mm.
AIR = 6.0

#: Percentiles of the acquired head that become black and white, and the depth below the skin, mm,
#: from which on they count: scalp fat would leave the brain dark.
WINDOW = (0.5, 99.5)
DEPTH = 16.0

#: Fewer points than this inside do not make a window.
ENOUGH = 300

#: Voxels around a plane that an interpolating cubic spline reads (its kernel fades as 0.27^n).
SPLINE_REACH = 8

LEFT, TOP, BOTTOM, GAP, BLOCK_GAP = 40, 66, 46, 6, 28  # pixels
LETTER, CAPTION, TITLE = 8.0, 9.5, 11.0  # points
DPI = 100
GREY, WHITE, MARK = "#9a9a9a", "#e6e6e6", "#c8c8c8"

CAUTION = "Derived images; not for primary diagnosis"
ROWS = ("Acquired", "Cubic B-spline", "Restored")


@dataclass(frozen=True)
class Plane:
    """A plane as radiologists look at it.

    Attributes:
        name: in words.
        axes: patient axes (0 R-L, 1 A-P, 2 S-I) to the right of the image, downwards, and through.
        letters: at its left, right, upper and lower edge.
    """

    name: str
    axes: tuple[int, int, int]
    letters: str


#: The patient's right is on the left of the image; sagittal planes look to the left.
PLANES = (
    Plane("Axial", (0, 1, 2), "RLAP"),
    Plane("Sagittal", (1, 2, 0), "APSI"),
    Plane("Coronal", (0, 2, 1), "RLSI"),
)


@dataclass(frozen=True)
class View:
    """What all images show: a box in patient space around a point, at one pixel size (mm)."""

    low: FloatArray
    high: FloatArray
    centre: FloatArray
    pixel: float

    def size(self, axis: int) -> int:
        """Pixels along a patient axis."""
        return max(round(float(self.high[axis] - self.low[axis]) / self.pixel), 1)

    def grid(self, plane: Plane) -> Grid:
        """One slice of pixels: columns along the first array axis, rows along the second."""
        across, down, through = plane.axes
        direction = np.zeros((3, 3))
        direction[across, 0] = direction[down, 1] = direction[through, 2] = -1
        first = self.high - self.pixel / 2
        first[through] = self.centre[through]
        shape = (self.size(across), self.size(down), 1)
        return Grid(shape, Affine.from_parts((self.pixel,) * 3, direction, first))


def draw_comparison(acquired: dict[str, Volume], restored: dict[str, Volume], path: Path) -> None:
    """Writes a PNG that shows acquired slices, cubic interpolation and restored image.

    Rows: the scan as acquired (voxels shown as they are), its cubic B-spline interpolation, the
    restored image; columns: axial, sagittal and coronal planes through the middle of the head, all
    at one scale, for each modality. The three rows of a modality share one grey scale.

    Args:
        acquired: scans by modality (``T1w``, ``T2w``), one or two.
        restored: the same keys, on one lattice; where it is a part of the head, that part is shown.
        path: of the picture.
    """
    heads = {name: head_of(scan) for name, scan in acquired.items()}
    view = _view(acquired, heads, next(iter(restored.values())).grid)
    picture = _Picture(view, len(acquired))
    for block, (name, scan) in enumerate(acquired.items()):
        low, high = _window(scan, heads[name])
        picture.title(block, name, scan, restored[name])
        for column, plane in enumerate(PLANES):
            grid = view.grid(plane)
            rows = (
                _slice(scan, grid, "nearest"),
                _slice(scan, grid, "cubic"),
                _slice(restored[name], grid, "cubic"),
            )
            for row, values in enumerate(rows):
                picture.image(block, row, column, values, low, high)
    picture.save(path)


def _view(acquired: dict[str, Volume], heads: dict[str, NDArray[np.bool_]], output: Grid) -> View:
    """The box around the heads, or the part of it where there is output."""
    points = [acquired[name].affine.apply(np.argwhere(heads[name])) for name in acquired]
    low = np.min([p.min(axis=0) for p in points], axis=0) - AIR
    high = np.max([p.max(axis=0) for p in points], axis=0) + AIR
    corners = output.corners()
    inner_low = np.maximum(low, corners.min(axis=0))
    inner_high = np.minimum(high, corners.max(axis=0))
    if (inner_high > inner_low).all():
        low, high = inner_low, inner_high
    inside = points[0][((points[0] >= low) & (points[0] <= high)).all(axis=1)]
    centre = inside.mean(axis=0) if len(inside) else (low + high) / 2
    lengths = high - low
    total = sum(lengths[plane.axes[0]] for plane in PLANES) * len(acquired)
    return View(low, high, centre, float(total / WIDTH[len(acquired)]))


def _window(scan: Volume, head: NDArray[np.bool_]) -> tuple[float, float]:
    """Black and white: percentiles within the head, its outer layer left out where there is one."""
    step = 4.0
    grid = scan.grid.with_spacing(step)
    inside = interpolate(scan.replace(data=head.astype(np.float32)), grid) > 0.5
    deep = ndimage.binary_erosion(inside, iterations=int(DEPTH / step)) & covered(scan.grid, grid)
    whole = np.count_nonzero(deep) < ENOUGH or background_value(scan.data) is not None
    values = scan.data[head] if whole else interpolate(scan, grid)[deep]
    low, high = np.percentile(values, WINDOW)
    return float(low), float(high)


def _slice(volume: Volume, grid: Grid, kind: Kind) -> NDArray[np.float32]:
    """One plane, as image rows; NaN beyond the volume."""
    index = volume.affine.to_index(grid.corners())
    shape = np.array(volume.grid.shape)
    start = np.clip(np.floor(index.min(axis=0)).astype(int) - SPLINE_REACH, 0, shape - 1)
    stop = np.clip(np.ceil(index.max(axis=0)).astype(int) + SPLINE_REACH, start + 1, shape)
    part = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
    near = volume.replace(data=volume.data[part], affine=volume.grid.crop(start, stop).affine)
    values = interpolate(near, grid, kind)
    values[~covered(volume.grid, grid)] = np.nan
    return values[:, :, 0].T


class _Picture:
    """Places images pixel by pixel, so that matplotlib never resamples them; y counts downwards."""

    def __init__(self, view: View, blocks: int) -> None:
        self.view = view
        self.widths = [view.size(plane.axes[0]) for plane in PLANES]
        self.height = max(view.size(plane.axes[1]) for plane in PLANES)
        self.block = sum(self.widths) + GAP * (len(PLANES) - 1)
        size = (
            LEFT + blocks * self.block + (blocks - 1) * BLOCK_GAP + GAP,
            TOP + len(ROWS) * (self.height + GAP) + BOTTOM,
        )
        self.width_px, self.height_px = size
        self.figure = Figure(figsize=(size[0] / DPI, size[1] / DPI), dpi=DPI, facecolor="black")
        for row, name in enumerate(ROWS):
            self._text(LEFT / 2, self._top(row) + self.height / 2, name, CAPTION, WHITE, turn=90)
        self._text(LEFT, self.height_px - BOTTOM / 2, CAUTION, CAPTION, WHITE, across="left")
        self._scale_bar()

    def title(self, block: int, name: str, scan: Volume, fine: Volume) -> None:
        """The modality and its voxels, and the name of each plane."""
        lengths = f"{_lengths(scan)} mm acquired, {_lengths(fine)} mm restored"
        left = self._left(block, 0)
        self._text(left, 20, name, TITLE, WHITE, across="left", weight="bold")
        self._text(left + 44, 20, lengths, CAPTION, GREY, across="left")
        for column, plane in enumerate(PLANES):
            middle = self._left(block, column) + self.widths[column] / 2
            self._text(middle, TOP - 16, plane.name, CAPTION, GREY)

    def image(
        self,
        block: int,
        row: int,
        column: int,
        values: NDArray[np.float32],
        low: float,
        high: float,
    ) -> None:
        """One plane with the letters at its edges."""
        left = self._left(block, column)
        top = self._top(row) + (self.height - values.shape[0]) // 2
        shown = np.nan_to_num(values, nan=low)
        below = self.height_px - top - values.shape[0]
        self.figure.figimage(shown, left, below, cmap="gray", vmin=low, vmax=high, origin="upper")
        height, width = values.shape
        places = ((9, height / 2), (width - 9, height / 2), (width / 2, 9), (width / 2, height - 9))
        for letter, (x, y) in zip(PLANES[column].letters, places, strict=True):
            self._text(left + x, top + y, letter, LETTER, MARK)

    def save(self, path: Path) -> None:
        """Writes the PNG."""
        self.figure.savefig(path, dpi=DPI, facecolor="black", metadata={"Software": None})

    def _left(self, block: int, column: int) -> int:
        before = sum(self.widths[:column]) + GAP * column
        return LEFT + block * (self.block + BLOCK_GAP) + before

    def _top(self, row: int) -> int:
        return TOP + row * (self.height + GAP)

    def _scale_bar(self) -> None:
        """5 cm, or what fits where only a small part of the head is shown."""
        room = min(self.widths) * self.view.pixel
        length = next((mm for mm in (50, 20, 10, 5, 2) if mm < 0.7 * room), 1)
        pixels = length / self.view.pixel
        right, y = self.width_px - GAP, self.height_px - BOTTOM / 2
        label = f"{length // 10} cm" if length >= 10 else f"{length} mm"
        self._text(right, y, label, CAPTION, WHITE, across="right")
        right -= 46
        corner = ((right - pixels) / self.width_px, 1 - (y + 1.5) / self.height_px)
        size = (pixels / self.width_px, 3 / self.height_px)
        self.figure.add_artist(Rectangle(corner, *size, color=WHITE, linewidth=0))

    def _text(
        self,
        x: float,
        y: float,
        text: str,
        size: float,
        colour: str,
        across: str = "center",
        weight: str = "normal",
        turn: float = 0,
    ) -> None:
        self.figure.text(
            x / self.width_px,
            1 - y / self.height_px,
            text,
            fontsize=size,
            color=colour,
            ha=across,
            va="center",
            weight=weight,
            rotation=turn,
            path_effects=[withStroke(linewidth=2, foreground="black")],
        )


def _lengths(volume: Volume) -> str:
    return " × ".join(f"{s:.2f}" for s in volume.affine.spacing)
