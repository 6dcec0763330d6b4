"""The scans that are timed: a fine pair acquired in thick slices, in several sizes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nexusinr.acquisition import block_average
from nexusinr.geometry import Grid
from nexusinr.volume import Volume

#: How many fine voxels make a slice: T1w along the third axis, T2w along the second.
T1W_SLICE, T2W_SLICE = 2, 4

#: Sizes of a head as shares of the whole: fewer slices about the middle, or two heads in a row.
SIZES = {"quarter": 0.25, "half": 0.5, "whole": 1.0, "double": 2.0}


@dataclass(frozen=True)
class Head:
    """A pair of scans and the fine lattice that they were made from.

    Attributes:
        name: one of SIZES.
        scans: T1w and T2w.
        grid: the lattice on which they are restored, unless another one is asked for.
    """

    name: str
    scans: tuple[Volume, Volume]
    grid: Grid


def acquire(fine: tuple[Volume, Volume], size: str) -> Head:
    """Thick slices of a fine T1w and T2w image, cut or repeated to one of SIZES."""
    t1w, t2w = (_resized(volume, SIZES[size]) for volume in fine)
    return Head(
        size, (block_average(t1w, 2, T1W_SLICE), block_average(t2w, 1, T2W_SLICE)), t1w.grid
    )


def _resized(volume: Volume, share: float) -> Volume:
    """The middle slices along the third axis, or all of them more than once."""
    if share >= 1:
        return volume.replace(data=np.tile(volume.data, (1, 1, round(share))))
    slices = volume.data.shape[2]
    count = max(round(slices * share / T1W_SLICE), 1) * T1W_SLICE
    first = (slices - count) // 2
    shape = volume.data.shape
    grid = volume.grid.crop((0, 0, first), (shape[0], shape[1], first + count))
    return volume.replace(data=volume.data[:, :, first : first + count], affine=grid.affine)
