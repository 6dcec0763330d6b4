"""Implicit decoders (paper section 4.2, table 4) and their positional encoding (eqs. 17, 24-25)."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor, nn
from torch.nn import functional


def fourier_features(position: Tensor, frequencies: int) -> Tensor:
    """Fourier encoding of positions (..., D) to (..., D * (1 + 2 * frequencies)).

    The position itself, then sin and cos of 2 pi 2^l x for l = 0 ... frequencies - 1 (Tancik et
    al. 2020). Positions are in scan voxels relative to the nearest voxel centre, -0.5 ... 0.5.
    """
    scale = 2 * math.pi * 2.0 ** torch.arange(frequencies, device=position.device)
    angle = (position[..., None] * scale.to(position.dtype)).flatten(-2)
    return torch.cat((position, angle.sin(), angle.cos()), dim=-1)


class MLPDecoder(nn.Module):
    """Point-wise perceptron with ReLU: (..., inputs) to (..., 1)."""

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

    def forward(self, q: Tensor) -> Tensor:
        """See the class."""
        return self.head(self.net(q))


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

    def forward(self, q: Tensor) -> Tensor:
        """(..., inputs) to (..., 1)."""
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
