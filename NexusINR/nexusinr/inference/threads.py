"""Many small pieces of work on the threads of a CPU, or one ahead of another on a GPU."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


def each(
    work: Callable[[Item], Result], todo: Sequence[Item], on_cpu: bool = True
) -> Generator[Result, None, None]:
    """The results for all items, in their order.

    Where they are not for the CPU, the next one is always begun before a result is given: a GPU
    then works on it while the result is looked at.

    On the CPU every thread works on an item of its own, with operators on one thread: those of a
    small piece are too short to be shared, and threads that wait for one another at each of them
    lose half the time. To be closed where its end is not reached (see `contextlib.closing`).
    """
    threads = min(torch.get_num_threads(), len(todo))
    if not on_cpu:
        yield from _one_ahead(map(work, todo))
        return
    if threads < 2:
        yield from map(work, todo)
        return
    whole = torch.get_num_threads()
    inference, gradients = torch.is_inference_mode_enabled(), torch.is_grad_enabled()

    def one(item: Item) -> Result:
        # Every thread has a mode of its own.
        with torch.inference_mode(inference), torch.set_grad_enabled(gradients):
            return work(item)

    pool = ThreadPoolExecutor(threads, "tile", initializer=lambda: torch.set_num_threads(1))
    try:
        yield from pool.map(one, todo)
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(whole)


def _one_ahead(results: Iterator[Result]) -> Generator[Result, None, None]:
    waiting: deque[Result] = deque()
    for result in results:
        waiting.append(result)
        if len(waiting) > 1:
            yield waiting.popleft()
    yield from waiting
