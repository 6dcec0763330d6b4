"""Cross-modal attention (paper eq. 6): one scan's features ask the other's, point by point.

Query: shared features of the scan to be restored, at the target point p. Keys and values: shared
features of the guiding scan at p and its 26 neighbours, one target voxel apart. The guide is read
on the target lattice grown by one voxel, where a neighbour is a shift, and projected to keys and
values there, once a point and not for each of 27 neighbours. On the guide's own coarser lattice
that would be fewer points (a linear map commutes with interpolation), but then keys and values have
to be kept and interpolated as well, and that takes longer.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

#: The 27 offsets, and how far each is from the middle: 0 self, 1 face, 2 edge, 3 corner.
OFFSETS = tuple(itertools.product((0, 1, 2), repeat=3))
DISTANCES = tuple(sum(step != 1 for step in offset) for offset in OFFSETS)


class CrossModalAttention(nn.Module):
    """Attention over a 3x3x3 neighbourhood on the target lattice.

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

    def forward(self, query: Tensor, guide: Tensor) -> Tensor:
        """What the guide says about each target point.

        Args:
            query: shared features of the scan to be restored, (B, I, J, K, C).
            guide: those of the other one, (B, I+2, J+2, K+2, C).

        Returns:
            (B, I, J, K, C), to be added to the query's own features.
        """
        key, value = channels_first(self.key_value, guide).split(self.width, dim=1)
        asked = channels_first(self.query, query) * self.width**-0.5
        scores = torch.stack([(asked * shifted).sum(1) for shifted in shifts(key)], dim=1)
        bias = self.distance_bias[self.distance][:, None, None, None]
        weights = torch.softmax(scores + bias, dim=1)
        answer = torch.zeros_like(asked)
        for n, shifted in enumerate(shifts(value)):
            answer.addcmul_(weights[:, n : n + 1], shifted)
        return self.out(answer.movedim(1, -1))


def channels_first(layer: nn.Linear, points: Tensor) -> Tensor:
    """A linear map of (B, I, J, K, C) to (B, C', I, J, K): sums over C' then run along rows."""
    flat = points.flatten(1, 3).transpose(1, 2)
    weight = layer.weight.expand(len(flat), -1, -1)
    if layer.bias is None:
        mapped = torch.bmm(weight, flat)
    else:
        mapped = torch.baddbmm(layer.bias[:, None], weight, flat)
    return mapped.unflatten(2, points.shape[1:4])


def shifts(padded: Tensor) -> list[Tensor]:
    """The 27 neighbours of every point, (..., I, J, K) each; (..., I+2, J+2, K+2) given."""
    i, j, k = (n - 2 for n in padded.shape[-3:])
    return [padded[..., a : a + i, b : b + j, c : c + k] for a, b, c in OFFSETS]
