"""Tissues belong to the brain: what the network takes for tissue elsewhere is put right.

Point by point, muscle and scalp can look like grey matter. Unlike the brain they are thin sheets
or lie apart from it, behind the skull.
"""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage

#: Sheets thinner than twice this, in mm, are no brain: scalp, dura, muscles of the head.
CORE_DEPTH = 4.0

#: From the brain's core, tissue reaches this much farther out again, mm.
REACH = CORE_DEPTH + 3.0

#: Pieces of the core that are smaller than this share of the largest are not of the brain.
PIECE_SHARE = 0.2

#: A lattice that is thinner than this, in mm, shows too little of a head to tell.
MIN_EXTENT = 40.0


def within_brain(tissues: NDArray[np.uint8], spacing: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Tissue values (I, J, K) with everything but the brain's set to 0.

    The brain is what is left of all tissue CORE_DEPTH below its surface, without the smaller
    pieces, and what lies within REACH of that.

    Args:
        tissues: values of labels.TISSUES, (I, J, K).
        spacing: of the lattice, (3,) mm.
    """
    if (np.array(tissues.shape) * spacing < MIN_EXTENT).any() or not tissues.any():
        return tissues
    box = ndimage.find_objects((tissues > 0).astype(np.uint8))[0]
    part = tissues[box]
    core = _distance_to(np.pad(part == 0, 1, constant_values=True), spacing) > CORE_DEPTH
    pieces, count = ndimage.label(core[1:-1, 1:-1, 1:-1])
    if not count:
        return tissues
    sizes = np.bincount(pieces.ravel())[1:]
    brain = np.isin(pieces, 1 + np.flatnonzero(sizes >= PIECE_SHARE * sizes.max()))
    near = _distance_to(brain, spacing) <= REACH
    kept = np.zeros_like(tissues)
    kept[box] = np.where(near, part, 0)
    return kept


def _distance_to(mask: NDArray[np.bool_], spacing: NDArray[np.float64]) -> NDArray[np.float32]:
    """How far every voxel outside a mask is from its nearest voxel, mm; not above 0 inside."""
    image = sitk.GetImageFromArray(mask.astype(np.uint8))
    image.SetSpacing(spacing[::-1].tolist())  # SimpleITK counts axes from the last one
    distance: NDArray[np.float32] = sitk.GetArrayFromImage(
        sitk.SignedMaurerDistanceMap(image, squaredDistance=False, useImageSpacing=True)
    )
    return distance
