"""What a network of either kind makes of a lesson, and how far off it is."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from nexusinr.inference.adaptation.thickening import Lesson
from nexusinr.models.iconet import ICONet, stage_plan
from nexusinr.models.nexus_inr import NexusINR
from nexusinr.models.sampling import LatticeMap


def taught(network: nn.Module) -> list[nn.Parameter]:
    """What of a network learns: the layers that make intensities of features.

    A case has too little to teach the others. Where all of them learned, patches that were kept
    apart got better, but scans got worse across their slices (see the training log).
    """
    if isinstance(network, ICONet):
        parts: list[nn.Module] = [network.clean_head, network.detail, network.fine_head]
    else:
        assert isinstance(network, NexusINR)
        parts = [network.decoder]
    return [parameter for part in parts for parameter in part.parameters()]


def answers(network: nn.Module, lesson: Lesson, pupils: Iterable[int]) -> dict[int, Tensor]:
    """The modalities that are to be restored, as a network restores them, (B, I, J, K) each.

    Differentiable.
    """
    if isinstance(network, ICONet):
        return {m: _by_stages(network, lesson, m) for m in pupils}
    assert isinstance(network, NexusINR)
    around = lesson.grid.pad(1)
    read = {}
    for modality, scan in lesson.scans.items():
        image = scan.image.contiguous(memory_format=torch.channels_last_3d)
        encoding = network.encode(image, scan.conditions, modality)
        count = len(image)
        read[modality] = network.sample(encoding, LatticeMap([scan.grid] * count, [around] * count))
    return {m: network.decode(m, read[m], read.get(1 - m)).intensity for m in pupils}


def _by_stages(network: ICONet, lesson: Lesson, modality: int) -> Tensor:
    scan = lesson.scans[modality]
    plan = stage_plan(scan.grid.spacing.tolist(), (1, 1, 1))
    image = scan.image.contiguous(memory_format=torch.channels_last_3d)
    fine = network(image, scan.conditions, plan)[-1].fine[:, 0]
    back = np.argsort(scan.order).tolist()
    fine = fine.permute(0, *(1 + axis for axis in back))
    border = [(a - b) // 2 for a, b in zip(fine.shape[1:], lesson.grid.shape, strict=True)]
    i, j, k = (slice(b, b + n) for b, n in zip(border, lesson.grid.shape, strict=True))
    return fine[:, i, j, k]


def errors(lesson: Lesson, answer: Tensor, modality: int) -> Tensor:
    """What an answer lacks, (B, ...), as slices of the scan that taught it would have shown it.

    Detail across those slices was invented: whoever answers otherwise is not wrong.
    """
    axis, width = lesson.slices[modality]
    error = (answer - lesson.truths[modality]).movedim(1 + axis, -1)
    return functional.avg_pool1d(error.flatten(1, 2), width, stride=1)


def loss(network: nn.Module, lesson: Lesson, pupils: Iterable[int]) -> Tensor:
    """Sum of the scans' mean absolute errors."""
    found = answers(network, lesson, pupils)
    return torch.stack([errors(lesson, found[m], m).abs().mean() for m in found]).sum()


@torch.no_grad()
def psnr(network: nn.Module, lessons: Iterable[Lesson], pupils: Iterable[int]) -> dict[int, float]:
    """Of all lessons together, dB at a range of 1, by modality."""
    squares: dict[int, list[Tensor]] = {m: [] for m in pupils}
    for lesson in lessons:
        for modality, answer in answers(network, lesson, squares).items():
            squares[modality].append(errors(lesson, answer, modality).square().mean())
    means = {m: float(torch.stack(found).mean()) for m, found in squares.items()}
    return {m: float(-10 * np.log10(max(mean, 1e-12))) for m, mean in means.items()}
