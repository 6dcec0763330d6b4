"""Cross-modal attention (paper eq. 6): one scan's features ask the other's, point by point.

Query: shared features of the scan to be restored, at the target point p. Keys and values: shared
features of the guiding scan at p and its 26 neighbours, one target voxel apart. Keys and values
are projected once on the guiding scan's coarse feature map (a linear map commutes with
interpolation) and sampled on the target lattice grown by one voxel, where a neighbour is a shift.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

#: The 27 offsets, and how far each is from the middle: 0 self, 1 face, 2 edge, 3 corner.
OFFSETS = tuple(itertools.product((0, 1, 2), repeat=3))
DISTANCES = tuple(sum(step != 1 for step in offset) for offset in OFFSETS)


class CrossModalAttention(nn.Module):
    """Attention over a 3x3x3 neighbourhood on the target lattice, all tensors channels last.

    The only positional term is a bias by distance class, the same in every direction: turning or
    mirroring the target lattice does not change the answer.
    """

    distance: Tensor

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.query = nn.Linear(features, width)
        self.key_value = nn.Linear(features, 2 * width, bias=False)
        self.out = nn.Linear(width, features)
        self.distance_bias = nn.Parameter(torch.zeros(4))
        self.register_buffer("distance", torch.tensor(DISTANCES), persistent=False)
        self.width = width

    def project(self, features: Tensor) -> Tensor:
        """Guiding features (..., C) on their own lattice to keys and values (..., 2 * width)."""
        return self.key_value(features)

    def forward(self, query: Tensor, key_value: Tensor) -> Tensor:
        """What the guide says about each target point.

        Args:
            query: shared features of the scan to be restored, (B, I, J, K, C).
            key_value: projected and sampled guide, (B, I+2, J+2, K+2, 2 * width).

        Returns:
            (B, I, J, K, C), to be added to the query's own features.
        """
        key, value = key_value.split(self.width, dim=-1)
        asked = self.query(query) * self.width**-0.5
        scores = torch.stack([(asked * shifted).sum(-1) for shifted in shifts(key)], dim=-1)
        weights = torch.softmax(scores + self.distance_bias[self.distance], dim=-1)
        answer = torch.zeros_like(asked)
        for n, shifted in enumerate(shifts(value)):
            answer = torch.addcmul(answer, weights[..., n : n + 1], shifted)
        return self.out(answer)


def shifts(padded: Tensor) -> list[Tensor]:
    """The 27 neighbours of every point, (B, I, J, K, C) each; (B, I+2, J+2, K+2, C) given."""
    i, j, k = (n - 2 for n in padded.shape[1:4])
    return [padded[:, a : a + i, b : b + j, c : c + k] for a, b, c in OFFSETS]
