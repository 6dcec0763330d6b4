"""Cross-modal attention (paper eq. 6): one scan's features ask the other's, point by point.

Query: shared features of the scan to be restored, at the target point p. Keys and values: shared
features of the guiding scan at p and its 26 neighbours, one target voxel apart. The guide is read
on the target lattice grown by one voxel, where a neighbour is a shift, and projected to keys and
values there, once a point and not for each of 27 neighbours. On the guide's own coarser lattice
that would be fewer points (a linear map commutes with interpolation), but then keys and values have
to be kept and interpolated as well, and that takes longer.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nexusinr.models import fused_attention
from nexusinr.models.neighbourhood import DISTANCES


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
        key_value = channels_first(self.key_value, guide)
        asked = channels_first(self.query, query) * self.width**-0.5
        attended = fused_attention.of(self, self.width)
        answer = attended(asked, key_value, self.distance_bias[self.distance])
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
