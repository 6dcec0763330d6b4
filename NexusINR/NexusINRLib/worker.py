"""The package's worker as a child process of Slicer: requests with callbacks, cancel, the end.

It starts with the first request and stays, warm, until it is closed. What it says is described in
`nexusinr.inference.protocol`.
"""

from __future__ import annotations

import atexit
import itertools
import logging
import shutil
import sys
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import qt
import slicer

from nexusinr.errors import Cancelled, NexusError
from nexusinr.inference import protocol
from nexusinr.inference.protocol import Event

#: Milliseconds that a cancel may take before the process is ended.
PATIENCE = 900

#: Milliseconds that the process gets to end by itself.
GRACE = 1500

#: Lines of the worker's log that are kept for the case of a crash.
LOG_LINES = 40


def interpreter() -> str:
    """Slicer's Python as a program: PythonSlicer, which Slicer puts on the path."""
    return shutil.which("PythonSlicer") or sys.executable


@dataclass(frozen=True)
class _Open:
    """A request that is still to be answered."""

    line: bytes
    on_result: Callable[[Event], None]
    on_error: Callable[[NexusError], None]
    on_progress: Callable[[Event], None] | None


@cache
def shared() -> Worker:
    """The one worker of this Slicer: models are large. It ends with Slicer at the latest."""
    worker = Worker()
    slicer.app.aboutToQuit.connect(worker.close)
    atexit.register(worker.close)  # where Python ends without the application
    return worker


class Worker:
    """One worker process. Callbacks come in the thread that Qt's event loop runs in.

    Args:
        python: the interpreter, with torch; default: Slicer's own.

    Attributes:
        problem: why the libraries that compute cannot be loaded, in one sentence; None as long as
            nothing is known against them.
        warm: the report of the run whose scans the process has in memory; None where it has none.
    """

    def __init__(self, python: str | None = None) -> None:
        self.python = python
        self.problem: str | None = None
        self.warm: dict[str, Any] | None = None
        self._process: Any = None
        self._last: Any = None
        self._reader = protocol.EventReader()
        self._log: deque[str] = deque(maxlen=LOG_LINES)
        self._open: dict[int, _Open] = {}
        self._ids = itertools.count(1)

    @property
    def running(self) -> bool:
        """Whether there is a process."""
        return self._process is not None

    def request(
        self,
        op: str,
        on_result: Callable[[Event], None],
        on_error: Callable[[NexusError], None],
        on_progress: Callable[[Event], None] | None = None,
        **options: Any,
    ) -> int:
        """Sends a request; starts the process where there is none.

        Args:
            op: the operation.
            on_result: called with the ``result`` event.
            on_error: called instead where it fails, also where it is cancelled or the process dies.
            on_progress: called with ``progress`` events.
            options: those of the operation; paths may be path objects.

        Returns the id of the request.
        """
        id = next(self._ids)
        line = protocol.request(id, op, **options)
        self._open[id] = _Open(line, on_result, on_error, on_progress)
        self._send(line)
        return id

    def cancel(self, id: int, at_once: bool = True) -> None:
        """Stops a request; its `on_error` is called. Others go on.

        Args:
            id: of the request.
            at_once: within a second, if need be by ending the process, which then has no scans in
                memory any more.
        """
        if id in self._open:
            self._send(protocol.request(next(self._ids), "cancel", target=id))
            if at_once:
                qt.QTimer.singleShot(PATIENCE, lambda: self._insist(id))

    def close(self) -> None:
        """Ends the process; what was open is cancelled. The next request starts another one."""
        process = self._let_go()
        if process is not None:
            process.closeWriteChannel()  # which tells the worker to go
            if not process.waitForFinished(GRACE):
                _end_tree(process)
        self._fail_all(Cancelled("cancelled: the worker was closed"))

    def wait(self, milliseconds: int) -> None:
        """Waits for something to come from the process, without an event loop."""
        if self._process is not None:
            self._process.waitForReadyRead(milliseconds)

    # --- the process --------------------------------------------------------------------------

    def _send(self, line: bytes) -> None:
        if self._process is None:
            self._start()
        if self._process is not None:  # it may have failed to start
            self._process.write(line)

    def _start(self) -> None:
        environment = qt.QProcessEnvironment.systemEnvironment()
        for name, value in protocol.environment().items():
            environment.insert(name, value)
        self._reader, self.problem = protocol.EventReader(), None
        self._log.clear()
        self._process = qt.QProcess()
        self._process.setProcessEnvironment(environment)
        self._process.readyReadStandardOutput.connect(self._read)
        self._process.readyReadStandardError.connect(self._read_log)
        self._process.errorOccurred.connect(self._on_error)
        self._process.finished.connect(self._on_finished)
        self._process.start(self.python or interpreter(), list(protocol.ARGUMENTS))

    def _read(self) -> None:
        if self._process is None:
            return
        try:
            events = self._reader.feed(self._process.readAllStandardOutput().data())
        except ValueError:
            self._kill()
            self._fail_all(NexusError("the worker does not speak as it should: install it again"))
            return
        for event in events:
            self._take(event)

    def _read_log(self) -> None:
        if self._process is not None:
            text = self._process.readAllStandardError().data().decode("utf-8", errors="replace")
            self._log.extend(text.splitlines())

    def _on_error(self, error: Any) -> None:
        if self._process is not None and error == qt.QProcess.FailedToStart:
            self._let_go()
            program = self.python or interpreter()
            self._fail_all(NexusError(f"{program} cannot be started: install Slicer again"))

    def _on_finished(self, *_: Any) -> None:
        self._read()
        self._read_log()
        process = self._let_go()
        if process is None:  # told to go
            return
        crashed = process.exitStatus() == qt.QProcess.CrashExit
        # Of a crash, Qt gives the signal's number as the exit code.
        message = protocol.ended(-process.exitCode() if crashed else process.exitCode())
        logging.error("NexusINR: %s\n%s", message, "\n".join(self._log))
        self._fail_all(NexusError(message))

    def _insist(self, id: int) -> None:
        """Ends a process that does not let go of a request; the other requests start again."""
        request = self._open.pop(id, None)
        if request is None:
            return
        self._kill()
        for other in list(self._open.values()):
            self._send(other.line)
        _tell(request.on_error, Cancelled("cancelled: the worker was ended"))

    def _kill(self) -> None:
        process = self._let_go()
        if process is not None:
            _end_tree(process)

    def _let_go(self) -> Any:
        """From here on nothing that the process says counts; gives it, or None.

        It is kept until the next one goes: this may be called by one of its own signals.
        """
        process, self._process = self._process, None
        self.warm = None
        if process is not None:
            self._last = process
        return process

    # --- what it says -------------------------------------------------------------------------

    def _take(self, event: Event) -> None:
        kind, id = event["event"], event.get("id")
        if kind == "error" and id is None:
            self.problem = event["message"]
        request = self._open.get(id)
        if request is None:
            return
        if kind == "progress":
            if request.on_progress is not None:
                _tell(request.on_progress, event)
            return
        del self._open[id]
        if kind == "result" and "report" in event:
            self.warm = event["report"]
        if kind == "error":
            _tell(request.on_error, protocol.raised_by(event))
        else:
            _tell(request.on_result, event)

    def _fail_all(self, error: NexusError) -> None:
        requests, self._open = list(self._open.values()), {}
        for request in requests:
            _tell(request.on_error, error)


def _tell(callback: Callable[[Any], None], what: Any) -> None:
    try:
        callback(what)
    except Exception:  # a mistake of the caller's, which must not stop the reading
        logging.exception("NexusINR: a callback failed")


def _end_tree(process: Any) -> None:
    """Ends a process and what it has started: PythonSlicer starts the interpreter proper."""
    children: list[Any] = []
    try:
        import psutil

        children = psutil.Process(process.processId()).children(recursive=True)
    except ModuleNotFoundError:  # without psutil no worker gets far enough to hang
        pass
    except psutil.NoSuchProcess:
        return
    for child in children:
        try:
            child.kill()
        except psutil.NoSuchProcess:
            continue
    process.kill()
    process.waitForFinished(GRACE)
