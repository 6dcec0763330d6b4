"""Whether one way to do some work is quicker on this machine than another: tried."""

from __future__ import annotations

import time
from collections.abc import Callable

#: Tries of each way in a round, and rounds, until it is clear.
TRIES, ROUNDS = 3, 5


def is_quicker(new: Callable[[], object], old: Callable[[], object], gain: float) -> bool:
    """Whether the new way is at least `gain` times as fast.

    The shortest of all tries counts: other programs make each of them longer, and processes of one
    machine are to come to one answer. Who is far behind is not tried again.
    """
    best = {old: float("inf"), new: float("inf")}
    for _ in range(ROUNDS):
        for work in best:
            best[work] = min(best[work], *(_seconds(work) for _ in range(TRIES)))
        if best[old] > gain * best[new]:
            return True
        if best[new] > 2 * best[old]:
            return False
    return False


def _seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun
