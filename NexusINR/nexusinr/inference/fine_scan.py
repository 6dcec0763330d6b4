"""A restored scan on the lattice of its last stage, and how it comes onto any other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from nexusinr.geometry import Grid
from nexusinr.models.iconet import Axes
from nexusinr.resample import interpolate
from nexusinr.volume import Volume

#: Voxels around a target that cubic interpolation is given: what lies beyond them weighs less than
#: 1e-4.
SPLINE_MARGIN = 8

#: A target whose voxels are all this close to those of the scan, in voxels, is part of its lattice.
EXACT = 1e-3

Image = NDArray[np.float32]


@dataclass(frozen=True)
class FineScan:
    """A restored scan on the lattice of its last stage, normalised.

    Attributes:
        image: (i, j, k).
        grid: its lattice.
        plan: the stages that led there.
        start: first voxel of the scan that it covers, (3,).
        stop: the last, exclusive.
    """

    image: Image
    grid: Grid
    plan: list[Axes]
    start: NDArray[np.int64]
    stop: NDArray[np.int64]

    @cached_property
    def spline(self) -> Image:
        """Coefficients of the cubic B-spline through the image, whose edges are repeated.

        They are on its lattice grown by SPLINE_MARGIN, and serve every target.
        """
        around = np.pad(self.image, SPLINE_MARGIN, mode="edge")
        found: Image = ndimage.spline_filter(around, order=3, output=np.float32, mode="nearest")
        return found

    def sampler(self, target: Grid) -> Callable[[Grid], Image]:
        """What gives the image on parts of a target lattice, (I, J, K), to many threads at once.

        Cubic, or exact where the lattices agree.
        """
        index_map = target.index_map_to(self.grid)[:3]
        off = np.abs(index_map - np.rint(index_map)) @ (*target.shape, 1)
        if off.max() < EXACT:
            volume = Volume(self.image, self.grid.affine)
            return lambda part: interpolate(volume, part, "nearest")
        spline = self.spline

        def cubic(part: Grid) -> Image:
            to_scan = part.index_map_to(self.grid)
            values: Image = ndimage.affine_transform(
                spline,
                to_scan[:3, :3],
                to_scan[:3, 3] + SPLINE_MARGIN,
                output_shape=part.shape,
                order=3,
                mode="nearest",
                prefilter=False,
            )
            return values

        return cubic
