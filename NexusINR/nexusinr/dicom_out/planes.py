"""A lattice as a stack of DICOM image planes, the way radiologists look at them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from pydicom.valuerep import DSfloat

from nexusinr.errors import InputError
from nexusinr.geometry import Affine, FloatArray, Grid
from nexusinr.reading import LPS_TO_RAS

Scalar = TypeVar("Scalar", bound=np.generic)

#: Rows and columns whose cosine is larger than this are not at right angles, as DICOM's have to be.
_RIGHT_ANGLE = 1e-4

#: An axis along which voxels are this many times longer than along the others is that across the
#: planes.
_COARSEST = 1.2

#: By the patient axis (LPS) across the planes: where rows and columns run in a radiological view.
_VIEWS = np.array(
    [
        [(0, 1, 0), (0, 0, -1)],  # sagittal: rows to posterior, columns to inferior
        [(1, 0, 0), (0, 0, -1)],  # coronal: rows to left, columns to inferior
        [(1, 0, 0), (0, 1, 0)],  # axial: rows to left, columns to posterior
    ]
)


@dataclass(frozen=True)
class Planes:
    """A lattice whose axes run along the rows, along the columns and from plane to plane.

    The last axis goes to the side where rows x columns points, but need not be perpendicular.

    Attributes:
        grid: the lattice in this order.
        order: the axes of the lattice that it was made of.
        turned: which of them run the other way.
    """

    grid: Grid
    order: tuple[int, int, int]
    turned: tuple[bool, bool, bool]

    def arrange(self, values: NDArray[Scalar]) -> NDArray[Scalar]:
        """An image on the original lattice, (i, j, k), as (planes, rows, columns); a view."""
        steps = tuple(slice(None, None, -1 if turned else 1) for turned in self.turned)
        return values.transpose(self.order)[steps].transpose(2, 1, 0)

    @property
    def spacing(self) -> list[DSfloat]:
        """Between rows, between columns, mm: PixelSpacing."""
        return decimals(self.grid.spacing[[1, 0]])

    @property
    def distance(self) -> DSfloat:
        """From plane to plane, along their normal, mm."""
        row, column, across = self.grid.affine.direction.T
        return decimal(float(np.cross(row, column) @ across * self.grid.spacing[2]))

    @property
    def directions(self) -> list[DSfloat]:
        """Unit vectors along rows and columns, LPS: ImageOrientationPatient."""
        return decimals((LPS_TO_RAS @ self.grid.affine.direction[:, :2]).T.ravel())

    def position(self, plane: int) -> list[DSfloat]:
        """The centre of the first pixel of a plane, LPS, mm: ImagePositionPatient."""
        return decimals(LPS_TO_RAS @ self.grid.affine.apply((0, 0, plane)))


def decimal(value: float) -> DSfloat:
    """A number in the at most 16 characters of DICOM's decimal strings."""
    return DSfloat(value, auto_format=True)


def decimals(values: FloatArray) -> list[DSfloat]:
    """Likewise, several."""
    return [decimal(float(value)) for value in values]


def planes_of(grid: Grid) -> Planes:
    """The planes across the axis with the clearly longest voxels; otherwise across the last axis.

    Axes are swapped and turned so that the planes appear upright; no voxel moves.

    Raises InputError for a lattice without two axes at right angles, which DICOM cannot hold.
    """
    direction = LPS_TO_RAS @ grid.affine.direction
    for across in _candidates(grid):
        first, second = (axis for axis in range(3) if axis != across)
        if abs(direction[:, first] @ direction[:, second]) <= _RIGHT_ANGLE:
            return _upright(grid, direction, (first, second, across))
    raise InputError(
        "no two axes of this lattice are at right angles, and DICOM has no place for such an "
        "image: leave DICOM out or choose another lattice"
    )


def _candidates(grid: Grid) -> list[int]:
    """The axes that may lie across the planes, the best first."""
    *_, second, coarsest = np.sort(grid.spacing)
    best = int(grid.spacing.argmax()) if coarsest >= _COARSEST * second else 2
    return [best, *(axis for axis in (2, 1, 0) if axis != best)]


def _upright(grid: Grid, direction: FloatArray, order: tuple[int, int, int]) -> Planes:
    first, second, across = order
    normal = np.cross(direction[:, first], direction[:, second])
    view = _VIEWS[np.abs(normal).argmax()]
    likeness = np.abs(view @ direction[:, [first, second]])
    if likeness[0, 1] + likeness[1, 0] > likeness[0, 0] + likeness[1, 1]:
        first, second = second, first
    row, column = (
        direction[:, axis] * (1 if direction[:, axis] @ wanted >= 0 else -1)
        for axis, wanted in zip((first, second), view, strict=True)
    )
    wanted = np.array((row, column, np.cross(row, column)))
    order = (first, second, across)
    turned = tuple(bool(direction[:, axis] @ d < 0) for axis, d in zip(order, wanted, strict=True))
    return Planes(_turned(grid.permuted(order), turned), order, (turned[0], turned[1], turned[2]))


def _turned(grid: Grid, turned: tuple[bool, ...]) -> Grid:
    """The same points with some axes running the other way."""
    matrix = grid.affine.matrix.copy()
    matrix[:3, 3] = grid.affine.apply(
        [n - 1 if t else 0 for n, t in zip(grid.shape, turned, strict=True)]
    )
    matrix[:3, :3] *= np.where(turned, -1, 1)
    return Grid(grid.shape, Affine(matrix))
