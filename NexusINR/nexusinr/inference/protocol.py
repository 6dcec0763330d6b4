"""The messages between a worker and the program that started it. Needs no torch and no Qt.

A worker is a child process, ``python -m nexusinr.inference.worker``. It reads requests from its
stdin and writes events to its stdout, each one JSON object on one line in UTF-8.
Nothing else is ever on stdout; messages for a log are on stderr. Protocol version: VERSION.

Requests
--------
``{"id": ID, "op": NAME, ...options}``. ID is a text or a whole number of the caller's choice, not
that of a request that is still to be answered. An option that is null counts as left out; an
unknown one is refused. Every request is answered by exactly one ``result`` or ``error`` with its
id. ``upsample``, ``estimate`` and ``plane`` wait for one another, in order; the others are answered
at once, whatever is being computed.

``upsample``
    The main job, written to a folder. ``out`` (path) and at least one of ``t1w``, ``t2w`` (path of
    NIfTI, NRRD, MetaImage or of a DICOM folder). ``spacing``: mm, one number or a list of three; or
    ``like``: path of the image whose lattice is wanted; ``roi``: [R, A, S, size, size, size], mm.
    ``model``, ``device``, ``register``, ``consistency`` (0 to 1), ``segmentation`` (true or false),
    ``dicom`` (true or false: a folder of DICOM as well, from DICOM folders), ``adapt`` (true or
    false), ``ensemble`` (1 to 8), ``threads`` and ``max_memory`` (GB), with the meanings and
    defaults of the command line.
    Result: ``files`` (path by name), ``report`` (what report.json holds), ``encoded_anew``
    (modalities, of "T1w" and "T2w", whose encoding was not in memory yet; that of ICONet serves
    one output lattice, that of Nexus-INR all).
``estimate``
    What `upsample` would make and take; nothing is restored or written. The same options. What
    `upsample` would refuse (scans that do not overlap, too little memory) is an error here too.
    Result: ``lattice`` (shape, spacing_mm, orientation, affine), ``voxels``, ``memory_gb``,
    ``seconds`` (null until this worker has done a run with the same model and device),
    ``warnings`` (sentences), ``model``, ``device`` (name, description, reason).
``plane``
    One oblique plane through the scans of the last `upsample`: ``affine`` (four rows of four
    numbers: index [i, j, k] to RAS, mm, as in a lattice of one slice), ``size`` ([i, j] pixels, at
    most MAX_PIXELS in all), ``segmentation``. It is the network's restoration; the acquired slices
    are not enforced, for which a plane is too thin. Result: ``images``: by modality, and
    ``segmentation`` where wanted and the model gives one, each ``{"shape": [i, j, 1], "type":
    "float32" or "uint8", "data": BASE64}``, little-endian in C order: pixel [i, j] is number
    ``i * shape[1] + j`` (see `unpacked`). Intensities are in the units of the scan.
``status``
    Result: ``protocol``, ``version``, ``pid``, ``torch`` (version; null until it is loaded),
    ``model`` (name, version, sha256) and ``device`` (name, description, reason) in use, null before
    the first request that needs them; ``encoded``: the scans of the last `upsample`, as in
    report.json's ``inputs``; ``running`` (id or null), ``waiting`` (ids), ``memory_gb``.
``models``
    Result: ``models``: a list of name, version, architecture, origin ("bundled" or "imported").
``cancel``
    Of the request whose id is ``target``; without it, of what is running. Result: ``cancelled``
    (list of ids, empty where there was nothing to cancel). What is cancelled is answered by an
    error with code 130, at once where it was waiting and otherwise within a second, unless it was
    done before it could notice. Nothing of it is left on the disk.
``quit``
    Cancels everything, answers, and ends the process with status 0.

Events
------
``{"event": "ready", "protocol", "version", "pid"}``
    The first line. Requests may be sent before it.
``{"event": "warm", "torch"}``
    The libraries are loaded; where they cannot be, an ``error`` without id comes instead.
``{"event": "progress", "id", "fraction", "step", "eta_s"}``
    fraction 0 to 1; step in words, "waiting" for a request that has to; eta_s: seconds or null.
``{"event": "result", "id", ...}``
    As described above.
``{"event": "error", "id", "code", "message"}``
    message is one sentence for the user. code as on the command line: 2 bad input, 3 out of memory,
    130 cancelled, 1 anything else (the traceback is on stderr). id is null where a line was no
    request or its id was taken, and for the libraries.

Numbers that are not finite are null. The worker ends at once, with nothing half-written left
behind, when its stdin is closed (status 0) or SIGTERM, SIGINT or SIGHUP comes (status 130). It
keeps model and encodings between requests; another model, device or number of threads replaces
them.
"""

from __future__ import annotations

import base64
import json
import math
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from nexusinr.errors import Cancelled, InputError, NexusError, OutOfMemory

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

VERSION = 1

#: What follows the name of a Python interpreter to start a worker.
ARGUMENTS = ("-m", "nexusinr.inference.worker")

#: Bytes of one request; none comes near it.
MAX_LINE = 1 << 20

#: Pixels of one plane; more is a mistake, and no message for a pipe.
MAX_PIXELS = 1024 * 1024

Id = str | int
Event = dict[str, Any]


class RequestError(InputError):
    """A line that is no request; id is None where it has none."""

    def __init__(self, message: str, id: Id | None = None) -> None:
        super().__init__(message)
        self.id = id


def environment() -> dict[str, str]:
    """Variables that a worker needs besides those of this process: where this package is."""
    package = str(Path(__file__).resolve().parents[2])
    paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
    # Modules are not looked for in the folder that this process happens to be in.
    return {"PYTHONPATH": os.pathsep.join(paths), "PYTHONSAFEPATH": "1"}


@dataclass(frozen=True)
class Request:
    """One request, checked: every option is known and of the right type."""

    id: Id
    op: str
    options: dict[str, Any]


class _Kind(NamedTuple):
    what: str
    accepts: Callable[[Any], bool]


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and -1e12 < value < 1e12


def _is_count(value: Any) -> bool:
    return type(value) is int and 1 <= value < 1e6


def _is_text(value: Any) -> bool:
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        return False
    try:
        return bool(os.fsencode(value))
    except UnicodeEncodeError:  # half a character
        return False


def _is_id(value: Any) -> bool:
    return type(value) is int or _is_text(value)


def _is_list(value: Any, length: int, of: Callable[[Any], bool] = _is_number) -> bool:
    return isinstance(value, list) and len(value) == length and all(map(of, value))


_ID = _Kind("a text or a whole number", _is_id)
_TEXT = _Kind("a name", _is_text)
_PATH = _Kind("a path", _is_text)
_FLAG = _Kind("true or false", lambda value: isinstance(value, bool))
_NUMBER = _Kind("a number", _is_number)
_MEMORY = _Kind("a number of GB above 0", lambda value: _is_number(value) and value > 0)
_COUNT = _Kind("a whole number of at least 1", _is_count)
_MEMBERS = _Kind("a whole number from 1 to 8", lambda value: type(value) is int and 1 <= value <= 8)
_SPACING = _Kind(
    "one number or a list of three, in mm", lambda value: _is_number(value) or _is_list(value, 3)
)
_BOX = _Kind("a list of six numbers, in mm", lambda value: _is_list(value, 6))
_SIZE = _Kind(
    "a list of two whole numbers of at least 1", lambda value: _is_list(value, 2, _is_count)
)
_MATRIX = _Kind(
    "four rows of four numbers",
    lambda value: _is_list(value, 4, lambda row: _is_list(row, 4)),
)

_RUN = {
    "t1w": _PATH,
    "t2w": _PATH,
    "spacing": _SPACING,
    "like": _PATH,
    "roi": _BOX,
    "model": _TEXT,
    "device": _TEXT,
    "register": _TEXT,
    "consistency": _NUMBER,
    "segmentation": _FLAG,
    "dicom": _FLAG,
    "adapt": _FLAG,
    "ensemble": _MEMBERS,
    "threads": _COUNT,
    "max_memory": _MEMORY,
    "out": _PATH,
}

#: Every operation with its options.
OPERATIONS: dict[str, dict[str, _Kind]] = {
    "upsample": _RUN,
    "estimate": _RUN,
    "plane": {"affine": _MATRIX, "size": _SIZE, "segmentation": _FLAG},
    "status": {},
    "models": {},
    "cancel": {"target": _ID},
    "quit": {},
}

_REQUIRED = {"upsample": ("out",), "plane": ("affine", "size")}


def parse(line: bytes | str) -> Request:
    """A request from one line. Raises RequestError (one sentence) for anything else."""
    if len(line) > MAX_LINE:
        raise RequestError(f"this line is too long: a request has {MAX_LINE} bytes at most")
    try:
        given = json.loads(line)
    except (ValueError, RecursionError):
        raise RequestError("this line is not JSON: send one object a line") from None
    if not isinstance(given, dict):
        raise RequestError('a request is an object, {"id": ..., "op": ...}')
    id, op = given.pop("id", None), given.pop("op", None)
    if not _is_id(id):
        raise RequestError(f"a request needs an id, {_ID.what}, not {_shown(id)}")
    kinds = OPERATIONS.get(op) if isinstance(op, str) else None
    if kinds is None:
        raise RequestError(f"unknown op {_shown(op)}: choose from {', '.join(OPERATIONS)}", id)
    options = {name: value for name, value in given.items() if value is not None}
    for name, value in options.items():
        if name not in kinds:
            raise RequestError(f"{op} has no option {_shown(name)}", id)
        if not kinds[name].accepts(value):
            raise RequestError(f"{op}: {name} is {kinds[name].what}, not {_shown(value)}", id)
    for name in _REQUIRED.get(op, ()):
        if name not in options:
            raise RequestError(f"{op} needs {name}, {kinds[name].what}", id)
    return Request(id, op, options)


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


def request(id: Id, op: str, **options: Any) -> bytes:
    """One request as a line; paths may be path objects."""
    return (json.dumps({"id": id, "op": op, **options}, default=os.fspath) + "\n").encode()


# --- events -----------------------------------------------------------------------------------


def line(event: Event) -> bytes:
    """One event as a line."""
    return (json.dumps(_finite(event), allow_nan=False) + "\n").encode()


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


class EventReader:
    """Puts events together from the pieces in which a pipe hands them over."""

    def __init__(self) -> None:
        self._rest: list[bytes] = []

    def feed(self, data: bytes) -> list[Event]:
        """The events that are complete with this piece. Raises ValueError for what is no JSON."""
        if b"\n" not in data:
            self._rest.append(data)
            return []
        *lines, rest = b"".join((*self._rest, data)).split(b"\n")
        self._rest = [rest]
        try:
            return [json.loads(line) for line in lines if line.strip()]
        except RecursionError:
            raise ValueError("an event that is nested without end") from None


def progress(fraction: float, step: str, eta: float | None) -> Event:
    """How far a run has come; eta in seconds."""
    seconds = None if eta is None else round(eta, 1)
    return {"event": "progress", "fraction": round(fraction, 4), "step": step, "eta_s": seconds}


def failure(error: BaseException) -> Event:
    """What went wrong, as an event."""
    known = error if isinstance(error, NexusError) else out_of_memory(error) or _unexpected(error)
    message = " ".join(str(known).split())
    return {"event": "error", "code": known.exit_code, "message": message}


def out_of_memory(error: BaseException) -> OutOfMemory | None:
    """What to say of a lack of memory, whoever noticed it; None for any other error."""
    # What torch says, on a CPU and on a GPU.
    told = any(words in str(error) for words in ("can't allocate memory", "out of memory"))
    if not isinstance(error, MemoryError) and not told:
        return None
    reason = next(iter(str(error).splitlines()), "") or "no more could be had"
    return OutOfMemory(f"out of memory ({reason}): choose a coarser spacing or a smaller region")


def _unexpected(error: BaseException) -> NexusError:
    reason = next(iter(str(error).splitlines()), "")
    return NexusError(f"internal error ({type(error).__name__}: {reason}); the log has more of it")


def raised_by(event: Event) -> NexusError:
    """The error that an ``error`` event tells of, as the exception that it was."""
    kinds = {kind.exit_code: kind for kind in (InputError, OutOfMemory, Cancelled)}
    return kinds.get(event["code"], NexusError)(event["message"])


def ended(status: int) -> str:
    """Why a worker is gone that nobody has told to go, in one sentence.

    Args:
        status: exit status; negative: the number of the signal that ended it.
    """
    if status >= 0:
        return f"the worker ended unexpectedly with status {status}: its log tells more"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    if name == "SIGKILL":
        return (
            "the worker was killed (SIGKILL), as the system does when memory runs out: choose a "
            "coarser spacing or a smaller region, or close other programs"
        )
    return f"the worker crashed ({name}): try again with device cpu; its log tells more"


# --- images -----------------------------------------------------------------------------------


def packed(image: NDArray[np.float32] | NDArray[np.uint8]) -> dict[str, Any]:
    """An image (i, j, k) for a message."""
    little = image.astype(image.dtype.newbyteorder("<"), copy=False)
    data = base64.b64encode(little.tobytes()).decode("ascii")
    return {"shape": list(image.shape), "type": image.dtype.name, "data": data}


def unpacked(image: dict[str, Any]) -> NDArray[Any]:
    """An image (i, j, k) out of a message."""
    import numpy as np

    kind = np.dtype(image["type"]).newbyteorder("<")
    return np.frombuffer(base64.b64decode(image["data"]), kind).reshape(image["shape"])
