"""ICONet at work: each scan doubled stage by stage, then resampled onto the target lattice.

A stage computes plane by plane, and only what later stages and the target read: the box around the
head, and inside a region where one is asked for. All else is linear interpolation. The resampling
is cubic, since the target may lie anywhere between the voxels of the last stage, where trilinear
interpolation would blur what the stages have won; a target on the very lattice takes its voxels.

A scan that is as fine as the target already goes through no stage: what was measured there stays as
it is. A stage that doubles nothing could take noise away, but keeping what was measured would put
it back.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from nexusinr.geometry import Grid
from nexusinr.inference.engine import Restored, Steps, conditions_of
from nexusinr.inference.fine_scan import SPLINE_MARGIN, FineScan
from nexusinr.inference.gpu import Coming, affordable
from nexusinr.inference.prepared import PreparedScan
from nexusinr.inference.progress import Progress
from nexusinr.inference.threads import each
from nexusinr.inference.tiles import blocks, indices_around, lattice_of, occupied
from nexusinr.models.iconet import (
    Axes,
    ICONet,
    conditions_after,
    interpolate_doubled,
    stage_plan,
)
from nexusinr.models.nexus_inr import RESIDUAL_SCALE
from nexusinr.models.stage_streaming import StreamedStage
from nexusinr.models.streaming import planes_at_once

#: Voxels that enter a stage at once: on a CPU so few that its cache holds most of what they make,
#: on a GPU enough to keep it busy, if its memory holds them.
PIECE_VOXELS, GPU_PIECE_VOXELS = 50_000, 1_000_000

#: Bytes per voxel of the last stage while it is put together: its input, itself and its mask.
STAGE_BYTES = 12

#: Bytes that are kept of it afterwards: itself and its spline.
KEPT_BYTES = 8

#: Edge of the blocks in which the last stage is resampled.
TILE = 64

IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Window:
    """What one stage computes.

    Attributes:
        axes: what it doubles.
        scale: voxels of its input in one voxel of the scan, (3,).
        start: first voxel of its input that is computed, (3,), on the whole scan's lattice.
        stop: the last, exclusive.
        grown: how far around the head its values are read, in voxels of the scan, (3,).
    """

    axes: Axes
    scale: IntArray
    start: IntArray
    stop: IntArray
    grown: IntArray

    @property
    def factor(self) -> IntArray:
        """Voxels of its output in one voxel of its input, (3,)."""
        return factors(self.axes)

    @property
    def voxels(self) -> int:
        """Voxels of its output."""
        return int(((self.stop - self.start) * self.factor).prod())


class Staged:
    """The engine of ICONet (see `engine.Engine`): scans are restored one by one, without tissues.

    What is kept of a scan serves every target in the same part of it that needs the same stages.
    """

    steps = Steps("restoring", 0.64, "resampling", 0.08)

    def __init__(self, network: ICONet) -> None:
        self.network = network

    @property
    def piece_voxels(self) -> int:
        """See the constants."""
        weight = next(self.network.parameters())
        if weight.device.type == "cpu":
            return PIECE_VOXELS
        # Most is kept where all axes are doubled.
        planes = self._planes(GPU_PIECE_VOXELS, 8) // GPU_PIECE_VOXELS + 1
        return affordable(weight, self.network.config.features * planes, GPU_PIECE_VOXELS)

    def serves(self, encoded: FineScan, scan: PreparedScan, target: Grid) -> bool:
        """Whether the stages are the same, and the target reads nothing that was left out."""
        start, stop = indices_around(scan.grid, target, SPLINE_MARGIN)
        inside = (encoded.start <= start).all() and (stop <= encoded.stop).all()
        return bool(inside) and encoded.plan == plan_between(scan.grid, target)

    @torch.inference_mode()
    def encode(
        self,
        modality: int,
        scan: PreparedScan,
        target: Grid,
        progress: Progress,
        piece_voxels: int,
    ) -> FineScan:
        """All stages of one scan; both modalities have the same weights."""
        plan = plan_between(scan.grid, target)
        part = indices_around(scan.grid, target, SPLINE_MARGIN)
        first, last, todo = windows(scan.grid.shape, *part, plan, self.network.radius)
        image = np.ascontiguousarray(scan.image[_slices(first, last)])
        conditions = conditions_of(scan).to(next(self.network.parameters()).device)
        done, total = 0, sum(window.voxels for window in todo)
        for window in todo:
            share = progress.part(done / total, window.voxels / total)
            image = self._stage(image, first, window, conditions, scan.mask, share, piece_voxels)
            first = window.start * window.factor
            conditions = conditions_after(conditions, window.axes)
            done += window.voxels
        fine = scan.grid.with_spacing(scan.grid.spacing / total_factor(plan))
        return FineScan(image, fine.crop(first, first + image.shape), plan, *part)

    def _stage(
        self,
        image: NDArray[np.float32],
        first: IntArray,
        window: Window,
        conditions: torch.Tensor,
        head: NDArray[np.bool_],
        progress: Progress,
        piece_voxels: int,
    ) -> NDArray[np.float32]:
        """One stage of an image whose voxel 0 is voxel `first` of the whole scan's lattice."""
        factor, radius = window.factor, self.network.radius
        start, size = window.start - first, window.stop - window.start
        plain = interpolate_doubled(torch.from_numpy(image)[None, None], window.axes)[0, 0].numpy()
        out = np.ascontiguousarray(plain[_slices(start * factor, (start + size) * factor)])
        wanted = _wanted(head, window)
        for box in occupied(wanted, wanted.shape):
            low, high = (start + [getattr(s, end) for s in box] for end in ("start", "stop"))
            begin, end = np.maximum(low - radius, 0), np.minimum(high + radius, image.shape)
            part = torch.from_numpy(np.ascontiguousarray(image[_slices(begin, end)]))
            fine = restored(self.network, part, conditions, window.axes, progress, piece_voxels)
            values = fine[_slices((low - begin) * factor, (high - begin) * factor)].numpy()
            place = _slices((low - start) * factor, (high - start) * factor)
            np.copyto(out[place], values, where=_doubled(wanted[box], factor))
        return out

    def decode(
        self,
        encoded: dict[int, FineScan],
        start: dict[int, NDArray[np.float32]],
        inside: dict[int, NDArray[np.bool_]],
        target: Grid,
        progress: Progress,
        with_tissues: bool,
        piece_voxels: int,
    ) -> Restored:
        """Resamples the last stage of every scan, on the CPU; there are no tissues."""
        for m, (modality, fine) in enumerate(encoded.items()):
            share = progress.part(m / len(encoded), 1 / len(encoded))
            head, sample = inside[modality], fine.sampler(target)
            todo = [block for block in blocks(target.shape, TILE) if head[block].any()]
            with closing(each(sample, [lattice_of(target, b) for b in todo])) as found:
                for n, (block, values) in enumerate(zip(todo, found, strict=True)):
                    np.copyto(start[modality][block], values, where=head[block])
                    share.tell((n + 1) / len(todo))
        return Restored(start, None)

    def memory(self, scans: Sequence[Grid], target: Grid, piece_voxels: int) -> int:
        """The last stages of all scans, one in the making, and what is streamed through it."""
        fine, streaming = [], [0]
        for scan in scans:
            plan = plan_between(scan, target)
            start, stop = indices_around(scan, target, SPLINE_MARGIN)
            fine.append(int(((stop - start) * total_factor(plan)).prod()))
            if not plan or not piece_voxels:
                continue
            read = np.minimum(stop - start + 2 * self.network.radius, scan.shape)
            _, j, k = (read * total_factor(plan[:-1])).tolist()
            step = planes_at_once(j, k, self.network.config.features, piece_voxels)
            streaming.append(j * k * self._planes(step, int(factors(plan[-1]).prod())))
        features = 4 * self.network.config.features
        return KEPT_BYTES * sum(fine) + STAGE_BYTES * max(fine) + features * max(streaming)

    def _planes(self, step: int, doubled: int) -> int:
        """Planes of features that are kept at once where `step` enter: see `stage_streaming`."""
        c = self.network.config
        block = 2 * (2 + step) + (2 * c.reach + step) // 2 + 3 * (c.reach + step)
        return 2 * c.blocks * block + 10 * step + doubled * (6 * step + 4)


def restored(
    network: ICONet,
    image: Tensor,
    conditions: Tensor,
    axes: Axes,
    progress: Progress,
    piece_voxels: int = PIECE_VOXELS,
) -> Tensor:
    """The fine image of one stage, computed a few planes at a time (see `stage_streaming`).

    Args:
        network: on its device.
        image: (i, j, k), slice axis last.
        conditions: (1, 6), on the network's device.
        axes: which of them the stage doubles.
        progress: told after each pass, and asked for a cancel within it.
        piece_voxels: what one pass may take.

    Returns:
        (i', j', k'), on the CPU.
    """
    weight = next(network.parameters())
    i, j, k = image.shape
    stream = StreamedStage(network, conditions.to(weight), axes, (i, j, k), progress.check)
    planes = image[..., None].to(weight)
    step = planes_at_once(j, k, network.config.features, piece_voxels)
    found: tuple[list[Coming], list[Coming]] = [], []
    for first in range(0, i, step):
        for images, new in zip(
            found, stream(planes[first : first + step], first + step >= i), strict=True
        ):
            images.append(Coming(new[..., 0].float()))
        progress.tell(min(first + step, i) / i)
    for_clean, for_fine = (torch.cat([part.wait() for part in parts]) for parts in found)
    clean = torch.add(image, for_clean, alpha=RESIDUAL_SCALE)[None, None]
    return interpolate_doubled(clean, axes)[0, 0].add_(for_fine, alpha=RESIDUAL_SCALE)


def plan_between(scan: Grid, target: Grid) -> list[Axes]:
    """The stages that a scan needs for a target lattice, which may lie at any angle.

    The target's spacing along an axis of the scan is that of its lattice in this direction: for
    turned lattices that of the finer axes counts most.
    """
    per_mm = np.linalg.norm(target.affine.inverse[:3, :3] @ scan.affine.direction, axis=0)
    return stage_plan(scan.spacing.tolist(), (1 / per_mm).tolist())


def windows(
    shape: tuple[int, int, int], start: IntArray, stop: IntArray, plan: list[Axes], radius: int
) -> tuple[IntArray, IntArray, list[Window]]:
    """What every stage has to compute, so that the last gives a part of the scan.

    Args:
        shape: of the scan, (3,).
        start: first voxel of the scan that is wanted, (3,).
        stop: the last, exclusive.
        plan: the stages.
        radius: halo of a stage, in voxels of its input.

    Returns:
        First and last voxel (exclusive) of the scan that the first stage reads, and the windows.
    """
    found: list[Window] = []
    low, high = start * total_factor(plan), stop * total_factor(plan)
    grown = np.ones(3)  # the head reaches up to one voxel of the scan beyond its voxel centres
    for n in reversed(range(len(plan))):
        scale, factor = total_factor(plan[:n]), factors(plan[n])
        inner = low // factor, -(-high // factor)
        found.insert(0, Window(plan[n], scale, *inner, np.ceil(grown).astype(int)))
        low = np.maximum(inner[0] - radius, 0)
        high = np.minimum(inner[1] + radius, np.array(shape) * scale)
        grown = grown + radius / scale
    return low, high, found


def factors(axes: Axes) -> IntArray:
    """2 where an axis is doubled, otherwise 1, (3,)."""
    return np.where(axes, 2, 1)


def total_factor(plan: Sequence[Axes]) -> IntArray:
    """By how much all the stages of a plan multiply each axis, (3,)."""
    return np.prod([factors(axes) for axes in plan], axis=0, dtype=int) * np.ones(3, dtype=int)


def _wanted(head: NDArray[np.bool_], window: Window) -> NDArray[np.bool_]:
    """Which of the window's voxels have to be computed: those around the head."""
    size = tuple((2 * window.grown + 1).tolist())
    near = ndimage.maximum_filter(head.astype(np.uint8), size, mode="constant") > 0
    own = [
        np.arange(a, b) // s
        for a, b, s in zip(window.start, window.stop, window.scale, strict=True)
    ]
    return near[np.ix_(*own)]


def _doubled(mask: NDArray[np.bool_], factor: IntArray) -> NDArray[np.bool_]:
    for axis in range(3):
        mask = mask.repeat(int(factor[axis]), axis=axis)
    return mask


def _slices(start: IntArray, stop: IntArray) -> tuple[slice, slice, slice]:
    i, j, k = (slice(int(a), int(b)) for a, b in zip(start, stop, strict=True))
    return i, j, k
