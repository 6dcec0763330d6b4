"""Reading a scan's feature map at the points of another lattice (paper eqs. 4-8, 13-14).

No common lattice is ever built: features stay on the scan's own lattice and are interpolated
trilinearly, through both affines, where they are asked for. Between parallel lattices the
interpolation is three small matrix products, one an axis, but for axes along which the target has
the scan's own voxels. Between oblique ones, and where products would take longer, it is a weighted
sum of the features of up to eight voxels a point (``embedding_bag``). Both are exact, and several
times as fast as ``grid_sample``, forwards and backwards.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from nexusinr.geometry import Grid
from nexusinr.resample import below, linear_matrix

#: A target this close to a scan's voxel, in voxels, lies on it.
EXACT = 1e-4

#: A voxel's part in a weighted sum takes as long as so many multiplications of a matrix product.
VOXEL_COST = 4


class LatticeMap:
    """Where the points of one target lattice lie in one scan's lattice, for a batch.

    Every batch entry has its own pair of grids; all share the shapes and are parallel in the same
    way (or all count as oblique). Points outside the scan read its nearest edge.
    """

    def __init__(self, scans: Sequence[Grid], targets: Sequence[Grid]) -> None:
        self.scans, self.targets = list(scans), list(targets)
        shapes = {(scan.shape, target.shape) for scan, target in zip(scans, targets, strict=True)}
        if len(shapes) != 1:
            raise ValueError(f"a batch shares its shapes, but these differ: {sorted(shapes)}")
        ((self.scan_shape, self.target_shape),) = shapes
        self.index_maps = [t.index_map_to(s) for s, t in zip(scans, targets, strict=True)]
        found = {scan.axes_in(target) for scan, target in zip(scans, targets, strict=True)}
        self.axes = found.pop() if len(found) == 1 else None
        self._cache: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
        if self.axes is not None:
            shifts = [self._shift(axis) for axis in range(3)]
            self._read = [self._span(axis, first) for axis, first in enumerate(shifts)]
            # The axis that grows least goes first: the intermediate arrays stay small.
            growth = [self.target_shape[self.axes[a]] / len(self._read[a]) for a in range(3)]
            between = [axis for axis, first in enumerate(shifts) if first is None]
            self._between = sorted(between, key=lambda axis: growth[axis])

    @property
    def is_separable(self) -> bool:
        """Whether scan and target are parallel, so that each axis is interpolated by itself."""
        return self.axes is not None

    def axis_index(self, batch: int, axis: int) -> np.ndarray:
        """Scan index along one scan axis of each target position, (targets,); separable only."""
        assert self.axes is not None
        matrix, target_axis = self.index_maps[batch], self.axes[axis]
        steps = np.arange(self.target_shape[target_axis])
        return matrix[axis, target_axis] * steps + matrix[axis, 3]

    def coordinates(self, like: Tensor, points: Sequence[range] | None = None) -> Tensor:
        """Fractional scan indices (B, I, J, K, 3) of target points, last axis i, j, k.

        The points are those with the given indices along each axis, or all.
        Computed in float64 and rounded at the end: at index 500 float32 keeps 3e-5 of a voxel.
        """
        device = torch.device("cpu") if like.device.type == "mps" else like.device
        maps = torch.as_tensor(np.stack(self.index_maps), device=device)
        steps = [
            torch.arange(r.start, r.stop, device=device, dtype=torch.float64)
            for r in points or [range(n) for n in self.target_shape]
        ]
        i, j, k = steps[0][:, None, None], steps[1][None, :, None], steps[2][None, None, :]
        rows = [
            maps[:, row, 0, None, None, None] * i
            + maps[:, row, 1, None, None, None] * j
            + maps[:, row, 2, None, None, None] * k
            + maps[:, row, 3, None, None, None]
            for row in range(3)
        ]
        return torch.stack([row.to(torch.float32) for row in rows], dim=-1).to(like.device)

    def sample(self, features: Tensor) -> Tensor:
        """(B, i, j, k, C) on the scan to (B, I, J, K, C) on the target, channels last."""
        if not self.is_separable:
            return self._sample_points(features, *self._corners(features))
        on_cpu = features.device.type == "cpu"
        if on_cpu and not features.requires_grad and self._multiplications() > self._voxels_cost():
            return self._sample_points(features, *self._corners_of_lines(features))
        return self._sample_axes(features)

    def _shift(self, axis: int) -> int | None:
        """The first of the scan's own voxels that targets along an axis are; None: between them."""
        index = np.stack([self.axis_index(b, axis) for b in range(len(self.scans))])
        first, count = round(float(index[0, 0])), index.shape[1]
        if first < 0 or first + count > self.scan_shape[axis]:
            return None
        off = np.abs(index - np.arange(first, first + count)).max()
        return first if off < EXACT else None

    def _span(self, axis: int, first: int | None) -> range:
        """The scan's voxels along an axis that are read."""
        assert self.axes is not None
        if first is not None:
            return range(first, first + self.target_shape[self.axes[axis]])
        lower = self._line(axis)[0]
        return range(int(lower.min()), min(int(lower.max()) + 2, self.scan_shape[axis]))

    def _line(self, axis: int) -> tuple[np.ndarray, np.ndarray]:
        """The voxel below each target along an axis, and how far beyond it is, (B, targets)."""
        index = np.stack([self.axis_index(b, axis) for b in range(len(self.scans))])
        return below(index, self.scan_shape[axis])

    def _matrices(self, like: Tensor) -> list[Tensor]:
        key = (like.device, like.dtype)
        if key not in self._cache:
            self._cache[key] = [torch.from_numpy(self._matrix(axis)).to(like) for axis in range(3)]
        return self._cache[key]

    def _matrix(self, axis: int) -> np.ndarray:
        """(B, targets, voxels that are read along an axis)."""
        read = self._read[axis]
        indices = (self.axis_index(b, axis) for b in range(len(self.scans)))
        matrices = [linear_matrix(index, self.scan_shape[axis]) for index in indices]
        return np.stack(matrices)[..., read.start : read.stop]

    def _sample_axes(self, features: Tensor) -> Tensor:
        assert self.axes is not None
        x = features
        for axis, part in enumerate(self._read):
            x = x.narrow(1 + axis, part.start, len(part))
        matrices = self._matrices(features)
        for axis in self._between:
            batch, *sizes, channels = x.shape
            before = int(np.prod(sizes[:axis]))
            flat = x.reshape(batch, before, sizes[axis], -1)
            sizes[axis] = matrices[axis].shape[1]
            x = torch.matmul(matrices[axis][:, None], flat).reshape(batch, *sizes, channels)
        order = [1 + self.axes.index(target_axis) for target_axis in range(3)]
        return x.permute(0, *order, 4)

    def _multiplications(self) -> float:
        """That `_sample_axes` needs for each value that it gives."""
        assert self.axes is not None
        sizes, count = [len(part) for part in self._read], 0
        for axis in self._between:
            read, sizes[axis] = sizes[axis], self.target_shape[self.axes[axis]]
            count += read * int(np.prod(sizes))
        return count / int(np.prod(sizes))

    def _voxels_cost(self) -> int:
        """The same for `_sample_points`, in multiplications of the other way."""
        return VOXEL_COST * 2 ** len(self._between)

    def _sample_points(self, features: Tensor, index: Tensor, weights: Tensor) -> Tensor:
        channels = features.shape[-1]
        sums = functional.embedding_bag(
            index, features.reshape(-1, channels), per_sample_weights=weights, mode="sum"
        )
        return sums.reshape(len(self.scans), *self.target_shape, channels)

    def _corners(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """The eight voxels around each target point, as rows of all features, and their weights.

        Both (points of all targets, 8).
        """
        last = torch.tensor(self.scan_shape, device=like.device) - 1
        where = self.coordinates(like).flatten(1, 3)
        where = torch.minimum(where.clamp(min=0), last)
        lower = torch.minimum(where.floor(), (last - 1).clamp(min=0))
        beyond = where - lower
        x, y, z = ((1 - part, part) for part in beyond.unbind(dim=-1))
        weights = torch.stack([a * b * c for a in x for b in y for c in z], dim=-1)
        _, j, k = self.scan_shape
        strides = (j * k, k, 1)
        first = (lower.long() * torch.tensor(strides, device=like.device)).sum(dim=-1)
        first += like[0, ..., 0].numel() * torch.arange(len(first), device=like.device)[:, None]
        # No step along an axis of one voxel.
        a, b, c = (s * (n > 1) for s, n in zip(strides, self.scan_shape, strict=True))
        steps = [da + db + dc for da in (0, a) for db in (0, b) for dc in (0, c)]
        index = first[..., None] + torch.tensor(steps, device=like.device)
        return index.flatten(0, 1), weights.to(like.dtype).flatten(0, 1)

    def _corners_of_lines(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """As `_corners`, where every axis is interpolated by itself: up to eight voxels."""
        assert self.axes is not None
        batch, (_, j, k) = len(self.scans), self.scan_shape
        first = like[0, ..., 0].numel() * torch.arange(batch)
        index = first[:, None, None, None, None]  # batch, voxels that are read, I, J, K
        weights = torch.ones(batch, 1, 1, 1, 1)
        for axis, stride in enumerate((j * k, k, 1)):
            voxels, shares = self._voxels_of_line(axis)
            shape = [*voxels.shape[:2], 1, 1, 1]
            shape[2 + self.axes[axis]] = -1
            index = (index[:, :, None] + stride * voxels.reshape(shape)[:, None]).flatten(1, 2)
            weights = (weights[:, :, None] * shares.reshape(shape)[:, None]).flatten(1, 2)
        index, weights = (x.flatten(2).transpose(1, 2).flatten(0, 1) for x in (index, weights))
        return index, weights.to(like.dtype)

    def _voxels_of_line(self, axis: int) -> tuple[Tensor, Tensor]:
        """What targets along an axis read, and the share of each, (B, 1 or 2, targets)."""
        if axis not in self._between:
            read = torch.tensor(self._read[axis]).expand(len(self.scans), 1, -1)
            return read, torch.ones(read.shape)
        lower, beyond = map(torch.from_numpy, self._line(axis))
        upper = (lower + 1).clamp(max=self.scan_shape[axis] - 1)
        shares = torch.stack((1 - beyond, beyond), dim=1).float()
        return torch.stack((lower, upper), dim=1), shares
