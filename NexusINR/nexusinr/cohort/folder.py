"""The output folder: its lock, its records, and the room in which a run works.

Beside the derivatives it holds ``.nexusinr``, which belongs to this program::

    lock                      held by the run that is under way
    records/<label>.json      what is known of each session (see `records`)
    cache/                    what libraries would otherwise write into the home folder
    run-<id>/                 there while the run is under way: half-made files, marks of tries

Workers take a run whose room is gone for stopped. So a run ends by the removal of its room, and
whatever an earlier one left behind is removed by the next.
"""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from filelock import FileLock, Timeout

from nexusinr.errors import InputError


@dataclass(frozen=True)
class Folder:
    """The output folder of a cohort, for whoever knows its path; absolute."""

    path: Path

    @property
    def own(self) -> Path:
        """What belongs to this program."""
        return self.path / ".nexusinr"

    @property
    def records(self) -> Path:
        """A file a session."""
        return self.own / "records"

    @property
    def cache(self) -> Path:
        """For libraries."""
        return self.own / "cache"


@dataclass(frozen=True)
class Run:
    """A run under way, as workers know it."""

    folder: Folder
    name: str

    @property
    def room(self) -> Path:
        """Where it works."""
        return self.folder.own / self.name

    @property
    def is_on(self) -> bool:
        """Whether it has not been stopped."""
        return self.room.is_dir()

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """A folder for files that are not yet to be seen, on the file system of the output."""
        path = Path(tempfile.mkdtemp(dir=self.room))
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)

    def lost_tries(self, label: str) -> int:
        """How many workers were lost while they worked on a session in this run."""
        return len(list(self.room.glob(f"{label}.try-*")))

    @contextmanager
    def one_try(self, label: str) -> Iterator[None]:
        """Leaves a mark for as long as a session is worked on: a lost worker cannot remove it.

        The mark tells where the worker is, or was.
        """
        mark = self.room / f"{label}.try-{uuid4().hex}"
        mark.write_text(f"{os.getpid()} {platform.node()}\n", encoding="utf-8")
        try:
            yield
        finally:
            mark.unlink(missing_ok=True)


@contextmanager
def opened(path: Path) -> Iterator[Run]:
    """A run in an output folder, which is made where needed. No other one can begin meanwhile.

    Raises InputError where it cannot be written, and where another run holds it.
    """
    folder = Folder(path.resolve())
    lock = FileLock(folder.own / "lock")
    try:
        for needed in (folder.records, folder.cache):
            needed.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise InputError(
            f"{path}: another run is at work there; wait for it to end or choose another folder"
        ) from None
    except OSError as error:
        raise refusal(path, error) from error
    with lock_released(lock):
        try:
            for left in folder.own.glob("run-*"):
                shutil.rmtree(left)
            run = Run(folder, f"run-{uuid4().hex}")
            run.room.mkdir()
        except OSError as error:
            raise refusal(path, error) from error
        try:
            yield run
        finally:
            stop(run)


@contextmanager
def lock_released(lock: FileLock) -> Iterator[None]:
    """Gives a lock back at the end."""
    try:
        yield
    finally:
        lock.release()


def stop(run: Run) -> None:
    """Ends a run: its workers notice and leave nothing."""
    shutil.rmtree(run.room, ignore_errors=True)


def refusal(path: Path, error: OSError) -> InputError:
    """What to say where a folder cannot be written."""
    why = (error.strerror or str(error)).lower()
    return InputError(f"{path}: cannot write there ({why}); choose another output folder")


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file that appears whole or not at all, and outlives a power cut."""
    temporary = path.with_name(f".{uuid4().hex}")
    try:
        temporary.write_bytes(content)
        move(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def move(source: Path, target: Path) -> None:
    """Moves a complete file to its place on the same file system, and sees it onto the disk."""
    with source.open("rb+") as stream:
        os.fsync(stream.fileno())
    os.replace(source, target)
    if os.name == "posix":
        handle = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
