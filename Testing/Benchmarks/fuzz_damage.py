"""Damage of every kind: to bytes, texts, JSON, headers of NIfTI files, DICOM series and archives.

Every function draws from the `random.Random` that it is given, and gives a damaged copy.
"""

from __future__ import annotations

import gzip
import io
import json
import re
import struct
import zipfile
import zlib
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from random import Random
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
from fuzz_seeds import Files
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag, Tag

from nexusinr.dicom import UNUSABLE

# --- bytes ------------------------------------------------------------------------------------

_NUMBERS = [
    *(struct.pack(f"{order}{kind}", value)
      for order in "<>"
      for kind, values in {
          "h": (-1, 0, 1, 2, 3, 4, 5, 127, 32767, -32768),
          "i": (-1, 0, 1, 2**31 - 1, -(2**31), 65536),
          "q": (-1, 0, 2**63 - 1, 2**40),
          "f": (0.0, -1.0, 1e30, -1e30, 1e-30, np.nan, np.inf, -np.inf),
          "d": (0.0, -1.0, 1e300, np.nan, np.inf),
      }.items()
      for value in values),
]  # fmt: skip


def damaged(random: Random, content: bytes, header: int) -> bytes:
    """Bytes with one to eight damages, most of them within the first `header` bytes."""
    data = bytearray(content)
    for _ in range(random.choice((1, 1, 2, 3, 8))):
        if data:
            end = min(header, len(data)) if random.random() < 0.75 else len(data)
            random.choice(_DAMAGES)(random, data, random.randrange(end))
    return bytes(data)


def _flip(random: Random, data: bytearray, at: int) -> None:
    data[at] ^= 1 << random.randrange(8)


def _byte(random: Random, data: bytearray, at: int) -> None:
    data[at] = random.randrange(256)


def _number(random: Random, data: bytearray, at: int) -> None:
    number = random.choice(_NUMBERS)
    data[at : at + len(number)] = number


def _cut(random: Random, data: bytearray, at: int) -> None:
    del data[at : at + random.choice((1, 2, 4, 50))]


def _repeat(random: Random, data: bytearray, at: int) -> None:
    data[at:at] = data[at : at + random.choice((1, 2, 4, 50))]


def _insert(random: Random, data: bytearray, at: int) -> None:
    data[at:at] = bytes(random.randrange(256) for _ in range(random.choice((1, 2, 4, 16))))


def _blank(random: Random, data: bytearray, at: int) -> None:
    end = min(at + random.choice((4, 16, 200)), len(data))
    data[at:end] = bytes([random.choice((0, 255, 32))]) * (end - at)


def _end(_: Random, data: bytearray, at: int) -> None:
    del data[at:]


_DAMAGES: list[Callable[[Random, bytearray, int], None]] = [
    _flip, _flip, _byte, _byte, _number, _number, _cut, _repeat, _insert, _blank, _end,
]  # fmt: skip


@cache
def bomb() -> bytes:
    """A few megabytes of gzip that unpack to more than 6 GB."""
    return gzip.compress(bytes(1 << 24), 9, mtime=0) * 400


# --- texts ------------------------------------------------------------------------------------

_ODD_NUMBERS = (
    "0", "-1", "1", "2", "7.5", "nan", "inf", "-inf", "1e999", "1e-300", "99999999999", "0x10",
    "9" * 400, "9" * 5000, "1,2", "", "one", "true", "()", "none", "1 2 3", "4294967296",
)  # fmt: skip
_ODD_TEXTS = (
    "", "\0", "\udcff\udcfe", "\n", "\r\n\r\n", "\t", " " * 300, "x" * 70_000, "[" * 3000,
    "{" * 3000, "../../../etc/passwd", "/etc/passwd", "%d", "LIST", "LOCAL", "$HOME", "é", "\u202e",
    "!!python/object/apply:os.system [id]", "&a [*a]", "<<: *a", "- " * 3000, "? ", "'", '"', "#",
)  # fmt: skip
_BOMB = (
    "a: &a [x, x, x, x, x, x, x, x, x, x]\n"
    + "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 10)}]\n" for a, b in pairwise("abcdefghi"))
    + "steps: *i\n"
)


def damaged_text(random: Random, text: str) -> str:
    """Text with odd numbers and words, and lines that are lost, doubled or swapped."""
    for _ in range(random.choice((1, 1, 2, 4))):
        text = random.choice(_TEXT_DAMAGES)(random, text)
    return text


def _odd_number(random: Random, text: str) -> str:
    return _replaced(random, text, r"-?\d[\d.e+-]*", _ODD_NUMBERS)


def _odd_word(random: Random, text: str) -> str:
    words = re.findall(r"[A-Za-z][\w-]*", text) or ["x"]
    return _replaced(random, text, r"[A-Za-z][\w-]*", (*_ODD_TEXTS, *_ODD_NUMBERS, *words))


def _replaced(random: Random, text: str, pattern: str, odd: tuple[str, ...]) -> str:
    places = [match.span() for match in re.finditer(pattern, text)]
    if not places:
        return text
    start, end = random.choice(places)
    return text[:start] + random.choice(odd) + text[end:]


def _inserted(random: Random, text: str) -> str:
    at = random.randrange(len(text) + 1)
    return text[:at] + random.choice(_ODD_TEXTS) + text[at:]


def _lines(random: Random, text: str) -> str:
    lines = text.split("\n")
    a, b = random.randrange(len(lines)), random.randrange(len(lines))
    kind = random.randrange(4)
    if kind == 0:
        del lines[a]
    elif kind == 1:
        lines.insert(b, lines[a])
    elif kind == 2:
        lines[a], lines[b] = lines[b], lines[a]
    else:
        lines[a:a] = _BOMB.split("\n") if random.random() < 0.3 else [lines[a] * 200]
    return "\n".join(lines)


_TEXT_DAMAGES: list[Callable[[Random, str], str]] = [
    _odd_number, _odd_number, _odd_number, _odd_word, _odd_word, _inserted, _lines, _lines,
]  # fmt: skip


def damaged_header(random: Random, content: bytes) -> bytes:
    """A NRRD or MetaImage file whose header, or sometimes any byte, is damaged."""
    end = re.search(rb"\n\r?\n|ElementDataFile = [^\n]*\n", content)
    if end is None or random.random() < 0.2:
        return damaged(random, content, 400)
    header = damaged_text(random, content[: end.end()].decode("latin-1"))
    return header.encode("utf-8", "surrogateescape") + content[end.end() :]


# --- JSON -------------------------------------------------------------------------------------

_NESTED = "@nested@"
_ODD_VALUES: tuple[Any, ...] = (
    None, True, False, -1, 0, 1, 10**9, 10**30, 2**63, 0.5, 1e308, float("nan"), float("inf"), "",
    " ", "x" * 70_000, "\ud800", "\udc80", "a\0b", "..", "../../up", "/etc/passwd", ".hidden",
    "a/b", "nexus-inr", "\n", [], {}, [[]], [1, 2], {"a": 1}, [None] * 3, _NESTED, "NexusINR",
    "ICONet",
)  # fmt: skip


def damaged_json(random: Random, text: str) -> str:
    """JSON in which values are odd, missing, added, or nested very deeply."""
    value = json.loads(text)
    for _ in range(random.choice((1, 1, 2, 4))):
        value = _odd_json(random, value)
    depth = random.choice((3, 400, 960, 990, 5000))
    return json.dumps(value).replace(f'"{_NESTED}"', "[" * depth + "]" * depth)


def _odd_json(random: Random, value: Any) -> Any:
    if isinstance(value, dict) and value and random.random() < 0.9:
        name = random.choice(list(value))
        kind = random.random()
        if kind < 0.8:
            return {**value, name: _odd_json(random, value[name])}
        if kind < 0.9:
            return {key: item for key, item in value.items() if key != name}
        return {**value, random.choice(("x", "", "a\0", name + "_")): random.choice(_ODD_VALUES)}
    if isinstance(value, list) and value and random.random() < 0.7:
        at = random.randrange(len(value))
        return [*value[:at], _odd_json(random, value[at]), *value[at + random.choice((0, 1)) :]]
    return random.choice(_ODD_VALUES)


# --- NIfTI ------------------------------------------------------------------------------------

_VALUES = (-1, 0, 1, 2, 3, 4, 5, 7, 127, 128, 512, 1024, 2304, 1e9, -1e9, 1e30, 0.5, 1e-9,
           np.nan, np.inf, -np.inf)  # fmt: skip


def damaged_nifti(random: Random, content: bytes) -> bytes:
    """A NIfTI file with odd values in the fields of its header, or with damaged bytes."""
    if random.random() < 0.4:
        return damaged(random, content, 544)
    is_second = content[:4] == struct.pack("<i", 540)
    dtype = nib.nifti2.header_dtype if is_second else nib.nifti1.header_dtype
    data = bytearray(content)
    if content[:4] == struct.pack(">i", 348):
        dtype = dtype.newbyteorder(">")
    header = np.frombuffer(data, dtype, count=1)
    for _ in range(random.choice((1, 1, 2, 3))):
        field = header[
            random.choice([name for name in dtype.names if dtype[name].base.kind in "iuf"])
        ]
        with np.errstate(all="ignore"):
            value = np.float64(random.choice(_VALUES))
            flat = field.reshape(-1)
            flat[random.randrange(flat.size)] = value.astype(field.dtype)
    return bytes(data)


# --- DICOM ------------------------------------------------------------------------------------

_TAGS = (
    "SOPInstanceUID", "SeriesInstanceUID", "SeriesNumber", "Modality", "Rows", "Columns",
    "SamplesPerPixel", "NumberOfFrames", "ImagePositionPatient", "ImageOrientationPatient",
    "PixelSpacing", "SliceThickness", "SpacingBetweenSlices", "BitsAllocated", "BitsStored",
    "HighBit", "PixelRepresentation", "PhotometricInterpretation", "RescaleSlope",
    "RescaleIntercept", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
    "SpecificCharacterSet", "PatientName", "WindowCenter",
)  # fmt: skip
_ODD_ELEMENTS = (
    b"", b"\0\0", b"\xff\xff", b"nan ", b"nan\\nan\\nan ", b"inf ", b"1e999 ", b"-1", b"0 ",
    b"abc ",
    b"1\\0\\0\\0\\1\\0 ", b"1\\0\\0\\1\\0\\0 ", b"0\\0\\0 ", b"1e308\\1e308\\1e308 ", b"1\\2\\3\\4",
    b"\xff\xfe\x00\x01", b"9" * 400, b"\x00\x40", b"\x01\x00\x00\x00", b"ISO 2022 IR 87\\x ",
    b"\\" * 2000, b"1.2.3 ", b"MONOCHROME1 ", b"RGB ", b"PALETTE COLOR ", b"x" * 70_000,
    b"\x08\x00",
)  # fmt: skip


def damaged_series(random: Random, files: Files) -> Files:
    """A series in which one file, or all alike, are damaged, or that lacks or doubles files."""
    names = list(files)
    kind = random.random()
    if kind < 0.05:
        return {name: files[name] for name in names if random.random() < 0.7} or {"a": b""}
    if kind < 0.1:
        return {**files, "again.dcm": files[random.choice(names)]}
    hit = names if random.random() < 0.4 else [random.choice(names)]
    seed = random.randrange(2**32)
    return {n: _damaged_file(Random(seed), c) if n in hit else c for n, c in files.items()}


def _damaged_file(random: Random, content: bytes) -> bytes:
    kind = random.random()
    if kind < 0.4:
        return damaged(random, content, random.choice((700, len(content))))
    if kind < 0.45:
        return _deep(content)
    if kind < 0.47:
        return _deflated_bomb(content)
    ds = pydicom.dcmread(io.BytesIO(content))
    for _ in range(random.choice((1, 1, 2))):
        tag, value = Tag(random.choice(_TAGS)), random.choice(_ODD_ELEMENTS)
        if random.random() < 0.2:
            ds.pop(tag, None)
        else:
            ds[tag] = _as_it_is(
                tag, random.choice((*[dictionary_VR(tag)[:2]] * 3, "UN")), value, ds
            )
    stream = io.BytesIO()
    try:
        ds.save_as(stream)
    except UNUSABLE:  # pydicom does not write it
        return damaged(random, content, 700)
    return stream.getvalue()


def _as_it_is(tag: BaseTag, kind: str, value: bytes, ds: Dataset) -> RawDataElement:
    """An element that pydicom writes without a look at its value."""
    is_implicit, is_little = ds.original_encoding
    return RawDataElement(tag, kind, len(value), value, 0, bool(is_implicit), bool(is_little))


def _deep(content: bytes) -> bytes:
    """A sequence within a sequence, and so on, 3000 times."""
    item = b"\x00\x52\x29\x92SQ\x00\x00\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    return content + item * 3000


def _deflated_bomb(content: bytes) -> bytes:
    """A header that unpacks to 2 GB."""
    start = content.find(b"1.2.840.10008.1.2.1")
    if start < 0:
        return content
    ds = pydicom.dcmread(io.BytesIO(content), stop_before_pixels=True)
    ds.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    stream = io.BytesIO()
    ds.save_as(stream)
    whole = stream.getvalue()
    length = 144 + int.from_bytes(whole[140:144], "little")
    return whole[:length] + deflated_zeros()


@cache
def deflated_zeros() -> bytes:
    """Two megabytes that unpack to 2 GB."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    block = packer.compress(bytes(1 << 24)) + packer.flush(zlib.Z_FULL_FLUSH)
    return block * 128 + packer.flush()


# --- archives ---------------------------------------------------------------------------------


def zipped(random: Random, files: list[tuple[str, bytes]]) -> bytes:
    """The files as a zip archive, some with odd members."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files:
            member = zipfile.ZipInfo(name.encode(errors="replace").decode() or "x")
            if random.random() < 0.05:
                member.external_attr = random.choice((0o120777, 0o060644, 0o040755)) << 16
            archive.writestr(
                member, content, random.choice((zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED))
            )
        if random.random() < 0.03:
            archive.writestr("t1.nii", bytes(1 << 24))
    return stream.getvalue()
