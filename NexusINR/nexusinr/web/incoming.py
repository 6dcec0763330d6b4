"""Scans on their way in: files of the command line, and uploads, which are not trusted.

What is uploaded lies in the session's own folder, under names of ours: names that come with it may
lead anywhere and may hold the name of a patient. They are shown on the page, and nowhere else.
"""

from __future__ import annotations

import errno
import re
import shutil
import tempfile
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Protocol

from nexusinr.errors import InputError
from nexusinr.modality import Modality, guess
from nexusinr.web.archive import unpacking
from nexusinr.web.headers import METAIMAGE_DATA, data_file, dicom_header

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

#: All uploads of a session together, unpacked.
MOST_BYTES = 8_000_000_000

#: Read and written at a time, bytes.
_BLOCK = 1 << 20

_IMAGES = (".nii", ".nii.gz", ".nrrd", ".mha", ".mhd")
_PIXELS = (".raw", ".zraw")
_KINDS = "NIfTI, NRRD, MetaImage, DICOM, or a zip archive of these"


class Readable(Protocol):
    """What bytes come from."""

    def read(self, size: int, /) -> bytes:
        """Some bytes, at most `size`; none at the end."""
        ...


@dataclass(frozen=True)
class Found:
    """One scan.

    Attributes:
        name: how the page calls it: for the page alone, as it may be the user's own words.
        path: its file, or the folder of its series, for `read_volume`.
        modality: what its name says; None where that is not sure.
    """

    name: str
    path: Path
    modality: Modality | None


class _NoScanError(InputError):
    """A file that is left out where it comes with others."""


@contextmanager
def private_folder() -> Iterator[Path]:
    """A folder that nobody else can look into (0700), gone at the end with all that is in it."""
    folder = Path(tempfile.mkdtemp(prefix="nexusinr-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Incoming:
    """The scans of one session. Its methods may be called from several threads.

    Args:
        folder: for uploads, to this session alone.
        most_bytes: of all uploads together, unpacked.
    """

    def __init__(self, folder: Path, most_bytes: int = MOST_BYTES) -> None:
        self._folder = folder
        self._room = most_bytes
        self._numbers = count(1)
        self._series_numbers = count(1)
        self._series: dict[str, Path] = {}
        self._headers: dict[str, tuple[str, Path]] = {}  # both by the data file's own name
        self._pixels: dict[str, Path] = {}
        self._lock = threading.Lock()

    def paths(self, files: Iterable[str | Path]) -> list[Found]:
        """Scans where they lie: images, folders of DICOM series or images, and zip archives.

        A folder of several series, and an archive, is sorted into the session's folder.

        Raises InputError (which one, what is wrong, what to do) for what cannot be used.
        """
        return _once(scan for file in files for scan in self._path(Path(file)))

    def upload(self, name: str, stream: Readable) -> list[Found]:
        """The scans in one uploaded file.

        Each DICOM file gives the folder of its series, to be read after the last one. A MetaImage
        header and its data file come in any order, and the first of them gives nothing.

        Raises InputError (one sentence) for what is too large, damaged or no scan.
        """
        with _naming(name):
            return self._single(name, stream)

    def finish(self) -> list[str]:
        """Nothing more comes with the files so far: later slices are other series.

        Returns in sentences which halves of MetaImage scans have come alone; they are given up.
        """
        with self._lock:
            self._series = {}
            headers, self._headers = self._headers, {}
            pixels, self._pixels = self._pixels, {}
        for path in (*(path for _, path in headers.values()), *pixels.values()):
            self._discard(path)
        return [
            f"{_shown(name)}: its data file {_shown(wanted)!r} is missing; upload both"
            for wanted, (name, _) in headers.items()
        ] + [f"{_shown(name)}: its header file (.mhd) is missing; upload both" for name in pixels]

    # --- where it comes from ----------------------------------------------------------------

    def _path(self, path: Path) -> list[Found]:
        with _naming(path.resolve().name):
            if path.is_dir():
                return self._directory(path)
            if not path.is_file():
                raise InputError("there is no such file or folder; check the path")
            if path.name.lower().endswith(_IMAGES):
                return [_found(path.name, path)]
            with path.open("rb") as stream:
                return self._single(path.name, stream)

    def _single(self, name: str, stream: Readable) -> list[Found]:
        if name.lower().endswith(".zip"):
            return self._archive(stream)
        scan = self._file(name, stream)
        return [] if scan is None else [scan]

    def _directory(self, folder: Path) -> list[Found]:
        files = sorted(file for file in folder.rglob("*") if file.is_file())
        headers = [header for file in files if (header := dicom_header(file)) is not None]
        series = {str(header.SeriesInstanceUID) for header in headers}
        if len(series) == 1:
            return [_found_series(folder, headers[0])]
        if series:
            return self._several(_opened(files))
        images = [_found(f.name, f) for f in files if f.name.lower().endswith(_IMAGES)]
        if not images:
            raise InputError(f"this folder holds no scan; give one with {_KINDS}")
        return images

    def _archive(self, stream: Readable) -> list[Found]:
        packed = self._store(".zip", b"", stream)
        try:
            with unpacking(packed, self._room) as files:
                return self._several(files)
        finally:
            self._discard(packed)

    def _several(self, files: Iterable[tuple[str, Readable]]) -> list[Found]:
        found = []
        for name, stream in files:
            try:
                found.append(self._file(name, stream))
            except _NoScanError:
                continue
        scans = _once(scan for scan in found if scan is not None)
        if not scans:
            raise InputError(f"it holds no scan; give {_KINDS}")
        return scans

    # --- what it is -------------------------------------------------------------------------

    def _file(self, name: str, stream: Readable) -> Found | None:
        """The scan in a file; None where another file has to come first."""
        head = b""
        while len(head) < 132 and (block := stream.read(_BLOCK)):
            head += block
        if head[128:132] == b"DICM":
            return self._slice(self._store(".dcm", head, stream))
        kind = next((end for end in (*_IMAGES, *_PIXELS) if name.lower().endswith(end)), None)
        if kind is None:
            raise _NoScanError(f"it is none of the files that are taken: {_KINDS}")
        if not head:
            raise _NoScanError("the file is empty (0 bytes); copy or export it again")
        stored = self._store(kind, head, stream)
        if kind in _PIXELS:
            return self._pair(str(PurePosixPath(name)), pixels=stored)
        if kind not in (".nrrd", ".mha", ".mhd"):
            return _found(name, stored)
        try:
            elsewhere = data_file(stored)
            if elsewhere is not None and kind != ".mhd":
                raise InputError("its voxels are in another file; export the image as one file")
        except InputError:
            self._discard(stored)
            raise
        if elsewhere is None:
            return _found(name, stored)
        return self._pair(str(PurePosixPath(name).with_name(elsewhere)), header=(name, stored))

    def _slice(self, stored: Path) -> Found:
        header = dicom_header(stored)
        if header is None:
            self._discard(stored)
            raise _NoScanError(
                "it is a DICOM file without an image; give the files of an MR series"
            )
        series = str(header.SeriesInstanceUID)
        with self._lock:
            if series not in self._series:
                self._series[series] = self._folder / f"series-{next(self._series_numbers)}"
                self._series[series].mkdir()
            folder = self._series[series]
        stored.rename(folder / stored.name)
        return _found_series(folder, header)

    def _pair(
        self, wanted: str, header: tuple[str, Path] | None = None, pixels: Path | None = None
    ) -> Found | None:
        """A MetaImage scan as soon as its header and its data file are both there."""
        with self._lock:
            header = header or self._headers.pop(wanted, None)
            pixels = pixels or self._pixels.pop(wanted, None)
            if header is None or pixels is None:
                if header is not None:
                    self._headers[wanted] = header
                if pixels is not None:
                    self._pixels[wanted] = pixels
                return None
        name, path = header
        text = path.read_bytes()
        named = METAIMAGE_DATA.search(text)
        assert named is not None
        path.write_bytes(text[: named.start(1)] + pixels.name.encode() + text[named.end(1) :])
        return _found(name, path)

    # --- where it goes ----------------------------------------------------------------------

    def _store(self, kind: str, head: bytes, stream: Readable) -> Path:
        """Writes a file block by block: how large it is shows as it comes."""
        path = self._folder / f"scan-{next(self._numbers)}{kind}"
        file = path.open("xb")
        try:
            with file:
                block = head or stream.read(_BLOCK)
                while block:
                    with self._lock:
                        self._room -= len(block)
                    file.write(block)
                    if self._room < 0:
                        raise InputError("there is no more room for uploads; start the viewer anew")
                    block = stream.read(_BLOCK)
        except BaseException:
            self._discard(path)
            raise
        return path

    def _discard(self, path: Path) -> None:
        with self._lock:
            self._room += path.stat().st_size
        path.unlink()


@contextmanager
def _naming(name: str) -> Iterator[None]:
    """Puts the name of a file in front of what is wrong with it."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{_shown(name)}: {error}") from error
    except OSError as error:
        full = error.errno == errno.ENOSPC
        reason = "the disk is full" if full else error.strerror or type(error).__name__
        raise InputError(f"{_shown(name)}: it cannot be read or kept ({reason})") from error


def _shown(name: str) -> str:
    """The last part of a name, in a line of at most 80 characters that can be seen."""
    last = re.split(r"[/\\]", name)[-1]
    seen = " ".join("".join(c if c.isprintable() else " " for c in last).split())
    return seen if len(seen) <= 80 else f"{seen[:38]}...{seen[-38:]}"


def _opened(files: Iterable[Path]) -> Iterator[tuple[str, Readable]]:
    for file in files:
        with file.open("rb") as stream:
            yield file.name, stream


def _once(scans: Iterable[Found]) -> list[Found]:
    return list({scan.path: scan for scan in scans}.values())


def _found(name: str, path: Path) -> Found:
    shown = _shown(name)
    return Found(shown, path, guess(shown))


def _found_series(folder: Path, header: Dataset) -> Found:
    number = str(header.get("SeriesNumber", ""))
    words = f"{header.get('SeriesDescription', '')} {header.get('ProtocolName', '')}"
    name = f"DICOM series {number}" if number.isdecimal() else "DICOM series"
    return Found(name, folder, guess(words))
