"""What every image reader shares.

A reader turns a path into `Raw`; the checks that need no file format are in `volume.read_volume`.
Errors raised here do not name the file: `volume.read_volume` puts its name in front.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nexusinr.errors import InputError
from nexusinr.geometry import Affine, FloatArray, Grid

FloatImage = NDArray[np.float32]

#: ITK and DICOM work in LPS, this package in RAS.
LPS_TO_RAS = np.diag((-1.0, -1.0, 1.0))

#: 1024 x 1024 x 1024; no head scan comes near it, a damaged header easily does.
MAX_VOXELS = 2**30

#: What unpacks to more than this many times its size, and to this many bytes, unpacks without end.
MOST_SHRUNK = 200
HARMLESS = 1 << 26

#: Fewer voxels along an axis than this make no volume.
MIN_SIZE = 4

#: Voxel edges outside this range (mm) are header errors or wrong units, not scans.
SPACING_RANGE = (0.01, 20.0)


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


@dataclass(frozen=True)
class Outline:
    """What the headers of an image tell of where it lies.

    Attributes:
        grid: its lattice.
        thickness: as for `Raw`.
    """

    grid: Grid
    thickness: tuple[float, float, float] | None = None


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
            f"its header declares {sizes_text(sizes) or 'no'} voxels, which no scan has, so it is "
            "damaged; export the image again"
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
        with np.errstate(over="ignore", invalid="ignore"):  # lengths beyond all numbers
            affine = Affine(matrix)
            check_spacing(affine.spacing)
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"{error}; correct the header or export the image again") from error
    return affine


def unpacked_length(path: Path, start: int = 0) -> int:
    """Bytes that the gzip or zlib data from byte `start` of a file unpacks to.

    Unpacks to the very end, which checks the checksum too, and keeps nothing: whatever a header
    claims, no memory is taken for data that is not there. Raises InputError for damaged data, and
    for data that shrank as no scan does.
    """
    length, packed, unpacker, between = 0, 0, zlib.decompressobj(wbits=47), True
    try:
        with path.open("rb") as stream:
            stream.seek(start)
            while block := stream.read(1 << 14):
                packed += len(block)
                if length > max(HARMLESS, MOST_SHRUNK * packed):
                    raise InputError(
                        f"its compressed data unpacks to more than {MOST_SHRUNK} times its size, "
                        "which no scan does; export it again"
                    )
                while block:
                    length += len(unpacker.decompress(block))
                    block, between = unpacker.unused_data.lstrip(b"\0"), unpacker.eof
                    if between:  # several may follow one another, or padding
                        unpacker = zlib.decompressobj(wbits=47)
    except zlib.error as error:
        raise InputError(
            f"its compressed data is damaged or not compressed ({error}); copy or export it again"
        ) from error
    if not between:
        raise InputError(
            f"the file is truncated (its {path.stat().st_size} bytes end in the middle of the "
            "data); copy or export it again"
        )
    return length


def check_shrunk(voxels: int, packed: int) -> None:
    """Raise InputError where so many voxels cannot have been packed into so many bytes."""
    if voxels > max(HARMLESS, MOST_SHRUNK * packed):
        raise InputError(
            f"its header declares {voxels} voxels in {packed} bytes, which no scan shrinks to: it "
            "is damaged; export it again"
        )


def check_length(shape: Sequence[int], needed: float, available: float) -> None:
    """Raise InputError where an image of that shape needs more bytes than are there."""
    if not needed <= available:
        raise InputError(
            f"its {sizes_text(shape)} voxels need {needed:.0f} bytes and the file has room for "
            f"{available}: it is truncated or its header is damaged; export it again"
        )
