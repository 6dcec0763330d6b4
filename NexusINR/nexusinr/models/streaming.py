"""Encoders fed plane by plane: the features of `forward`, each computed once, in little memory.

A whole head's feature maps are too large for a CPU's cache, and fetching them from memory, layer by
layer, takes as long as the convolutions. Here a few planes at a time go through all layers. A layer
keeps the two planes that its next call needs, so no plane is computed twice, and each layer is one
plane behind the layer before it; what skips layers waits in a queue.

Planes are (n, j, k, C), of one scan: n of its first axis. That is the memory of a channels-last
(1, C, n, j, k).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from nexusinr.models import eight_bit
from nexusinr.models.encoders import (
    BRANCH_SCALE,
    RDN,
    DenseBlock,
    ResBlock,
    ResCNN,
    SRResNet,
)
from nexusinr.models.neighbourhood import shifts

#: Channels times the first two sizes of an image, from which torch hands a convolution of it to
#: oneDNN, which is several times as fast as what it does otherwise.
LEAST_FOR_ONEDNN = 20480


class Queue:
    """Planes that wait until those of another way have come as far."""

    def __init__(self) -> None:
        self._waiting: deque[Tensor] = deque()

    def __len__(self) -> int:
        """How many planes wait."""
        return sum(map(len, self._waiting))

    def put(self, planes: Tensor) -> None:
        """Planes (n, j, k, C) for the end of the queue, which keeps them as they are."""
        if len(planes) or not self._waiting:
            self._waiting.append(planes)

    def take(self, count: int) -> Tensor:
        """The first (count, j, k, C) of the queue, which they leave."""
        parts = self._leave(count)
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def join(self, planes: Tensor) -> Tensor:
        """Adds the first of the queue to as many planes, (m, j, k, C), in place; they leave it."""
        done = 0
        for part in self._leave(len(planes)):
            planes[done : done + len(part)] += part
            done += len(part)
        return planes

    def _leave(self, count: int) -> list[Tensor]:
        parts = []
        while True:
            first = self._waiting.popleft()
            parts.append(first[:count])
            if count < len(first):
                self._waiting.appendleft(first[count:])
            count -= len(parts[-1])
            if count == 0:
                return parts


class Window:
    """The planes that are new and those before them that an operation still reads.

    It works on memory of its own: 2 * reach planes from before, and those that are new.
    """

    def __init__(self, reach: int) -> None:
        self._reach = reach
        self._memory: Tensor | None = None
        self._filled = 0

    def __call__(self, *parts: Tensor, last: bool) -> Tensor:
        """What the next outputs read, with zeros beyond the scan's edges.

        Args:
            parts: (n, j, k, C1), (n, j, k, C2) ...: the channels of the next planes; n may be 0.
            last: whether these are the scan's last.

        Returns:
            (m + 2 * reach, j, k, C), or less where no output can be made yet. Only lent: the next
            call overwrites it.
        """
        kept = self._kept(parts)
        begin, end = len(kept), len(kept) + len(parts[0])
        self._filled = end + last * self._reach
        if self._memory is None or len(self._memory) < self._filled:
            self._memory = kept.new_empty(self._filled, *kept.shape[1:])
        self._memory[:begin] = kept
        channel = 0
        for part in parts:
            self._memory[begin:end, ..., channel : channel + part.shape[-1]] = part
            channel += part.shape[-1]
        self._memory[end : self._filled] = 0
        return self._memory[: self._filled]

    def _kept(self, parts: tuple[Tensor, ...]) -> Tensor:
        """The last planes of the call before; at first planes of zeros, before the scan."""
        if self._memory is None:
            channels = sum(part.shape[-1] for part in parts)
            return parts[0].new_zeros(self._reach, *parts[0].shape[1:3], channels)
        count = min(self._filled, 2 * self._reach)
        kept = self._memory[self._filled - count : self._filled]
        return kept if self._filled >= 2 * count else kept.clone()  # moved to the front


class StreamedConv:
    """A 3x3x3 convolution that keeps the size, fed plane by plane."""

    def __init__(self, layer: nn.Conv3d) -> None:
        self._layer = layer
        self._window = Window(1)

    def __call__(self, *parts: Tensor, last: bool) -> tuple[Tensor, Tensor]:
        """The next planes' features, one plane behind; for the arguments see `Window`.

        Returns:
            Input planes and the features of the same planes, (m, j, k, C) and (m, j, k, C'). The
            first are only lent: the next call overwrites them.
        """
        window = self._window(*parts, last=last)
        return window[1:-1], convolved(window, self._layer)


class StreamedDenseBlock:
    """See `encoders.DenseBlock`."""

    def __init__(self, block: DenseBlock) -> None:
        self._layers = [StreamedConv(cast(nn.Conv3d, layer)) for layer in block.layers]
        weight = block.fuse.weight.flatten(1)
        known = cast(nn.Conv3d, block.layers[-1]).in_channels
        self._of_known, self._of_new = weight[:, :known].t(), weight[:, known:]
        self._bias = block.fuse.bias

    def __call__(self, planes: Tensor, last: bool) -> Tensor:
        """(n, j, k, C) to (m, j, k, C)."""
        seen, new = self._layers[0](planes, last=last)
        for layer in self._layers[1:]:
            seen, new = layer(seen, new.relu_(), last=last)
        fused = functional.linear(new.relu_(), self._of_new, self._bias)
        fused.flatten(0, 2).addmm_(seen.flatten(0, 2), self._of_known)
        return fused.add_(seen[..., : fused.shape[-1]])


class StreamedResBlock:
    """See `encoders.ResBlock`."""

    def __init__(self, block: ResBlock) -> None:
        first, self._activation, second = block.body
        self._first = StreamedConv(cast(nn.Conv3d, first))
        self._second = StreamedConv(cast(nn.Conv3d, second))
        self._skip = Queue()

    def __call__(self, planes: Tensor, last: bool) -> Tensor:
        """(n, j, k, C) to (m, j, k, C)."""
        self._skip.put(planes)
        _, found = self._first(planes, last=last)
        # PReLU has a slope for each channel of (B, C, ...): one for all of them here.
        _, found = self._second(self._activation(found), last=last)
        return self._skip.join(found.mul_(BRANCH_SCALE))


class _Streamed:
    """What all encoders share: the first convolution, told of the scan, and the last."""

    def __init__(self, encoder: RDN | ResCNN, conditions: Tensor) -> None:
        self._first, self._last = StreamedConv(encoder.first), StreamedConv(encoder.last)
        scale, shift = encoder.condition.net(conditions)[0].chunk(2)
        self._scale, self._shift = 1 + scale, shift

    def _shallow(self, planes: Tensor, last: bool) -> Tensor:
        return torch.addcmul(self._shift, self._first(planes, last=last)[1], self._scale)


class StreamedRDN(_Streamed):
    """See `encoders.RDN`. The global fusion is summed up block by block."""

    def __init__(self, encoder: RDN, conditions: Tensor) -> None:
        super().__init__(encoder, conditions)
        self._second = StreamedConv(encoder.second)
        self._blocks = [StreamedDenseBlock(cast(DenseBlock, block)) for block in encoder.blocks]
        self._shares = encoder.fuse.weight.flatten(1).chunk(len(self._blocks), dim=1)
        self._bias = encoder.fuse.bias
        self._sums = [Queue() for _ in self._blocks[1:]]
        self._skip = Queue()

    def __call__(self, planes: Tensor, last: bool) -> Tensor:
        """(n, j, k, 1) to (m, j, k, C)."""
        shallow = self._shallow(planes, last)
        self._skip.put(shallow)
        _, x = self._second(shallow, last=last)
        x = self._blocks[0](x, last)
        fused = functional.linear(x, self._shares[0], self._bias)
        for block, share, sums in zip(self._blocks[1:], self._shares[1:], self._sums, strict=True):
            sums.put(fused)
            x = block(x, last)
            fused = sums.join(functional.linear(x, share))
        _, found = self._last(fused, last=last)
        return self._skip.join(found)


class StreamedResCNN(_Streamed):
    """See `encoders.ResCNN` and `encoders.SRResNet`."""

    def __init__(self, encoder: ResCNN, conditions: Tensor) -> None:
        super().__init__(encoder, conditions)
        self._blocks = [StreamedResBlock(cast(ResBlock, block)) for block in encoder.blocks]
        self._skip = Queue() if isinstance(encoder, SRResNet) else None

    def __call__(self, planes: Tensor, last: bool) -> Tensor:
        """(n, j, k, 1) to (m, j, k, C)."""
        x = self._shallow(planes, last)
        if self._skip is None:
            x = torch.relu(x)
        else:
            self._skip.put(x)
        for block in self._blocks:
            x = block(x, last)
        _, found = self._last(x, last=last)
        return found if self._skip is None else self._skip.join(found)


#: Planes of an image and whether they are its last, to planes of features.
StreamedEncoder = Callable[[Tensor, bool], Tensor]


def streamed(encoder: nn.Module, conditions: Tensor) -> StreamedEncoder:
    """An encoder for one scan, to be fed its planes in order.

    Args:
        encoder: from `encoders.build_encoder`.
        conditions: of the scan, (1, CONDITIONS).
    """
    if isinstance(encoder, RDN):
        return StreamedRDN(encoder, conditions)
    assert isinstance(encoder, ResCNN)
    return StreamedResCNN(encoder, conditions)


def planes_at_once(j: int, k: int, channels: int, voxels: int) -> int:
    """Planes, of j x k voxels, that are fed at once: some `voxels`, and enough for oneDNN."""
    return max(voxels // (j * k), LEAST_FOR_ONEDNN // (channels * j), 1)


def convolved(window: Tensor, layer: nn.Conv3d) -> Tensor:
    """A convolution that keeps the size of planes, (n, j, k, C) to (m, j, k, C').

    Along the first axis it reads the window's own planes: m is n less what it reaches.
    """
    extent, j, k = layer.kernel_size
    if len(window) < extent:
        return window.new_empty(0, *window.shape[1:3], layer.out_channels)
    if extent == j == k == 3 and window.device.type == "cpu":
        # For one channel torch has no quick one there: it takes longer than another of 32.
        if layer.in_channels == 1:
            return _of_one_channel(layer, window[..., 0])
        if layer.out_channels == 1:
            return _to_one_channel(layer, window)
    short = eight_bit.of(layer)
    if short is not None:
        return short(window)
    weight, bias = layer.weight, layer.bias
    if extent == 1:  # in 2D where that is enough: torch is slow in 3D along one axis alone
        image = window.permute(0, 3, 1, 2)
        found = functional.conv2d(image, weight[:, :, 0], bias, padding=(j // 2, k // 2))
        return found.permute(0, 2, 3, 1).contiguous()
    if j == k == 1:
        image = window.flatten(1, 2).permute(2, 0, 1)[None]
        found = functional.conv2d(image, weight[..., 0], bias)
        return found[0].permute(1, 2, 0).unflatten(1, window.shape[1:3]).contiguous()
    image = window.permute(3, 0, 1, 2)[None]
    found = functional.conv3d(image, weight, bias, padding=(0, j // 2, k // 2))
    return found[0].permute(1, 2, 3, 0).contiguous()


def _of_one_channel(layer: nn.Conv3d, window: Tensor) -> Tensor:
    """A convolution of (n + 2, j, k) to (n, j, k, C') as a product of matrices."""
    padded = functional.pad(window, (1, 1, 1, 1))
    sizes = [n - 2 for n in padded.shape]
    around = padded.new_empty(27, *sizes)
    for place, neighbours in zip(around, shifts(padded), strict=True):
        place.copy_(neighbours)
    assert layer.bias is not None
    found = torch.addmm(layer.bias, around.flatten(1).t(), layer.weight.flatten(1).t())
    return found.unflatten(0, sizes)


def _to_one_channel(layer: nn.Conv3d, window: Tensor) -> Tensor:
    """A convolution of (n + 2, j, k, C) to (n, j, k, 1): what every voxel gives, then the sums."""
    given = layer.weight[0].flatten(1).t() @ window.flatten(0, 2).t()
    padded = functional.pad(given.unflatten(1, window.shape[:3]), (1, 1, 1, 1))
    assert layer.bias is not None
    found = layer.bias.expand(len(window) - 2, *window.shape[1:3]).clone()
    for n, neighbour in enumerate(padded):
        found += shifts(neighbour)[n]
    return found[..., None]
