"""How far a run has come, how long it will take, and whether it shall go on."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from nexusinr.errors import Cancelled

#: Called with fraction (0 ... 1), step in words, and seconds still to go (None: not known yet).
Listener = Callable[[float, str, float | None], None]

#: Progress is told at most this often, in seconds.
INTERVAL = 0.1


@dataclass
class _Step:
    name: str
    start: float
    share: float


class Progress:
    """Reports the fraction of the expected work that is done; notices a request to stop.

    Args:
        listener: told of progress.
        cancelled: asked, often, whether to stop.
        total: what the shares of all steps add up to.
    """

    def __init__(
        self,
        listener: Listener | None = None,
        cancelled: Callable[[], bool] | None = None,
        total: float = 1.0,
    ) -> None:
        self._listener, self._cancelled, self._total = listener, cancelled, total
        self._begun = time.monotonic()
        self._told = 0.0
        self._done = 0.0
        self._step = _Step("", 0.0, 0.0)
        self.seconds: dict[str, float] = {}

    @contextmanager
    def step(self, name: str, share: float) -> Iterator[Progress]:
        """One step of the run, with its expected share of the total."""
        share /= self._total
        self._step = _Step(name, self._done, share)
        begun = time.monotonic()
        self.tell(0.0, force=True)
        yield self
        self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - begun
        self._done += share
        self._step = _Step(name, self._done, 0.0)

    def tell(self, fraction: float, force: bool = False) -> None:
        """Says how much of the current step is done, 0 ... 1. Raises Cancelled on request."""
        self.check()
        now = time.monotonic()
        if self._listener is None or (not force and now - self._told < INTERVAL):
            return
        self._told = now
        whole = min(round(self._step.start + self._step.share * fraction, 9), 1.0)
        elapsed = now - self._begun
        remaining = elapsed * (1 - whole) / whole if whole > 0.02 else None
        self._listener(whole, self._step.name, remaining)

    def check(self) -> None:
        """Raises Cancelled where the run shall stop."""
        if self._cancelled is not None and self._cancelled():
            raise Cancelled("cancelled: nothing was written")

    def part(self, done: float, share: float) -> Progress:
        """One whose whole is a share of the current step, of which a fraction is done already."""
        child = copy.copy(self)
        step = self._step
        child._step = _Step(step.name, step.start + step.share * done, step.share * share)
        return child

    def quiet(self) -> Progress:
        """One that tells nobody, but notices a request to stop as this one does."""
        return Progress(cancelled=self._cancelled)

    def finish(self) -> None:
        """Tells the end."""
        if self._listener is not None:
            self._listener(1.0, "done", 0.0)
