"""Implicit decoders (paper section 4.2, table 4; eqs. 24-25): features and positions to residuals.

All are given features (..., C) and positions, and give (..., 1).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from nexusinr.models.bfloat16 import full
from nexusinr.models.position import Position

#: Points at a time whose activations fit a CPU's second-level cache.
CACHED = 4096

#: Where the points lie in the scan to be restored and in the other one; None where there is none.
Positions = Sequence[Position | None]


def query(features: Tensor, positions: Positions, size: int) -> Tensor:
    """Q of eq. 24, (..., C + size of a position for each of them): zeros stand for no scan."""
    none = features.new_zeros(*features.shape[:-1], size)
    parts = [none if position is None else position.full() for position in positions]
    return torch.cat((features, *parts), dim=-1)


class MLPDecoder(nn.Module):
    """Point-wise perceptron with ReLU.

    The first layer takes features and positions one after the other: that is the same, and saves
    putting them side by side at every point.
    """

    def __init__(self, inputs: int, width: int, depth: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for n in range(depth):
            layers += [nn.Linear(inputs if n == 0 else width, width), nn.ReLU(inplace=True)]
        self.net = nn.Sequential(*layers)
        for layer in self.net:
            if isinstance(layer, nn.Linear):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        self.head = nn.Linear(width, 1)
        # A fresh network predicts no residual: it starts at the interpolation, not below it.
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, features: Tensor, positions: Positions = ()) -> Tensor:
        """See the module's docstring."""
        first = self.net[0]
        assert isinstance(first, nn.Linear)
        of_features, *of_positions = _columns(first.weight, features.shape[-1], len(positions))
        sums: dict[torch.Size, Tensor] = {}
        for position, weight in zip(positions, of_positions, strict=True):
            for part in [] if position is None else position.mapped(weight):
                sums[part.shape] = sums[part.shape] + part if part.shape in sums else part

        def run(features: Tensor, parts: Sequence[Tensor]) -> Tensor:
            x = functional.linear(features, of_features, first.bias)
            for part in parts:
                x += part
            return self.head(self.net[1:](x))

        parts = list(sums.values())
        if features.device.type != "cpu" or torch.is_grad_enabled():
            return run(features, parts)
        planes = max(CACHED * features.shape[1] * features.shape[-1] // features.numel(), 1)
        pieces = []
        for n in range(0, features.shape[1], planes):
            here = slice(n, n + planes)
            of_pieces = [part if part.shape[1] == 1 else part[:, here] for part in parts]
            pieces.append(run(features[:, here], of_pieces))
        return torch.cat(pieces, dim=1)


class SirenDecoder(nn.Module):
    """Sine activations with the initialisation of Sitzmann et al. 2020, section 3.2.

    That is made for a few coordinates between -1 and 1, and an omega of 30. Features are many, of
    any size, so they are scaled, and omega is smaller: otherwise the sines turn many times from
    point to point, and nothing is learned.
    """

    def __init__(self, inputs: int, width: int, depth: int, omega: float = 5.0) -> None:
        super().__init__()
        self.omega = omega
        sizes = [inputs] + [width] * depth
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(sizes))
        for n, layer in enumerate(self.layers):
            assert isinstance(layer, nn.Linear)
            bound = 1 / inputs if n == 0 else math.sqrt(6 / width) / omega
            nn.init.uniform_(layer.weight, -bound, bound)
        self.head = nn.Linear(width, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, features: Tensor, positions: Positions = ()) -> Tensor:
        """See the module's docstring."""
        first = self.layers[0]
        assert isinstance(first, nn.Linear)
        size = (first.in_features - features.shape[-1]) // max(len(positions), 1)
        q = query(features.to(first.weight.dtype), positions, size)
        with full(q.device):  # a large angle has no digits to spare
            q = functional.layer_norm(q, q.shape[-1:])
            for layer in self.layers:
                q = torch.sin(self.omega * layer(q))
            return self.head(q)


def build_decoder(kind: str, inputs: int, width: int, depth: int) -> nn.Module:
    """The decoder of table 4 by name: ``mlp`` or ``siren``. ValueError for another name."""
    if kind == "mlp":
        return MLPDecoder(inputs, width, depth)
    if kind == "siren":
        return SirenDecoder(inputs, width, depth)
    raise ValueError(f"unknown decoder {kind!r}: choose mlp or siren")


def _columns(weight: Tensor, features: int, positions: int) -> tuple[Tensor, ...]:
    """A first layer's columns for the features, then those for each of the positions."""
    return weight[:, :features], *weight[:, features:].chunk(max(positions, 1), dim=1)[:positions]
