"""Zip archives from people we do not know: looked through before anything is unpacked."""

from __future__ import annotations

import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from nexusinr.errors import InputError

#: More files than this are no study of one head.
MOST_FILES = 20_000

#: Scans shrink to a half or a quarter; what shrinks more than this unpacks without end.
MOST_SHRUNK = 100

_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)

#: What a damaged archive leads to: when its list of members is read, a member is opened, and read.
_BAD_LIST = (EOFError, NotImplementedError, OSError, ValueError, struct.error, zipfile.BadZipFile)
_BAD_MEMBER = (NotImplementedError, UnicodeDecodeError, zipfile.BadZipFile)
_BAD_CONTENT = (EOFError, zipfile.BadZipFile, zlib.error)


class Member:
    """The content of one file in an archive; ends at the size that is declared.

    What goes wrong in it is told from what goes wrong with whoever reads it.
    """

    def __init__(self, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> None:
        try:
            self._stream = archive.open(info)
        except _BAD_MEMBER as error:
            raise _damaged() from error

    def read(self, size: int, /) -> bytes:
        """Some bytes, at most `size`; none at the end. Raises InputError where it is damaged."""
        try:
            return self._stream.read(size)
        except _BAD_CONTENT as error:
            raise _damaged() from error

    def close(self) -> None:
        """Lets go of it."""
        self._stream.close()


@contextmanager
def unpacking(path: Path, most_bytes: int) -> Iterator[Iterator[tuple[str, Member]]]:
    """The files of an archive in turn, each as its name and a stream of its content.

    The hidden files of macOS are left out. Raises InputError, before anything is unpacked, for an
    archive that is damaged, encrypted, or packed in a rare way, unpacks to more than `most_bytes`
    or to more than MOST_SHRUNK times its size, or has members that are links, lie at absolute
    places or above the archive, or are more than MOST_FILES; and in between where a member turns
    out damaged.
    """
    try:
        archive = zipfile.ZipFile(path)
    except _BAD_LIST as error:
        raise _damaged() from error
    with archive:
        members = archive.infolist()
        _check_sizes(members, path.stat().st_size, most_bytes)
        for member in members:
            _check_member(member)
        yield _files(archive, members)


def _files(
    archive: zipfile.ZipFile, members: list[zipfile.ZipInfo]
) -> Iterator[tuple[str, Member]]:
    for member in members:
        parts = member.filename.split("/")
        if not member.is_dir() and not any(p.startswith((".", "__MACOSX")) for p in parts):
            with closing(Member(archive, member)) as stream:
                yield member.filename, stream


def _check_sizes(members: list[zipfile.ZipInfo], packed: int, most_bytes: int) -> None:
    if len(members) > MOST_FILES:
        raise InputError(
            f"it holds {len(members)} files, and {MOST_FILES} are taken at most; pack the series "
            "that you need"
        )
    unpacked = sum(member.file_size for member in members)
    if unpacked > most_bytes:
        raise InputError(
            f"it unpacks to {unpacked / 1e9:.1f} GB, and {most_bytes / 1e9:.1f} GB are taken at "
            "most; pack the series that you need"
        )
    if unpacked > MOST_SHRUNK * packed:
        raise InputError(
            f"it unpacks to {unpacked / packed:.0f} times its size, which no scan does; pack it "
            "again"
        )


def _check_member(member: zipfile.ZipInfo) -> None:
    name = member.orig_filename  # as it was packed: zipfile mends some
    if not member.filename:
        raise InputError("it has a file without a name; pack it again")
    if name.startswith(("/", "\\")) or re.match("[A-Za-z]:", name):
        raise InputError("it has a file at an absolute place; pack it again from its folder")
    if ".." in re.split(r"[/\\]", name):
        raise InputError("it has a file above its own folder (..); pack it again from its folder")
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise InputError("it has a link or a device in it; pack the files themselves")
    if member.flag_bits & 0x1:
        raise InputError("it is protected by a password; pack it again without one")
    if member.compress_type not in _METHODS:
        raise InputError("it is packed in a rare way; pack it again as a plain zip (deflate)")


def _damaged() -> InputError:
    return InputError("it is not a whole zip archive; pack it again")
