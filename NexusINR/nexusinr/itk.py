"""The reader of NRRD (.nrrd, .nhdr) and MetaImage (.mha, .mhd) files.

SimpleITK reads them; but where a header is damaged ITK falls back to defaults without a word,
turns a negative spacing into a flipped axis, or writes beyond its buffers. So the header's text is
checked first.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from nexusinr.errors import InputError
from nexusinr.geometry import FloatArray, Grid
from nexusinr.reading import (
    LPS_TO_RAS,
    Outline,
    Raw,
    as_float32,
    check_length,
    check_spacing,
    checked_affine,
    checked_shape,
    unpacked_length,
)

#: Fields of a MetaImage header that hold one number per axis, and one per pair of axes.
_PER_AXIS = (
    "DimSize", "ElementSpacing", "ElementSize", "Offset", "Position", "Origin", "CenterOfRotation",
)  # fmt: skip
_PER_PAIR = ("TransformMatrix", "Rotation", "Orientation")

#: Fields of a NRRD header with one entry per axis; with more, ITK writes beyond its buffers.
_NRRD_PER_AXIS = (
    "sizes", "spacings", "thicknesses", "axis mins", "axismins", "axis maxs", "axismaxs", "centers",
    "centerings", "labels", "units", "kinds", "space directions",
)  # fmt: skip

#: Characters of a NRRD field; what is longer, ITK writes beyond its buffers: names, and the rest.
_NRRD_NAMES = ("type", "space", "encoding", "endian")
_LONGEST_NAME, _LONGEST = 64, 400

#: One entry: in quotes, in brackets, or a word.
_ENTRY = re.compile(r'"(?:[^"\\]|\\.)*"|\([^()]*\)|[^\s"()]+')

#: Fields of a NRRD header that place the image.
_PLACES = ("spacings", "space directions", "space origin")


def itk_outline(path: Path) -> Outline:
    """Where a NRRD or MetaImage file lies, as `read_itk` has it, from its header alone."""
    fields, _ = _text_fields(path)
    _check_fields(path, fields)
    _data_file(path, fields)
    return Outline(_described(_reader(path), math.inf))


def read_itk(path: Path) -> Raw:
    """A NRRD or MetaImage file as `Raw`; a detached data file is found."""
    fields, header_length = _text_fields(path)
    packed = _check_fields(path, fields)
    data_file = _data_file(path, fields)
    start = 0 if data_file else header_length
    file = data_file or path
    available = file.stat().st_size - start
    declared = _numbers(fields, "CompressedDataSize")
    if packed and declared and declared != [available]:
        raise InputError(
            f"its header declares {declared[0]:.0f} bytes of packed data and there are "
            f"{available}: it is truncated or its header is damaged; export it again"
        )
    if packed:
        available = unpacked_length(file, start)
    reader = _reader(path)
    grid = _described(reader, available)
    with _sound():
        image = reader.Execute()
    data = as_float32(sitk.GetArrayViewFromImage(image)).reshape(grid.shape[::-1])
    files = (path,) if data_file is None else (path, data_file)
    return Raw(data.transpose(2, 1, 0), grid.affine, path.stem, files, notes=_notes(fields))


def _is_nrrd(path: Path) -> bool:
    return path.suffix.lower() in (".nrrd", ".nhdr")


def _check_fields(path: Path, fields: dict[str, str]) -> bool:
    """Whether the data is packed. Raises InputError for headers that ITK does not read safely."""
    return _check_nrrd(fields) if _is_nrrd(path) else _check_metaimage(fields)


def _reader(path: Path) -> sitk.ImageFileReader:
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.SetImageIO("NrrdImageIO" if _is_nrrd(path) else "MetaImageIO")
    return reader


def _described(reader: sitk.ImageFileReader, available: float) -> Grid:
    """The lattice by ITK's reading of the header, which has to fit into so many bytes of data."""
    with _sound():
        reader.ReadImageInformation()
        shape = _check_information(reader, available)
        return Grid(shape, checked_affine(_matrix(reader)))


@contextmanager
def _sound() -> Iterator[None]:
    """What ITK raises becomes an InputError, or a MemoryError."""
    try:
        yield
    except RuntimeError as error:
        if "allocate memory" in str(error):
            raise MemoryError from error
        raise InputError("its header or its data is damaged; export it again") from error


def _text_fields(path: Path) -> tuple[dict[str, str], int]:
    """The header's ``field: value`` or ``field = value`` lines, and how many bytes they take."""
    with path.open("rb") as stream:
        text = stream.read(1 << 16).decode("latin-1")
    is_nrrd = text.startswith("NRRD")
    fields: dict[str, str] = {}
    length = 0
    for line in text.split("\n"):
        length += len(line) + 1
        name, separator, value = line.partition(":" if is_nrrd else "=")
        if is_nrrd and not separator and len(line) > _LONGEST:
            raise InputError(
                f"its header has a line of {len(line)} characters without a field's name; "
                "export the image again"
            )
        if separator and not line.startswith("#"):
            name = name.strip().lower() if is_nrrd else name.strip()
            if name in fields and not value.startswith("="):  # NRRD: key:=value
                raise InputError(f"its header gives {name[:40]!r} twice; export it again")
            fields[name] = value.strip()
        if "ElementDataFile" in fields or (is_nrrd and not line.strip()):
            break
    return fields, length


def _numbers(fields: dict[str, str], name: str) -> list[float]:
    """The finite numbers in one field, brackets aside; none where the field is missing."""
    try:
        numbers = [float(v) for v in re.sub(r"[(),]|none", " ", fields.get(name, "")).split()]
    except ValueError:
        numbers = [math.nan]
    if not np.isfinite(numbers).all():
        raise InputError(
            f"its header gives {name!r} as {fields[name][:40]!r}, which is not all finite numbers; "
            "correct the header or export the image again"
        )
    return numbers


def _check_nrrd(fields: dict[str, str]) -> bool:
    missing = {"type", "dimension", "sizes", "encoding"} - fields.keys()
    if missing:
        raise InputError(
            f"it is not a NRRD image (its header has no {', '.join(sorted(missing))}); "
            "export it again"
        )
    encoding = fields["encoding"].lower()
    if encoding not in ("raw", "gzip", "gz"):
        raise InputError(
            f"its encoding, {encoding[:40]!r}, is neither 'raw' nor 'gzip'; export it with one of "
            "these"
        )
    for name, value in fields.items():
        longest = _LONGEST_NAME if name in _NRRD_NAMES else _LONGEST
        if not value.startswith("=") and len(name) + len(value) > longest:
            raise InputError(
                f"its header gives {name[:40]!r} in {len(value)} characters, which no scan needs; "
                "correct the header or export the image again"
            )
    axes = _numbers(fields, "dimension")
    if axes not in ([1], [2], [3], [4]):
        raise InputError(
            f"its header gives 'dimension' as {fields['dimension'][:40]!r}, and a 3D scan is "
            "needed; export it again"
        )
    for name in _NRRD_PER_AXIS:
        if name in fields and len(_ENTRY.findall(fields[name])) != axes[0]:
            raise InputError(
                f"its header gives {name!r} as {fields[name][:40]!r}, which should be "
                f"{axes[0]:.0f} entries; correct the header or export the image again"
            )
    for name in _PLACES:
        _numbers(fields, name)
    check_spacing(_numbers(fields, "spacings")[:3])
    return encoding != "raw"


def _check_metaimage(fields: dict[str, str]) -> bool:
    missing = {"NDims", "DimSize", "ElementType", "ElementDataFile"} - fields.keys()
    if missing or fields.get("BinaryData", "").lower() != "true":
        raise InputError(
            "it is not a MetaImage with binary data "
            f"(its header has no {', '.join(sorted(missing)) or 'BinaryData = True'}); "
            "export it again"
        )
    axes = _numbers(fields, "NDims")
    if axes not in ([1], [2], [3], [4]):
        raise InputError(
            f"its header gives 'NDims' as {fields['NDims']!r}, and a 3D scan is needed; "
            "export it again"
        )
    for name in (*_PER_AXIS, *_PER_PAIR):
        count = axes[0] if name in _PER_AXIS else axes[0] ** 2
        if name in fields and len(_numbers(fields, name)) != count:
            raise InputError(
                f"its header gives {name!r} as {fields[name][:40]!r}, which should be {count:.0f} "
                "numbers; correct the header or export the image again"
            )
    return fields.get("CompressedData", "").lower() == "true"


def _data_file(path: Path, fields: dict[str, str]) -> Path | None:
    """The file that a detached header points to; None where the data is in the same file.

    Raises InputError where it is missing, and for lists and patterns of files.
    """
    name = fields.get("data file") or fields.get("datafile") or fields.get("ElementDataFile")
    if not name or name == "LOCAL":
        return None
    data_file = path.parent / name
    if not data_file.is_file():
        raise InputError(
            f"its data file {data_file.name[:80]!r} is missing; put it next to the header file, or "
            "export the image as one file"
        )
    return data_file


def _check_information(reader: sitk.ImageFileReader, available: float) -> tuple[int, int, int]:
    kind = sitk.GetPixelIDValueAsString(reader.GetPixelID())
    if reader.GetNumberOfComponents() > 1 or "complex" in kind:
        raise InputError(
            f"its voxels are colours, vectors or complex numbers ({kind}) where one number each is "
            "needed; give a grey-scale image (the magnitude, or one component)"
        )
    shape = checked_shape(reader.GetSize())
    check_spacing(reader.GetSpacing()[:3])
    voxel = sitk.Image([1, 1, 1], reader.GetPixelID())
    check_length(shape, math.prod(shape) * voxel.GetSizeOfPixelComponent(), available)
    return shape


def _matrix(reader: sitk.ImageFileReader) -> FloatArray:
    dimension = reader.GetDimension()
    direction = np.reshape(reader.GetDirection(), (dimension, dimension))[:3, :3]
    matrix = np.eye(4)
    matrix[:3, :3] = LPS_TO_RAS @ (direction * reader.GetSpacing()[:3])
    matrix[:3, 3] = LPS_TO_RAS @ reader.GetOrigin()[:3]
    return matrix


def _notes(fields: dict[str, str]) -> tuple[str, ...]:
    notes = []
    if not {"spacings", "space directions", "ElementSpacing", "ElementSize"} & fields.keys():
        notes.append("The header gives no voxel size: 1 mm is taken.")
    space = fields.get("space", "").lower()
    placed = fields.keys() & set(_PER_PAIR)
    if not placed and not space.startswith(("left", "right", "lps", "ras", "las")):
        notes.append(
            "The header does not say how the image lies in the patient: its axes are taken to run "
            "to the left, to the back and to the head."
        )
    return tuple(notes)
