"""How close a restored scan is to its reference.

Two arrays are compared at the same intensities: both divided by the 99.9th percentile of the
reference inside its mask and clipped to 0 ... 1 (`scale_and_mask`, `to_unit`). PSNR and SSIM are
taken over the mask only: the air around the head is no achievement. Label maps: see `overlap`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from nexusinr.errors import InputError
from nexusinr.geometry import Affine
from nexusinr.intensity import Intensities, background_value, otsu

#: The network under LPIPS, as torchvision names its file: the end is the start of its SHA-256.
LPIPS_BACKBONE = "alexnet-owt-7be5be79.pth"

#: Half the window of SSIM, in voxels.
WINDOW = 5


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

    Raises InputError for an empty reference.
    """
    background = background_value(reference)
    mask = reference > (otsu(reference) if background is None else background)
    scale = float(np.percentile(reference[mask], 99.9)) if mask.any() else 0.0
    if scale <= 0:
        raise InputError("the reference is empty: it has no voxel above its background")
    return scale, mask


def to_unit(data: Intensities, scale: float) -> NDArray[np.float32]:
    """Intensities divided by the scale and clipped to 0 ... 1, float32."""
    return np.clip(data.astype(np.float32) / np.float32(scale), 0, 1)


class Reference:
    """A fine scan that others are compared with; what depends on it alone is found once.

    Args:
        data: (i, j, k), in any units.
        affine: of its lattice.

    Attributes:
        scale: what intensities are divided by.
        mask: where they are compared, bool (i, j, k).
        unit: the scan at 0 ... 1.

    Raises InputError for an empty reference.
    """

    def __init__(self, data: Intensities, affine: Affine) -> None:
        self.scale, self.mask = scale_and_mask(data)
        self.unit = to_unit(data, self.scale)
        self._axial = axis_nearest(affine, "S")
        # Beyond a window's reach of the mask nothing enters its SSIM.
        self._box = tuple(
            slice(max(part.start - WINDOW, 0), part.stop + WINDOW)
            for part in ndimage.find_objects(self.mask.astype(np.uint8))[0]
        )

    def compare(self, restored: Intensities, within: NDArray[np.bool_] | None = None) -> Similarity:
        """All measures of a restored scan, same units and shape as the reference.

        within (bool, same shape) narrows the mask, for example to what the degraded scan covers.

        Raises ValueError for another shape, InputError where nothing is left to compare.
        """
        if restored.shape != self.unit.shape:
            raise ValueError(
                f"restored has shape {restored.shape}, the reference {self.unit.shape}"
            )
        mask = self.mask if within is None else self.mask & within
        if not mask.any():
            raise InputError("no voxel of the head is left to compare")
        unit, box = to_unit(restored, self.scale), self._box
        return Similarity(
            psnr=psnr(unit, self.unit, mask),
            ssim=_ssim(unit[box], self.unit[box], self._moments, mask[box]),
            lpips=lpips(unit, self.unit, self._axial),
        )

    @cached_property
    def _moments(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        return _local_moments(self.unit[self._box])


def similarity(
    restored: Intensities,
    reference: Intensities,
    affine: Affine,
    within: NDArray[np.bool_] | None = None,
) -> Similarity:
    """`Reference.compare` for a single comparison, both arrays (i, j, k) in scan units."""
    return Reference(reference, affine).compare(restored, within)


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
    x, y = restored.astype(np.float32), reference.astype(np.float32)
    return _ssim(x, y, _local_moments(y), mask)


def _ssim(
    x: NDArray[np.float32],
    y: NDArray[np.float32],
    moments_y: tuple[NDArray[np.float32], NDArray[np.float32]],
    mask: NDArray[np.bool_],
) -> float:
    (mean_x, variance_x), (mean_y, variance_y) = _local_moments(x), moments_y
    covariance = _local_mean(x * y) - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    structure = (2 * covariance + c2) / (variance_x + variance_y + c2)
    return float(np.mean((luminance * structure)[mask], dtype=np.float64))


def _local_moments(
    values: NDArray[np.float32],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and variance under the window around each voxel."""
    mean = _local_mean(values)
    return mean, _local_mean(values * values) - mean**2


def _local_mean(values: NDArray[np.float32]) -> NDArray[np.float32]:
    mean: NDArray[np.float32] = ndimage.gaussian_filter(values, 1.5, mode="mirror", radius=WINDOW)
    return mean


def lpips(restored: Intensities, reference: Intensities, axial: int) -> float | None:
    """Learned perceptual distance (Zhang et al., CVPR 2018; AlexNet), mean over axial slices.

    Both arrays (i, j, k), 0 ... 1; axial is the axis across axial slices; slices in which the
    reference is empty do not count. None where `has_lpips` says no.
    """
    if not has_lpips():
        return None
    first, second = (
        torch.from_numpy(np.ascontiguousarray(np.moveaxis(data, axial, 0), dtype=np.float32))
        for data in (restored, reference)
    )
    there = second.flatten(1).any(dim=1)
    if not there.any():
        return None
    network = _perceptual_distance()
    network.reset()
    for x, y in zip(first[there].split(16), second[there].split(16), strict=True):
        network.update(x[:, None].expand(-1, 3, -1, -1), y[:, None].expand(-1, 3, -1, -1))
    return float(network.compute())


def has_lpips() -> bool:
    """Whether torchvision and the weights of LPIPS' backbone are on this machine.

    Nothing is ever downloaded: ``alexnet-owt-7be5be79.pth`` belongs into torch's own folder
    (``$TORCH_HOME/hub/checkpoints``), where torchvision puts it.
    """
    path = Path(torch.hub.get_dir()) / "checkpoints" / LPIPS_BACKBONE
    if find_spec("torchvision") is None or not path.is_file():
        return False
    about = path.stat()
    return _is_backbone(path, about.st_size, about.st_mtime_ns)


@lru_cache(maxsize=1)
def _is_backbone(path: Path, size: int, changed: int) -> bool:
    """Its digest; size and time of change only make a changed file be read again."""
    digest = path.stem.rpartition("-")[2]
    return hashlib.sha256(path.read_bytes()).hexdigest().startswith(digest)


@lru_cache(maxsize=1)
def _perceptual_distance() -> Any:
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

    return LearnedPerceptualImagePatchSimilarity(net_type="alex", normalize=True)


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
