"""Convolutions with 8-bit factors, where a processor is quicker at them than at float32.

Weights are rounded once, with a scale for each output channel; planes when they are worked on, with
one scale for all of them. Products are summed in 32 bits, sums are float32: only factors are
rounded, and nothing that is added up later. The kernels are those that torch's compiler uses for
quantised models (oneDNN's); on processors that have instructions for them (VNNI) they are several
times as fast.
"""

from __future__ import annotations

import logging
from functools import lru_cache
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn import functional

from nexusinr.models import trial

#: Channels in and out of which rounding takes less time than it saves.
LEAST_CHANNELS = 16

#: Used where it is so many times as fast.
LEAST_GAIN = 1.2

#: The largest factor, of either sign; planes are kept as unsigned numbers around ZERO.
LARGEST, ZERO = 127, 128

#: For the kernel: scale and zero of a result in 8 bits, were it one; its type; no activation.
FLOAT_RESULT: tuple[Any, ...] = (1.0, 0, torch.float32, "none", [], "")

#: Planes and channels of the convolution that is timed.
TIMED = (6, 64, 48, 32)


class EightBitConv:
    """A convolution of planes that keeps their size, from the weights that a layer has now."""

    def __init__(self, layer: nn.Conv3d) -> None:
        weight = layer.weight.detach().float()
        self._scales = weight.flatten(1).abs().amax(dim=1).clamp(min=1e-12) / LARGEST
        rounded = (weight / self._scales.reshape(-1, 1, 1, 1, 1)).round().to(torch.int8)
        _, j, k = layer.kernel_size
        # Stride, padding, dilation, groups.
        self._geometry = ([1, 1, 1], [0, j // 2, k // 2], [1, 1, 1], 1)
        self._weight = torch.ops.onednn.qconv_prepack(
            rounded, self._scales, 1.0, ZERO, *self._geometry
        )
        self._zeros = torch.zeros(len(weight), dtype=torch.long)
        self._bias = None if layer.bias is None else layer.bias.detach().float()

    def __call__(self, window: Tensor) -> Tensor:
        """(n, j, k, C) to (m, j, k, C'), float32; see `streaming.convolved`."""
        low, high = torch.aminmax(window)
        scale = max(-float(low), float(high), 1e-12) / LARGEST
        half_up = window.new_tensor(ZERO + 0.5)  # what follows cuts off
        rounded = torch.add(half_up, window, alpha=1 / scale).to(torch.uint8)
        found: Tensor = torch.ops.onednn.qconv3d_pointwise(
            rounded.permute(3, 0, 1, 2)[None],
            scale,
            ZERO,
            self._weight,
            self._scales,
            self._zeros,
            self._bias,
            *self._geometry,
            *FLOAT_RESULT,
        )
        return found[0].permute(1, 2, 3, 0).contiguous()


_made: WeakKeyDictionary[nn.Conv3d, EightBitConv] = WeakKeyDictionary()


def use(network: nn.Module, wanted: bool) -> None:
    """Has the wide 3x3x3 convolutions of a network, on the CPU, streamed in 8 bits, or not."""
    for layer in network.modules():
        if not isinstance(layer, nn.Conv3d) or layer.kernel_size != (3, 3, 3):
            continue
        if wanted and min(layer.in_channels, layer.out_channels) >= LEAST_CHANNELS:
            _made[layer] = EightBitConv(layer)
        else:
            _made.pop(layer, None)


def of(layer: nn.Conv3d) -> EightBitConv | None:
    """A layer in 8 bits, where it is to be used."""
    return _made.get(layer)


@lru_cache(maxsize=1)
@torch.inference_mode()
def is_quicker() -> bool:
    """Whether 8 bits are exact and at least LEAST_GAIN times as fast here: tried once, in 0.1 s.

    Not so where torch has no such kernels, and on processors without instructions for them, on some
    of which sums of large factors are cut off.
    """
    if not (
        torch.backends.mkldnn.is_available() and hasattr(torch.ops.onednn, "qconv3d_pointwise")
    ):
        return False
    channels = TIMED[-1]
    layer = nn.Conv3d(channels, channels, 3).to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    generator = torch.Generator().manual_seed(0)
    signs = torch.randint(0, 2, layer.weight.shape, generator=generator)
    layer.weight.copy_(LARGEST * (2 * signs - 1))
    window = torch.randint(-LARGEST, LARGEST + 1, TIMED, generator=generator).float()
    window[0, 0, 0, 0] = LARGEST  # then the scale is one
    image = window.permute(3, 0, 1, 2)[None]

    def plain() -> Tensor:
        found = functional.conv3d(image, layer.weight, layer.bias, padding=(0, 1, 1))
        return found[0].permute(1, 2, 3, 0)

    try:
        short = EightBitConv(layer)
        found = short(window)
    except NotImplementedError:  # torch has them for other processors alone
        return False
    except RuntimeError as error:  # these kernels may change with torch; float32 is always there
        logging.getLogger(__name__).warning("8-bit convolutions are not used: %s", error)
        return False
    right = torch.allclose(found, plain(), rtol=1e-4, atol=1.0)
    return right and trial.is_quicker(lambda: short(window), plain, LEAST_GAIN)
