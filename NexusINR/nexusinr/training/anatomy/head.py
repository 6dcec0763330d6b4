"""What surrounds the brain: fluid, skull, scalp, face and neck."""

from __future__ import annotations

from typing import cast

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from nexusinr.training.anatomy.brain import brain_stem, cerebellum, cerebrum
from nexusinr.training.anatomy.parts import Labels, Paint, Part, paint
from nexusinr.training.anatomy.shapes import (
    Array,
    Body,
    Ellipsoid,
    Tube,
    Waves,
    floats,
    pick,
    smooth_max,
    union,
)

_STEP = 4.0
_LOWER, _UPPER = floats([-98, -132, -156]), floats([100, 114, 106])

#: From the inner face of the skull to the skin, mm.
_CRANIUM = 12.5

_SPINAL_CANAL = Tube(
    ((0, -20, -16, 20), (0, -28, -38, 18), (0, -42, -62, 12), (0, -45, -80, 9), (0, -48, -160, 8.5))
)
_FACE: tuple[Body, ...] = (
    Ellipsoid((0, 36, -42), (58, 47, 58)),
    Tube(((0, 74, -14, 7), (0, 85, -34, 9), (0, 92, -46, 9.5), (0, 80, -54, 9))),
    Ellipsoid((0, 30, -88), (48, 50, 26)),
    Tube(((0, -38, -40, 54), (0, -34, -200, 52))),
    Ellipsoid((40, 22, -12), (33, 44, 40)),
    Ellipsoid((48, 46, -46), (18, 22, 18)),
    Ellipsoid((0, -66, -38), (64, 46, 48)),
)
_MANDIBLE = Tube(
    ((51, 0, -52, 5), (49, 8, -84, 7), (36, 40, -98, 7), (12, 66, -101, 7), (0, 69, -101, 7))
)
_EAR = Ellipsoid((79, -20, -24), (4.5, 16, 28), (0, 12, -25))


def _layers(seed: int) -> tuple[Paint, ...]:
    """Bodies of face and neck, from the outermost to the last laid over."""
    rng = np.random.default_rng([seed, 4])
    cells, conchae = Waves(rng, (4, 9)), Waves(rng, (9, 22))

    def cellular(points: Array) -> NDArray[np.bool_]:
        return cells(points) > -0.3

    def channelled(points: Array) -> NDArray[np.bool_]:
        return np.abs(conchae(points)) < 0.45

    pharynx = Tube(((0, 10, -60, 6), (0, -2, -88, 7), (0, -6, -200, 7)))
    return (
        # bone
        Paint(Part.BONE, Ellipsoid((0, 8, -42), (24, 18, 14))),
        Paint(Part.MARROW, Tube(((0, -2, -40, 5), (0, -16, -62, 3)))),
        Paint(Part.BONE, Tube(((56, -26, -40, 10), (24, -6, -42, 6)))),
        Paint(Part.BONE, Ellipsoid((58, -34, -52), (11, 14, 17))),
        Paint(Part.AIR, Ellipsoid((58, -34, -52), (8, 11, 14)), only=cellular),
        Paint(Part.BONE, Tube(((70, -8, -44, 3.5), (64, 24, -44, 4), (50, 48, -44, 7)))),
        Paint(Part.BONE, Ellipsoid((0, 50, -72), (31, 26, 9))),
        Paint(Part.MARROW, Ellipsoid((0, 50, -72), (28, 23, 6))),
        Paint(Part.BONE, Tube(((27, 34, -80, 4.5), (20, 58, -81, 4.5), (0, 70, -81, 4.5)))),
        Paint(Part.BONE, _MANDIBLE),
        Paint(Part.MARROW, _MANDIBLE.swollen(0.6)),
        *_vertebrae(),
        # cavities
        Paint(Part.BONE, Ellipsoid((31, 46, -60), (17, 19, 18))),
        Paint(Part.AIR, Ellipsoid((31, 46, -60), (15, 17, 16))),
        Paint(Part.BONE, Ellipsoid((0, 38, -34), (15, 26, 13))),
        Paint(Part.AIR, Ellipsoid((0, 38, -34), (13.5, 24, 11.5)), only=cellular),
        Paint(Part.AIR, Ellipsoid((0, 10, -42), (14, 11, 8))),
        Paint(Part.AIR, Ellipsoid((9, 73, 2), (10, 3.2, 9), (-18, 0, 0))),
        Paint(Part.MUCOSA, Ellipsoid((0, 54, -52), (15, 36, 17))),
        Paint(Part.AIR, Ellipsoid((0, 54, -52), (13.5, 34, 16)), only=channelled),
        Paint(Part.MUCOSA, pharynx.swollen(1.35)),
        Paint(Part.AIR, pharynx),
        Paint(Part.MUSCLE, Ellipsoid((0, 34, -92), (24, 32, 15))),
        # orbit
        Paint(Part.BONE, Ellipsoid((30, 46, -34), (19, 31, 18.5), (0, 0, -18))),
        Paint(Part.FAT, Ellipsoid((30, 46, -34), (17.5, 29.5, 17), (0, 0, -18))),
        Paint(Part.MUSCLE, Tube(((22, 58, -34, 1.8), (15, 40, -33, 2.2), (14, 22, -31, 1.2)))),
        Paint(Part.MUSCLE, Tube(((42, 58, -34, 1.8), (34, 38, -33, 2.2), (19, 20, -31, 1.2)))),
        Paint(Part.MUSCLE, Tube(((31, 60, -23, 1.6), (26, 42, -23, 2.0), (17, 20, -29, 1.2)))),
        Paint(Part.MUSCLE, Tube(((31, 60, -45, 1.6), (26, 42, -44, 2.0), (17, 20, -33, 1.2)))),
        Paint(Part.OPTIC_NERVE, Tube(((30, 52, -34, 2.0), (24, 38, -33, 2.0), (12, 16, -28, 2.0)))),
        Paint(Part.DURA, Ellipsoid((31, 62, -34), (12.4, 12.4, 12.4))),
        Paint(Part.VITREOUS, Ellipsoid((31, 62, -34), (11.4, 11.4, 11.4))),
        Paint(Part.LENS, Ellipsoid((31, 70.5, -34), (4.6, 2.2, 4.6))),
        # arteries on their way in
        Paint(Part.VESSEL, Tube(((24, -2, -130, 2.8), (24, -4, -60, 2.5), (14, 6, -38, 2.3)))),
    )


def _vertebrae() -> tuple[Paint, ...]:
    dens = Tube(((0, -26, -66, 5), (0, -27, -80, 6), (0, -27, -96, 9)))
    bodies = [Ellipsoid((0, -28, z), (11, 9.5, 8.5)) for z in (-114, -133, -152)]
    spines = [Tube(((0, -60, z, 4), (0, -74, z - 6, 3.5))) for z in (-80, -99, -118, -137)]
    arches = [Tube(((0, -60, z, 4), (14, -48, z, 4), (15, -36, z, 5))) for z in (-78, -98, -117)]
    return (
        *(Paint(Part.BONE, body) for body in (*spines, *arches)),
        Paint(Part.BONE, dens),
        Paint(Part.MARROW, dens.swollen(0.7)),
        *(Paint(Part.BONE, body) for body in bodies),
        *(Paint(Part.MARROW, body.swollen(0.85)) for body in bodies),
    )


#: Vessels within the skull, laid over fluid alone.
_FLUID = frozenset({Part.FLUID, Part.DURA})
_VESSELS = tuple(
    Paint(Part.VESSEL, Tube(knots), over=_FLUID)
    for knots in (
        # basilar, internal carotid, middle, anterior and posterior cerebral artery
        ((0, -6, -40, 1.8), (0, -7, -19, 1.6)),
        ((14, 6, -38, 2.3), (11, 2, -26, 2.2), (8, 2, -14, 2.0)),
        ((8, 2, -14, 1.6), (22, 4, -15, 1.5), (35, 4, -11, 1.4), (40, -4, -2, 1.2)),
        ((8, 2, -14, 1.4), (2, 20, -9, 1.2), (1, 36, 2, 1.2), (1, 33, 20, 1.1), (1, 6, 31, 1)),
        ((0, -7, -19, 1.4), (14, -18, -15, 1.3), (20, -34, -8, 1.1)),
        # transverse and sigmoid sinus
        ((0, -104, -6, 3), (28, -96, -14, 3.2), (52, -72, -22, 3.2), (56, -44, -34, 3)),
    )
)


def intracranial(points: Array) -> Array:
    """Depth (N,), mm, below the inner face of skull and spinal canal."""
    brain = smooth_max(cerebrum(points) + 0.9, cerebellum(points) + 2, 14)
    return smooth_max(brain, smooth_max(brain_stem(points) + 3, _SPINAL_CANAL.depth(points), 3), 6)


class Head:
    """The head of one person, drawn from a seed."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng([seed, 3])
        axes = [np.arange(low, high, _STEP) for low, high in zip(_LOWER, _UPPER, strict=True)]
        points = np.stack(np.meshgrid(*axes, indexing="ij")).astype(np.float32)
        shape, points = points.shape[1:], points.reshape(3, -1)
        inner = _true_to_scale(intracranial(points).reshape(shape))
        side = points.copy()
        np.abs(points[0], out=side[0])
        cranium = inner.ravel() + np.float32(_CRANIUM + rng.uniform(-1, 1.5))
        # The cranium ends below; what hangs from it are face and neck.
        cranium = np.minimum(cranium, (points[2] + 75) * np.float32(0.7))
        outer = smooth_max(cranium, union(_FACE, side, 12), 12).reshape(shape)
        self._fields = np.stack([inner, outer]).astype(np.float32)
        self._layers = _layers(seed)
        self._fat = 3.0 + float(rng.uniform(0, 2))
        self._skull, self._septa = Waves(rng, (30, 80), 0.8), Waves(rng, (16, 40))

    def locate(self, points: Array) -> tuple[Array, Array]:
        """Depth below the inner face of the skull and below the skin, (N,), mm."""
        index = (points - _LOWER[:, None]) / np.float32(_STEP)
        inner, outer = (
            ndimage.map_coordinates(field, index, order=1, mode="nearest") for field in self._fields
        )
        near = np.flatnonzero((np.abs(np.abs(points[0]) - 79) < 16) & (points[2] < 10))
        side = pick(points, near)
        np.abs(side[0], out=side[0])
        outer[near] = np.maximum(outer[near], np.minimum(_EAR.depth(side), 1.5))
        return inner, outer

    def paint(self, points: Array, inner: Array, outer: Array, labels: Labels) -> None:
        """Lay all that surrounds the skull's inside over the labels (N,), in place.

        points: (3, N); inner, outer: what `locate` says of them, inner not positive.
        """
        part = np.where(np.abs(self._septa(points)) < 0.12, Part.FAT, Part.MUSCLE)
        part[outer < self._fat + 2 + np.clip((points[1] - 10) / 12, 0, 4)] = Part.FAT
        part[outer < 2] = Part.SKIN
        wall = np.clip(6.3 + self._skull(points), 4, 9) - np.clip((-20 - points[2]) / 10, 0, 2.5)
        reach = -inner / wall
        skull = (reach < 1) & (outer > 2.5)
        part[skull] = Part.BONE
        part[skull & (np.abs(reach - 0.55) < 0.2) & (points[2] > -25)] = Part.MARROW
        labels[:] = part
        buried = np.flatnonzero((outer > 2) & (points[2] < 15))
        below = labels[buried]
        paint(self._layers, pick(points, buried), below)
        labels[buried] = below


def paint_vessels(points: Array, inner: Array, labels: Labels) -> None:
    """Lay arteries and sinuses over the fluid within the skull, in place.

    points: (3, N); inner: their depth below the inner face of the skull, mm.
    """
    paint(_VESSELS, points, labels)
    near = np.flatnonzero((np.abs(points[0]) < 5) & (points[2] > -5) & (points[1] < 55))
    sagittal = (inner[near] < 6) & (np.abs(points[0, near]) < 0.8 * (6 - inner[near]))
    sagittal &= np.isin(labels[near], [int(part) for part in _FLUID])
    labels[near[sagittal]] = Part.VESSEL


def _true_to_scale(depth: Array) -> Array:
    """A depth field divided by its steepness, smoothed: near the surface it is in mm."""
    steepness = np.sqrt(sum(slope**2 for slope in np.gradient(depth, _STEP)))
    return cast(Array, depth / np.clip(ndimage.gaussian_filter(steepness, 1.0), 0.5, 1.5))
