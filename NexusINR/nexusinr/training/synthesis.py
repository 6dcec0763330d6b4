"""Images of both contrasts from label maps: random or typical intensities, texture, lesions, bias.

Works on a batch of cropped label maps, on any device, without waiting for it. Contrast is drawn
anew for every patch, so that a network learns anatomy and not one scanner.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from nexusinr.labels import CSF, DEEP_GREY, GREY, LESION, WHITE
from nexusinr.training.filters import blur, each, normal, uniform

#: Typical adult intensities (T1w, T2w) of 0 ... 1 by tissue; everything else is drawn freely.
TYPICAL = {
    CSF: (0.18, 0.95),
    GREY: (0.55, 0.55),
    WHITE: (0.85, 0.38),
    DEEP_GREY: (0.68, 0.45),
    LESION: (0.50, 0.80),
}

#: At most so many lesions in one patch.
LESIONS = 4


def random_images(
    labels: Tensor,
    tissue_of: Tensor,
    generator: torch.Generator,
    modalities: Sequence[int] = (0, 1),
) -> tuple[list[Tensor], Tensor]:
    """T1w-like and T2w-like images, 0 ... 1, of label maps, each with a contrast of its own.

    Args:
        labels: label maps, (B, I, J, K) integer; 0 is air.
        tissue_of: tissue value (labels.TISSUES) of each label, (B, number of labels).
        generator: where all randomness comes from, on the device of the labels.
        modalities: which are wanted, 0 the T1w and 1 the T2w image.

    Returns:
        The wanted images, (B, I, J, K) float32 each, and the tissues (B, I, J, K) uint8, lesions
        included.
    """
    batch = len(labels)
    index = labels.long().flatten(1)
    tissues = tissue_of.gather(1, index).reshape(labels.shape)
    lesions = _random_lesions(tissues, generator)
    tissues = torch.where(lesions, torch.full_like(tissues, LESION), tissues)
    plausible = uniform(generator, batch, 0, 1) < 0.6
    images = []
    for modality in modalities:
        means, lesion = _intensities(tissue_of, plausible, modality, generator)
        spread = 0.06 * torch.rand(means.shape, generator=generator, device=means.device)
        grain = blur(normal(generator, labels.shape), uniform(generator, batch, 0.6, 1.5)) * 2
        image = means.gather(1, index) + spread.gather(1, index) * grain.flatten(1)
        image = torch.where(lesions, each(lesion) + 0.03 * grain, image.reshape(labels.shape))
        image = blur(image, uniform(generator, batch, 0.4, 0.8))
        images.append((image * (labels > 0) * _bias(labels.shape, generator)).clamp(0, 1.2))
    return images, tissues.to(torch.uint8)


def randomise_contrast(images: Tensor, generator: torch.Generator) -> Tensor:
    """Real images (B, ...), 0 ... 1, each remapped or inverted monotonically; air (0) stays air."""
    shape = (len(images), *[1] * (images.dim() - 1))

    def drawn(low: float, high: float) -> Tensor:
        return uniform(generator, len(images), low, high).reshape(shape)

    remapped = images.clamp(0, 1.5)
    remapped = torch.where(drawn(0, 1) < 0.4, 1 - remapped.clamp(max=1), remapped)
    remapped = remapped ** (2 ** drawn(-0.7, 0.7))
    low = drawn(0, 0.25)
    return torch.where(images <= 0, torch.zeros_like(images), low + (1 - low) * remapped)


def _intensities(
    tissue_of: Tensor, plausible: Tensor, modality: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """The intensity of each label, (B, labels), and of lesions, (B,)."""
    means = torch.rand(tissue_of.shape, generator=generator, device=tissue_of.device)
    lesion = uniform(generator, len(means), 0, 1)
    for tissue, typical in TYPICAL.items():
        value = typical[modality] + 0.08 * normal(generator, lesion.shape)
        known = plausible[:, None] & (tissue_of == tissue)
        means = torch.where(known, value[:, None], means)
        if tissue == LESION:
            lesion = torch.where(plausible, value, lesion)
    return means, lesion


def _random_lesions(tissues: Tensor, generator: torch.Generator) -> Tensor:
    """In half of the examples a few blobs of 2-18 voxels' diameter, in white matter: a mask."""
    batch, *sizes = tissues.shape
    white = (tissues == WHITE).flatten(1)
    chances = torch.rand(white.shape, generator=generator, device=white.device) * white
    chance, place = chances.topk(min(LESIONS, white.shape[1]), dim=1)
    count = uniform(generator, batch, 1, LESIONS + 1).floor()
    count = count * (uniform(generator, batch, 0, 1) < 0.5)
    wobble = blur(normal(generator, tissues.shape), torch.full_like(count, 2.0))
    wobble = wobble / each(wobble.flatten(1).std(dim=1)).clamp(min=1e-6)
    reach = (1 + 0.25 * wobble).clamp(min=0)
    mask = torch.zeros(tissues.shape, dtype=torch.bool, device=tissues.device)
    for n in range(place.shape[1]):
        there = (chance[:, n] > 0) & (count > n)
        radius = 2 ** uniform(generator, batch, 0, 3.2) * there
        distance = _squared_distance(place[:, n], sizes, generator)
        mask |= distance < (each(radius) * reach).square()
    return mask & ((tissues == WHITE) | (tissues == DEEP_GREY) | (tissues == GREY))


def _squared_distance(place: Tensor, sizes: list[int], generator: torch.Generator) -> Tensor:
    """From places (B,), flat indices, in units of randomly stretched voxels, (B, I, J, K)."""
    rest, total = place, torch.zeros((), device=place.device)
    for axis in (2, 1, 0):
        rest, centre = rest // sizes[axis], rest % sizes[axis]
        stretch = 2 ** uniform(generator, len(place), -0.5, 0.5)
        steps = torch.arange(sizes[axis], device=place.device)
        shape = [len(place), 1, 1, 1]
        shape[1 + axis] = sizes[axis]
        along = (steps - centre[:, None]) / stretch[:, None]
        total = total + along.square().reshape(shape)
    return total


def _bias(shape: torch.Size, generator: torch.Generator) -> Tensor:
    coarse = normal(generator, (shape[0], 1, 3, 3, 3)) * 0.1
    size = tuple(shape[1:])
    field = functional.interpolate(coarse, size=size, mode="trilinear", align_corners=True)
    return field[:, 0].exp()
