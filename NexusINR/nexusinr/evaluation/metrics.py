"""How close a restored scan is to its reference.

Two arrays are compared at the same intensities: both divided by the 99.9th percentile of the
reference inside its mask and clipped to 0 ... 1 (`scale_and_mask`, `to_unit`). PSNR and SSIM are
taken over the mask only: the air around the head is no achievement.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.metrics import compute_dice, compute_hausdorff_distance
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from nexusinr.geometry import Affine
from nexusinr.intensity import Intensities, background_value, otsu
from nexusinr.labels import TISSUES

LabelMap = NDArray[np.integer[Any]]

TISSUE_VALUES = tuple(tissue.value for tissue in TISSUES)

#: The network under LPIPS, as torchvision names its file: the end is the start of its SHA-256.
LPIPS_BACKBONE = "alexnet-owt-7be5be79.pth"


@dataclass(frozen=True)
class Similarity:
    """PSNR in dB, SSIM, and LPIPS (None where its weights are not on disk)."""

    psnr: float
    ssim: float
    lpips: float | None


def scale_and_mask(reference: Intensities) -> tuple[float, NDArray[np.bool_]]:
    """What intensities are divided by, and where they are compared (bool, same shape).

    Mask: everything above the background of a skull-stripped scan, above Otsu's threshold
    otherwise. Scale: the 99.9th percentile inside the mask.

    Raises ValueError for an empty reference.
    """
    background = background_value(reference)
    mask = reference > (otsu(reference) if background is None else background)
    scale = float(np.percentile(reference[mask], 99.9)) if mask.any() else 0.0
    if scale <= 0:
        raise ValueError("the reference is empty: it has no voxel above its background")
    return scale, mask


def to_unit(data: Intensities, scale: float) -> NDArray[np.float32]:
    """Intensities divided by the scale and clipped to 0 ... 1, float32."""
    return np.clip(data.astype(np.float32) / np.float32(scale), 0, 1)


def similarity(
    restored: Intensities,
    reference: Intensities,
    affine: Affine,
    within: NDArray[np.bool_] | None = None,
) -> Similarity:
    """All measures of a restored scan, both arrays (i, j, k) in scan units on one lattice.

    within (bool, same shape) narrows the mask, for example to what the degraded scan covers.
    """
    if restored.shape != reference.shape:
        raise ValueError(f"restored has shape {restored.shape}, the reference {reference.shape}")
    scale, mask = scale_and_mask(reference)
    if within is not None:
        mask &= within
    if not mask.any():
        raise ValueError("no voxel of the head is left to compare")
    first, second = to_unit(restored, scale), to_unit(reference, scale)
    axial = axis_nearest(affine, "S")
    return Similarity(
        psnr=psnr(first, second, mask),
        ssim=ssim(first, second, mask),
        lpips=lpips(first, second, axial),
    )


def psnr(restored: Intensities, reference: Intensities, mask: NDArray[np.bool_]) -> float:
    """Peak signal-to-noise ratio over the mask, dB; both arrays 0 ... 1; inf where equal."""
    error = restored[mask].astype(np.float64) - reference[mask].astype(np.float64)
    mean_square = float(np.mean(error**2))
    return float("inf") if mean_square == 0 else float(-10 * np.log10(mean_square))


def ssim(restored: Intensities, reference: Intensities, mask: NDArray[np.bool_]) -> float:
    """Structural similarity averaged over the mask; both arrays (i, j, k), 0 ... 1.

    Wang et al., IEEE TIP 2004, in 3D: Gaussian window of 11 voxels a side, sigma 1.5, data range
    1. Its window is separable: three passes of 11 weights instead of one of 1331.
    """

    def local_mean(values: NDArray[np.float32]) -> NDArray[np.float32]:
        mean: NDArray[np.float32] = ndimage.gaussian_filter(values, 1.5, mode="mirror", radius=5)
        return mean

    x, y = restored.astype(np.float32), reference.astype(np.float32)
    mean_x, mean_y = local_mean(x), local_mean(y)
    variance_x = local_mean(x * x) - mean_x**2
    variance_y = local_mean(y * y) - mean_y**2
    covariance = local_mean(x * y) - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    structure = (2 * covariance + c2) / (variance_x + variance_y + c2)
    return float(np.mean((luminance * structure)[mask], dtype=np.float64))


def lpips(restored: Intensities, reference: Intensities, axial: int) -> float | None:
    """Learned perceptual distance (Zhang et al., CVPR 2018; AlexNet), mean over axial slices.

    Both arrays (i, j, k), 0 ... 1; axial is the axis across axial slices. None where torchvision
    or the weights of the backbone are not on this machine: nothing is ever downloaded.
    """
    if find_spec("torchvision") is None or not _backbone_on_disk():
        return None
    from torchmetrics.functional.image.lpips import learned_perceptual_image_patch_similarity

    total, slices = 0.0, 0
    for first, second in zip(
        np.moveaxis(restored, axial, 0), np.moveaxis(reference, axial, 0), strict=True
    ):
        if second.any():
            distance = learned_perceptual_image_patch_similarity(
                _as_colour(first), _as_colour(second), net_type="alex", normalize=True
            )
            total, slices = total + float(distance), slices + 1
    return total / max(slices, 1)


def _as_colour(plane: Intensities) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(plane, dtype=np.float32)).expand(1, 3, -1, -1)


def _backbone_on_disk() -> bool:
    path = Path(torch.hub.get_dir()) / "checkpoints" / LPIPS_BACKBONE
    if not path.is_file():
        return False
    digest = path.stem.rpartition("-")[2]
    return hashlib.sha256(path.read_bytes()).hexdigest().startswith(digest)


def dice(
    predicted: LabelMap, reference: LabelMap, classes: Sequence[int] = TISSUE_VALUES
) -> dict[int, float]:
    """Dice overlap of each class of two label maps (i, j, k); NaN where the reference has none."""
    scores = compute_dice(
        _one_hot(predicted, classes), _one_hot(reference, classes), ignore_empty=True
    )
    return dict(zip(classes, scores[0].tolist(), strict=True))


def hd95(
    predicted: LabelMap,
    reference: LabelMap,
    spacing: ArrayLike,
    classes: Sequence[int] = TISSUE_VALUES,
) -> dict[int, float]:
    """95th percentile of the distance between surfaces, mm, each class of two label maps (i, j, k).

    spacing: (3,), mm. NaN where either map has no voxel of the class.
    """
    found = dict.fromkeys(classes, float("nan"))
    present = [c for c in classes if (predicted == c).any() and (reference == c).any()]
    if present:
        distances = compute_hausdorff_distance(
            _one_hot(predicted, present),
            _one_hot(reference, present),
            include_background=True,
            percentile=95,
            spacing=np.asarray(spacing, dtype=float).tolist(),
        )
        found.update(zip(present, distances[0].tolist(), strict=True))
    return found


def _one_hot(labels: LabelMap, classes: Sequence[int]) -> torch.Tensor:
    return torch.from_numpy(np.stack([labels == value for value in classes])[None])


def mean_interval(values: Sequence[float], seed: int = 0) -> tuple[float, float, float]:
    """Mean, and its 95 % interval by the percentile bootstrap (10,000 resamples): mean, low, high.

    NaN is left out. Raises ValueError where nothing is left.
    """
    numbers = np.asarray(values, dtype=np.float64)
    numbers = numbers[~np.isnan(numbers)]
    if numbers.size == 0:
        raise ValueError("no values to average")
    draws = np.random.default_rng(seed).integers(numbers.size, size=(10_000, numbers.size))
    # No interpolation between draws: a PSNR may be infinite.
    low, high = np.percentile(numbers[draws].mean(axis=1), [2.5, 97.5], method="nearest")
    return float(numbers.mean()), float(low), float(high)


def axis_nearest(affine: Affine, direction: str) -> int:
    """The voxel axis (0, 1, 2) nearest an anatomical direction: ``R``, ``A`` or ``S``."""
    opposite = {"R": "L", "A": "P", "S": "I"}[direction]
    return next(i for i, letter in enumerate(affine.orientation) if letter in direction + opposite)
