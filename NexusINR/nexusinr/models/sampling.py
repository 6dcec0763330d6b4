"""Reading a scan's feature map at the points of another lattice (paper eqs. 4-8, 13-14).

No common lattice is ever built: features stay on the scan's own lattice and are interpolated
trilinearly, through both affines, where they are asked for. Between parallel lattices the
interpolation is three small matrix products, one an axis, but for axes along which the target has
the scan's own voxels; between oblique ones it is a weighted sum
of eight rows of features a point (``embedding_bag``). Both are exact, and several times as fast as
``grid_sample``, forwards and backwards.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from nexusinr.geometry import Grid
from nexusinr.resample import linear_matrix

#: A target this close to a scan's voxel, in voxels, lies on it.
EXACT = 1e-4


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
        self._shifts = [self._shift(axis) for axis in range(3)] if self.is_separable else []

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
        if self.is_separable:
            return self._sample_axes(features)
        return self._sample_points(features)

    def _shift(self, axis: int) -> int | None:
        """The first of the scan's own voxels that targets along an axis are; None: between them."""
        index = np.stack([self.axis_index(b, axis) for b in range(len(self.scans))])
        first, count = round(float(index[0, 0])), index.shape[1]
        if first < 0 or first + count > self.scan_shape[axis]:
            return None
        off = np.abs(index - np.arange(first, first + count)).max()
        return first if off < EXACT else None

    def _matrices(self, like: Tensor) -> list[Tensor]:
        key = (like.device, like.dtype)
        if key not in self._cache:
            self._cache[key] = [
                torch.from_numpy(
                    np.stack(
                        [
                            linear_matrix(self.axis_index(b, axis), self.scan_shape[axis])
                            for b in range(len(self.scans))
                        ]
                    )
                ).to(like)
                for axis in range(3)
            ]
        return self._cache[key]

    def _sample_axes(self, features: Tensor) -> Tensor:
        assert self.axes is not None
        x, todo = features, []
        for axis, first in enumerate(self._shifts):
            if first is None:
                todo.append(axis)
            else:
                x = x.narrow(1 + axis, first, self.target_shape[self.axes[axis]])
        # The axis that grows least goes first: the intermediate arrays stay small.
        growth = [self.target_shape[self.axes[a]] / self.scan_shape[a] for a in range(3)]
        matrices = self._matrices(features)
        for axis in sorted(todo, key=lambda a: growth[a]):
            batch, *sizes, channels = x.shape
            before = int(np.prod(sizes[:axis]))
            flat = x.reshape(batch, before, sizes[axis], -1)
            sizes[axis] = matrices[axis].shape[1]
            x = torch.matmul(matrices[axis][:, None], flat).reshape(batch, *sizes, channels)
        order = [1 + self.axes.index(target_axis) for target_axis in range(3)]
        return x.permute(0, *order, 4)

    def _sample_points(self, features: Tensor) -> Tensor:
        channels = features.shape[-1]
        index, weights = self._corners(features)
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
        x, y, z = torch.stack((1 - beyond, beyond), dim=-1).unbind(dim=2)
        weights = x[..., :, None, None] * y[..., None, :, None] * z[..., None, None, :]
        _, j, k = self.scan_shape
        strides = torch.tensor((j * k, k, 1), device=like.device)
        first = (lower.long() * strides).sum(dim=-1)
        first += like[0, ..., 0].numel() * torch.arange(len(first), device=like.device)[:, None]
        a, b, c = (strides * (last > 0)).tolist()  # no step along an axis of one voxel
        steps = [da + db + dc for da in (0, a) for db in (0, b) for dc in (0, c)]
        index = first[..., None] + torch.tensor(steps, device=like.device)
        return index.flatten(0, 1), weights.to(like.dtype).flatten(2).flatten(0, 1)
