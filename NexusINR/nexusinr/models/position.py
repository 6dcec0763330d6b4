"""Positional encoding of a target lattice's points in one scan (paper eq. 17)."""

from __future__ import annotations

import math
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional

from nexusinr.models.sampling import LatticeMap


def fourier_features(position: Tensor, frequencies: int) -> Tensor:
    """Fourier encoding of positions (..., D) to (..., D * (1 + 2 * frequencies)).

    The position itself, then sin and cos of 2 pi 2^l x for l = 0 ... frequencies - 1 (Tancik et
    al. 2020). Positions are in scan voxels relative to the nearest voxel centre, -0.5 ... 0.5.
    """
    scale = [2 * math.pi * 2**octave for octave in range(frequencies)]
    angle = (position[..., None] * position.new_tensor(scale)).flatten(-2)
    return torch.cat((position, angle.sin(), angle.cos()), dim=-1)


def position_size(frequencies: int) -> int:
    """Length of one scan's positional encoding: offset, target cell, slice thickness."""
    return 3 * (1 + 2 * frequencies) + 6


class Position:
    """e_m of eq. 17: where the points of a target lattice lie between the voxels of one scan.

    An encoding of all points has shape (B, I, J, K, E). Where scan and target are parallel each of
    its entries depends on one axis alone, so that three lines of points tell of all of them:
    e(i, j, k) = e(i, 0, 0) + e(0, j, 0) + e(0, 0, k) - 2 e(0, 0, 0).

    Args:
        lattice_map: from the scan to the target lattice *grown by one voxel on every side*.
        conditions: of the scan, (B, 6); device and precision are theirs.
        frequencies: of the Fourier encoding.
    """

    def __init__(self, lattice_map: LatticeMap, conditions: Tensor, frequencies: int) -> None:
        self._map, self._conditions, self._frequencies = lattice_map, conditions, frequencies
        self._inner = [range(1, n - 1) for n in lattice_map.target_shape]

    def full(self) -> Tensor:
        """The encoding of every point, (B, I, J, K, E)."""
        return self._encode(self._inner)

    def mapped(self, weight: Tensor) -> list[Tensor]:
        """A linear map of the encoding, in parts that add up to it.

        Args:
            weight: (W, E).

        Returns:
            (B, I, J, K, W), or (B, I, J, 1, W) and (B, 1, 1, K, W).
        """
        if not self._map.is_separable:
            return [functional.linear(self.full(), weight)]
        i, j, k = (functional.linear(line, weight) for line in self._lines)
        return [i + (j - 2 * i[:, :1]), k]

    @cached_property
    def _lines(self) -> list[Tensor]:
        """The encoding along each axis, from the corner of the lattice."""
        return [
            self._encode([inner if n == axis else inner[:1] for n, inner in enumerate(self._inner)])
            for axis in range(3)
        ]

    def _encode(self, points: list[range]) -> Tensor:
        index = self._map.coordinates(self._conditions, points)
        last = torch.tensor(self._map.scan_shape, device=index.device) - 1
        index = torch.minimum(index.clamp(min=0), last.to(index.dtype))
        offset = (index - index.round()).to(self._conditions.dtype)
        encoded = fourier_features(offset, self._frequencies)
        cell = target_cell(self._map, self._conditions)
        known = torch.cat((cell, self._conditions[:, 3:]), dim=-1)
        known = known[:, None, None, None].expand(*encoded.shape[:-1], -1)
        return torch.cat((encoded, known), dim=-1)


def target_cell(lattice_map: LatticeMap, like: Tensor) -> Tensor:
    """Log size of a target voxel along each scan axis, in scan voxels, (B, 3)."""
    sizes = [torch.as_tensor(m[:3, :3]).square().sum(dim=1).sqrt() for m in lattice_map.index_maps]
    return torch.stack(sizes).log().to(like)
