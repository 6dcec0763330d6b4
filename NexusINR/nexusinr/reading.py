"""What every image reader shares, and the reader of NRRD and MetaImage files.

A reader turns a path into `Raw`; the checks that need no file format are in `volume.read_volume`.
Errors raised here do not name the file: `volume.read_volume` puts its name in front.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import ArrayLike, NDArray

from nexusinr.errors import InputError
from nexusinr.geometry import Affine, FloatArray

FloatImage = NDArray[np.float32]

#: ITK and DICOM work in LPS, this package in RAS.
LPS_TO_RAS = np.diag((-1.0, -1.0, 1.0))

#: 1024 x 1024 x 1024; no head scan comes near it, a damaged header easily does.
MAX_VOXELS = 2**30

#: Fewer voxels along an axis than this make no volume.
MIN_SIZE = 4

#: Voxel edges outside this range (mm) are header errors or wrong units, not scans.
SPACING_RANGE = (0.01, 20.0)

#: Deflate never packs more than this many bytes into one.
MAX_DEFLATE_RATIO = 1032


@dataclass(frozen=True)
class Raw:
    """An image as its file gives it.

    Attributes:
        data: intensities, float32, (i, j, k).
        affine: voxel index to patient space.
        name: how to call the image; holds nothing that identifies the patient.
        files: the files that make up the image.
        thickness: slice thickness along i, j, k in mm, where the file gives it.
        notes: sentences for the user about what was odd.
    """

    data: FloatImage
    affine: Affine
    name: str
    files: tuple[Path, ...]
    thickness: tuple[float, float, float] | None = None
    notes: tuple[str, ...] = ()


def sizes_text(sizes: Sequence[int]) -> str:
    """For example ``320 x 320 x 39``."""
    return " x ".join(str(int(n)) for n in sizes)


def lengths_text(lengths: ArrayLike) -> str:
    """For example ``0.72 x 0.72 x 3``, in at most four digits."""
    return " x ".join(f"{float(v):.4g}" for v in np.asarray(lengths).tolist())


def as_float32(array: NDArray[np.generic]) -> FloatImage:
    """A float32 copy; values beyond its range become infinite (and are dealt with later)."""
    with np.errstate(over="ignore", invalid="ignore"):
        return array.astype(np.float32)


def checked_shape(declared: Sequence[int]) -> tuple[int, int, int]:
    """The three sizes of a volume; trailing axes of size 1 are dropped.

    Raises InputError for 2D images, series of several images and absurd sizes.
    """
    sizes = [int(n) for n in declared]
    if not sizes or min(sizes) < 1 or math.prod(sizes) > MAX_VOXELS:
        raise InputError(
            f"its header declares {sizes_text(sizes) or 'no'} voxels, which no scan has; "
            "the header is damaged, export the image again"
        )
    while len(sizes) > 3 and sizes[-1] == 1:
        sizes.pop()
    if len(sizes) > 3:
        raise InputError(
            f"it holds {math.prod(sizes[3:])} images ({sizes_text(sizes)}) where one 3D scan is "
            "needed; split it and give one of them"
        )
    slices = min(sizes) if len(sizes) == 3 else 1
    if slices < MIN_SIZE:
        count = "one slice" if slices == 1 else f"only {slices} slices"
        raise InputError(
            f"it is 2D: {count} ({sizes_text(sizes)}); give a 3D scan with at least {MIN_SIZE} "
            "voxels along every axis"
        )
    return sizes[0], sizes[1], sizes[2]


def check_spacing(spacing: ArrayLike) -> None:
    """Raise InputError unless every voxel edge (mm) is one that a head scan can have."""
    values = np.asarray(spacing, dtype=np.float64)
    low, high = SPACING_RANGE
    if not (np.isfinite(values).all() and (values >= low).all() and (values <= high).all()):
        raise InputError(
            f"its voxel size is {lengths_text(values)} mm, and each edge has to be between {low:g} "
            f"and {high:g} mm; correct the header or export the image again"
        )


def checked_affine(matrix: FloatArray) -> Affine:
    """The affine of a (4, 4) matrix to RAS, mm. Raises InputError where no scan can have it."""
    try:
        affine = Affine(matrix)
    except ValueError as error:
        raise InputError(f"{error}; correct the header or export the image again") from error
    check_spacing(affine.spacing)
    return affine


def check_length(shape: Sequence[int], needed: float, available: int) -> None:
    """Raise InputError where an image of that shape needs more bytes than are there."""
    if not needed <= available:
        raise InputError(
            f"its {sizes_text(shape)} voxels need {needed:.0f} bytes and the file has room for "
            f"{available}: it is truncated or its header is damaged; export it again"
        )


def read_itk(path: Path) -> Raw:
    """A NRRD (.nrrd, .nhdr) or MetaImage (.mha, .mhd) file; a detached data file is found."""
    fields, header_length = _text_fields(path)
    _check_fields(fields)
    data_file = _data_file(path, fields)
    available = data_file.stat().st_size if data_file else path.stat().st_size - header_length
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
        shape = _check_information(reader, fields, available)
        affine = checked_affine(_itk_matrix(reader))
        array = as_float32(sitk.GetArrayViewFromImage(reader.Execute()))
    except RuntimeError as error:
        if "allocate memory" in str(error):
            raise MemoryError from error
        raise InputError(
            "it is damaged, truncated or not an image of the format that its name says; "
            "export it again"
        ) from error
    files = (path,) if data_file is None else (path, data_file)
    data = array.reshape(shape[::-1]).transpose(2, 1, 0)
    return Raw(data, affine, path.stem, files, notes=_header_notes(fields))


def _itk_matrix(reader: sitk.ImageFileReader) -> FloatArray:
    dimension = reader.GetDimension()
    direction = np.reshape(reader.GetDirection(), (dimension, dimension))[:3, :3]
    matrix = np.eye(4)
    matrix[:3, :3] = LPS_TO_RAS @ (direction * reader.GetSpacing()[:3])
    matrix[:3, 3] = LPS_TO_RAS @ reader.GetOrigin()[:3]
    return matrix


def _check_information(
    reader: sitk.ImageFileReader, fields: dict[str, str], available: int
) -> tuple[int, int, int]:
    kind = sitk.GetPixelIDValueAsString(reader.GetPixelID())
    if reader.GetNumberOfComponents() > 1 or "complex" in kind:
        raise InputError(
            f"its voxels are colours, vectors or complex numbers ({kind}) where one number each is "
            "needed; give a grey-scale image (the magnitude, or one component)"
        )
    shape = checked_shape(reader.GetSize())
    check_spacing(reader.GetSpacing()[:3])
    plain = fields.get("encoding") == "raw" or (
        fields.get("compresseddata", "false").lower() == "false"
        and fields.get("binarydata", "false").lower() == "true"
    )
    voxel = sitk.GetArrayViewFromImage(sitk.Image([1, 1, 1], reader.GetPixelID())).itemsize
    ratio = 1 if plain else MAX_DEFLATE_RATIO
    check_length(shape, math.prod(shape) * voxel, available * ratio)
    check_length(shape, float(fields.get("compresseddatasize", 0)), available)
    return shape


# ITK falls back to defaults, without a word, where a number in the header is not one, and turns a
# negative spacing into a flipped axis: so the header's text is looked at as well.
_GEOMETRY = (
    "spacings", "spacedirections", "spaceorigin", "elementspacing", "offset", "position", "origin",
    "transformmatrix", "rotation", "orientation",
)  # fmt: skip


def _text_fields(path: Path) -> tuple[dict[str, str], int]:
    """The header's ``field: value`` or ``field = value`` lines, and how many bytes they take.

    Names are in lower case and without spaces.
    """
    with path.open("rb") as stream:
        text = stream.read(1 << 16).decode("latin-1")
    is_nrrd = text.startswith("NRRD")
    fields: dict[str, str] = {}
    length = 0
    for line in text.split("\n"):
        length += len(line) + 1
        name, separator, value = line.partition(":" if is_nrrd else "=")
        if separator and not line.startswith("#"):
            fields[name.replace(" ", "").lower()] = value.strip()
        if "elementdatafile" in fields or (is_nrrd and not line.strip()):
            break
    return fields, length


def _check_fields(fields: dict[str, str]) -> None:
    for name in _GEOMETRY:
        if re.search(r"\b(nan|inf)", fields.get(name, "").lower()):
            raise InputError(
                f"its header gives {name} as {fields[name]!r}, which is not finite; correct the "
                "header or export the image again"
            )
    for name in ("spacings", "elementspacing"):
        if name in fields:
            try:
                values = [float(v) for v in fields[name].split()]
            except ValueError as error:
                raise InputError(
                    f"its header gives {name} as {fields[name]!r}, which are no numbers; correct "
                    "the header or export the image again"
                ) from error
            check_spacing(values[:3])


def _data_file(path: Path, fields: dict[str, str]) -> Path | None:
    """The file that a detached header points to; None where the data is in the same file.

    Raises InputError where it is missing. Lists and patterns of files are left to ITK.
    """
    name = fields.get("datafile") or fields.get("elementdatafile") or "LOCAL"
    if name == "LOCAL" or name.startswith("LIST") or "%" in name:
        return None
    data_file = path.parent / name
    if not data_file.is_file():
        raise InputError(
            f"its data file {data_file.name!r} is missing; put it next to the header file"
        )
    return data_file


def _header_notes(fields: dict[str, str]) -> tuple[str, ...]:
    notes = []
    if not {"spacings", "spacedirections", "elementspacing", "elementsize"} & fields.keys():
        notes.append("The header gives no voxel size: 1 mm is taken.")
    space = fields.get("space", "").lower()
    placed = {"transformmatrix", "rotation", "orientation"} & fields.keys()
    if not placed and not space.startswith(("left", "right", "lps", "ras", "las")):
        notes.append(
            "The header does not say how the image lies in the patient: its axes are taken to run "
            "to the left, to the back and to the head."
        )
    return tuple(notes)
