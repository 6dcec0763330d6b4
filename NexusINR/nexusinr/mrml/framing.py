"""Pointing slice views at the head: along its slices, centred, all at one scale."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from nexusinr.geometry import FloatArray
from nexusinr.mrml.layout import Plane, frame_of, slice_axes
from nexusinr.mrml.volumes import affine_of, array_of

#: Around the head, as a share of it.
MARGIN = 1.06

#: More voxels than this are thinned out before the head is looked for.
ENOUGH = 2_000_000

#: A slab with less of the head than this share of the fullest slab is taken for noise.
NOISE = 0.02


@dataclass(frozen=True)
class Frame:
    """A box around the head, along the axes of a scan.

    Attributes:
        axes: rotation from the box's axes (right, anterior, superior) to patient space, (3, 3).
        low: lower corner along these axes, (3,), mm.
        high: upper corner, (3,), mm.
    """

    axes: FloatArray
    low: FloatArray
    high: FloatArray

    @classmethod
    def around_head(cls, node: Any) -> Frame:
        """Around what is brighter than the mean of a volume node, the odd bright voxel apart."""
        affine, values = affine_of(node), array_of(node)
        step = max(int(np.ceil((values.size / ENOUGH) ** (1 / 3))), 1)
        thin = np.asarray(values[::step, ::step, ::step], dtype=np.float32)
        bright = thin > thin.mean()
        ends = []
        for axis, size in enumerate(values.shape):
            counts = np.count_nonzero(bright, axis=tuple({0, 1, 2} - {axis}))
            kept = np.flatnonzero(counts > NOISE * counts.max()) if counts.any() else [0, size]
            ends.append((kept[0] * step - 0.5, min((kept[-1] + 1) * step, size) - 0.5))
        corners = np.stack(np.meshgrid(*ends, indexing="ij"), -1).reshape(-1, 3)
        axes = frame_of(affine)
        points = affine.apply(corners) @ axes
        return cls(axes, points.min(axis=0), points.max(axis=0))

    @property
    def centre(self) -> FloatArray:
        """Middle of the box in patient space, (3,), mm."""
        return self.axes @ (self.low + self.high) / 2

    def extent(self, plane: Plane) -> FloatArray:
        """Width and height of the box on the screen, (2,), mm."""
        along = np.abs(np.array(plane.axes, dtype=np.float64))[:, :2]
        return (self.high - self.low) @ along


def point_views(frame: Frame, views: Iterable[tuple[Any, Plane]]) -> None:
    """Turns slice nodes along the frame, centres them on it and fits it into all at one scale.

    Views that have no size yet count as square; point them again once they are on the screen.
    """
    pairs = list(views)
    scale = max(
        float((frame.extent(plane) / _pixels(node)).max()) for node, plane in pairs
    )  # mm per pixel
    for node, plane in pairs:
        was_modifying = node.StartModify()
        matrix = node.GetSliceToRAS()
        for row, column in np.ndindex(3, 3):
            matrix.SetElement(row, column, slice_axes(plane, frame.axes)[row, column])
        for row in range(3):
            matrix.SetElement(row, 3, frame.centre[row])
        node.SetXYZOrigin(0, 0, 0)
        width, height = _pixels(node) * scale * MARGIN
        node.SetFieldOfView(width, height, node.GetFieldOfView()[2])
        node.UpdateMatrices()
        node.EndModify(was_modifying)


def _pixels(node: Any) -> FloatArray:
    return np.maximum(np.array(node.GetDimensions()[:2], dtype=np.float64), 1)
