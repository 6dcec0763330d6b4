"""Residual spatial-channel feature learning (RSCFL), the block that ICONet is made of.

The source names the idea alone: a residual block with two parallel branches, one relating
positions at a cost linear in the number of voxels, one relating channels, merged adaptively. What
it leaves open is decided here for two reasons. A volume is restored in pieces that have to give
the values of one piece, so every operation has a finite reach: positions are related by a gate
that looks along long strips, one axis after the other (the large-kernel attention of Guo et al.
2023, taken apart as they do), and channels by a gate from a *local* mean (squeeze and excitation,
Hu et al. 2018, whose mean over the whole image would make every voxel depend on every other). And
it has to be quick on a CPU, where dense convolutions are and depthwise ones are not: the strips
are dense, on a quarter of the channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from nexusinr.models.encoders import Pointwise, conv3

#: Channels that look far, as a share of all.
SQUEEZE = 4


class PositionGate(nn.Module):
    """What matters where: a gate from strips of 2 * reach + 1 voxels along i, then j, then k.

    Together the strips cover a cube, at a cost that grows with its edge and not its volume.
    """

    def __init__(self, channels: int, reach: int) -> None:
        super().__init__()
        width = max(channels // SQUEEZE, 1)
        self.squeeze = Pointwise(channels, width)
        self.strips = nn.Sequential(*(strip(width, width, axis, reach) for axis in range(3)))
        self.expand = Pointwise(width, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, i, j, k) to a gate of the same shape, 0 ... 1."""
        return torch.sigmoid(self.expand(self.strips(torch.relu(self.squeeze(x)))))


class ChannelGate(nn.Module):
    """Which channels matter: a gate from their mean over a cube of 2 * reach + 1 voxels.

    Squeezing is linear, hence commutes with the mean, which then has fewer channels to run over.
    """

    def __init__(self, channels: int, reach: int) -> None:
        super().__init__()
        width = max(channels // SQUEEZE, 1)
        self.reach = reach
        self.squeeze = Pointwise(channels, width)
        self.expand = Pointwise(width, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, i, j, k) to a gate of the same shape, 0 ... 1."""
        return torch.sigmoid(self.expand(torch.relu(local_mean(self.squeeze(x), self.reach))))


class RSCFL(nn.Module):
    """The block: local features seen by position, channel mixtures seen by channel, merged.

    The position branch gates a 3x3x3 convolution, the channel branch a 1x1x1 one. A third gate,
    from both, says at every voxel and channel how much of which goes on.
    """

    def __init__(self, channels: int, reach: int) -> None:
        super().__init__()
        self.reach = reach
        self.local = conv3(channels, channels)
        self.position = PositionGate(channels, reach)
        self.mix = Pointwise(channels, channels)
        self.channel = ChannelGate(channels, reach)
        self.choose = Pointwise(2 * channels, channels)
        self.out = conv3(channels, channels)

    @property
    def radius(self) -> int:
        """How far, in voxels, an output value reaches: gates and convolution side by side, out."""
        return max(self.reach, 1) + 1

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, i, j, k) to the same shape."""
        where = torch.relu(self.local(x)) * self.position(x)
        which = torch.relu(self.mix(x)) * self.channel(x)
        share = torch.sigmoid(self.choose(torch.cat((where, which), dim=1)))
        return x + self.out(torch.lerp(which, where, share))


def local_mean(x: Tensor, reach: int) -> Tensor:
    """Mean over a cube of 2 * reach + 1 voxels, at the rim over what there is of it."""
    width = 2 * reach + 1
    for axis in range(3):
        present = presence(x.shape[2 + axis], reach, x)
        shape = [-1 if a == axis else 1 for a in range(3)]
        kernel = [width if a == axis else 1 for a in range(3)]
        # Padded by hand: the pooling's own padding refuses scans of fewer slices than its width.
        padding = [reach if a == axis else 0 for a in (2, 2, 1, 1, 0, 0)]
        summed = functional.avg_pool3d(functional.pad(x, padding), kernel, 1)
        x = summed * (width / present).reshape(shape)
    return x


def presence(size: int, reach: int, like: Tensor) -> Tensor:
    """How many of the voxels within reach of each of `size` there are, itself too; (size,)."""
    index = torch.arange(size, device=like.device)
    return (index.clamp(max=reach) + index.flip(0).clamp(max=reach) + 1).to(like.dtype)


def strip(channels_in: int, channels_out: int, axis: int, reach: int) -> nn.Conv3d:
    """A convolution over 2 * reach + 1 voxels along one axis that keeps the size."""
    i, j, k = (reach if a == axis else 0 for a in range(3))
    kernel = (2 * i + 1, 2 * j + 1, 2 * k + 1)
    return nn.Conv3d(channels_in, channels_out, kernel, padding=(i, j, k))
