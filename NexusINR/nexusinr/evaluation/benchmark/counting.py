"""Work counted step by step while a run goes on: floating-point operations and bytes.

Counted where torch sends its operators to the device, so that it is what was really computed: air
left out. The counting takes time itself: such a run is not timed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

#: Operators that touch no memory, besides those that torch itself calls views.
_FREE = (
    torch.ops.aten._unsafe_view,
    torch.ops.aten.empty,
    torch.ops.aten.empty_like,
    torch.ops.aten.empty_strided,
    torch.ops.aten.new_empty,
)


@dataclass(frozen=True)
class Work:
    """What was computed.

    Attributes:
        flop: of convolutions and matrix products, a multiplication and an addition counted as two;
            all else is not counted.
        bytes: of the tensors that operators take and give, in memory or in a cache; views are free.
    """

    flop: int = 0
    bytes: int = 0

    def __add__(self, other: Work) -> Work:
        return Work(self.flop + other.flop, self.bytes + other.bytes)

    def __sub__(self, other: Work) -> Work:
        return Work(self.flop - other.flop, self.bytes - other.bytes)


class Counter:
    """Counts what is computed while it is entered: in this thread, to which all work is given."""

    def __init__(self) -> None:
        self._traffic = _Traffic()
        self._flops = FlopCounterMode(display=False, custom_mapping=_eight_bit())
        self._stack = ExitStack()

    def __enter__(self) -> Counter:
        self._stack.callback(torch.set_num_threads, torch.get_num_threads())
        torch.set_num_threads(1)
        self._stack.enter_context(self._traffic)
        # Entered last, hence asked first: it takes composite operators apart for both.
        self._stack.enter_context(self._flops)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    @property
    def work(self) -> Work:
        """Since it was entered."""
        return Work(self._flops.get_total_flops(), self._traffic.bytes)


class CountedSteps:
    """A progress listener that writes down what was computed in each step.

    Attributes:
        steps: work by name of the step.
    """

    def __init__(self, counter: Counter) -> None:
        self.steps: dict[str, Work] = {}
        self._counter = counter
        self._step, self._before = "", Work()

    def __call__(self, fraction: float, step: str, eta: float | None) -> None:
        """See progress.Listener."""
        if step == self._step:
            return
        now = self._counter.work
        if self._step:
            self.steps[self._step] = self.steps.get(self._step, Work()) + now - self._before
        self._step, self._before = step, now


class _Traffic(TorchDispatchMode):
    """Bytes of the tensors that operators take and give."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes = 0

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        given = kwargs or {}
        out = func(*args, **given)
        if not func.is_view and func.overloadpacket not in _FREE:
            touched = tree_leaves((args, given, out))
            self.bytes += sum(t.numel() * t.itemsize for t in touched if isinstance(t, Tensor))
        return out


def _eight_bit() -> dict[Any, Callable[..., int]]:
    """Convolutions with 8-bit factors count as others do."""
    if not hasattr(torch.ops.onednn, "qconv3d_pointwise"):
        return {}

    def flop(
        image: list[int], scale: float, zero: int, weight: list[int], *_: Any, **out: Any
    ) -> int:
        batch, _channels, *lattice = out["out_shape"]
        return 2 * math.prod(weight) * batch * math.prod(lattice)

    return {torch.ops.onednn.qconv3d_pointwise: flop}


def counted(work: Callable[[], object]) -> Work:
    """What one call computes."""
    with Counter() as counter:
        work()
        return counter.work
