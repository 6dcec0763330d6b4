"""Feature encoders (paper section 3.3, table 3): volume in, feature map on the same lattice out.

All take (B, 1, I, J, K) and a conditioning vector (B, CONDITIONS) and give (B, C, I, J, K).
They run on the scan's own lattice, its slice axis last, so a kernel's third axis always runs
across the slices.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

#: What an encoder is told of the scan: log spacing (mm) and log thickness / spacing, per axis.
CONDITIONS = 6

#: How much of a residual block's branch counts (EDSR, Lim et al. 2017). Without normalisation the
#: gains of the blocks multiply, and training diverges.
BRANCH_SCALE = 0.1


def conv3(channels_in: int, channels_out: int) -> nn.Conv3d:
    """A 3x3x3 convolution that keeps the size."""
    return nn.Conv3d(channels_in, channels_out, 3, padding=1)


class Pointwise(nn.Conv3d):
    """A 1x1x1 convolution, as one product of matrices.

    On a CPU, torch's own takes ten times as long: it rearranges channels-last tensors there and
    back.
    """

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__(channels_in, channels_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, I, J, K) to (B, channels_out, I, J, K), channels last in memory."""
        mixed = functional.linear(x.movedim(1, -1), self.weight.flatten(1), self.bias)
        return mixed.movedim(-1, 1)


class Conditioning(nn.Module):
    """Scale and shift of each channel by the scan's spacing and thickness (FiLM, Perez 2018).

    Starts as the identity, so that a network that has never seen a thickness ignores it.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(CONDITIONS, 32), nn.ReLU(), nn.Linear(32, 2 * channels))
        self.start_as_identity()

    def start_as_identity(self) -> None:
        """Scale one and shift zero, whatever the conditions."""
        last = self.net[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, features: Tensor, conditions: Tensor) -> Tensor:
        """(B, C, I, J, K) and (B, CONDITIONS) to (B, C, I, J, K)."""
        scale, shift = self.net(conditions)[:, :, None, None, None].chunk(2, dim=1)
        return features * (1 + scale) + shift


def he_initialise(module: nn.Module) -> None:
    """He initialisation without bias: torch's default fades the signal layer by layer."""
    if isinstance(module, nn.Conv3d | nn.Linear):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, Conditioning):
        module.start_as_identity()


class DenseBlock(nn.Module):
    """Residual dense block of RDN (Zhang et al. 2018): dense layers, 1x1x1 fusion, skip."""

    def __init__(self, channels: int, growth: int, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(conv3(channels + n * growth, growth) for n in range(layers))
        self.fuse = Pointwise(channels + layers * growth, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, I, J, K) to the same shape."""
        found = x
        for layer in self.layers:
            found = torch.cat((found, torch.relu(layer(found))), dim=1)
        return x + self.fuse(found)


class RDN(nn.Module):
    """Residual dense network in 3D: shallow features, dense blocks, global fusion and skip."""

    def __init__(self, features: int, growth: int, blocks: int, layers: int) -> None:
        super().__init__()
        self.first = conv3(1, features)
        self.condition = Conditioning(features)
        self.second = conv3(features, features)
        self.blocks = nn.ModuleList(DenseBlock(features, growth, layers) for _ in range(blocks))
        self.fuse = Pointwise(blocks * features, features)
        self.last = conv3(features, features)

    def forward(self, x: Tensor, conditions: Tensor) -> Tensor:
        """See the module's docstring."""
        shallow = self.condition(self.first(x), conditions)
        x = self.second(shallow)
        collected = []
        for block in self.blocks:
            x = block(x)
            collected.append(x)
        return self.last(self.fuse(torch.cat(collected, dim=1))) + shallow


class ResBlock(nn.Module):
    """conv - activation - conv with a skip; no batch normalisation, which ties a batch together."""

    def __init__(self, channels: int, activation: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv3(channels, channels), activation(), conv3(channels, channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, I, J, K) to the same shape."""
        return x + BRANCH_SCALE * self.body(x)


class ResCNN(nn.Module):
    """Residual CNN (Du et al. 2020): residual blocks with ReLU between two convolutions."""

    activation: Callable[[], nn.Module] = nn.ReLU

    def __init__(self, features: int, blocks: int) -> None:
        super().__init__()
        self.first = conv3(1, features)
        self.condition = Conditioning(features)
        kind = type(self).activation
        self.blocks = nn.Sequential(*(ResBlock(features, kind) for _ in range(blocks)))
        self.last = conv3(features, features)

    def forward(self, x: Tensor, conditions: Tensor) -> Tensor:
        """See the module's docstring."""
        shallow = self.condition(self.first(x), conditions)
        return self.last(self.blocks(torch.relu(shallow)))


class SRResNet(ResCNN):
    """SRResNet's trunk (Ledig et al. 2017): PReLU, and one skip over all the blocks."""

    activation = nn.PReLU

    def forward(self, x: Tensor, conditions: Tensor) -> Tensor:
        """See the module's docstring."""
        shallow = self.condition(self.first(x), conditions)
        return self.last(self.blocks(shallow)) + shallow


def receptive_radius(encoder: nn.Module) -> int:
    """How far, in voxels, a feature reaches: one voxel for each 3x3x3 convolution in a row."""
    return sum(
        isinstance(module, nn.Conv3d) and module.kernel_size[0] == 3 for module in encoder.modules()
    )


def build_encoder(kind: str, features: int, growth: int, blocks: int, layers: int) -> nn.Module:
    """The encoder of table 3 by name: ``rdn``, ``rescnn`` or ``srresnet``.

    Growth and layers are RDN's alone. Raises ValueError for another name.
    """
    if kind == "rdn":
        return RDN(features, growth, blocks, layers)
    if kind == "rescnn":
        return ResCNN(features, blocks)
    if kind == "srresnet":
        return SRResNet(features, blocks)
    raise ValueError(f"unknown encoder {kind!r}: choose rdn, rescnn or srresnet")
