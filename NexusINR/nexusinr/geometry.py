"""Lattices in patient space.

Conventions, stated once for the whole package:

* Patient space is RAS, in millimetres (x to the patient's right, y anterior, z superior).
* Arrays are indexed ``[i, j, k]``, in the order of the affine's columns.
* An affine maps voxel indices to voxel *centres*; the voxel at index 0 spans -0.5 ... +0.5.
* A lattice is anchored at its outer *corner*, not at its first centre: going from 4 mm to 1 mm
  keeps the corner and moves the first centre by 1.5 mm.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]

#: Two directions closer than this (direction cosines) count as the same: 512 voxels of 1 mm
#: then stay within 0.005 mm of one another.
PARALLEL_TOLERANCE = 1e-5


def _frozen(values: ArrayLike) -> FloatArray:
    array = np.array(values, dtype=np.float64)
    array.setflags(write=False)
    return array


class Affine:
    """Voxel index to patient space: a 4x4 matrix, RAS, millimetres. A value: never changed.

    Oblique, flipped, anisotropic and sheared lattices are all welcome; a singular matrix or one
    with non-finite entries raises ValueError.
    """

    def __init__(self, matrix: ArrayLike) -> None:
        array = np.array(matrix, dtype=np.float64)
        if array.shape != (4, 4):
            raise ValueError(f"an affine is a 4x4 matrix, not one of shape {array.shape}")
        if not np.isfinite(array).all():
            raise ValueError(f"the affine has entries that are not finite: {array[:3].tolist()}")
        if not np.allclose(array[3], (0, 0, 0, 1)):
            raise ValueError(f"the affine's last row is {array[3].tolist()}, not 0 0 0 1")
        lengths = np.linalg.norm(array[:3, :3], axis=0)
        volume = abs(np.linalg.det(array[:3, :3]))
        if (lengths <= 0).any() or volume < 1e-6 * lengths.prod():
            raise ValueError(
                "the affine is singular (two voxel axes point the same way or one has no length): "
                f"{array[:3, :3].tolist()}"
            )
        self.matrix: FloatArray = _frozen(array)

    @classmethod
    def from_parts(
        cls, spacing: ArrayLike, direction: ArrayLike | None = None, origin: ArrayLike = (0, 0, 0)
    ) -> Affine:
        """From spacing (3,) mm, direction (3, 3) with unit columns, centre of voxel 0 (3,) mm."""
        matrix = np.eye(4)
        columns = np.eye(3) if direction is None else np.asarray(direction, dtype=np.float64)
        matrix[:3, :3] = columns * np.asarray(spacing, dtype=np.float64)
        matrix[:3, 3] = origin
        return cls(matrix)

    @cached_property
    def spacing(self) -> FloatArray:
        """Length of each voxel edge, (3,), mm."""
        return _frozen(np.linalg.norm(self.matrix[:3, :3], axis=0))

    @cached_property
    def direction(self) -> FloatArray:
        """Unit vectors of the voxel axes in patient space, as columns, (3, 3)."""
        return _frozen(self.matrix[:3, :3] / self.spacing)

    @property
    def origin(self) -> FloatArray:
        """Centre of voxel 0, (3,), mm."""
        return self.matrix[:3, 3]

    @cached_property
    def inverse(self) -> FloatArray:
        """Patient space to voxel index, (4, 4)."""
        return _frozen(np.linalg.inv(self.matrix))

    @property
    def is_sheared(self) -> bool:
        """Whether the voxel axes are not at right angles (beyond rounding noise)."""
        gram = self.direction.T @ self.direction
        return bool(np.abs(gram - np.eye(3)).max() > 1e-4)

    @property
    def orientation(self) -> str:
        """Nearest anatomical direction of each voxel axis, e.g. ``"LPS"``; ties go to the first."""
        return "".join("RAS"[a] if s > 0 else "LPI"[a] for a, s in self._closest_axes())

    def _closest_axes(self) -> list[tuple[int, int]]:
        cosines = self.direction.copy()
        found: dict[int, tuple[int, int]] = {}
        for _ in range(3):
            patient, voxel = np.unravel_index(np.abs(cosines).argmax(), (3, 3))
            found[int(voxel)] = (int(patient), 1 if self.direction[patient, voxel] > 0 else -1)
            cosines[patient, :] = cosines[:, voxel] = 0
        return [found[axis] for axis in range(3)]

    def apply(self, index: ArrayLike) -> FloatArray:
        """Voxel indices (..., 3) to patient space (..., 3), mm."""
        return np.asarray(index) @ self.matrix[:3, :3].T + self.matrix[:3, 3]

    def to_index(self, points: ArrayLike) -> FloatArray:
        """Patient-space points (..., 3), mm, to continuous voxel indices (..., 3)."""
        return np.asarray(points) @ self.inverse[:3, :3].T + self.inverse[:3, 3]

    def transformed(self, transform: ArrayLike) -> Affine:
        """The lattice moved by a 4x4 patient-space transform, applied from the left."""
        return Affine(np.asarray(transform, dtype=np.float64) @ self.matrix)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Affine) and np.array_equal(self.matrix, other.matrix)

    def __hash__(self) -> int:
        return hash((self.matrix + 0.0).tobytes())  # + 0.0: as -0.0 == 0.0, both hash alike

    def __repr__(self) -> str:
        spacing = " x ".join(f"{s:.4g}" for s in self.spacing)
        return f"Affine({self.orientation}, {spacing} mm, origin {np.round(self.origin, 3)})"


@dataclass(frozen=True)
class Grid:
    """A finite lattice in patient space: shape (voxels along i, j, k) and affine."""

    shape: tuple[int, int, int]
    affine: Affine

    def __post_init__(self) -> None:
        if np.shape(self.shape) != (3,) or any(int(n) != n or n < 1 for n in self.shape):
            raise ValueError(f"a grid has three sizes of at least 1, not {self.shape}")
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))

    @classmethod
    def from_corner(
        cls,
        shape: tuple[int, int, int],
        spacing: ArrayLike,
        direction: ArrayLike,
        corner: ArrayLike,
    ) -> Grid:
        """From sizes, spacing (3,) mm, direction (3, 3) and the outer corner of voxel 0 (3,) mm."""
        step = np.asarray(direction, dtype=np.float64) * np.asarray(spacing, dtype=np.float64)
        origin = np.asarray(corner, dtype=np.float64) + step @ np.full(3, 0.5)
        return cls(shape, Affine.from_parts(spacing, direction, origin))

    @property
    def spacing(self) -> FloatArray:
        """(3,), mm."""
        return self.affine.spacing

    @property
    def extent(self) -> FloatArray:
        """Length of each side, outer face to outer face, (3,), mm."""
        return self.spacing * self.shape

    @property
    def corner(self) -> FloatArray:
        """Outer corner of voxel 0 (index -0.5, -0.5, -0.5), (3,), mm."""
        return self.affine.apply((-0.5, -0.5, -0.5))

    @property
    def centre(self) -> FloatArray:
        """Middle of the whole lattice, (3,), mm."""
        return self.affine.apply((np.array(self.shape) - 1) / 2)

    @property
    def voxels(self) -> int:
        """Number of voxels."""
        return int(np.prod(self.shape, dtype=np.int64))

    def corners(self) -> FloatArray:
        """The eight outer corners, (8, 3), mm."""
        ends = [(-0.5, n - 0.5) for n in self.shape]
        return self.affine.apply(np.stack(np.meshgrid(*ends, indexing="ij"), -1).reshape(-1, 3))

    def with_spacing(self, spacing: ArrayLike) -> Grid:
        """The same corner and directions at another spacing (3,) mm, covering the whole extent.

        Where the extent is no multiple of the spacing, the last voxel reaches beyond it.

        Raises ValueError for a spacing that is not three positive finite numbers.
        """
        target = np.broadcast_to(np.asarray(spacing, dtype=np.float64), (3,))
        if not np.isfinite(target).all() or (target <= 0).any():
            raise ValueError(f"a spacing is positive, in mm, not {target.tolist()}")
        sizes = np.maximum(np.ceil(self.extent / target - 1e-3), 1).astype(int)
        return Grid.from_corner(tuple(sizes.tolist()), target, self.affine.direction, self.corner)

    def crop(self, start: ArrayLike, stop: ArrayLike) -> Grid:
        """The sub-lattice of indices start (3,) <= index < stop (3,); may reach beyond the grid."""
        first, last = np.asarray(start, dtype=int), np.asarray(stop, dtype=int)
        if (last <= first).any():
            raise ValueError(f"an empty region: from {first.tolist()} to {last.tolist()}")
        matrix = self.affine.matrix.copy()
        matrix[:3, 3] = self.affine.apply(first)
        return Grid(tuple((last - first).tolist()), Affine(matrix))

    def pad(self, voxels: int) -> Grid:
        """The lattice grown by some voxels on every side."""
        return self.crop((-voxels,) * 3, np.array(self.shape) + voxels)

    def permuted(self, order: tuple[int, int, int]) -> Grid:
        """The same points with the voxel axes in another order, as ``array.transpose(order)``."""
        matrix = self.affine.matrix.copy()
        matrix[:3, :3] = matrix[:3, list(order)]
        i, j, k = (self.shape[axis] for axis in order)
        return Grid((i, j, k), Affine(matrix))

    def index_map_to(self, other: Grid) -> FloatArray:
        """The 4x4 matrix that takes this grid's voxel indices to the other grid's."""
        return other.affine.inverse @ self.affine.matrix

    def axes_in(self, other: Grid) -> tuple[int, int, int] | None:
        """Where each of this grid's axes runs along one axis of the other: those axes; else None.

        Parallel lattices (permuted and flipped ones too) can be treated one axis at a time.
        """
        cosines = self.affine.inverse[:3, :3] @ other.affine.matrix[:3, :3]
        cosines = np.abs(cosines * self.spacing[:, None] / other.spacing[None, :])
        axes = cosines.argmax(axis=1)
        rest = cosines.copy()
        rest[np.arange(3), axes] = 0
        if sorted(axes.tolist()) != [0, 1, 2] or rest.max() > PARALLEL_TOLERANCE:
            return None
        return int(axes[0]), int(axes[1]), int(axes[2])

    def overlap(self, other: Grid) -> float:
        """Fraction (0 ... 1) of this grid's volume that lies inside the other grid."""
        steps = [(np.arange(24) + 0.5) / 24 * n - 0.5 for n in self.shape]
        index = np.stack(np.meshgrid(*steps, indexing="ij"), -1)
        there = other.affine.to_index(self.affine.apply(index))
        inside = (there >= -0.5) & (there <= np.array(other.shape) - 0.5)
        return float(inside.all(axis=-1).mean())

    def same_as(self, other: Grid, tolerance: float = 1e-3) -> bool:
        """Whether both lattices have the same shape and their corners agree within tolerance mm."""
        if self.shape != other.shape:
            return False
        return bool(np.abs(self.corners() - other.corners()).max() <= tolerance)
