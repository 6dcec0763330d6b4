"""Rigid alignment of two scans of one head (a patient who moved), by mutual information.

Transforms are 4x4 matrices in patient space (RAS, mm) that move the moving scan: they are applied
from the left onto its affine, and no intensity is resampled.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from nexusinr.geometry import Affine, FloatArray, Grid
from nexusinr.intensity import Intensities, background_value, head_of
from nexusinr.resample import interpolate

if TYPE_CHECKING:
    from nexusinr.volume import Volume

#: From coarse to fine; axes with larger voxels keep theirs.
LEVELS_MM = (4.0, 2.0)

#: At the coarse level the surroundings of the head count as well: its outline leads the search in
#: from far away (25 mm and 15 degrees in ten of eleven real pairs; without it, not even half that).
SURROUNDINGS_MM = 10.0

#: At the fine level the rim of skull-stripped heads does not count: there the two strips differ
#: more than the brains do.
RIM_MM = 4.0

#: Points drawn in the head at each level, and for the comparison before and after.
SAMPLES = 20_000

#: What a patient can do between two scans; anything beyond is a failure of the search.
MAX_SHIFT_MM, MAX_ROTATION_DEG = 30.0, 20.0

#: Gain of mutual information (share of what it was) below which the headers are left as they are.
MARGIN = 0.01

BINS = 32
SEED = 20231

#: RAS to LPS, the space of ITK, and back.
_FLIP = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True, eq=False)
class RigidResult:
    """The outcome of `rigid`.

    matrix: 4x4, patient space, moving to fixed; the starting matrix where nothing was accepted.
    mi_before, mi_after: mutual information (nats) over the same points of the head, at the start
    and at the optimum. rotation_deg: of the optimum. translation_mm: how far the optimum shifts
    the middle of the head. displacement_mean, displacement_max: mm, over the head, relative to the
    headers. The last four describe the optimum even where it was not accepted; reason says in
    words why it was not (empty where it was).
    """

    matrix: FloatArray
    mi_before: float
    mi_after: float
    accepted: bool
    rotation_deg: float
    translation_mm: float
    displacement_mean: float
    displacement_max: float
    reason: str = ""


def rigid(fixed: Volume, moving: Volume, initial: ArrayLike | None = None) -> RigidResult:
    """Where the moving scan has to go to lie on the fixed one: six degrees of freedom.

    Mattes mutual information (Mattes et al., IEEE TMI 2003) maximised by Powell's method, which
    needs no gradient, over points drawn with a fixed seed inside the head of the fixed scan; one
    thread, so that a run can be repeated to the last digit. Starts from ``initial`` (4x4, default
    the headers). Accepted only where mutual information, measured by `mutual_information`,
    improves by MARGIN and the movement is one that a patient can make. Any lattice is welcome,
    oblique and sheared ones too.

    Raises ValueError where the scans do not overlap, one of them is empty, or ``initial`` is not
    rigid.
    """
    start = _checked(np.eye(4) if initial is None else np.asarray(initial, dtype=np.float64))
    levels = [(_at(fixed, spacing), _at(moving, spacing), spacing) for spacing in LEVELS_MM]
    head = fixed.replace(data=head_of(fixed).astype(np.float32))
    rim = 0.0 if background_value(fixed.data) is None else RIM_MM
    regions = [
        _region(head, scan.grid, margin)
        for (scan, _, _), margin in zip(levels, (SURROUNDINGS_MM, -rim), strict=True)
    ]
    fine, fine_moving, _ = levels[-1]
    points = _points_in(regions[-1], fine.affine)
    reached = _inside(fine_moving, points, start)
    if reached.mean() < 0.1:
        raise ValueError(
            "the two scans do not overlap in patient space (less than 10 % of the head of the one "
            "lies in the other): check that they belong to the same patient and session"
        )
    transform = _to_itk(start, centre=points[reached].mean(axis=0))
    followed = all(
        _optimise(transform, *level, region) for level, region in zip(levels, regions, strict=True)
    )
    found = _from_itk(transform) if followed else start
    if np.count_nonzero(reached & _inside(fine_moving, points, found)) < reached.sum() / 2:
        found = start  # little of the head is left to compare: that is no alignment
    return _judge(found, start, fine, fine_moving, points)


def apply(result: RigidResult, volume: Volume) -> Volume:
    """The moving volume where the registration puts it: another affine, the same intensities."""
    return volume.replace(affine=volume.affine.transformed(result.matrix))


def disagreement(fixed: Volume, moving: Volume) -> float:
    """How far the headers of two scans of one head are apart: mean over the head, mm.

    0 where no alignment is clearly better than the one of the headers.
    """
    result = rigid(fixed, moving)
    return result.displacement_mean if result.accepted else 0.0


def displacement(matrix: FloatArray, points: FloatArray) -> FloatArray:
    """How far a 4x4 transform moves each of the points (n, 3), mm: (n,)."""
    moved = points @ matrix[:3, :3].T + matrix[:3, 3]
    return np.asarray(np.linalg.norm(moved - points, axis=1))


def mutual_information(first: Intensities, second: Intensities) -> float:
    """Mutual information (nats) of paired samples, (n,) each, from their joint histogram.

    BINS equal bins each between the 0.5th and the 99.5th percentile.
    """

    def bins(values: Intensities) -> NDArray[np.int64]:
        low, high = np.percentile(values, [0.5, 99.5])
        scaled = (values - low) / max(high - low, np.finfo(np.float32).tiny) * BINS
        return np.clip(scaled, 0, BINS - 1).astype(np.int64)

    counts = np.bincount(bins(first) * BINS + bins(second), minlength=BINS * BINS)
    joint = counts.reshape(BINS, BINS) / counts.sum()
    independent = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0, keepdims=True)
    seen = joint > 0
    return float((joint[seen] * np.log(joint[seen] / independent[seen])).sum())


def _checked(matrix: FloatArray) -> FloatArray:
    turn = Affine(matrix).matrix[:3, :3]
    if np.abs(turn @ turn.T - np.eye(3)).max() > 1e-4 or np.linalg.det(turn) < 0:
        raise ValueError(f"the starting transform is not rigid: {turn.tolist()}")
    return matrix


def _judge(
    found: FloatArray, start: FloatArray, fixed: Volume, moving: Volume, points: FloatArray
) -> RigidResult:
    # The points lie between voxel centres: at centres, lattices that coincide need no
    # interpolation, stay sharper than any shifted one, and would always win.
    both = _inside(moving, points, start) & _inside(moving, points, found)
    values = _values(fixed, points[both])
    before, after = (
        mutual_information(values, _values(moving, _move(points[both], _inverse(matrix))))
        for matrix in (start, found)
    )
    angle = float(np.degrees(np.arccos(np.clip((np.trace(found[:3, :3]) - 1) / 2, -1, 1))))
    shift = float(displacement(found, points.mean(axis=0, keepdims=True))[0])
    distances = displacement(found, points)
    reason = ""
    if after < before * (1 + MARGIN):
        reason = f"mutual information would go from {before:.4f} to {after:.4f} only"
    elif shift > MAX_SHIFT_MM or angle > MAX_ROTATION_DEG:
        reason = f"a shift of {shift:.0f} mm and a rotation of {angle:.0f} degrees are implausible"
    return RigidResult(
        matrix=start if reason else found,
        mi_before=before,
        mi_after=after,
        accepted=not reason,
        rotation_deg=angle,
        translation_mm=shift,
        displacement_mean=float(distances.mean()),
        displacement_max=float(distances.max()),
        reason=reason,
    )


def _optimise(
    transform: sitk.Euler3DTransform,
    fixed: Volume,
    moving: Volume,
    spacing: float,
    region: NDArray[np.bool_],
) -> bool:
    """Bring the transform (changed in place) to the optimum at one level; False where it is lost.

    region: where the points are drawn, bool, on the lattice of the fixed scan.
    """
    method = sitk.ImageRegistrationMethod()
    method.SetNumberOfThreads(1)
    method.SetMetricAsMattesMutualInformation(BINS)
    method.SetMetricFixedMask(_image(region.astype(np.uint8), fixed.grid))
    method.SetMetricSamplingStrategy(method.RANDOM)
    method.SetMetricSamplingPercentage(min(1.0, SAMPLES / np.count_nonzero(region)), SEED)
    method.SetMetricUseFixedImageGradientFilter(False)  # no gradient is needed, and its filter
    method.SetMetricUseMovingImageGradientFilter(False)  # would refuse less than four slices
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsPowell(
        numberOfIterations=20,
        maximumLineIterations=20,
        stepLength=spacing / 2,
        stepTolerance=spacing / 100,
        valueTolerance=1e-6,
    )
    radius = 80.0  # mm from the middle to the rim of a head: one radian there moves that much
    method.SetOptimizerScales([radius] * 3 + [1.0] * 3)
    method.SetInitialTransform(transform, inPlace=True)
    try:
        method.Execute(_image(fixed.data, fixed.grid), _image(moving.data, moving.grid))
    except RuntimeError as error:
        if "map outside" not in str(error):  # the search has left the overlap of the two scans
            raise
        return False
    return True


def _region(head: Volume, grid: Grid, margin: float) -> NDArray[np.bool_]:
    """The head (a volume of 0 and 1) on a lattice, grown or (negative margin) shrunk by some mm."""
    mask = interpolate(head, grid) > 0.5
    if margin > 0:
        return np.asarray(ndimage.distance_transform_edt(~mask, sampling=grid.spacing) <= margin)
    if margin < 0:
        inner = ndimage.distance_transform_edt(mask, sampling=grid.spacing) > -margin
        return np.asarray(inner if inner.any() else mask)
    return mask


def _points_in(region: NDArray[np.bool_], affine: Affine) -> FloatArray:
    """SAMPLES points at random in the voxels of a region, (n, 3), mm."""
    random = np.random.default_rng(SEED)
    index = np.argwhere(region)
    index = index[random.integers(len(index), size=SAMPLES)]
    return affine.apply(index + random.uniform(-0.5, 0.5, index.shape))


def _move(points: FloatArray, matrix: FloatArray) -> FloatArray:
    return points @ matrix[:3, :3].T + matrix[:3, 3]


def _inverse(matrix: FloatArray) -> FloatArray:
    return np.asarray(np.linalg.inv(matrix), dtype=np.float64)


def _inside(moving: Volume, points: FloatArray, matrix: FloatArray) -> NDArray[np.bool_]:
    index = moving.affine.to_index(_move(points, _inverse(matrix)))
    inside = (index >= -0.5) & (index <= np.array(moving.grid.shape) - 0.5)
    return np.asarray(inside.all(axis=1))


def _values(volume: Volume, points: FloatArray) -> NDArray[np.float32]:
    index = volume.affine.to_index(points)
    return ndimage.map_coordinates(volume.data, index.T, order=1, mode="nearest")


def _at(volume: Volume, spacing: float) -> Volume:
    """The scan on a right-angled lattice (ITK has no shear), no finer than spacing (mm)."""
    left, _, right = np.linalg.svd(volume.affine.direction)
    direction = left @ right  # the closest right-angled axes
    corners = volume.grid.corners() @ direction
    low, high = corners.min(axis=0), corners.max(axis=0)
    step = np.maximum(volume.affine.spacing, spacing)
    shape = np.maximum(np.rint((high - low) / step), 1).astype(int)
    grid = Grid.from_corner(tuple(shape.tolist()), (high - low) / shape, direction, direction @ low)
    blur = 0.5 * np.sqrt((step / volume.affine.spacing) ** 2 - 1)
    smooth = volume.replace(data=ndimage.gaussian_filter(volume.data, blur))
    return volume.replace(data=interpolate(smooth, grid), affine=grid.affine)


def _image(data: Intensities, grid: Grid) -> sitk.Image:
    image = sitk.GetImageFromArray(np.ascontiguousarray(data.T))
    image.SetSpacing(grid.spacing.tolist())
    image.SetDirection((_FLIP[:3, :3] @ grid.affine.direction).ravel().tolist())
    image.SetOrigin((_FLIP[:3, :3] @ grid.affine.origin).tolist())
    return image


def _to_itk(matrix: FloatArray, centre: FloatArray) -> sitk.Euler3DTransform:
    """ITK maps points of the fixed scan to the moving one, in LPS, about a centre (RAS, mm)."""
    backward = _FLIP @ _inverse(matrix) @ _FLIP
    middle = _FLIP[:3, :3] @ centre
    transform = sitk.Euler3DTransform()
    transform.SetCenter(middle.tolist())
    transform.SetMatrix(backward[:3, :3].ravel().tolist(), 1e-3)
    transform.SetTranslation((_move(middle, backward) - middle).tolist())
    return transform


def _from_itk(transform: sitk.Euler3DTransform) -> FloatArray:
    backward = np.eye(4)
    backward[:3, :3] = np.reshape(transform.GetMatrix(), (3, 3))
    backward[:3, 3] = transform.TransformPoint((0.0, 0.0, 0.0))
    return _FLIP @ _inverse(backward) @ _FLIP
