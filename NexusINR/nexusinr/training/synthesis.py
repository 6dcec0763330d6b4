"""Images of both contrasts from label maps: random or typical intensities, texture, lesions, bias.

Works on one cropped label map on any device. Contrast is drawn anew for every patch, so that a
network learns anatomy and not one scanner.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from nexusinr.labels import CSF, DEEP_GREY, GREY, LESION, WHITE

#: Typical adult intensities (T1w, T2w) of 0 ... 1 by tissue; everything else is drawn freely.
TYPICAL = {
    CSF: (0.18, 0.95),
    GREY: (0.55, 0.55),
    WHITE: (0.85, 0.38),
    DEEP_GREY: (0.68, 0.45),
    LESION: (0.50, 0.80),
}


def random_images(
    labels: Tensor, tissue_of: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """One T1w-like and one T2w-like image, 0 ... 1, from one label map.

    Args:
        labels: label map, (I, J, K) integer; 0 is air.
        tissue_of: tissue value (labels.TISSUES) of each label, (number of labels,).
        generator: where all randomness comes from; its device is where the work is done.

    Returns:
        T1w, T2w (I, J, K) float32 and the tissue map (I, J, K) uint8, lesions included.
    """
    device = labels.device
    tissues = tissue_of[labels.long()]
    lesions = _random_lesions(tissues, generator)
    tissues = torch.where(lesions, torch.full_like(tissues, LESION), tissues)
    images = []
    plausible = _uniform(generator, 0, 1) < 0.6
    for modality in range(2):
        means = torch.rand(len(tissue_of), generator=generator, device=device)
        lesion = _uniform(generator, 0, 1)
        if plausible:
            for tissue, typical in TYPICAL.items():
                value = typical[modality] + 0.08 * _normal(generator)
                means = torch.where(tissue_of == tissue, value, means)
                lesion = value if tissue == LESION else lesion
        spread = torch.rand(len(tissue_of), generator=generator, device=device) * 0.06
        index = labels.long()
        noise = torch.randn(labels.shape, generator=generator, device=device)
        texture = _blur(noise, _uniform(generator, 0.6, 1.5)) * 2
        image = means[index] + spread[index] * texture
        image = torch.where(lesions, lesion + 0.03 * texture, image)
        image = _blur(image, _uniform(generator, 0.4, 0.8))
        image = image * (labels > 0) * _bias(labels.shape, generator)
        images.append(image.clamp(0, 1.2))
    return images[0], images[1], tissues.to(torch.uint8)


def randomise_contrast(image: Tensor, generator: torch.Generator) -> Tensor:
    """A monotone or inverted remapping of a real image (0 ... 1); air (exactly 0) stays air."""
    air = image <= 0
    image = image.clamp(0, 1.5)
    if _uniform(generator, 0, 1) < 0.4:
        image = 1 - image.clamp(max=1)
    gamma = 2 ** _uniform(generator, -0.7, 0.7)
    mixed = image.clamp(min=0) ** gamma
    low = _uniform(generator, 0, 0.25)
    return torch.where(air, torch.zeros_like(image), low + (1 - low) * mixed)


def _random_lesions(tissues: Tensor, generator: torch.Generator) -> Tensor:
    """A few blobs of 2-30 voxels' diameter, in white matter, as a mask (I, J, K)."""
    mask = torch.zeros(tissues.shape, dtype=torch.bool, device=tissues.device)
    if _uniform(generator, 0, 1) < 0.5:
        return mask
    places = (tissues == WHITE).nonzero()
    if not len(places):
        return mask
    wobble = _blur(torch.randn(tissues.shape, generator=generator, device=tissues.device), 2.0)
    wobble = wobble / wobble.std().clamp(min=1e-6)
    steps = [torch.arange(n, device=tissues.device) for n in tissues.shape]
    for _ in range(int(_uniform(generator, 1, 5))):
        pick = int(_uniform(generator, 0, len(places)))
        radius = 2 ** _uniform(generator, 0, 3.2)
        stretch = [2 ** _uniform(generator, -0.5, 0.5) for _ in range(3)]
        distance = sum(
            ((steps[a] - places[pick, a]) / stretch[a])
            .square()
            .reshape([-1 if b == a else 1 for b in range(3)])
            for a in range(3)
        )
        mask |= torch.as_tensor(distance).sqrt() < radius * (1 + 0.25 * wobble)
    inside = (tissues == WHITE) | (tissues == DEEP_GREY) | (tissues == GREY)
    return mask & inside


def _bias(shape: torch.Size, generator: torch.Generator) -> Tensor:
    coarse = torch.randn((1, 1, 3, 3, 3), generator=generator, device=generator.device) * 0.1
    field = functional.interpolate(coarse, size=tuple(shape), mode="trilinear", align_corners=True)
    return field[0, 0].exp()


def _blur(x: Tensor, sigma: float) -> Tensor:
    radius = max(int(3 * sigma + 0.5), 1)
    taps = torch.arange(-radius, radius + 1, device=x.device, dtype=x.dtype)
    kernel = torch.exp(-0.5 * (taps / sigma) ** 2)
    kernel = kernel / kernel.sum()
    x = x[None, None]
    for axis in range(3):
        shape = [1, 1, 1, 1, 1]
        shape[2 + axis] = -1
        padding = [0, 0, 0]
        padding[axis] = radius
        x = functional.conv3d(x, kernel.reshape(shape), padding=tuple(padding))
    return x[0, 0]


def _uniform(generator: torch.Generator, low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator, device=generator.device))


def _normal(generator: torch.Generator) -> float:
    return float(torch.randn((), generator=generator, device=generator.device))
