"""Point-wise layers with bfloat16 factors, where a processor is quicker at them than at float32.

Features and weights are rounded to 8 binary digits as they are multiplied; products are summed in
float32. Intensities, positions and attention stay in float32. Processors without instructions for
such products can be a hundred times slower at them, so they are tried.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from weakref import WeakSet

import torch
from torch import Tensor, nn
from torch.nn import functional

from nexusinr.models import trial

#: Used where it is so many times as fast.
LEAST_GAIN = 1.2

#: Points and features of the layer that is timed: the decoder's.
POINTS, FEATURES = 4096, 96


_short: WeakSet[nn.Module] = WeakSet()


def use(network: nn.Module, wanted: bool) -> None:
    """Has the perceptrons of a network, on the CPU, computed with such factors, or not."""
    if wanted:
        _short.add(network)
    else:
        _short.discard(network)


def factors(network: nn.Module) -> AbstractContextManager[object]:
    """A context for the perceptrons of a network: what is around it holds where nothing is said."""
    return _with_short_factors() if network in _short else nullcontext()


def full(device: torch.device) -> torch.autocast:
    """A context for layers that need all digits, whatever is around it."""
    return torch.autocast(device.type, enabled=False)


def _with_short_factors() -> torch.autocast:
    return torch.autocast("cpu", torch.bfloat16)


@lru_cache(maxsize=1)
@torch.inference_mode()
def is_quicker() -> bool:
    """Whether they are right and at least LEAST_GAIN times as fast here: tried once, in 10 ms."""
    generator = torch.Generator().manual_seed(0)
    # Whole numbers that 8 binary digits hold, and their sums too.
    points = torch.randint(-3, 4, (POINTS, FEATURES), generator=generator).float()
    weight = torch.randint(-1, 2, (FEATURES, FEATURES), generator=generator).float()

    def plain() -> Tensor:
        return functional.linear(points, weight)

    def short() -> Tensor:
        with _with_short_factors():
            return functional.linear(points, weight)

    right = torch.allclose(short().float(), plain(), rtol=2**-7)
    return right and trial.is_quicker(short, plain, LEAST_GAIN)
