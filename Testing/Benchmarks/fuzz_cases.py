"""Damaged inputs for every reader, and the promise that each reader keeps for all of them.

The promise: a result that makes sense, or an InputError of one sentence; nothing else is raised,
and nothing is written outside the folder of the case. `fuzz.py` runs many cases with limits on time
and memory, `Testing/engine/test_fuzz.py` a few. A case is drawn from a `random.Random`, so the same
seed gives the same case.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from fuzz_damage import (
    Files,
    bomb,
    damaged,
    damaged_header,
    damaged_json,
    damaged_nifti,
    damaged_series,
    damaged_text,
    zipped,
)
from fuzz_seeds import PATIENT, configurations, images, messages, model, series

from nexusinr.errors import InputError
from nexusinr.inference import protocol
from nexusinr.models import weights
from nexusinr.training.config import SHIPPED
from nexusinr.volume import read_volume
from nexusinr.web.incoming import Incoming

#: A sentence for the user is shorter than this, characters.
LONGEST_SENTENCE = 1000


class Broken(AssertionError):  # noqa: N818 (says what happened)
    """A reader did not keep its promise."""


@dataclass(frozen=True)
class Reader:
    """One way in.

    Attributes:
        make: lays a damaged input into an empty folder and gives what `read` needs.
        read: reads it, and raises Broken for a result that makes no sense.
    """

    make: Callable[[Random, Path], Any]
    read: Callable[[Any], None]


def outcome(reader: Reader, given: Any, folder: Path) -> str:
    """``read`` or ``refused``, for what was made in a folder; raises whatever else happens."""
    try:
        with _Writes(folder) as writes, warnings.catch_warnings():
            warnings.filterwarnings("error", module="nexusinr")
            reader.read(given)
        result = "read"
    except InputError as error:
        _check_sentence(str(error))
        result = "refused"
    if writes.outside:
        raise Broken(f"written outside its folder: {writes.outside[0]}")
    return result


def _check_sentence(text: str) -> None:
    line = " ".join(text.split())  # as every front end shows it
    if not line or len(line) > LONGEST_SENTENCE:
        raise Broken(f"a message of {len(line)} characters: {line[:200]}")
    for word in PATIENT.split("^"):
        if word in line:
            raise Broken(f"a message with the patient's name: {line[:200]}")


# --- writes -----------------------------------------------------------------------------------

_CHANGES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.chmod")
_TO_WRITE = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class _Writes:
    """Which files outside a folder Python code wrote, made, moved or deleted in the meantime."""

    now: _Writes | None = None

    def __init__(self, folder: Path) -> None:
        self._inside = os.path.realpath(folder) + os.sep
        self.outside: list[str] = []

    def __enter__(self) -> _Writes:
        _Writes.now = self
        return self

    def __exit__(self, *_: object) -> None:
        _Writes.now = None

    def note(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            changes = isinstance(arguments[2], int) and bool(arguments[2] & _TO_WRITE)
            paths = arguments[:1] if changes else ()
        else:
            paths = arguments[: 2 if event in ("os.rename", "os.link", "os.symlink") else 1]
        for path in paths:
            # Compiled modules are kept as they are first imported, which is not the reader's doing.
            if isinstance(path, (str, bytes, os.PathLike)) and "__pycache__" not in str(path):
                real = os.path.realpath(os.fsdecode(path))
                if not f"{real}{os.sep}".startswith(self._inside) and real != os.devnull:
                    self.outside.append(f"{event} {real}")


def _listen(event: str, arguments: tuple[Any, ...]) -> None:
    if _Writes.now is not None and (event == "open" or event in _CHANGES):
        _Writes.now.note(event, arguments)


sys.addaudithook(_listen)


# --- images -----------------------------------------------------------------------------------


def _lay(folder: Path, files: Files) -> Path:
    """Writes the files; the path of the first."""
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder / next(iter(files))


def _image(kind: str) -> Callable[[Random, Path], Path]:
    def make(random: Random, folder: Path) -> Path:
        return _lay(folder, _damaged_image(random, random.choice(images()[kind])))

    return make


def _damaged_image(random: Random, files: Files) -> Files:
    """One of its files with damage; what is packed is damaged before or after packing."""
    name = random.choice(list(files))
    content = files[name]
    if name.endswith(".nii"):
        content = damaged_nifti(random, content)
    elif name.endswith(".nii.gz"):
        if random.random() < 0.02:
            content += bomb()
        elif random.random() < 0.7:
            content = gzip.compress(damaged_nifti(random, gzip.decompress(content)), 1, mtime=0)
        else:
            content = damaged(random, content, len(content))
    elif name.endswith(("raw", "raw.gz")):
        content = damaged(random, content, len(content))
    else:
        content = damaged_header(random, content)
    return {**files, name: content}


def _read_image(path: Path) -> None:
    volume = read_volume(path)
    if volume.data.ndim != 3 or min(volume.data.shape) < 4:
        raise Broken(f"a volume of shape {volume.data.shape}")
    if not (np.isfinite(volume.data).all() and np.isfinite(volume.affine.matrix).all()):
        raise Broken("numbers that are not finite")
    for note in (*volume.notes, volume.name):
        _check_sentence(note)


def _series(random: Random, folder: Path) -> Path:
    scan = folder / "scan"
    scan.mkdir()
    _lay(scan, damaged_series(random, random.choice(series())))
    return scan


# --- weights ----------------------------------------------------------------------------------


def _weights_file(random: Random, folder: Path) -> Path:
    """A file to import: damaged bytes, or a sound file with a damaged header or card."""
    content, _ = model()
    length = 8 + int.from_bytes(content[:8], "little")
    if random.random() < 0.3:
        return _lay(folder, {"given.safetensors": damaged(random, content, length)})
    header = json.loads(content[8:length])
    if random.random() < 0.7:
        header["__metadata__"]["card"] = damaged_json(random, header["__metadata__"]["card"])
        text = json.dumps(header).encode()
    else:
        text = damaged_json(random, json.dumps(header)).encode(errors="replace")
    changed = len(text).to_bytes(8, "little") + text + content[length:]
    return _lay(folder, {"given.safetensors": changed})


def _import(file: Path) -> None:
    home = file.parent / "home"
    os.environ["NEXUSINR_HOME"] = str(home)
    try:
        name = weights.import_weights(file).name
    except InputError:
        if home.exists() and any(path.is_file() for path in home.rglob("*")):
            raise Broken("a file that is refused left something behind") from None
        raise
    if {path.stem for path in (home / "weights").iterdir()} != {name}:
        raise Broken("imported under another name than its own")
    weights.load(name)


def _card(random: Random, folder: Path) -> Path:
    """The card of weights that are there, damaged."""
    content, card = model()
    home = folder / "weights"
    home.mkdir()
    text = damaged_json(random, card) if random.random() < 0.7 else damaged_text(random, card)
    return _lay(
        home, {"small.json": text.encode(errors="surrogateescape"), "small.safetensors": content}
    )


def _load(card: Path) -> None:
    os.environ["NEXUSINR_HOME"] = str(card.parent.parent)
    weights.available()
    weights.load("small")


# --- messages ---------------------------------------------------------------------------------


def _message(random: Random, folder: Path) -> bytes:
    text = random.choice(messages())
    draw = random.random()
    if draw < 0.6:
        return damaged_json(random, text).encode(errors="surrogatepass")
    if draw < 0.8:
        return damaged_text(random, text).encode(errors="surrogateescape")
    return damaged(random, text.encode(), len(text))


def _parse(line: bytes) -> None:
    with contextlib.suppress(ValueError):  # which its readers take for the end of the worker
        protocol.EventReader().feed(line + b"\n")
    try:
        request = protocol.parse(line)
    except protocol.RequestError as error:
        answer = {"id": error.id, **protocol.failure(error)}
        if protocol.line(answer).count(b"\n") != 1:
            raise Broken("an answer of several lines") from None
        raise
    for value in request.options.values():
        if isinstance(value, str):
            os.fsencode(value)


# --- uploads ----------------------------------------------------------------------------------

_PARTS = ("..", ".", "", "t1", "/etc/passwd", "C:\\t1", "\0", "x" * 300, "\u202e", "a\nb", "\ud800")


def _upload(random: Random, folder: Path) -> tuple[Path, list[tuple[str, bytes]]]:
    kinds = [*images().values(), series()]
    files = dict(random.choice(random.choice(kinds)))
    if random.random() < 0.6:
        name = random.choice(list(files))
        files[name] = damaged(random, files[name], 600)
    named = [(_upload_name(random, name), content) for name, content in files.items()]
    if random.random() < 0.5:
        packed = zipped(random, named)
        if random.random() < 0.5:
            packed = damaged(random, packed, len(packed))
        named = [("study.zip", packed)]
    inside = folder / "session"
    inside.mkdir()
    return inside, named


def _upload_name(random: Random, name: str) -> str:
    if random.random() < 0.7:
        return name
    return "/".join((random.choice(_PARTS), random.choice(_PARTS) + name))


def _receive(given: tuple[Path, list[tuple[str, bytes]]]) -> None:
    folder, files = given
    incoming = Incoming(folder)
    found = [scan for name, data in files for scan in incoming.upload(name, io.BytesIO(data))]
    for sentence in incoming.finish():
        _check_sentence(sentence)
    if [entry for entry in folder.parent.iterdir() if entry != folder]:
        raise Broken("a file beside the session's folder")
    for scan in dict.fromkeys(scan.path for scan in found):
        if folder not in scan.parents:
            raise Broken(f"a scan outside the session's folder: {scan}")
        _read_image(scan)


# --- configurations ---------------------------------------------------------------------------


def _configuration(random: Random, folder: Path) -> Path:
    text = damaged_text(random, random.choice(configurations()))
    if random.random() < 0.1:
        text += f"\nbase: {random.choice(['../..', 'run.yaml', 'nexus-inr.yaml', str(SHIPPED)])}\n"
    return _lay(folder, {"run.yaml": text.encode(errors="surrogateescape")})


def _configure(file: Path) -> None:
    from nexusinr.cli.train import read_config

    read_config(file)


READERS: dict[str, Reader] = {
    "NIfTI": Reader(_image("nifti"), _read_image),
    "NRRD": Reader(_image("nrrd"), _read_image),
    "MetaImage": Reader(_image("metaimage"), _read_image),
    "DICOM": Reader(_series, _read_image),
    "weights": Reader(_weights_file, _import),
    "cards": Reader(_card, _load),
    "messages": Reader(_message, _parse),
    "uploads": Reader(_upload, _receive),
    "configurations": Reader(_configuration, _configure),
}
