"""A scan as a network sees it."""

from __future__ import annotations

import copy
import hashlib
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from nexusinr.geometry import Affine, Grid
from nexusinr.intensity import head_of, normalise
from nexusinr.volume import Volume

#: Voxels of air kept around the head.
RIM = 4


class PreparedScan:
    """A scan as the network sees it: normalised, cropped to the head, slice axis last.

    Attributes:
        whole: the normalised scan before cropping, as a Volume.
        head: the foreground on the whole scan, as a Volume of 0 and 1.
        image: what the network is given, (i, j, k) float32, about 0 ... 1.
        mask: the foreground on the same lattice, (i, j, k) bool.
        grid: its lattice.
        thickness: along its axes, mm.
        normalisation: how to get back to the scan's units.
    """

    def __init__(self, volume: Volume) -> None:
        mask = head_of(volume)
        data, self.normalisation = normalise(volume.data, mask)
        self.whole = volume.replace(data=data)
        self.head = volume.replace(data=mask.astype(np.float32))
        where = [np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {a}))) for a in range(3)]
        start = np.maximum([w[0] - RIM for w in where], 0)
        stop = np.minimum([w[-1] + RIM + 1 for w in where], mask.shape)
        axis = 2 if volume.slice_axis is None else volume.slice_axis
        first, second = (a for a in range(3) if a != axis)
        order = (first, second, axis)
        part = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
        self.image: NDArray[np.float32] = np.ascontiguousarray(data[part].transpose(order))
        self.mask: NDArray[np.bool_] = np.ascontiguousarray(mask[part].transpose(order))
        self.grid = volume.grid.crop(start, stop).permuted(order)
        self.thickness = np.array(volume.thickness)[list(order)]

    @cached_property
    def digest(self) -> bytes:
        """Of what the network is given."""
        return digest(self.image)

    def mirrored(self, axes: tuple[int, ...]) -> PreparedScan:
        """The same scan, in the same place, with its voxels in reverse order along some axes."""
        other = copy.copy(self)
        vars(other).pop("digest", None)
        other.image = np.ascontiguousarray(np.flip(self.image, axes))
        other.mask = np.ascontiguousarray(np.flip(self.mask, axes))
        matrix = self.grid.affine.matrix.copy()
        for axis in axes:
            matrix[:3, 3] += matrix[:3, axis] * (self.grid.shape[axis] - 1)
            matrix[:3, axis] *= -1
        other.grid = Grid(self.grid.shape, Affine(matrix))
        return other


def digest(image: NDArray[np.float32]) -> bytes:
    """By which intensities are known again."""
    return hashlib.blake2b(np.ascontiguousarray(image).data).digest()
