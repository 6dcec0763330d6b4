"""Plain interpolation of a scan onto another lattice: the baselines, and pictures side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from nexusinr.geometry import FloatArray, Grid

if TYPE_CHECKING:
    from nexusinr.volume import Volume

Kind = Literal["nearest", "trilinear", "cubic"]

_SPLINE_ORDER: dict[str, int] = {"nearest": 0, "trilinear": 1, "cubic": 3}


def interpolate(volume: Volume, grid: Grid, kind: Kind = "trilinear") -> NDArray[np.float32]:
    """The scan's intensities at the grid's voxel centres, float32, of shape ``grid.shape``.

    ``trilinear`` and ``cubic`` (interpolating B-spline of order 3) serve any pair of lattices,
    oblique and sheared ones too. Beyond the scan's outermost voxel centres its edge is repeated,
    so that a fine lattice with the same corner is filled to its rim; `covered` tells how far the
    scan really reaches.

    Raises ValueError for an unknown kind.
    """
    if kind not in _SPLINE_ORDER:
        raise ValueError(f"unknown interpolation {kind!r}; choose from {', '.join(_SPLINE_ORDER)}")
    to_scan = grid.index_map_to(volume.grid)
    data, axes = volume.data.astype(np.float32, copy=False), volume.grid.axes_in(grid)
    if kind == "trilinear" and axes is not None:  # several times as fast
        return _along_axes(data, to_scan, axes, grid.shape)
    values: NDArray[np.float32] = ndimage.affine_transform(
        data,
        to_scan[:3, :3],
        to_scan[:3, 3],
        output_shape=grid.shape,
        order=_SPLINE_ORDER[kind],
        mode="nearest",
    )
    return values


def _along_axes(
    data: NDArray[np.float32],
    to_scan: FloatArray,
    axes: tuple[int, int, int],
    shape: tuple[int, int, int],
) -> NDArray[np.float32]:
    """Trilinear interpolation between parallel lattices, one axis after the other.

    Args:
        data: (i, j, k).
        to_scan: index of a target voxel to index of the scan, 4x4.
        axes: along which target axis each axis of the scan runs.
        shape: of the target.
    """
    x = data
    # The axis that grows least goes first: the arrays between stay small.
    for axis in sorted(range(3), key=lambda a: shape[axes[a]] / data.shape[a]):
        index = to_scan[axis, axes[axis]] * np.arange(shape[axes[axis]]) + to_scan[axis, 3]
        matrix = linear_matrix(index, x.shape[axis])
        if axis == 0:
            x = (matrix @ x.reshape(len(x), -1)).reshape(-1, *x.shape[1:])
        else:
            x = matrix @ x if axis == 1 else x @ matrix.T
    return np.ascontiguousarray(x.transpose([axes.index(axis) for axis in range(3)]))


def below(index: FloatArray, size: int) -> tuple[NDArray[np.int64], FloatArray]:
    """The voxel below each fractional index, kept inside, and how far beyond it that is."""
    clamped = np.clip(index, 0, size - 1)
    lower = np.minimum(np.floor(clamped).astype(np.int64), max(size - 2, 0))
    return lower, clamped - lower


def linear_matrix(index: FloatArray, size: int) -> NDArray[np.float32]:
    """Weights (targets, size) of linear interpolation at fractional indices, kept inside."""
    lower, fraction = below(index, size)
    matrix = np.zeros((len(index), size), dtype=np.float32)
    rows = np.arange(len(index))
    matrix[rows, lower] = 1 - fraction
    matrix[rows, np.minimum(lower + 1, size - 1)] += fraction
    return matrix


def covered(scan: Grid, grid: Grid) -> NDArray[np.bool_]:
    """Which voxel centres of the grid lie within the scan's outer faces: bool, ``grid.shape``."""
    to_scan = grid.index_map_to(scan)
    steps = np.ogrid[tuple(slice(n) for n in grid.shape)]
    inside = np.ones(grid.shape, dtype=bool)
    for axis, size in enumerate(scan.shape):
        index = np.full((1, 1, 1), to_scan[axis, 3])
        for slope, step in zip(to_scan[axis], steps, strict=False):
            if abs(slope) * max(grid.shape) > 1e-9:  # parallel lattices: one axis alone
                index = index + slope * step
        inside &= (index >= -0.5 - 1e-6) & (index <= size - 0.5 + 1e-6)
    return inside
