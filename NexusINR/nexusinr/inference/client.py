"""A worker as a child process, for programs without Qt: requests with callbacks, cancel, the end.

For example::

    with start() as worker:
        call = worker.request("upsample", t1w="t1w.nii.gz", out="results", on_progress=print)
        print(call.result()["files"])
"""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import psutil

from nexusinr.errors import Cancelled, NexusError
from nexusinr.inference import protocol
from nexusinr.inference.protocol import Event, Id

#: Seconds that a worker gets to end by itself before it is killed.
GRACE = 2.0


class Crashed(NexusError):  # noqa: N818 (says what happened)
    """The worker is gone although nobody has told it to go."""


class Call:
    """One request on its way.

    Attributes:
        id: of the request.
        done: resolves to the ``result`` event, or to the error: Cancelled where it was cancelled,
            Crashed where the worker died, InputError, OutOfMemory or NexusError where it failed.
    """

    def __init__(self, client: Client, id: Id, on_progress: Callable[[Event], None] | None) -> None:
        self.id = id
        self.done: Future[Event] = Future()
        self.done.set_running_or_notify_cancel()  # it is `cancel` that cancels
        self._client, self._on_progress = client, on_progress

    def result(self, timeout: float | None = None) -> Event:
        """Waits for the result. Raises what `done` resolves to, TimeoutError after timeout s."""
        return self.done.result(timeout)

    def cancel(self) -> None:
        """Asks the worker to stop it; `done` will tell."""
        self._client.cancel(self.id)

    def take(self, event: Event) -> bool:
        """An event with this id; True where it was the last."""
        if event["event"] == "progress":
            _tell(self._on_progress, event)
            return False
        if event["event"] == "error":
            self.done.set_exception(protocol.raised_by(event))
        else:
            self.done.set_result(event)
        return True


class Client:
    """Talks to one worker; see `start`. Callbacks are called in a thread of the client's own.

    Args:
        process: a worker with pipes at stdin and stdout.
        on_event: called with every event that belongs to no request.
    """

    def __init__(
        self, process: subprocess.Popen[bytes], on_event: Callable[[Event], None] | None = None
    ) -> None:
        self.process = process
        self.ready: Future[Event] = Future()
        self._on_event = on_event
        self._calls: dict[Id, Call] = {}
        self._ids = itertools.count(1)
        self._lock = threading.Lock()
        self._end: NexusError | None = None
        self._is_closing = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def request(
        self, op: str, *, on_progress: Callable[[Event], None] | None = None, **options: Any
    ) -> Call:
        """Sends a request (see `protocol` for operations and options).

        Args:
            op: the operation.
            on_progress: called with its ``progress`` events.
            options: those of the operation; paths may be path objects.
        """
        call = Call(self, next(self._ids), on_progress)
        with self._lock:
            if self._end is None:
                self._calls[call.id] = call
                self._write(protocol.request(call.id, op, **options))
            else:
                call.done.set_exception(self._end)
        return call

    def cancel(self, id: Id | None = None) -> Call:
        """Cancels one request, or what is running."""
        return self.request("cancel", target=id)

    def close(self) -> None:
        """Tells the worker to end, and sees to it; what was open is cancelled."""
        self._is_closing = True
        self.request("quit")
        try:
            self.process.wait(GRACE)
        except subprocess.TimeoutExpired:
            self.kill()
        self._reader.join(GRACE)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):  # what was never read by the worker
                    pipe.close()

    def kill(self) -> None:
        """Ends the worker, and whatever it has started, at once."""
        self._is_closing = True
        self._kill_tree()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _kill_tree(self) -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            worker = psutil.Process(self.process.pid)
            for process in (*worker.children(recursive=True), worker):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
        self.process.wait()

    def _write(self, line: bytes) -> None:
        assert self.process.stdin is not None
        # A worker that has gone is told of by the thread that reads.
        with contextlib.suppress(OSError):
            self.process.stdin.write(line)
            self.process.stdin.flush()

    def _read(self) -> None:
        assert self.process.stdout is not None
        reader, problem = protocol.EventReader(), ""
        try:
            while data := os.read(self.process.stdout.fileno(), 1 << 16):
                for event in reader.feed(data):
                    self._take(event)
        except ValueError:
            problem = "what it says is not JSON: it is no worker, or not of this version"
            self._kill_tree()
        problem = problem or protocol.ended(self.process.wait())
        with self._lock:
            self._end = Crashed(problem)
            if self._is_closing:
                self._end = Cancelled("the worker was closed")
            calls, self._calls = list(self._calls.values()), {}
        for call in calls:
            call.done.set_exception(self._end)
        if not self.ready.done():
            self.ready.set_exception(self._end)

    def _take(self, event: Event) -> None:
        if event["event"] == "ready":
            self.ready.set_result(event)
        call = self._calls.get(event.get("id", ""))
        if call is None:
            _tell(self._on_event, event)
        elif call.take(event):
            del self._calls[call.id]


def _tell(callback: Callable[[Event], None] | None, event: Event) -> None:
    if callback is None:
        return
    try:
        callback(event)
    except Exception:  # a mistake of the caller's, which must not end the reading
        traceback.print_exc()


def start(
    python: str | Path = sys.executable,
    on_event: Callable[[Event], None] | None = None,
    log: IO[Any] | int | None = None,
) -> Client:
    """Starts a worker; does not wait for it.

    Args:
        python: the interpreter, with torch; this package is brought along.
        on_event: called with every event that belongs to no request.
        log: where the worker's stderr goes; None: where that of this process goes.

    Raises Crashed where the interpreter cannot be started.
    """
    try:
        process = subprocess.Popen(
            [str(python), *protocol.ARGUMENTS],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env={**os.environ, **protocol.environment()},
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
        )
    except OSError as error:
        raise Crashed(f"{python}: it cannot be started ({error.strerror})") from error
    return Client(process, on_event)
