"""How well two label maps agree, class by class; needs MONAI, and so the extra ``train``."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from monai.metrics import compute_dice, compute_hausdorff_distance
from numpy.typing import ArrayLike, NDArray

from nexusinr.labels import TISSUES

LabelMap = NDArray[np.integer[Any]]

TISSUE_VALUES = tuple(tissue.value for tissue in TISSUES)


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
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # MONAI's calls of itself
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
