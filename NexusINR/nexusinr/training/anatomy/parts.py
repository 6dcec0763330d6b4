"""The parts of the head that the phantom tells apart, and how a list of bodies is painted."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from nexusinr.training.anatomy.shapes import Array, Body, pick

Labels = NDArray[np.uint8]


class Part(IntEnum):
    """Values of the fine label map."""

    AIR = 0
    SKIN = 1
    FAT = 2
    MUSCLE = 3
    BONE = 4
    MARROW = 5
    DURA = 6
    MUCOSA = 7
    VITREOUS = 8
    LENS = 9
    OPTIC_NERVE = 10
    VESSEL = 11
    FLUID = 12
    VENTRICLE = 13
    CORTEX = 14
    HIPPOCAMPUS = 15
    WHITE_MATTER = 16
    CALLOSUM = 17
    CAUDATE = 18
    PUTAMEN = 19
    PALLIDUM = 20
    THALAMUS = 21
    CLAUSTRUM = 22
    BRAIN_STEM = 23
    NIGRA = 24
    CEREBELLAR_CORTEX = 25
    CEREBELLAR_WHITE = 26
    DENTATE = 27
    LESION = 28
    OEDEMA = 29
    TUMOUR = 30
    NECROSIS = 31


@dataclass(frozen=True)
class Paint:
    """A body that carries a part, on both sides unless it is `single`.

    `over` names the parts it may replace (any, where None); `only` leaves it out at points
    (3, N) where it answers False.
    """

    part: Part
    body: Body
    single: bool = False
    over: frozenset[Part] | None = None
    only: Callable[[Array], NDArray[np.bool_]] | None = None


def paint(layers: Iterable[Paint], points: Array, labels: Labels) -> None:
    """Lay bodies over the labels (N,) of points (3, N), one after the other, in place."""
    if not points.shape[1]:
        return
    mirrored = points.copy()
    np.abs(points[0], out=mirrored[0])
    low, high = points.min(1), points.max(1)
    bounds = {True: (low, high), False: (low.copy(), high.copy())}
    bounds[False][0][0], bounds[False][1][0] = mirrored[0].min(), mirrored[0].max()
    for layer in layers:
        lower, upper = layer.body.box
        here = points if layer.single else mirrored
        low, high = bounds[layer.single]
        if (low > upper).any() or (high < lower).any():
            continue
        inside = np.flatnonzero(_within(here, lower, upper))
        if layer.over is not None:
            inside = inside[np.isin(labels[inside], [int(part) for part in layer.over])]
        inside = inside[layer.body.depth(pick(here, inside)) > 0]
        if layer.only is not None:
            inside = inside[layer.only(pick(here, inside))]
        labels[inside] = layer.part


def _within(points: Array, lower: Array, upper: Array) -> NDArray[np.bool_]:
    inside = np.ones(points.shape[1], bool)
    for axis in range(3):
        inside &= (points[axis] >= lower[axis]) & (points[axis] <= upper[axis])
    return inside
