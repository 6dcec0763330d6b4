"""What a scanner makes of a cut-out: thick slices, noise, and a guide that lies askew."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.spatial.transform import Rotation

from nexusinr.acquisition import degrade
from nexusinr.evaluation.metrics import axis_nearest
from nexusinr.evaluation.safety.crops import Crop
from nexusinr.geometry import FloatArray, Grid
from nexusinr.volume import Volume

#: Slices lie across these directions: T1w axial, T2w coronal, as an orthogonal pair.
ACROSS = ("S", "A")

#: Scan voxels whose centres lie this far outside the cut-out are given as well, mm.
CONTEXT = 4.0

#: A voxel with less brain in it than this is air, as where a skull was stripped.
LEAST_BRAIN = 0.1

#: Empty voxels on either side along one axis, as a share of the scan's voxels there: enough air
#: for the cut-out to be taken for a skull-stripped head.
AIR = 0.15


def acquire(crop: Crop, modality: int, with_lesions: bool, thickness: float | None) -> Volume:
    """The scan of a cut-out with Gaussian slices that touch; thickness in mm, None: as it is.

    What is acquired is the scan around the cut-out, so that the outermost slices are as in a whole
    head. Beyond CONTEXT there is air.
    """
    fine = crop.scan(modality, with_lesions)
    axis = axis_nearest(fine.affine, ACROSS[modality])
    scan = fine if thickness is None else _thick(fine, axis, thickness)
    start, stop = _voxels_in(scan.grid, crop.grid)
    i, j, k = (slice(a, b) for a, b in zip(start, stop, strict=True))
    air = np.zeros(3, dtype=int)
    along = max((a for a in range(3) if a != axis), key=lambda a: stop[a] - start[a])
    air[along] = int(np.ceil(AIR * (stop - start)[along]))
    data = np.pad(scan.data[i, j, k], [(n, n) for n in air])
    return scan.replace(data=data, affine=scan.grid.crop(start - air, stop + air).affine)


def _thick(fine: Volume, axis: int, thickness: float) -> Volume:
    scan = degrade(fine, axis, thickness)
    brain = degrade(fine.replace(data=fine.data > 0), axis, thickness)
    return scan.replace(data=np.where(brain.data >= LEAST_BRAIN, scan.data, 0))


def _voxels_in(scan: Grid, target: Grid) -> tuple[np.ndarray, np.ndarray]:
    """First and last index (exclusive) of the voxels in a target grown by CONTEXT."""
    index = scan.affine.to_index(target.corners())
    reach = CONTEXT / scan.spacing
    start = np.ceil(index.min(axis=0) - reach - 1e-6).astype(int)
    stop = np.floor(index.max(axis=0) + reach + 1e-6).astype(int) + 1
    return np.maximum(start, 0), np.minimum(stop, scan.shape)


def noisy(scan: Volume, sigma: float, rng: np.random.Generator) -> Volume:
    """A scan with Gaussian noise of known deviation (its units) wherever it is not air."""
    noise = rng.normal(0, sigma, scan.data.shape).astype(np.float32)
    return scan.replace(data=np.where(scan.data > 0, scan.data + noise, 0))


def shifted(distance: float) -> FloatArray:
    """A shift by some mm, the same along all three axes of patient space, (4, 4)."""
    matrix = np.eye(4)
    matrix[:3, 3] = distance / np.sqrt(3)
    return matrix


def turned(degrees: float, centre: ArrayLike) -> FloatArray:
    """A turn about the diagonal of patient space through a point (3,), mm, (4, 4)."""
    matrix = np.eye(4)
    axis = np.ones(3) / np.sqrt(3)
    matrix[:3, :3] = Rotation.from_rotvec(np.deg2rad(degrees) * axis).as_matrix()
    matrix[:3, 3] = np.asarray(centre) - matrix[:3, :3] @ np.asarray(centre)
    return matrix


def moved(scan: Volume, transform: FloatArray) -> Volume:
    """A scan whose header is wrong by a transform of patient space."""
    return scan.replace(affine=scan.affine.transformed(transform))
