"""Gyri and sulci: folds grown on the outer surface of a cerebral hemisphere.

A pattern of stripes of even width (an activator-inhibitor system, Turing, Phil Trans B 1952) is
grown on the smooth hull of a hemisphere around a few sulci with a fixed course. Where the stripes
change sign a deep sulcus enters, half-way between two of them a shallow one. Inwards, every sulcus
follows the nearest point of the hull; its walls are thus sheets at right angles to the hull, made
uneven by a small random displacement. All of it is kept as smooth fields on a lattice of 3 mm,
from which the distance to the nearest sulcus follows at any point.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse
from scipy.spatial import cKDTree

from nexusinr.training.anatomy.shapes import Array, Waves, floats, from_segment, pick

Hull = Callable[[Array], Array]

STEP = 3.0  #: spacing of the lattice of the fields, mm
WAVELENGTH = 31.0  #: from one deep sulcus to the next but one, along the hull, mm
_LOWER, _UPPER = floats([1.5, -108, -54]), floats([76.5, 81, 87])
_CORE = 32.0  #: no sulcus but the lateral one comes near this depth, mm
_OUTSIDE = -5.0  #: how far beyond the hull the fields reach, mm


@dataclass(frozen=True)
class Sulcus:
    """A sulcus with a fixed course: knots (x, y, z) on the right hull and depth, mm."""

    knots: tuple[tuple[float, float, float], ...]
    depth: float


@dataclass(frozen=True)
class _Cloud:
    """The hull of a hemisphere as points (N, 3) with inward unit normals and neighbours."""

    points: NDArray[np.float64]
    inward: NDArray[np.float64]
    neighbours: NDArray[np.intp]
    weights: NDArray[np.float64]
    average: sparse.csr_array
    reach: float

    def smooth(self, values: NDArray[np.float64], times: int) -> NDArray[np.float64]:
        """Values averaged with their neighbours, a number of times."""
        for _ in range(times):
            values = self.average @ values
        return values

    def noise(self, rng: np.random.Generator, distance: float) -> NDArray[np.float64]:
        """Random values of unit deviation, smooth over a distance in mm."""
        values = self.smooth(rng.standard_normal(len(self.points)), self.steps(distance))
        return np.asarray(values / values.std())

    def steps(self, distance: float) -> int:
        """How many averages blur by a Gaussian of this standard deviation, mm."""
        return max(1, round((distance / self.reach) ** 2))


class Cortex:
    """The folds of both hemispheres.

    `hull` gives the depth below the smooth surface of the right hemisphere, medial wall included,
    and `room` how deep sulci may be at points of it, mm; the left hemisphere is the mirror image.
    The folds differ, around `sulci` of a fixed course.
    """

    def __init__(self, hull: Hull, room: Hull, sulci: Sequence[Sulcus], seed: int) -> None:
        left, right = (
            _grow(hull, room, sulci, np.random.default_rng([seed, side])) for side in (1, 2)
        )
        self._fields = np.concatenate([left[:, ::-1], right], axis=1)
        self._origin = floats([-(_LOWER[0] + (right.shape[1] - 1) * STEP), *_LOWER[1:]])

    def locate(self, points: Array) -> tuple[Array, Array]:
        """Depth below the hull and distance to the nearest sulcus, (N,), mm, of points (3, N).

        Inside a sulcus, which is filled by fluid, the distance is negative.
        """
        index = (points - self._origin[:, None]) / np.float32(STEP)
        depth = ndimage.map_coordinates(self._fields[0], index, order=1, mode="nearest")
        sulcal = np.full_like(depth, 99)
        near = np.flatnonzero((depth > -1) & (depth < _CORE))
        sulcal[near] = self._to_sulcus(pick(index, near), depth[near])
        return depth, sulcal

    def _to_sulcus(self, index: Array, depth: Array) -> Array:
        """Distance (N,) to the nearest sulcus, mm, at places (3, N) of the lattice."""
        sine, *cosine, deep, shallow = (
            ndimage.map_coordinates(field, index, order=1, mode="nearest")
            for field in self._fields[1:]
        )
        across = np.abs(sine)
        along = np.sqrt(sum(c * c for c in cosine))
        scale = np.hypot(across, along)
        from_deep = scale * np.arctan2(across, along)
        from_shallow = scale * np.float32(np.pi / 2) - from_deep
        funnel = np.exp(np.maximum(depth, 0) / np.float32(-2.5))
        ample = np.clip((deep - 6) / 8, 0.4, 1.8)
        return np.minimum(
            np.hypot(from_deep, np.maximum(depth - deep, 0)) - ample * (0.5 + 1.2 * funnel),
            np.hypot(from_shallow, np.maximum(depth - shallow, 0)) - (0.4 + 1.0 * funnel),
        )


def _grow(hull: Hull, room: Hull, sulci: Sequence[Sulcus], rng: np.random.Generator) -> Array:
    """Fields (7, I, J, K) of one hemisphere on the lattice.

    Depth below the hull; sine and cosine (a tangential vector) of the phase of the stripes, both
    multiplied by the local length of a radian in mm; depth of deep and of shallow sulci in mm.
    """
    axes = [np.arange(low, high, STEP) for low, high in zip(_LOWER, _UPPER, strict=True)]
    lattice = np.stack(np.meshgrid(*axes, indexing="ij")).astype(np.float32)
    shape, points = lattice.shape[1:], lattice.reshape(3, -1)
    cloud = _scatter(hull)
    sine, cosine, pinned, course = _stripes(cloud, sulci, rng)
    deep = 16.5 + 4.5 * cloud.noise(rng, 8)
    deep = (1 - pinned) * deep + pinned * (course + 1.5 * cloud.noise(rng, 11))
    limit = room(cloud.points.T.astype(np.float32))
    deep = np.minimum(deep, limit)
    shallow = 7.0 + 3.5 * cloud.noise(rng, 9)
    shallow = np.minimum(shallow, 0.6 * limit)

    depth = hull(points)
    inside = depth > _OUTSIDE
    values = np.column_stack([sine, cosine, deep, shallow])
    below, values = _inwards(
        cloud, values, _unsettled(pick(points, np.flatnonzero(inside)), depth[inside], rng)
    )
    fields = np.zeros((7, points.shape[1]), np.float32)
    fields[0] = _OUTSIDE
    fields[0, inside] = below
    fields[1:, inside] = values.T
    return _in_millimetres(fields.reshape(7, *shape))


def _scatter(hull: Hull) -> _Cloud:
    """Points about 2 mm apart on the hull."""
    lower, upper = _LOWER - floats([2 * STEP, 0, 0]), _UPPER
    axes = [np.arange(low, high, STEP) for low, high in zip(lower, upper, strict=True)]
    lattice = np.stack(np.meshgrid(*axes, indexing="ij")).astype(np.float32)
    depth = hull(lattice.reshape(3, -1)).reshape(lattice.shape[1:])
    slope = np.stack(np.gradient(depth, STEP))
    points = lattice[:, np.abs(depth) < 0.8 * STEP]

    def at(field: Array) -> Array:
        index = (points - lower[:, None]) / np.float32(STEP)
        return ndimage.map_coordinates(field, index, order=1, mode="nearest")

    for _ in range(3):
        gradient = np.stack([at(s) for s in slope])
        points = points - gradient * at(depth) / np.maximum((gradient**2).sum(0), 0.2)
    points = points[:, np.abs(at(depth)) < 0.5]
    _, first = np.unique(np.round(points / 2.6).astype(int), axis=1, return_index=True)
    points = points[:, first]
    inward = np.stack([at(s) for s in slope])
    inward /= np.linalg.norm(inward, axis=0)
    return _connect(points.T.astype(np.float64), inward.T.astype(np.float64))


def _connect(points: NDArray[np.float64], inward: NDArray[np.float64]) -> _Cloud:
    """The cloud with its neighbourhoods; faces that look at each other are no neighbours."""
    distance, neighbours = cKDTree(points).query(points, k=13)
    facing = np.einsum("nki,ni->nk", inward[neighbours], inward)
    weights = np.exp(-(distance**2) / (2 * 3.0**2)) * np.clip(facing + 0.3, 0, 1)
    share = weights / weights.sum(1, keepdims=True)
    start = np.arange(len(points) + 1) * neighbours.shape[1]
    average = sparse.csr_array((share.ravel(), neighbours.ravel(), start))
    reach = float(np.sqrt((share * distance**2).sum(1) / 2).mean())
    return _Cloud(points, inward, neighbours, weights, average, reach)


def _stripes(
    cloud: _Cloud, sulci: Sequence[Sulcus], rng: np.random.Generator
) -> tuple[NDArray[np.float64], ...]:
    """Stripes on the hull, and how far each point is held by a sulcus of fixed course.

    Sine (N,) and cosine (N, 3) of the phase of the stripes, weight (N,) and depth (N,), mm, of the
    fixed sulci.
    """
    number = 2 * np.pi / WAVELENGTH
    pinned, wanted, course = _fixed(cloud, sulci, rng)
    # Gaussians of these widths differ most at the wanted wave number.
    narrow, wide = cloud.steps(np.sqrt(0.8) / number), cloud.steps(np.sqrt(4.2) / number)
    pattern = rng.standard_normal(len(cloud.points))
    for _ in range(25):
        activator = cloud.smooth(pattern, narrow)
        excess = activator - cloud.smooth(activator, wide - narrow)
        grown = np.tanh(1.5 * excess / excess.std())
        pattern = (1 - pinned) * grown + pinned * wanted
    pattern = cloud.smooth(pattern, narrow)
    slope = _tangential_gradient(cloud, pattern) / number
    size = np.maximum(np.sqrt(pattern**2 + (slope**2).sum(1)), 0.05)
    return pattern / size, slope / size[:, None], pinned, course


def _fixed(
    cloud: _Cloud, sulci: Sequence[Sulcus], rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Weight, wanted pattern and depth, each (N,), near the sulci of fixed course."""
    number = 2 * np.pi / WAVELENGTH
    weight, wanted, depth = np.zeros((3, len(cloud.points)))
    for sulcus in sulci:
        knots = np.array(sulcus.knots)
        sway = rng.normal(0, 2.5, knots.shape)
        sway[knots[:, 0] < 2, 0] = 0  # what lies on the medial wall stays there
        signed = _signed_distance(cloud, knots + sway)
        near = np.exp(-((signed / 8) ** 2))
        nearest = near > weight
        wanted[nearest] = np.sin(np.clip(number * signed, -np.pi / 2, np.pi / 2))[nearest]
        depth[nearest] = sulcus.depth
        weight = np.maximum(weight, near)
    return weight, wanted, depth


def _signed_distance(cloud: _Cloud, knots: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distance (N,), mm, to a chain of knots (n, 3), positive on its one side."""
    result = np.full(len(cloud.points), np.inf)
    for first, last in pairwise(knots):
        away, _ = from_segment(cloud.points.T.astype(np.float32), first, last)
        side = np.einsum("ni,in->n", np.cross(last - first, cloud.inward), away)
        signed = np.copysign(np.linalg.norm(away, axis=0), -side)
        result = np.where(np.abs(signed) < np.abs(result), signed, result)
    return result


def _tangential_gradient(cloud: _Cloud, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Gradient (N, 3) within the surface, per mm, by weighted least squares."""
    offset = cloud.points[cloud.neighbours] - cloud.points[:, None]
    normal = cloud.inward
    moment = np.einsum("nk,nki,nkj->nij", cloud.weights, offset, offset)
    moment += 20 * np.einsum("ni,nj->nij", normal, normal) + 0.01 * np.eye(3)
    rise = values[cloud.neighbours] - values[:, None]
    right = np.einsum("nk,nki,nk->ni", cloud.weights, offset, rise)
    gradient = np.linalg.solve(moment, right[..., None])[..., 0]
    return np.asarray(gradient - normal * (gradient * normal).sum(1, keepdims=True))


def _unsettled(points: Array, depth: Array, rng: np.random.Generator) -> Array:
    """Points displaced at random by about 1.6 mm, less near the hull and the midline."""
    shift = np.stack([Waves(rng, (18, 34), 1.1)(points) for _ in range(3)])
    return points + shift * np.clip(np.minimum(depth, points[0]) / 6, 0, 1)


def _inwards(
    cloud: _Cloud, values: NDArray[np.float64], points: Array
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Depth (N,), mm, and values (N, C) of the nearest place of the hull, for points (3, N)."""
    distance, nearest = cKDTree(cloud.points).query(points.T, k=7)
    weight = np.exp(-(distance**2 - distance[:, :1] ** 2) / (2 * 2.0**2))
    weight /= weight.sum(1, keepdims=True)
    offset = points.T[:, None] - cloud.points[nearest]
    depth = np.einsum("nk,nki,nki->n", weight, offset, cloud.inward[nearest])
    return depth, np.einsum("nk,nkc->nc", weight, values[nearest])


def _in_millimetres(fields: Array) -> Array:
    """The phase turned into lengths: folds crowd where the hull bends, below its surface."""
    phase = fields[1:5] / np.maximum(np.sqrt((fields[1:5] ** 2).sum(0)), 1e-3)
    number = sum(slope**2 for part in phase for slope in np.gradient(part, STEP))
    number = np.sqrt(ndimage.gaussian_filter(number, 1.0))
    limits = np.array([0.8, 1.9]) * 2 * np.pi / WAVELENGTH
    fields[1:5] = phase / np.clip(number, *limits)
    return fields
