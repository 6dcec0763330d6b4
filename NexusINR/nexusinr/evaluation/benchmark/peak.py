"""What the machine can do: the speed of a big convolution and of a big matrix product, measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nexusinr.evaluation.benchmark.timing import best_of
from nexusinr.inference.device import Device
from nexusinr.models.eight_bit import EightBitConv

#: The convolution: 3x3x3, as many channels in as out, as the encoders have.
CHANNELS = 32

#: Runs of each, the best of which counts: what else runs on the machine does not.
RUNS = 5


@dataclass(frozen=True)
class Peak:
    """Speeds in GFLOP/s, a multiplication and an addition counted as two.

    The last is that of the convolution with 8-bit factors, where a network has them.
    """

    conv: float
    matmul: float
    eight_bit_conv: float | None = None


@torch.inference_mode()
def measure(device: Device, lattice: tuple[int, int, int], matrix: int) -> Peak:
    """The peak of a device, in the precision in which a network works there.

    Args:
        device: where.
        lattice: of the convolution, larger than the caches.
        matrix: edge of the matrices.
    """

    def tensor(*shape: int) -> Tensor:
        return torch.rand(shape, device=device.torch, dtype=device.dtype)

    conv = nn.Conv3d(CHANNELS, CHANNELS, 3, padding=1).to(device.torch, device.dtype)
    conv.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    x = tensor(1, CHANNELS, *lattice).to(memory_format=torch.channels_last_3d)
    voxels = lattice[0] * lattice[1] * lattice[2]
    a, b = tensor(matrix, matrix), tensor(matrix, matrix)
    flop = 2 * 27 * CHANNELS**2 * voxels
    short = None
    if device.eight_bit:
        convolve, planes = EightBitConv(conv), x[0].permute(1, 2, 3, 0)
        short = _speed(lambda: convolve(planes), flop, device)
    return Peak(
        _speed(lambda: conv(x), flop, device), _speed(lambda: a @ b, 2 * matrix**3, device), short
    )


def _speed(work: Callable[[], Tensor], flop: int, device: Device) -> float:
    return flop / best_of(work, device, RUNS) / 1e9
