"""Figures subject by subject: methods are compared on the same heads, never on means alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from nexusinr.evaluation.metrics import Similarity, mean_interval
from nexusinr.evaluation.scores import Score

Pick = Callable[[Similarity], float | None]


def psnr(value: Similarity) -> float:
    """PSNR of a comparison, dB."""
    return value.psnr


def ssim(value: Similarity) -> float:
    """SSIM of a comparison."""
    return value.ssim


def lpips(value: Similarity) -> float | None:
    """LPIPS of a comparison; None where its weights are not on disk."""
    return value.lpips


def by_subject(scores: Sequence[Score], method: str, pick: Pick = psnr) -> dict[str, float]:
    """One figure of one method for each subject; a subject's scans are averaged.

    Subjects without the figure are left out. All scores are of one protocol.
    """
    found: dict[str, list[float]] = {}
    for score in scores:
        if score.method == method and (value := pick(score.value)) is not None:
            found.setdefault(score.subject, []).append(value)
    return {subject: sum(values) / len(values) for subject, values in found.items()}


def gains(scores: Sequence[Score], method: str, over: str, pick: Pick = psnr) -> list[float]:
    """Differences of two methods, one a subject; where both are exact there is none."""
    own, other = by_subject(scores, method, pick), by_subject(scores, over, pick)
    differences = [own[subject] - other[subject] for subject in own if subject in other]
    return [difference for difference in differences if math.isfinite(difference)]


def interval(values: Sequence[float], digits: int, sign: str = "") -> str:
    """Mean and 95 % bootstrap interval in words; a single value has none, and no value none."""
    if not values:
        return ""
    mean, low, high = mean_interval(values)
    if len(values) == 1:
        return f"{mean:{sign}.{digits}f}"
    return f"{mean:{sign}.{digits}f} [{low:{sign}.{digits}f}, {high:{sign}.{digits}f}]"


def methods_of(scores: Sequence[Score]) -> list[str]:
    """Names of the methods, in the order of their first score."""
    return list(dict.fromkeys(score.method for score in scores))


def modalities_of(scores: Sequence[Score]) -> list[str]:
    """T1w before T2w, those there are."""
    return sorted({score.modality for score in scores})
