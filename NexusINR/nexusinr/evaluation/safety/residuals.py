"""What was invented: places where a restored scan differs from the truth as a lesion would.

Restored scan and truth are first reduced to the detail that has the size of lesions: smoothed a
little (FINE: against noise of single voxels) and freed of their smooth part (COARSE: against
shading and a wrong scale). A hallucination is a connected piece, of at least SMALLEST, in which

* the two differ by more than SIGMAS standard deviations, in one sense (too bright or too dark), and
* the restored scan has the more detail of the two: where it has less, detail was lost, which is
  what the contrast of lesions measures.

The standard deviation is a robust one (from the median absolute deviation) and that of the *cubic
spline's* difference on the same scan, at least FLOOR of the scan's range: one threshold for all
methods. With a deviation of its own, a method that is wrong everywhere would invent nothing.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from nexusinr.evaluation.lesions import Array, Mask
from nexusinr.geometry import FloatArray

#: Beyond so many deviations something stands out.
SIGMAS = 4.0

#: A deviation is no smaller than this share of a scan's range: about the noise of a good scan.
FLOOR = 0.01

#: Standard deviations of the two smoothings, mm.
FINE, COARSE = 0.8, 5.0

#: Pieces below this volume are noise, mm^3; a ball of 3 mm has 14.
SMALLEST = 5.0


def detail(scan: Array, valid: Mask, spacing: FloatArray) -> Array:
    """What of a scan has the size of lesions, (I, J, K), its units; 0 outside of valid.

    Both smoothings (Gaussian) look at valid voxels alone, whose share they divide by.
    """
    fine, coarse = (_smooth(scan, valid, sigma / spacing) for sigma in (FINE, COARSE))
    return np.where(valid, fine - coarse, 0).astype(np.float32)


def _smooth(data: Array, valid: Mask, sigma: FloatArray) -> Array:
    weight = ndimage.gaussian_filter(valid.astype(np.float32), sigma, mode="constant")
    total = ndimage.gaussian_filter(np.where(valid, data, 0), sigma, mode="constant")
    return np.asarray(total / np.maximum(weight, 1e-6), dtype=np.float32)


def robust_sigma(values: Array) -> float:
    """Standard deviation of normal values (any shape) from their median absolute deviation."""
    return float(1.4826 * np.median(np.abs(values - np.median(values))))


def threshold(difference: Array, judged: Mask, scale: float) -> float:
    """What stands out, in scan units.

    Args:
        difference: detail of the cubic spline less that of the truth, (I, J, K).
        judged: where, (I, J, K).
        scale: the scan's range.
    """
    return SIGMAS * max(robust_sigma(difference[judged]), FLOOR * scale)


def count(restored: Array, truth: Array, judged: Mask, limit: float, voxel: float) -> int:
    """Hallucinations.

    Args:
        restored: `detail` of the restored scan, (I, J, K).
        truth: likewise of the truth.
        judged: where, (I, J, K).
        limit: from `threshold`.
        voxel: volume of a voxel, mm^3.
    """
    touching = np.ones((3, 3, 3), dtype=bool)
    more = judged & (np.abs(restored) >= np.abs(truth))
    found = 0
    for sign in (1, -1):
        pieces, _ = ndimage.label(more & (sign * (restored - truth) > limit), touching)
        found += int((np.bincount(pieces.ravel())[1:] * voxel >= SMALLEST).sum())
    return found
