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
    project,
)
from nexusinr.geometry import Grid
from nexusinr.volume import Volume

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


@torch.inference_mode()
def keep_measured(restored: NDArray[np.float32], scan: Volume, target: Grid, weight: float) -> Kept:
    """Projects a restored image onto those that reproduce the scan (acquisition.project).

    Args:
        restored: on the target lattice, (I, J, K), in the units of the scan's data.
        scan: what was measured.
        target: the lattice.
        weight: 0 (leave it) ... 1 (reproduce the scan).
    """
    scan = _no_finer_than(target, _part_in(scan, target))
    x = torch.from_numpy(restored)
    y = torch.from_numpy(np.ascontiguousarray(scan.data))
    models = {profile: _model(scan, target, profile) for profile in PROFILES}
    fits = {profile: project(x, y, model, 0)[1].before for profile, model in models.items()}
    best = min(PROFILES, key=lambda profile: fits[profile])
    kept, residual = project(x, y, models[best], weight)
    return Kept(kept.numpy(), best, residual.before, residual.after)


def _part_in(scan: Volume, target: Grid) -> Volume:
    """The slices and voxels that reach into a lattice; one at least."""
    index = scan.affine.to_index(target.corners())
    shape = np.array(scan.grid.shape)
    start = np.clip(np.floor(index.min(axis=0)).astype(int), 0, shape - 1)
    stop = np.clip(np.ceil(index.max(axis=0)).astype(int) + 1, start + 1, shape)
    i, j, k = (slice(a, b) for a, b in zip(start, stop, strict=True))
    return scan.replace(data=scan.data[i, j, k], affine=scan.grid.crop(start, stop).affine)


def _no_finer_than(target: Grid, scan: Volume) -> Volume:
    """Means of blocks of voxels along axes on which the target's voxels are larger.

    Detail that the target cannot show is not asked of it: the closest to it are stripes, which
    hide everything else.
    """
    cosines = target.affine.direction.T @ scan.affine.direction
    along = np.linalg.norm(target.spacing[:, None] * cosines, axis=0)
    factors = np.ceil(along / scan.affine.spacing - 1e-2).astype(int)
    for axis in np.flatnonzero(factors > 1).tolist():
        factor = min(int(factors[axis]), scan.data.shape[axis])
        means = block_average(scan, axis, factor)
        thickness = list(scan.thickness)
        thickness[axis] = max(thickness[axis], float(means.affine.spacing[axis]))
        scan = means.replace(thickness=(thickness[0], thickness[1], thickness[2]))
    return scan


def _model(scan: Volume, target: Grid, profile: Profile) -> Acquisition:
    return acquisition_between(scan.grid, target, np.array(scan.thickness), profile)
