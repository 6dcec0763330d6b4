"""The brain: folded cerebrum, ventricles, deep nuclei, brain-stem and cerebellum.

Coordinates are RAS in mm with the origin near the anterior commissure, sizes those of an average
adult. Bodies are given for the right half and mirrored.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nexusinr.training.anatomy.folding import Cortex, Sulcus
from nexusinr.training.anatomy.parts import Labels, Paint, Part, paint
from nexusinr.training.anatomy.shapes import (
    Array,
    Ellipsoid,
    Tube,
    Waves,
    floats,
    outline_distance,
    pick,
    smooth_max,
    smooth_min,
    union,
)

_TEMPORAL = Ellipsoid((43, -14, -22), (21, 47, 24), (4, 0, 0))
_CEREBELLUM = (
    Ellipsoid((24, -63, -38), (28, 29, 21.5), (-12, 18, 20)),
    Ellipsoid((0, -60, -29), (14, 25, 24)),
)
#: What keeps the lower surface of the cerebrum free: orbits, cisterns, brain-stem.
_BELOW_CEREBRUM = (
    Ellipsoid((31, 52, -37), (26, 36, 21)),
    Ellipsoid((0, -24, -24), (20, 24, 17)),
    Ellipsoid((0, 8, -26), (16, 16, 14)),
)

#: Where the hemispheres join, in the mid-sagittal plane (y, z): corpus callosum and all below it.
_JOINED = (
    *((4, -11), (14, -9), (24, -4), (31, 3), (32, 11), (27, 19), (16, 25), (0, 28)),
    *((-20, 27), (-35, 20), (-42, 12), (-42, 5), (-36, 2), (-27, -4), (-14, -14)),
)

SULCI = (
    # central, superior temporal, superior frontal, intraparietal
    Sulcus(((6, -32, 72), (24, -26, 66), (42, -15, 48), (54, -6, 28), (60, -2, 14)), 18),
    Sulcus(((44, 22, -28), (60, 2, -16), (64, -22, -6), (60, -46, 10), (50, -62, 26)), 17),
    Sulcus(((18, 52, 30), (24, 36, 48), (26, 14, 62), (26, -4, 67)), 14),
    Sulcus(((44, -42, 48), (36, -60, 48), (26, -80, 36)), 17),
    # cingulate, parieto-occipital, calcarine, collateral
    Sulcus(
        (
            *((1, 20, -15), (1, 40, -7), (1, 46, 9), (1, 41, 25), (1, 26, 36), (1, 4, 41)),
            *((1, -20, 41), (1, -34, 45), (1, -42, 62)),
        ),
        10,
    ),
    Sulcus(((1, -54, 6), (1, -64, 18), (1, -76, 34), (10, -82, 42)), 15),
    Sulcus(((1, -54, 6), (1, -70, 2), (1, -84, 3), (1, -97, 3)), 14),
    Sulcus(((24, -76, -16), (28, -50, -20), (30, -20, -38), (32, 4, -42)), 9),
)

#: Boundaries of the grey matter move with the depth below the hull: crowns are thicker (Fischl and
#: Dale, PNAS 2000).
_CROWN, _FUNDUS = 2.85, 2.2

_LATERAL_VENTRICLE = (
    Ellipsoid((9, 17, 12), (3.4, 17, 8.5), (10, 38, 4)),
    Ellipsoid((9.5, -6, 16), (3.6, 22, 7), (-4, 42, 5)),
    Tube(((9, -18, 18, 3), (13, -28, 17, 4), (20, -36, 13, 5), (23, -48, 8, 4))),
    Tube(((23, -48, 8, 4), (23, -58, 4, 2), (21, -67, 2, 1))),
    Tube(((20, -36, 13, 5), (26, -38, 3, 3.8), (32, -30, -6, 2.6), (31, -9, -17, 2))),
)


def _deep_layers(swelling: float) -> tuple[Paint, ...]:
    """Bodies inside the cerebrum and the brain-stem, from the outermost to the last laid over."""
    ventricles = tuple(Paint(Part.VENTRICLE, b.swollen(swelling)) for b in _LATERAL_VENTRICLE)
    return (
        Paint(Part.WHITE_MATTER, Ellipsoid((7, -12, -7), (11, 13, 9))),
        Paint(Part.HIPPOCAMPUS, Ellipsoid((22, -3, -20), (7, 7, 7))),
        Paint(
            Part.HIPPOCAMPUS,
            Tube(((23, -9, -20, 5), (27, -20, -16, 4.3), (28, -32, -8, 3.8), (22, -39, 3, 2.5))),
        ),
        *ventricles,
        Paint(
            Part.WHITE_MATTER,  # fornix
            Tube(((2, 3, -4, 1.5), (1.6, 4, 9, 1.6), (1.8, -8, 14.5, 1.8), (8, -30, 13, 1.8))),
        ),
        Paint(Part.CAUDATE, Ellipsoid((13.5, 14, 4), (5.5, 11, 9), (0, 12, 0))),
        Paint(
            Part.CAUDATE,
            Tube(((15, 8, 12, 4.2), (17.5, -6, 18.5, 2.8), (21, -20, 20, 2), (27, -32, 14, 1.4))),
        ),
        Paint(Part.CLAUSTRUM, Ellipsoid((27.5, 1, 2), (9, 19, 15.5), (0, -8, -14)), only=_lateral),
        Paint(
            Part.WHITE_MATTER, Ellipsoid((26.9, 1, 2), (8.5, 20, 16), (0, -8, -14)), only=_lateral
        ),
        Paint(Part.PUTAMEN, Ellipsoid((26, 1, 1), (6.5, 16.5, 11), (0, -8, -14))),
        Paint(Part.WHITE_MATTER, Ellipsoid((19.6, -3, -0.5), (6.0, 11.5, 8.7), (0, -15, -22))),
        Paint(Part.PALLIDUM, Ellipsoid((19.4, -3, -0.5), (4.6, 10, 7.4), (0, -15, -22))),
        Paint(Part.THALAMUS, Ellipsoid((10.5, -18, 7), (8, 15.5, 9.5), (10, 0, -22))),
        Paint(Part.VENTRICLE, Ellipsoid((0, -7, -2), (1.7 * swelling, 14, 9), (25, 0, 0))),
        Paint(Part.THALAMUS, Ellipsoid((0, -10, 3), (4, 3, 3))),
    )


_BRAIN_STEM = (
    Tube(((8, -14, -6, 8), (5, -20, -14, 9), (0, -24, -22, 12))),
    Ellipsoid((0, -21, -31), (17, 12, 13)),
    Tube(((0, -25, -24, 11.5), (0, -31, -44, 9), (0, -39, -58, 7.5), (0, -44, -70, 6))),
    Tube(((0, -44, -70, 6), (0, -48, -150, 5))),
)
_STEM_LAYERS = (
    Paint(Part.BRAIN_STEM, Tube(((11, -28, -33, 8), (20, -42, -36, 6.5), (24, -52, -37, 5)))),
    Paint(Part.DENTATE, Ellipsoid((14, -56, -36), (6, 8, 4), (0, -20, 25))),
    Paint(Part.CEREBELLAR_WHITE, Ellipsoid((14, -55, -36), (4.8, 7, 2.8), (0, -20, 25))),
    Paint(Part.NIGRA, Ellipsoid((9, -16, -12), (5.5, 2.2, 4), (0, 0, 35))),
    Paint(Part.NIGRA, Ellipsoid((4.5, -20, -9), (2.8, 2.8, 3.5))),
    Paint(Part.VENTRICLE, Tube(((0, -22, -3, 1.3), (0, -31, -12, 1.0), (0, -36, -22, 1.5)))),
    Paint(Part.VENTRICLE, Tube(((0, -36, -22, 1.5), (0, -40, -34, 5), (0, -42, -50, 2)))),
    Paint(Part.VENTRICLE, Tube(((2, -45, -34, 4), (9, -42, -38, 2), (15, -38, -42, 1.5)))),
)


def cerebrum(points: Array) -> Array:
    """Depth (N,), mm, below the smooth hull that both hemispheres share."""
    side = points.copy()
    np.abs(points[0], out=side[0])
    depth = smooth_max(_dome(side), _TEMPORAL.depth(side), 6)
    below = union(_BELOW_CEREBRUM, side, 4)
    return smooth_min(depth, -smooth_max(below, cerebellum(points) + 2.5, 3), 4)


def cerebellum(points: Array) -> Array:
    """Depth (N,), mm, below the smooth hull of the cerebellum."""
    side = points.copy()
    np.abs(points[0], out=side[0])
    return union(_CEREBELLUM, side, 4)


def brain_stem(points: Array) -> Array:
    """Depth (N,), mm, in brain-stem and spinal cord."""
    side = points.copy()
    np.abs(points[0], out=side[0])
    return union(_BRAIN_STEM, side, 4)


def _dome(side: Array) -> Array:
    """A boxy egg, broadest behind the middle, flatter below than above."""
    x, y, z = side
    tapered = x / (1 - 0.0013 * (y + 17))
    level = np.where(z < 14, (z - 14) * (59 / 39), z - 14)
    scaled = np.abs(np.stack([tapered / 66, (y + 17) / 82, level / 59]))
    size = np.maximum((scaled**2.35).sum(0) ** (1 / 2.35), 1e-3)
    steepness = ((scaled / size) ** 1.35) / floats([[66], [82], [59]])
    return (1 - size) / np.sqrt((steepness**2).sum(0))


def hemisphere(points: Array) -> Array:
    """Depth (N,), mm, below the hull of the right hemisphere, its medial wall at 1 mm included."""
    joined = outline_distance(points[1], points[2], _JOINED)
    fissure = np.where(joined < 0, np.hypot(points[0], joined), points[0]) - 1
    return np.minimum(cerebrum(points), fissure)


def _lateral(points: Array) -> NDArray[np.bool_]:
    return points[0] > 27 - 0.25 * points[1] + 0.12 * np.abs(points[2])


def room(points: Array) -> Array:
    """How deep sulci may be, (N,), mm, at points (3, N) of the right hull.

    Ventricles lie behind the medial wall, deep nuclei above the base.
    """
    x, y, z = points
    base = (z < 0) & (y > -42) & (y < 24)
    return np.where(base, np.clip(x - 13, 5, 22), np.clip(x + 9, 12, 22))


class Brain:
    """The brain of one person, drawn from a seed."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng([seed, 0])
        self._cortex = Cortex(hemisphere, room, SULCI, seed)
        self._deep = _deep_layers(float(rng.uniform(0.85, 1.3)))
        self._unrest = Waves(rng, (14, 30), 1.2)
        self._folia = Waves(rng, (14, 40), 0.05)

    def paint(self, points: Array, labels: Labels) -> None:
        """Lay the brain over the labels (N,) of points (3, N), in place."""
        if not points.shape[1]:
            return
        self._paint_cerebrum(points, labels)
        self._paint_cerebellum(points, labels)
        near = np.flatnonzero((np.abs(points[0]) < 26) & (points[1] < 0) & (points[2] < 2))
        stem = near[brain_stem(pick(points, near)) > 0]
        labels[stem] = Part.BRAIN_STEM
        paint(self._deep, points, labels)
        paint(_STEM_LAYERS, points, labels)

    def _paint_cerebrum(self, points: Array, labels: Labels) -> None:
        depth, sulcal = self._cortex.locate(points)
        inside = np.flatnonzero(depth > 0)
        points, depth = pick(points, inside), depth[inside]
        sulcal = np.minimum(sulcal[inside], self._lateral_sulcus(points, depth))
        pial = smooth_min(depth, sulcal, 3.5)
        grey = _FUNDUS + (_CROWN - _FUNDUS) * np.exp(depth / np.float32(-8))
        part = np.where(pial > grey, Part.WHITE_MATTER, Part.CORTEX)
        part[pial < 0] = Part.FLUID
        labels[inside] = part
        self._paint_midline(points, labels, inside)

    def _paint_midline(self, points: Array, labels: Labels, inside: NDArray[np.intp]) -> None:
        """The falx in its fissure, and what crosses from one hemisphere to the other."""
        near = np.flatnonzero(np.abs(points[0]) < 11)
        x, y, z = pick(points, near)
        x = np.abs(x)
        joined = -outline_distance(y, z, _JOINED)
        thickness = 5 + 4 * np.exp(-(((y - 28) / 8) ** 2)) + 5 * np.exp(-(((y + 38) / 8) ** 2))
        above = z > 2 - 0.1 * y + 0.02 * np.abs(y)
        part = labels[inside[near]]
        part[(joined < 0) & (x < 1)] = Part.FLUID
        part[(joined < -10) & (x < 0.45)] = Part.DURA
        part[(joined > 3) & (x < 11 + np.minimum(z - 4, 0))] = Part.WHITE_MATTER
        band = (joined > -0.3) & (joined < thickness) & above
        part[band & (x < np.minimum(2.5 + 2 * joined, 10))] = Part.CALLOSUM
        labels[inside[near]] = part

    def _lateral_sulcus(self, points: Array, depth: Array) -> Array:
        """Distance, mm, to the cleft above the temporal lobe and to the insula at its bottom."""
        result = np.full(points.shape[1], 99, np.float32)
        near = np.flatnonzero((np.abs(points[0]) > 28) & (np.abs(points[1] + 8) < 45))
        x, y, z = pick(points, near)
        x = np.abs(x)
        unrest = self._unrest(pick(points, near))
        level = 1 - 0.36 * (y + 6) + 1.4 * unrest
        insula = 39 - 0.004 * (y + 4) ** 2 + 0.9 * unrest
        beyond = np.maximum(np.abs(y + 10) - 34, 0)
        cleft = np.sqrt((0.94 * (z - level)) ** 2 + np.maximum(insula - x, 0) ** 2 + beyond**2)
        beyond = np.maximum(np.abs(y + 3) - 23, 0)
        above = np.maximum(np.abs(z - level - 1) - np.clip(13 - 0.012 * (y - 2) ** 2, 0, 13), 0)
        wall = np.sqrt((x - insula) ** 2 + above**2 + beyond**2)
        opening = 0.6 + 0.9 * np.exp(np.maximum(depth[near], 0) / np.float32(-4))
        result[near] = np.minimum(cleft - opening, wall - 0.7)
        return result

    def _paint_cerebellum(self, points: Array, labels: Labels) -> None:
        """Folia: fissures fan out around the fourth ventricle, finer ones between deeper ones."""
        near = np.flatnonzero((points[1] < -28) & (points[2] < 0) & (points[2] > -66))
        depth = cerebellum(pick(points, near))
        near, depth = near[depth > 0], depth[depth > 0]
        x, y, z = pick(points, near)
        outwards, z = np.hypot(y + 43, 0.65 * x), z + 34
        distance = np.hypot(outwards, z)
        angle = np.arctan2(z, outwards) + self._folia(pick(points, near))
        closed = np.maximum(14 - distance, 0) * 0.2
        pial = depth
        for spacing, reach, width in ((0.44, 19, 0.42), (0.22, 11, 0.32), (0.11, 6, 0.25)):
            away = distance * np.abs(angle - spacing * np.round(angle / spacing))
            fissure = np.hypot(away, np.maximum(depth - reach, 0)) - width + closed
            pial = np.minimum(pial, fissure)
        part = np.where(pial > 1.6, Part.CEREBELLAR_WHITE, Part.CEREBELLAR_CORTEX)
        part[pial < 0] = Part.FLUID
        labels[near] = part
