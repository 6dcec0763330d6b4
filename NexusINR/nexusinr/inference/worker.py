"""A session as a process of its own: ``python -m nexusinr.inference.worker``.

Requests come in on stdin, events go out on stdout; `protocol` describes them. The main thread reads
and answers what needs no computing; one other thread loads the libraries and computes.
"""

from __future__ import annotations

import ctypes
import faulthandler
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn

import nexusinr
from nexusinr.errors import Cancelled, NexusError
from nexusinr.inference import protocol
from nexusinr.inference.protocol import Event, Id, Request, RequestError
from nexusinr.models.heap import keep_freed_memory

if TYPE_CHECKING:
    from nexusinr.inference.service import Service

#: Seconds that work gets to notice a cancel by itself, before it is answered for.
GRACE = 0.5

#: Seconds between two looks whether it has.
INTERVAL = 0.02

#: What ends the process; not every system has all of them.
SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")


class Answers:
    """The way out: whole lines, from any thread. Calls `lost` where nobody reads any more."""

    def __init__(self, stream: BinaryIO, lost: Callable[[], None]) -> None:
        self._stream, self._lost = stream, lost
        self._lock = threading.Lock()

    def say(self, event: Event) -> None:
        """One event that belongs to no request."""
        line = protocol.line(event)
        try:
            with self._lock:
                self._stream.write(line)
                self._stream.flush()
        except BrokenPipeError:
            self._lost()

    def send(self, event: Event, id: Id | None) -> None:
        """One event to whoever sent the request with this id."""
        self.say({"event": event["event"], "id": id, **event})


class Job:
    """One request that computes: answered once, and silent from then on."""

    def __init__(self, request: Request, answers: Answers) -> None:
        self.request = request
        self.stop = threading.Event()
        self.is_answered = False
        self._answers = answers
        self._lock = threading.Lock()

    def tell(self, fraction: float, step: str, eta: float | None) -> None:
        """A progress listener."""
        with self._lock:
            if not self.is_answered:
                self._send(protocol.progress(fraction, step, eta))

    def answer(self, event: Event) -> None:
        """The result or the error, unless there was one before."""
        with self._lock:
            if not self.is_answered:
                self.is_answered = True
                self._send(event)

    def give_up(self) -> None:
        """Answers for work that does not notice a cancel: a long call into a library."""
        with self._lock:  # which keeps the next job from beginning: its output is not discarded
            if not self.is_answered:
                _discard_output()
                self.is_answered = True
                self._send(protocol.failure(_cancelled()))

    def _send(self, event: Event) -> None:
        self._answers.send(event, self.request.id)


class Worker:
    """Reads requests until there are no more, and has them done one after the other.

    Args:
        requests: lines.
        events: where the events go.
    """

    def __init__(self, requests: BinaryIO, events: BinaryIO) -> None:
        self._requests = requests
        self._answers = Answers(events, lambda: self.leave(0))
        self._queue: queue.SimpleQueue[Job] = queue.SimpleQueue()
        self._jobs: dict[Id, Job] = {}
        self._running: Job | None = None
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._service: Service | None = None
        self._problem: NexusError | None = None

    # --- the main thread ----------------------------------------------------------------------

    def serve(self) -> NoReturn:
        """Runs until stdin is closed or `quit` comes; ends the process."""
        self._answers.say(
            {
                "event": "ready",
                "protocol": protocol.VERSION,
                "version": nexusinr.__version__,
                "pid": os.getpid(),
            }
        )
        self._thread.start()
        for line in self._lines():
            try:
                request = protocol.parse(line)
                self._check_id(request.id)
            except RequestError as error:
                self._answers.send(protocol.failure(error), error.id)
            else:
                self._take(request)
        self.leave(0)

    def _lines(self) -> Iterator[bytes]:
        """Requests, one a line; of one that is too long no more than shows that it is."""
        while line := self._requests.readline(protocol.MAX_LINE + 1):
            rest = line
            while rest and not rest.endswith(b"\n"):
                rest = self._requests.readline(protocol.MAX_LINE)
            yield line

    def leave(self, status: int) -> NoReturn:
        """Ends the process at once; nothing half-written is left behind."""
        self._stop_all()
        if threading.current_thread() is not self._thread:
            self._wait_for_work()
        _discard_output()
        sys.stderr.flush()
        # Not in order: a long call into a library may be under way.
        os._exit(status)

    def _check_id(self, id: Id) -> None:
        job = self._jobs.get(id)
        if job is not None and not job.is_answered:
            raise RequestError(
                f"the id {id!r} belongs to a request that is still to be answered: choose another"
            )

    def _take(self, request: Request) -> None:
        at_once: dict[str, Callable[[dict[str, Any]], Event]] = {
            "status": self._status,
            "models": self._models,
            "cancel": self._cancel,
            "quit": self._quit,
        }
        if request.op in at_once:
            try:
                event = {"event": "result", **at_once[request.op](request.options)}
            except Exception as error:
                event = _told(error)
            self._answers.send(event, request.id)
            if request.op == "quit":
                self.leave(0)
            return
        job = Job(request, self._answers)
        if self._jobs:
            job.tell(0.0, "waiting", None)
        self._jobs[request.id] = job
        self._queue.put(job)

    def _status(self, options: dict[str, Any]) -> Event:
        import psutil

        nothing: Event = {"torch": None, "model": None, "device": None, "encoded": []}
        running, service = self._running, self._service
        open_jobs = [job for job in list(self._jobs.values()) if not job.is_answered]
        return {
            "protocol": protocol.VERSION,
            "version": nexusinr.__version__,
            "pid": os.getpid(),
            **nothing,
            **({} if service is None else service.status()),
            "running": None if running is None or running.is_answered else running.request.id,
            "waiting": [job.request.id for job in open_jobs if job is not running],
            "memory_gb": round(psutil.Process().memory_info().rss / 1e9, 3),
        }

    def _models(self, options: dict[str, Any]) -> Event:
        from nexusinr.models import weights

        return {
            "models": [
                {
                    "name": card.name,
                    "version": card.version,
                    "architecture": card.architecture,
                    "origin": "bundled" if card.is_bundled else "imported",
                }
                for card in weights.available().values()
            ]
        }

    def _cancel(self, options: dict[str, Any]) -> Event:
        target = options.get("target")
        job = self._running if target is None else self._jobs.get(target)
        if job is None or job.is_answered:
            return {"cancelled": []}
        job.stop.set()
        if job is self._running:
            timer = threading.Timer(GRACE, job.give_up)
            timer.daemon = True
            timer.start()
        else:
            job.answer(protocol.failure(_cancelled()))
        return {"cancelled": [job.request.id]}

    def _quit(self, options: dict[str, Any]) -> Event:
        self._stop_all()
        self._wait_for_work()
        for job in list(self._jobs.values()):
            job.give_up()
        return {}

    def _stop_all(self) -> None:
        for job in [*self._jobs.values(), *filter(None, [self._running])]:
            job.stop.set()

    def _wait_for_work(self) -> None:
        """Until nothing runs, or GRACE is over. No locks: a signal may come in the midst of it."""
        until = time.monotonic() + GRACE
        while self._running is not None and time.monotonic() < until:
            time.sleep(INTERVAL)

    # --- the thread that computes -------------------------------------------------------------

    def _work(self) -> None:
        try:
            self._warm_up()
            while True:
                self._do(self._queue.get())
        except BaseException:
            traceback.print_exc()
        self.leave(1)  # a process that takes requests and does nothing would be worse

    def _warm_up(self) -> None:
        try:
            self._answers.say({"event": "warm", "torch": self._load().torch})
        except NexusError as error:
            self._answers.send(protocol.failure(error), None)

    def _do(self, job: Job) -> None:
        self._running = job
        job.answer(self._outcome(job))
        self._running = None
        if self._jobs.get(job.request.id) is job:  # not one that took over the id after a cancel
            del self._jobs[job.request.id]
        if job.request.op == "upsample":
            _give_memory_back()

    def _outcome(self, job: Job) -> Event:
        try:
            if job.stop.is_set():
                raise _cancelled()
            service = self._load()
            operations = {
                "upsample": service.upsample,
                "estimate": service.estimate,
                "plane": service.plane,
            }
            operation = operations[job.request.op]
            return {"event": "result", **operation(job.request.options, job.tell, job.stop.is_set)}
        except BaseException as error:  # this thread must outlive whatever a library raises
            return _told(error)

    def _load(self) -> Service:
        """The libraries. A failure is final: half-loaded ones fail differently the next time."""
        if self._problem is not None:
            raise self._problem
        if self._service is None:
            try:
                from nexusinr.inference.service import Service

                self._service = Service()
            except Exception as error:
                traceback.print_exc()
                self._problem = _cannot_load(error)
                raise self._problem from error
        return self._service


def _cannot_load(error: Exception) -> NexusError:
    if isinstance(error, ModuleNotFoundError):
        return NexusError(
            f"{error.name} is not installed for {sys.executable}: install it and start again"
        )
    reason = next(iter(str(error).splitlines()), type(error).__name__)
    return NexusError(
        f"the libraries that compute cannot be loaded ({reason}): install torch again for "
        f"{sys.executable}, then start again"
    )


def _cancelled() -> Cancelled:
    return Cancelled("cancelled: nothing was written")


def _told(error: BaseException) -> Event:
    """An error as an event; what nobody foresaw is also told to the log, in full."""
    if not isinstance(error, NexusError):
        traceback.print_exception(error)
    return protocol.failure(error)


def _give_memory_back() -> None:
    """Hands the system what a run has freed, of which glibc would keep much."""
    if sys.platform == "linux":
        library = ctypes.CDLL(None)
        if hasattr(library, "malloc_trim"):  # other C libraries have no need of it
            library.malloc_trim(0)


def _discard_output() -> None:
    output = sys.modules.get("nexusinr.inference.output")
    if output is not None:  # otherwise nothing was begun
        output.OutputFolder.discard_all()


def _own_channels() -> tuple[BinaryIO, BinaryIO]:
    """The standard pipes for the protocol alone: what libraries print goes to stderr."""
    requests, events = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return requests, events


def main() -> NoReturn:
    """Runs a worker on this process's stdin and stdout."""
    faulthandler.enable()
    keep_freed_memory()
    worker = Worker(*_own_channels())
    for name in SIGNALS:
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), lambda *_: worker.leave(Cancelled.exit_code))
    worker.serve()


if __name__ == "__main__":
    main()
