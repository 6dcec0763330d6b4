"""What is asked for, checked before any work begins: scans, lattice, memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
import psutil
from numpy.typing import NDArray

from nexusinr.errors import InputError
from nexusinr.geometry import FloatArray, Grid
from nexusinr.inference.measured import lattice_between
from nexusinr.inference.session import Session
from nexusinr.intensity import looks_swapped
from nexusinr.models.nexus_inr import MODALITIES
from nexusinr.volume import Volume, read_volume

Scalar = TypeVar("Scalar", bound=np.generic)

#: The finest spacing that is chosen without being asked for, mm.
FINEST_DEFAULT = 0.5

#: Spacings outside of this, in mm, are typing errors.
SPACING_RANGE = (0.1, 20.0)

#: Memory a run needs whatever its size: Python, torch, the network.
BASE_BYTES = 600_000_000

#: Bytes per target voxel while the result is put together: interpolation, head mask, intensity,
#: consistency and copies of both scans in float32.
TARGET_BYTES = 60

#: Bytes that keeping an oblique scan takes besides: per target voxel, and per voxel of the lattice
#: between the scan and the target.
OBLIQUE_TARGET_BYTES, OBLIQUE_BYTES = 75, 40

#: Step, in mm, in which a spacing that would fit is looked for.
SPACING_STEP = 0.05

#: Slices around a region that are restored with it: they share its voxels, and their influence
#: fades from slice to slice (to below 1 % of the range of a scan after these).
SURROUNDING_SLICES = 4

#: Less of one scan than this inside the other is no pair of scans of one head.
LEAST_OVERLAP = 0.1


@dataclass
class Scans:
    """The scans of one request by modality (T1W, T2W), and what was odd about them."""

    volumes: dict[int, Volume]
    warnings: list[str] = field(default_factory=list)

    @property
    def first(self) -> Volume:
        """The scan whose axes the output takes: T1w, or T2w where there is none."""
        return self.volumes[min(self.volumes)]


def read_scans(t1w: Volume | str | Path | None, t2w: Volume | str | Path | None) -> Scans:
    """Reads what is given as a path; collects what the readers noticed.

    Raises InputError where neither scan is given or one cannot be used.
    """
    if t1w is None and t2w is None:
        raise InputError("no scan given: name a T1w scan, a T2w scan or both")
    volumes, warnings = {}, []
    for modality, given in enumerate((t1w, t2w)):
        if given is None:
            continue
        volume = given if isinstance(given, Volume) else read_volume(given)
        volumes[modality] = volume
        warnings += [f"{MODALITIES[modality]}: {note}" for note in volume.notes]
    return Scans(volumes, warnings)


def check_pair(scans: Scans) -> None:
    """Warns of scans that look swapped. Raises InputError where they do not overlap."""
    if len(scans.volumes) < 2:
        return
    t1w, t2w = scans.volumes.values()
    overlap = max(t1w.grid.overlap(t2w.grid), t2w.grid.overlap(t1w.grid))
    if overlap < LEAST_OVERLAP:
        distance = float(np.linalg.norm(t1w.grid.centre - t2w.grid.centre))
        raise InputError(
            f"the two scans do not overlap in patient space ({overlap:.0%} in common, their "
            f"centres {distance:.0f} mm apart): check that both are of one patient and one visit"
        )
    if overlap < 0.6:
        scans.warnings.append(f"the two scans overlap by {overlap:.0%} only")
    try:
        swapped = looks_swapped(t1w, t2w)
    except ValueError as error:
        raise InputError(f"T1w and T2w: {error}") from error
    if swapped is not None:
        scans.warnings.append(swapped)


@dataclass(frozen=True)
class Target:
    """Lattices of a run.

    Attributes:
        grid: what is asked for.
        work: what is restored: a region with the slices around it, otherwise the same.
    """

    grid: Grid
    work: Grid

    def cut(self, values: NDArray[Scalar]) -> NDArray[Scalar]:
        """What is asked for out of what was restored."""
        first = np.rint(self.work.affine.to_index(self.grid.affine.origin)).astype(int)
        i, j, k = (slice(a, a + n) for a, n in zip(first, self.grid.shape, strict=True))
        return np.ascontiguousarray(values[i, j, k])


def target(
    scans: Scans,
    spacing: float | tuple[float, ...] | None,
    like: Grid | Volume | str | Path | None,
    roi: tuple[float, ...] | None,
) -> Target:
    """The lattice that is asked for.

    Args:
        scans: the scans; the axes are those of the first.
        spacing: mm, one number or one an axis; None: the finest among the scans, isotropic, not
            under 0.5 mm.
        like: a lattice to take over exactly, instead of a spacing.
        roi: centre and size of a box, (6,): R A S of its middle and its lengths along the output
            axes, mm.

    Raises InputError for values that make no lattice.
    """
    if like is not None and spacing is not None:
        raise InputError("both a spacing and a lattice to copy are given: choose one")
    if like is not None:
        grid = _lattice_of(like)
    else:
        grid = scans.first.grid
        if grid.affine.is_sheared:
            grid = _straightened(grid)
        grid = grid.with_spacing(_spacing(scans, spacing))
    if roi is None:
        return Target(grid, grid)
    start, stop = _region(grid, roi)
    margin = SURROUNDING_SLICES * _voxel_extent(scans, grid)
    outer = np.maximum(start - margin, 0), np.minimum(stop + margin, grid.shape)
    return Target(grid.crop(start, stop), grid.crop(*outer))


def _voxel_extent(scans: Scans, grid: Grid) -> NDArray[np.int64]:
    """How far the largest scan voxel reaches along each axis of a lattice, in its voxels, (3,)."""
    extents = [
        np.abs(grid.affine.direction.T @ scan.affine.direction)
        @ np.maximum(scan.thickness, scan.affine.spacing)
        for scan in scans.volumes.values()
    ]
    return np.ceil(np.max(extents, axis=0) / grid.spacing).astype(int)


def _lattice_of(like: Grid | Volume | str | Path) -> Grid:
    if isinstance(like, Grid):
        return like
    return (like if isinstance(like, Volume) else read_volume(like)).grid


def _spacing(scans: Scans, spacing: float | tuple[float, ...] | None) -> FloatArray:
    if spacing is None:
        finest = min(float(v.affine.spacing.min()) for v in scans.volumes.values())
        return np.full(3, max(finest, FINEST_DEFAULT))
    values = np.atleast_1d(np.asarray(spacing, dtype=np.float64))
    low, high = SPACING_RANGE
    if values.shape not in ((1,), (3,)) or not ((values >= low) & (values <= high)).all():
        given = " ".join(f"{v:g}" for v in values)
        raise InputError(
            f"a spacing of {given} mm cannot be used: give one number or three, {low:g} to "
            f"{high:g} mm"
        )
    return np.broadcast_to(values, (3,))


def _straightened(grid: Grid) -> Grid:
    """The nearest lattice with axes at right angles that covers a sheared one."""
    u, _, vt = np.linalg.svd(grid.affine.direction)
    direction = u @ vt
    along = grid.corners() @ direction
    low, high = along.min(axis=0), along.max(axis=0)
    sizes = np.maximum(np.ceil((high - low) / grid.spacing - 1e-3), 1).astype(int)
    return Grid.from_corner(tuple(sizes.tolist()), grid.spacing, direction, direction @ low)


def _region(grid: Grid, roi: tuple[float, ...]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First and last index (exclusive) of the voxels that a box touches."""
    if len(roi) != 6 or not np.isfinite(roi).all() or min(roi[3:]) <= 0:
        given = " ".join(f"{v:g}" for v in roi)
        raise InputError(f"a region is centre R A S and three sizes in mm, all finite, not {given}")
    middle = grid.affine.to_index(roi[:3])
    half = np.array(roi[3:]) / grid.spacing / 2
    start = np.clip(np.floor(middle - half + 0.5 + 1e-6), 0, grid.shape).astype(int)
    stop = np.clip(np.ceil(middle + half + 0.5 - 1e-6), 0, grid.shape).astype(int)
    if (stop <= start).any():
        given = " ".join(f"{v:g}" for v in roi)
        raise InputError(f"the region {given} lies outside of the scan: check its centre (RAS, mm)")
    return start, stop


@dataclass(frozen=True)
class Estimate:
    """What a run will take.

    Attributes:
        voxels: of the output.
        memory: bytes.
        oblique: voxels that are computed again and again while oblique scans are kept: of the
            output and of the lattices between it and the scans.
    """

    voxels: int
    memory: int
    oblique: int


def estimate(scans: Scans, grid: Grid, session: Session) -> Estimate:
    """What a run on a lattice will take, from the places of the scans alone."""
    lattices = [volume.grid for volume in scans.volumes.values()]
    passing = session.engine.memory(lattices, grid, session.piece_voxels)
    between = [lattice_between(volume, grid) for volume in scans.volumes.values()]
    fine = [lattice.voxels for lattice in between if lattice is not None]
    keeping = max((OBLIQUE_TARGET_BYTES * grid.voxels + OBLIQUE_BYTES * n for n in fine), default=0)
    keeping += session.engine.memory(lattices, grid, piece_voxels=0)  # then there are no passes
    memory = BASE_BYTES + TARGET_BYTES * grid.voxels + max(passing, keeping)
    return Estimate(grid.voxels, memory, sum(grid.voxels + n for n in fine))


def check_memory(scans: Scans, grid: Grid, session: Session, max_memory: float | None) -> Estimate:
    """Raises InputError where the lattice would need more memory than there is.

    Args:
        scans: the scans.
        grid: the lattice that is asked for.
        session: the model.
        max_memory: GB that may be used; None: what is free.
    """
    needed = estimate(scans, grid, session)
    free = psutil.virtual_memory().available if max_memory is None else max_memory * 1e9
    if needed.memory <= free:
        return needed
    fitting = _fitting_spacing(scans, grid, session, free)
    if fitting is None:
        raise InputError(
            f"these scans need {needed.memory / 1e9:.1f} GB of memory and there are "
            f"{free / 1e9:.1f} GB: close other programs or use a larger machine"
        )
    sizes = " x ".join(map(str, grid.shape))
    raise InputError(
        f"a lattice of {sizes} voxels needs {needed.memory / 1e9:.1f} GB of memory and there are "
        f"{free / 1e9:.1f} GB: a spacing of {fitting:.2f} mm would fit"
    )


def _fitting_spacing(scans: Scans, grid: Grid, session: Session, free: float) -> float | None:
    """The finest isotropic spacing, mm, at which the same region would fit; None where none does.

    Found by trying: a model that doubles its scans needs memory by leaps.
    """
    for spacing in np.arange(SPACING_STEP, SPACING_RANGE[1], SPACING_STEP):
        if spacing < grid.spacing.min():
            continue
        if estimate(scans, grid.with_spacing(spacing), session).memory <= free:
            return float(spacing)
    return None
