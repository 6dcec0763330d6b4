"""ICONet's stages fed plane by plane: the images of `ICONet.stage`, each value computed once.

See `streaming` for what planes are and why. A block's two branches, which reach differently far,
wait for each other in queues.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from nexusinr.models.iconet import Axes, Doubling, Fusion, ICONet
from nexusinr.models.rscfl import RSCFL, presence
from nexusinr.models.streaming import Queue, StreamedConv, Window, convolved

#: Sizes of an image along i, j, k.
Shape = tuple[int, int, int]

#: Planes of what is added to the clean image, and to the fine one.
Residuals = tuple[Tensor, Tensor]


class StreamedStrips:
    """What both gates of a block see around a voxel, told by few channels.

    The strips of its PositionGate and the local mean of its ChannelGate, side by side in the
    channels of one convolution along i, then j, then k: a mean is a strip of ones. See `rscfl`.
    """

    def __init__(self, block: RSCFL, shape: Shape) -> None:
        where, which = block.position, block.channel
        assert where.squeeze.bias is not None
        assert which.squeeze.bias is not None
        self._squeeze = torch.cat((where.squeeze.weight, which.squeeze.weight)).flatten(1)
        self._squeeze_bias = torch.cat((where.squeeze.bias, which.squeeze.bias))
        self._width = len(where.squeeze.weight)
        self._strips = [_with_sums(cast(nn.Conv3d, strip)) for strip in where.strips]
        self._window = Window(block.reach)
        i, j, k = (1 / presence(n, block.reach, self._squeeze) for n in shape)
        self._of_plane, self._in_plane = i, j[:, None, None] * k[:, None]
        self._done = 0

    def __call__(self, planes: Tensor, last: bool) -> Tensor:
        """(n, j, k, C) to (m, j, k, 2 * width), `reach` planes behind."""
        squeezed = functional.linear(planes, self._squeeze, self._squeeze_bias)
        squeezed[..., : self._width].relu_()
        found = self._window(squeezed, last=last)
        for strip in self._strips:
            found = convolved(found, strip)
        inverse = self._of_plane[self._done : self._done + len(found)]
        self._done += len(found)
        found[..., self._width :].mul_(self._in_plane).mul_(inverse[:, None, None, None]).relu_()
        return found


class StreamedRSCFL:
    """See `rscfl.RSCFL`."""

    def __init__(self, block: RSCFL, shape: Shape) -> None:
        self._block = block
        self._local, self._out = StreamedConv(block.local), StreamedConv(block.out)
        self._strips = StreamedStrips(block, shape)
        self._input, self._found, self._seen, self._skip = (Queue() for _ in range(4))
        self._of_where, self._of_which = block.choose.weight.flatten(1).chunk(2, dim=1)

    def __call__(self, planes: Tensor, last: bool) -> Tensor:
        """(n, j, k, C) to (m, j, k, C)."""
        self._input.put(planes)
        self._found.put(self._local(planes, last=last)[1].relu_())
        self._seen.put(self._strips(planes, last))
        ready = min(len(self._found), len(self._seen))
        seen_where, seen_which = self._seen.take(ready).chunk(2, dim=-1)
        x, block = self._input.take(ready), self._block
        self._skip.put(x)
        where = self._found.take(ready) * _mixed(block.position.expand, seen_where).sigmoid_()
        which = _mixed(block.mix, x).relu_()
        which *= _mixed(block.channel.expand, seen_which).sigmoid_()
        share = functional.linear(where, self._of_where, block.choose.bias)
        share.flatten(0, 2).addmm_(which.flatten(0, 2), self._of_which.t())
        _, found = self._out(torch.lerp(which, where, share.sigmoid_()), last=last)
        return self._skip.join(found)


class StreamedFusion:
    """See `iconet.Fusion`."""

    def __init__(self, fusion: Fusion) -> None:
        self._fusion = fusion
        self._of_clean, self._of_fine = fusion.gates.weight.flatten(1).chunk(2, dim=1)

    def __call__(self, clean: Tensor, fine: Tensor) -> tuple[Tensor, Tensor]:
        """(n, j, k, C) of both branches to the same."""
        gates = functional.linear(clean, self._of_clean, self._fusion.gates.bias)
        gates.flatten(0, 2).addmm_(fine.flatten(0, 2), self._of_fine.t())
        for_clean, for_fine = gates.sigmoid_().chunk(2, dim=-1)
        to_clean, to_fine = _mixed(self._fusion.to_clean, fine), _mixed(self._fusion.to_fine, clean)
        return torch.addcmul(clean, for_clean, to_clean), torch.addcmul(fine, for_fine, to_fine)


class StreamedDoubling:
    """See `iconet.Doubling`."""

    def __init__(self, doubling: Doubling) -> None:
        self._axis, self._halves = doubling.axis, doubling.halves
        self._window = Window(1 if doubling.axis == 0 else 0)

    def __call__(self, planes: Tensor, last: bool) -> Tensor:
        """(n, j, k, C) to the same with one axis doubled: along i one plane behind."""
        window = self._window(planes, last=last)
        halves = convolved(window, self._halves)
        doubled = halves.unflatten(-1, (2, -1)).movedim(-2, self._axis + 1)
        return doubled.flatten(self._axis, self._axis + 1)


class StreamedStage:
    """One stage of one image, (i, j, k) of this shape; for conditions see `ICONet.forward`.

    `check` is called several times in each pass, which may take a second: it may raise.
    """

    def __init__(
        self,
        network: ICONet,
        conditions: Tensor,
        axes: Axes,
        shape: Shape,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self._check = check
        self._most = 1
        self._first = StreamedConv(network.first)
        nets = [cast(nn.Sequential, condition.net) for condition in network.condition]
        self._conditions = [net(conditions)[0].chunk(2) for net in nets]
        pairs = zip(network.reconstruct, network.resolve, strict=True)
        self._pairs = [[StreamedRSCFL(cast(RSCFL, own), shape) for own in pair] for pair in pairs]
        self._fusions = [StreamedFusion(cast(Fusion, fusion)) for fusion in network.fuse]
        self._doublings = [
            StreamedDoubling(cast(Doubling, doubling))
            for doubling, wanted in zip(network.doubling, axes, strict=True)
            if wanted
        ]
        self._detail = StreamedConv(network.detail)
        self._heads = StreamedConv(network.clean_head), StreamedConv(network.fine_head)

    def __call__(self, planes: Tensor, last: bool) -> Residuals:
        """(n, j, k, 1) to the next planes of both residuals, each on its own lattice."""
        self._most = max(self._most, len(planes))
        _, shallow = self._first(planes, last=last)
        clean, fine = (torch.addcmul(shift, shallow, 1 + by) for by, shift in self._conditions)
        residuals = zip(*self._after(0, clean, fine, last), strict=True)
        for_clean, for_fine = map(torch.cat, residuals)
        return for_clean, for_fine

    def _after(self, pair: int, clean: Tensor, fine: Tensor, last: bool) -> Iterator[Residuals]:
        """What comes of features that enter a pair of blocks.

        Never more planes at a time than come in: at the end every block lets go of those that it
        kept, and after a few blocks they would be many.
        """
        for first in range(0, max(len(clean), 1), self._most):
            self._check()
            stop = first + self._most
            ends = last and stop >= len(clean)
            parts = clean[first:stop], fine[first:stop]
            if pair < len(self._pairs):
                reconstruct, resolve = self._pairs[pair]
                found = reconstruct(parts[0], ends), resolve(parts[1], ends)
                yield from self._after(pair + 1, *self._fusions[pair](*found), ends)
            else:
                yield self._images(*parts, ends)

    def _images(self, clean: Tensor, fine: Tensor, last: bool) -> Residuals:
        for double in self._doublings:
            fine = double(fine, last)
        _, detail = self._detail(fine, last=last)
        clean_head, fine_head = self._heads
        return clean_head(clean, last=last)[1], fine_head(detail.relu_(), last=last)[1]


def _mixed(layer: nn.Conv3d, planes: Tensor) -> Tensor:
    """An `encoders.Pointwise` of planes."""
    return functional.linear(planes, layer.weight.flatten(1), layer.bias)


def _with_sums(strip: nn.Conv3d) -> nn.Conv3d:
    """A strip, and beside its channels as many others that are summed, each by itself."""
    width = strip.out_channels
    both = nn.Conv3d(2 * width, 2 * width, cast(Shape, strip.kernel_size)).to(strip.weight)
    assert strip.bias is not None
    assert both.bias is not None
    weight, bias = both.weight.data.zero_(), both.bias.data.zero_()
    weight[:width, :width], bias[:width] = strip.weight, strip.bias
    sums = torch.arange(width, 2 * width)
    weight[sums, sums] = 1
    return both.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
