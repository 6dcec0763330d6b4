"""What blurs, rings and roughens images of a batch, each example by its own measure, on any device.

Images are (B, I, J, K); what is drawn comes from a generator on their device.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

AXES = (0, 1, 2)


def uniform(generator: torch.Generator, count: int, low: float, high: float) -> Tensor:
    """Evenly distributed numbers, one for each example, (count,), on the generator's device."""
    return low + (high - low) * torch.rand(count, generator=generator, device=generator.device)


def normal(generator: torch.Generator, shape: Sequence[int]) -> Tensor:
    """Numbers of mean 0 and deviation 1, on the generator's device."""
    return torch.randn(tuple(shape), generator=generator, device=generator.device)


def each(values: Tensor) -> Tensor:
    """One value for each example, (B,), to be combined with images, (B, 1, 1, 1)."""
    return values[:, None, None, None]


def blur(images: Tensor, sigma: Tensor, axes: Sequence[int] = AXES) -> Tensor:
    """Gaussian blur; beyond the edges there is nothing.

    Args:
        images: (B, I, J, K).
        sigma: standard deviation for each example, (B,), voxels; next to 0 changes nothing.
        axes: the array axes along which.
    """
    for axis in axes:
        moved = images.movedim(1 + axis, -1)
        steps = torch.arange(moved.shape[-1], device=images.device, dtype=images.dtype)
        distance = steps[:, None] - steps
        weights = torch.exp(-0.5 * (distance / sigma.clamp(min=1e-3)[:, None, None]) ** 2)
        # Every row adds up to what one in the middle would: the edges fade.
        weights = weights / weights.sum(dim=-1).amax(dim=-1)[:, None, None]
        flat = moved.reshape(moved.shape[0], -1, moved.shape[-1])
        images = torch.matmul(flat, weights).reshape(moved.shape).movedim(-1, 1 + axis)
    return images


def ringing(images: Tensor, share: Tensor, axis: int) -> Tensor:
    """Gibbs ringing: k-space cut off along one axis, as where it was never acquired.

    Args:
        images: (B, I, J, K).
        share: of the frequencies up to the highest that are kept, for each example, (B,); 1 keeps
            the image as it is.
        axis: the array axis.
    """
    length = images.shape[1 + axis]
    spectrum = torch.fft.rfft(images, dim=1 + axis)
    frequency = torch.arange(spectrum.shape[1 + axis], device=images.device) / (length / 2)
    shape = [len(share), 1, 1, 1]
    shape[1 + axis] = len(frequency)
    kept = (frequency <= share[:, None]).reshape(shape)
    return torch.fft.irfft(spectrum * kept, n=length, dim=1 + axis)


def noisy(images: Tensor, deviation: Tensor, generator: torch.Generator) -> Tensor:
    """Noise of a deviation for each example, (B,), added; magnitudes are never negative."""
    return (images + each(deviation) * normal(generator, images.shape)).clamp(min=0)
