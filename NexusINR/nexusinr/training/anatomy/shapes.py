"""Simple bodies and smooth random fields from which the phantom's anatomy is composed.

Points are float32 arrays (3, N), patient space, mm. A body answers with its depth at points: the
distance to its surface in mm, positive inside (exact for tubes, first order for ellipsoids).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation

Array = NDArray[np.float32]


def floats(values: ArrayLike) -> Array:
    """Numbers as a float32 array."""
    return np.asarray(values, dtype=np.float32)


class Body(Protocol):
    """Something with a surface."""

    @property
    def box(self) -> Array:
        """Lower and upper bound, (2, 3), mm."""

    def depth(self, points: Array) -> Array:
        """Distance below the surface, (N,), mm, of points (3, N); negative outside."""


@dataclass(frozen=True)
class Ellipsoid:
    """Centre and half axes in mm, turned by degrees about x, y and z (in this order)."""

    centre: tuple[float, float, float]
    radii: tuple[float, float, float]
    turn: tuple[float, float, float] = (0, 0, 0)

    def swollen(self, factor: float) -> Ellipsoid:
        """The same body with all half axes multiplied."""
        x, y, z = self.radii
        return replace(self, radii=(x * factor, y * factor, z * factor))

    @cached_property
    def _axes(self) -> Array:
        return Rotation.from_euler("xyz", self.turn, degrees=True).as_matrix().astype(np.float32)

    @cached_property
    def box(self) -> Array:
        """Lower and upper bound, (2, 3), mm."""
        reach = np.sqrt(((self._axes * floats(self.radii)) ** 2).sum(1))
        return floats(self.centre) + np.stack([-reach, reach])

    def depth(self, points: Array) -> Array:
        """Distance below the surface, (N,), mm, of points (3, N); negative outside."""
        radii = floats(self.radii)[:, None]
        local = self._axes.T @ (points - floats(self.centre)[:, None]) / radii
        level = np.sqrt(np.einsum("ij,ij->j", local, local))
        steepness = np.sqrt(np.einsum("ij,ij->j", local / radii, local / radii))
        return level * (1 - level) / np.maximum(steepness, 1e-6)


@dataclass(frozen=True)
class Tube:
    """A chain of knots (x, y, z, radius), mm; the radius changes linearly between knots."""

    knots: tuple[tuple[float, float, float, float], ...]

    def swollen(self, factor: float) -> Tube:
        """The same course with all radii multiplied."""
        return Tube(tuple((x, y, z, radius * factor) for x, y, z, radius in self.knots))

    @cached_property
    def box(self) -> Array:
        """Lower and upper bound, (2, 3), mm."""
        knots = floats(self.knots)
        return np.stack(
            [(knots[:, :3] - knots[:, 3:]).min(0), (knots[:, :3] + knots[:, 3:]).max(0)]
        )

    def depth(self, points: Array) -> Array:
        """Distance below the surface, (N,), mm, of points (3, N); negative outside."""
        deepest = np.full(points.shape[1], -np.inf, np.float32)
        for first, last in pairwise(self.knots):
            away, along = from_segment(points, first[:3], last[:3])
            radius = np.float32(first[3]) + along * np.float32(last[3] - first[3])
            distance = np.sqrt(np.einsum("ij,ij->j", away, away))
            np.maximum(deepest, radius - distance, out=deepest)
        return deepest


@dataclass(frozen=True, eq=False)
class Blob:
    """A lump around a centre: its radius in mm, roughened by a smooth random field."""

    centre: tuple[float, float, float]
    radius: float
    roughness: Waves

    @cached_property
    def box(self) -> Array:
        """Lower and upper bound, (2, 3), mm."""
        reach = np.float32(self.radius * (1 + self.roughness.peak))
        return floats(self.centre) + floats([[-1], [1]]) * reach

    def depth(self, points: Array) -> Array:
        """Distance below the surface along the radius, (N,), mm; negative outside."""
        offset = points - floats(self.centre)[:, None]
        distance = np.sqrt(np.einsum("ij,ij->j", offset, offset))
        directions = offset / np.maximum(distance, 1e-3)
        return np.float32(self.radius) * (1 + self.roughness(directions)) - distance


class Waves:
    """A smooth random field: a sum of `count` sinusoids of random direction and phase.

    Wavelengths lie in `wavelength` (shortest, longest), in the unit of the points; the standard
    deviation over space is `amplitude`.
    """

    def __init__(
        self,
        rng: np.random.Generator,
        wavelength: tuple[float, float],
        amplitude: float = 1.0,
        count: int = 5,
    ) -> None:
        direction = rng.standard_normal((count, 3))
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        number = 2 * np.pi / rng.uniform(*wavelength, (count, 1))
        self.wavevectors = (direction * number).astype(np.float32)
        self.phases = rng.uniform(0, 2 * np.pi, count).astype(np.float32)
        self.height = np.float32(amplitude * np.sqrt(2 / count))

    @property
    def peak(self) -> float:
        """The largest value the field can take."""
        return float(self.height * len(self.phases))

    def __call__(self, points: Array) -> Array:
        """Values (N,) at points (3, N)."""
        total = np.zeros(points.shape[1], np.float32)
        for wavevector, phase in zip(self.wavevectors, self.phases, strict=True):
            total += np.sin(wavevector @ points + phase)
        return total * self.height


def pick(points: Array, index: NDArray[np.intp]) -> Array:
    """Some of the points (3, N): unlike points[:, index], with each coordinate in one piece."""
    return np.take(points, index, axis=1)


def from_segment(points: Array, first: ArrayLike, last: ArrayLike) -> tuple[Array, Array]:
    """Offset (3, N), mm, of points (3, N) from the nearest place of a segment, and that place.

    The place is given as a fraction (N,) of the way from first (3,) to last (3,).
    """
    start = floats(first)
    span = floats(last) - start
    offset = points - start[:, None]
    along = np.clip(span @ offset / np.float32(max(float(span @ span), 1e-6)), 0, 1)
    return floats(offset - span[:, None] * along), floats(along)


def smooth_max(first: Array, second: Array, blend: float) -> Array:
    """The larger of two depths with the crease rounded over `blend` mm: a union with a fillet."""
    share = np.clip(0.5 + (first - second) / (2 * blend), 0, 1)
    return second + (first - second) * share + blend * share * (1 - share)


def smooth_min(first: Array, second: Array, blend: float) -> Array:
    """The smaller of two depths with the crease rounded over `blend` mm."""
    return -smooth_max(-first, -second, blend)


def union(bodies: Sequence[Body], points: Array, blend: float) -> Array:
    """Depth (N,) in several bodies joined with fillets of `blend` mm."""
    depth = bodies[0].depth(points)
    for body in bodies[1:]:
        depth = smooth_max(depth, body.depth(points), blend)
    return depth


def outline_distance(y: Array, z: Array, outline: ArrayLike) -> Array:
    """Distance in mm of (y, z) to a closed polygon (n, 2); negative inside."""
    corners = np.asarray(outline, np.float32)
    distance = np.full(y.shape, np.inf, np.float32)
    inside = np.zeros(y.shape, bool)
    for (y0, z0), (y1, z1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        span = floats([y1 - y0, z1 - z0])
        along = np.clip(((y - y0) * span[0] + (z - z0) * span[1]) / (span @ span), 0, 1)
        beside, above = y - y0 - along * span[0], z - z0 - along * span[1]
        distance = np.minimum(distance, np.hypot(beside, above))
        if z0 != z1:
            inside ^= ((z0 > z) != (z1 > z)) & (y < span[0] * (z - z0) / span[1] + y0)
    return np.where(inside, -distance, distance)
