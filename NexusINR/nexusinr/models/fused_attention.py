"""Attention over neighbours in one kernel, where a GPU is quicker at that.

Step by step, the products of every point with 27 keys, and its shares of 27 values, go through the
GPU's memory: a third of all bytes that decoding moves. In one kernel they stay in registers, and
sums have float32. It is compiled when it is first used (see `triton_attention`), which needs
Triton: PyTorch for CUDA on Linux brings it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import lru_cache
from weakref import WeakSet

import torch
from torch import Tensor, nn

from nexusinr.models import trial
from nexusinr.models.neighbourhood import attended

Attended = Callable[[Tensor, Tensor, Tensor], Tensor]

#: Used where it is so many times as fast.
LEAST_GAIN = 1.2

#: Width and lattice of what is timed, and how far results may be apart: half precision's own error.
WIDTH, LATTICE, TOLERANCE = 16, (64, 64, 64), 5e-3

_fused: WeakSet[nn.Module] = WeakSet()


def use(network: nn.Module, wanted: bool) -> None:
    """Has the attention of a network computed in one kernel where nothing is learned, or not."""
    for layer in network.modules():
        if wanted:
            _fused.add(layer)
        else:
            _fused.discard(layer)


def of(layer: nn.Module, width: int) -> Attended:
    """The way in which a layer of this width is to attend."""
    power_of_two = width & (width - 1) == 0
    if layer not in _fused or not power_of_two or torch.is_grad_enabled():
        return attended
    from nexusinr.models import triton_attention

    return triton_attention.attended


@lru_cache(maxsize=8)
def is_quicker(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether it is right and at least LEAST_GAIN times as fast on a GPU: tried once."""
    try:
        from nexusinr.models import triton_attention
    except ImportError:  # there is no Triton for some systems
        return False
    try:
        return _wins(triton_attention.attended, device, dtype)
    except (RuntimeError, OSError, triton_attention.TritonError) as error:
        # It needs a C compiler, and a GPU that this Triton knows.
        logging.getLogger(__name__).warning("attention is not fused: %s", error)
        return False


@torch.inference_mode()
def _wins(fused: Attended, device: torch.device, dtype: torch.dtype) -> bool:
    generator = torch.Generator().manual_seed(0)
    shapes = (1, WIDTH, *LATTICE), (1, 2 * WIDTH, *(n + 2 for n in LATTICE)), (27,)
    given = [torch.randn(shape, generator=generator).to(device, dtype) for shape in shapes]
    right = attended(*(tensor.float() for tensor in given))
    if not torch.allclose(fused(*given).float(), right, rtol=TOLERANCE, atol=TOLERANCE):
        return False

    def finished(way: Attended) -> Callable[[], None]:
        def run() -> None:
            way(*given)
            if device.type == "cuda":
                torch.cuda.synchronize(device)

        return run

    return trial.is_quicker(finished(fused), finished(attended), LEAST_GAIN)
