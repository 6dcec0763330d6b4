"""Keeping what was measured: the consistency projection of one restored scan."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from nexusinr.acquisition import (
    Acquisition,
    Profile,
    acquisition_between,
    block_average,
    block_lattice,
    parallel_lattice,
    project,
)
from nexusinr.geometry import FloatArray, Grid
from nexusinr.volume import Volume

#: What this step of a run is called.
KEEPING = "keeping what was measured"

PROFILES: tuple[Profile, ...] = ("gaussian", "box")


@dataclass(frozen=True)
class Kept:
    """A restored scan that reproduces its measurement.

    Attributes:
        image: (I, J, K) float32.
        profile: the slice profile that fits better; headers do not say which one it was.
        before: root mean square of scan minus simulated scan before the projection, over the
            scan's voxels, or blocks of them where the target has larger ones.
        after: the same afterwards.
    """

    image: NDArray[np.float32]
    profile: Profile
    before: float
    after: float


@dataclass(frozen=True)
class Asked:
    """What of a scan is asked of an image.

    Attributes:
        start: first voxel, (3,).
        stop: the last, exclusive.
        blocks: along each axis, the voxels of which a mean is asked, (3,).
        grid: the lattice of these means.
        thickness: of them, mm, (3,).
    """

    start: NDArray[np.int64]
    stop: NDArray[np.int64]
    blocks: NDArray[np.int64]
    grid: Grid
    thickness: FloatArray


@torch.inference_mode()
def keep_measured(restored: NDArray[np.float32], scan: Volume, target: Grid, weight: float) -> Kept:
    """Projects a restored image onto those that reproduce the scan (acquisition.project).

    Args:
        restored: on the target lattice, (I, J, K), in the units of the scan's data.
        scan: what was measured.
        target: the lattice.
        weight: 0 (leave it) ... 1 (reproduce the scan).
    """
    wanted = asked(scan, target)
    x = torch.from_numpy(restored)
    y = torch.from_numpy(_values(scan, wanted))
    models = {profile: _model(wanted, target, profile) for profile in PROFILES}
    fits = {profile: project(x, y, model, 0)[1].before for profile, model in models.items()}
    best = min(PROFILES, key=lambda profile: fits[profile])
    kept, residual = project(x, y, models[best], weight)
    return Kept(kept.numpy(), best, residual.before, residual.after)


def asked(scan: Volume, target: Grid) -> Asked:
    """Of a scan, what reaches into a lattice; as means of blocks where its voxels are larger.

    Detail that the target cannot show is not asked of it: the closest to it are stripes, which
    hide everything else.
    """
    index = scan.affine.to_index(target.corners())
    shape = np.array(scan.grid.shape)
    start = np.clip(np.floor(index.min(axis=0)).astype(int), 0, shape - 1)
    stop = np.clip(np.ceil(index.max(axis=0)).astype(int) + 1, start + 1, shape)
    cosines = target.affine.direction.T @ scan.affine.direction
    along = np.linalg.norm(target.spacing[:, None] * cosines, axis=0)
    blocks = np.ceil(along / scan.affine.spacing - 1e-2).astype(int).clip(1, stop - start)
    grid, thickness = scan.grid.crop(start, stop), np.array(scan.thickness)
    for axis in np.flatnonzero(blocks > 1).tolist():
        grid = block_lattice(grid, axis, int(blocks[axis]))
        thickness[axis] = max(thickness[axis], grid.spacing[axis])
    return Asked(start, stop, blocks, grid, thickness)


def lattice_between(scan: Volume, target: Grid) -> Grid | None:
    """Where a scan is oblique to the target: the lattice on which its acquisition is computed."""
    wanted = asked(scan, target)
    if wanted.grid.axes_in(target) is not None:
        return None
    return parallel_lattice(wanted.grid, target, wanted.thickness)


def _values(scan: Volume, wanted: Asked) -> NDArray[np.float32]:
    i, j, k = (slice(a, b) for a, b in zip(wanted.start, wanted.stop, strict=True))
    part = scan.replace(data=scan.data[i, j, k])
    for axis in np.flatnonzero(wanted.blocks > 1).tolist():
        part = block_average(part, axis, int(wanted.blocks[axis]))
    return np.ascontiguousarray(part.data)


def _model(wanted: Asked, target: Grid, profile: Profile) -> Acquisition:
    return acquisition_between(wanted.grid, target, wanted.thickness, profile)
