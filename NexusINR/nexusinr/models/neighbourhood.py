"""Attention of every point of a lattice over its 27 nearest points, itself among them (eq. 6)."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

#: The 27 offsets, and how far each is from the middle: 0 self, 1 face, 2 edge, 3 corner.
OFFSETS = tuple(itertools.product((0, 1, 2), repeat=3))
DISTANCES = tuple(sum(step != 1 for step in offset) for offset in OFFSETS)


def attended(asked: Tensor, key_value: Tensor, bias: Tensor) -> Tensor:
    """The values around each point, each as far as its key answers what is asked there.

    Args:
        asked: (B, W, I, J, K).
        key_value: keys and then values, on the lattice grown by one point on every side,
            (B, 2W, I+2, J+2, K+2).
        bias: added to the scores of each of OFFSETS, (27,).

    Returns:
        (B, W, I, J, K).
    """
    key, value = key_value.chunk(2, dim=1)
    scores = torch.stack([(asked * shifted).sum(1) for shifted in shifts(key)], dim=1)
    weights = torch.softmax(scores + bias[:, None, None, None], dim=1)
    answer = torch.zeros_like(asked)
    for n, shifted in enumerate(shifts(value)):
        answer.addcmul_(weights[:, n : n + 1], shifted)
    return answer


def shifts(padded: Tensor) -> list[Tensor]:
    """The 27 neighbours of every point, (..., I, J, K) each; (..., I+2, J+2, K+2) given."""
    i, j, k = (n - 2 for n in padded.shape[-3:])
    return [padded[..., a : a + i, b : b + j, c : c + k] for a, b, c in OFFSETS]
