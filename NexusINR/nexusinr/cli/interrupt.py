"""Work that SIGINT and SIGTERM stop: within a second, or after its next step."""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from typing import TypeVar

from nexusinr.errors import Cancelled
from nexusinr.models.heap import keep_freed_memory

T = TypeVar("T")

#: Seconds that work gets to notice a signal by itself, before it is left where it stands.
GRACE = 0.5

#: Seconds between two looks.
INTERVAL = 0.05


def until_done(
    work: Callable[[Callable[[], bool]], T], message: str = "cancelled: nothing was written"
) -> T:
    """Runs work in a thread of its own, and gives what it gives or raises what it raises.

    Args:
        work: is given a function that tells whether to stop, for `upsample(cancelled=...)`. Where
            it does not ask in time (a long call into a library), what it has collected so far is
            removed, and the process ends with its main thread.
        message: for such a case.

    Raises Cancelled where a signal came.
    """
    stop = threading.Event()
    result: Future[T] = Future()

    def run() -> None:
        try:
            result.set_result(work(stop.is_set))
        except BaseException as error:
            result.set_exception(error)

    keep_freed_memory()
    with _signals_set(stop):
        threading.Thread(target=run, daemon=True).start()
        while not wait([result], timeout=INTERVAL).done:
            if stop.is_set() and not wait([result], timeout=GRACE).done:
                _discard_output()
                result = Future()
                result.set_exception(Cancelled(message))
    try:
        return result.result()
    except Cancelled:
        if stop.is_set():
            atexit.register(_leave)
        raise


@contextmanager
def _signals_set(stop: threading.Event) -> Iterator[None]:
    names = (signal.SIGINT, signal.SIGTERM)
    before = {name: signal.signal(name, lambda *_: stop.set()) for name in names}
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)


def _discard_output() -> None:
    output = sys.modules.get("nexusinr.inference.output")
    if output is not None:  # otherwise nothing was begun
        output.OutputFolder.discard_all()


def _leave() -> None:
    """Ends the process although the work may still be busy, and without taking it down in order."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(Cancelled.exit_code)


@contextmanager
def stop_on_signals() -> Iterator[Callable[[], bool]]:
    """Whether SIGINT or SIGTERM has come; a second one ends the process as if unhandled.

    A step and the checkpoint after it take longer than other commands may take to stop. Outside of
    the main thread, where there are no signals, the answer is always no.
    """
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop.is_set
        return
    names = (signal.SIGINT, signal.SIGTERM)
    before = {name: signal.getsignal(name) for name in names}

    def heard(number: int, frame: object) -> None:
        stop.set()
        signal.signal(number, before[signal.Signals(number)])

    for name in names:
        signal.signal(name, heard)
    try:
        yield stop.is_set
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)
