"""The losses of the paper (eqs. 9-12, 18, 19, 26), each a plain function of tensors."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from nexusinr.models.nexus_inr import T2W, Decoded, NexusINR

#: Terms that are not about restoration. At full weight from the first step they hold it up.
AUXILIARY = frozenset({"distillation", "mean_alignment", "discrimination", "segmentation"})

#: Label value of points whose tissue is not known: they teach the segmentation nothing.
UNKNOWN = 255


@dataclass(frozen=True)
class LossWeights:
    """Weights of eqs. 12 and 26. T2w, the harder scan, counts more than T1w.

    The auxiliary terms stay an order below the restoration: ten times larger, distillation shrinks
    the features before they have learned anything, and training stalls at the interpolation.
    `squared` is for the squared error of both scans, which PSNR measures, beside the absolute one,
    and `gradient` for that of their differences from voxel to voxel: edges. `teacher` is for the
    distance to a teacher's images, where there is one.
    """

    t1w: float = 1.0
    t2w: float = 1.5
    squared: float = 0.0
    gradient: float = 0.0
    distillation: float = 2e-5
    self_reconstruction: float = 0.1
    mean_alignment: float = 1e-4
    discrimination: float = 1e-3
    segmentation: float = 5e-3
    teacher: float = 0.5


@dataclass(frozen=True)
class StageWeights:
    """Weights of ICONet's losses: the last image counts most, T2w more than T1w.

    `clean` is for the reconstruction branch of every stage, `between` for the super-resolution
    branch of every stage but the last, `t1w` and `t2w` for that of the last one, `squared` for its
    squared error and `gradient` for that of its differences from voxel to voxel, `teacher` for the
    distance to a teacher's image, where there is one.
    """

    t1w: float = 1.0
    t2w: float = 1.5
    squared: float = 0.0
    gradient: float = 0.0
    between: float = 0.5
    clean: float = 0.5
    teacher: float = 0.5


def restoration(predicted: Tensor, truth: Tensor, weight: Tensor | None = None) -> Tensor:
    """L_SR of eq. 26: mean absolute error over the points, optionally weighted."""
    error = (predicted - truth).abs()
    if weight is None:
        return error.mean()
    return (error * weight).sum() / weight.sum().clamp(min=1)


def distillation(fused: Tensor, teacher: Tensor) -> Tensor:
    """L_KD, eq. 9: squared distance per point, summed over channels, mean over points.

    The teacher (T1w shared features) is held fixed: the student comes to it, not it to the student.
    """
    return (fused - teacher.detach()).square().sum(dim=-1).mean()


def squared_error(predicted: Tensor, truth: Tensor) -> Tensor:
    """L_T2Self, eq. 11, and what PSNR is made of: mean squared error."""
    return (predicted - truth).square().mean()


def gradient_error(predicted: Tensor, truth: Tensor) -> Tensor:
    """Mean absolute error of the differences between neighbours along each axis; (..., I, J, K)."""
    error = predicted - truth
    return torch.cat([error.diff(dim=dim).flatten() for dim in (-3, -2, -1)]).abs().mean()


def mean_alignment(first: Tensor, second: Tensor) -> Tensor:
    """L_CMFA, eq. 18: L1 distance between mean shared features; (..., C) each."""
    dims = tuple(range(first.dim() - 1))
    return (first.mean(dim=dims) - second.mean(dim=dims)).abs().sum()


def discrimination(logits: Tensor, modality: int) -> Tensor:
    """One term of L_FDL, eq. 19: cross-entropy of (..., 2) logits against the modality."""
    flat = logits.flatten(end_dim=-2)
    return functional.cross_entropy(flat, torch.full_like(flat[:, 0], modality, dtype=torch.long))


def segmentation(logits: Tensor, tissues: Tensor) -> Tensor:
    """L_seg: cross-entropy of (..., classes) logits against tissue values; UNKNOWN is left out."""
    target = tissues.flatten().long()
    known = (target != UNKNOWN).sum().clamp(min=1)  # a GPU would have to be waited for to ask it
    values = logits.flatten(end_dim=-2)
    sums = functional.cross_entropy(values, target, ignore_index=UNKNOWN, reduction="sum")
    return sums / known


def modality_losses(
    network: NexusINR, modality: int, decoded: Decoded, truth: Tensor, tissues: Tensor
) -> dict[str, Tensor]:
    """Every loss term that one decoding supports, by name, unweighted.

    Args:
        network: for the self-reconstruction and the modality classifier.
        modality: which scan was restored.
        decoded: its decoding on (B, I, J, K).
        truth: the fine image there, (B, I, J, K).
        tissues: tissue values there, (B, I, J, K), UNKNOWN where not known.
    """
    terms = {
        ("t1w", "t2w")[modality]: restoration(decoded.intensity, truth),
        "squared": squared_error(decoded.intensity, truth),
        "gradient": gradient_error(decoded.intensity, truth),
    }
    if decoded.logits is not None:
        terms["segmentation"] = segmentation(decoded.logits, tissues)
    if decoded.specific is not None:
        terms["discrimination"] = discrimination(network.classifier(decoded.specific), modality)
    if modality == T2W and network.config.cross_attention:
        alone = network.decode_alone(T2W, decoded)
        terms["self_reconstruction"] = squared_error(alone, truth)
        if decoded.guide_shared is not None:
            terms["distillation"] = distillation(decoded.fused, decoded.guide_shared)
            terms["mean_alignment"] = mean_alignment(decoded.guide_shared, decoded.fused)
    return terms


def total(
    terms: dict[str, Tensor], weights: LossWeights | StageWeights, ease: float = 1.0
) -> Tensor:
    """Eq. 26: the weighted sum.

    Args:
        terms: by name.
        weights: theirs.
        ease: what the AUXILIARY terms count for, 0 ... 1 of their weights.
    """
    scaled = [
        getattr(weights, name) * (ease if name in AUXILIARY else 1.0) * value
        for name, value in terms.items()
    ]
    return torch.stack(scaled).sum()
