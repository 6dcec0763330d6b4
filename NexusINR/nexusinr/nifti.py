"""The reader of NIfTI files (.nii, .nii.gz; NIfTI-1 and NIfTI-2)."""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.arrayproxy import ArrayProxy
from nibabel.filebasedimages import ImageFileError
from nibabel.imageglobals import logger
from nibabel.spatialimages import HeaderDataError

from nexusinr.errors import InputError
from nexusinr.geometry import FloatArray, Grid
from nexusinr.reading import (
    Outline,
    Raw,
    check_length,
    check_spacing,
    checked_affine,
    checked_shape,
    lengths_text,
    unpacked_length,
)

Header = nib.Nifti1Header  # the base of NIfTI-2's as well

_KINDS: tuple[Any, ...] = (nib.Nifti1Header, nib.Nifti2Header)

#: xyzt_units codes of the standard: name and length in mm. No unit means millimetres.
_UNITS = {1: ("metres", 1e3), 3: ("micrometres", 1e-3)}

#: Two descriptions of the same lattice that differ by less (mm, at the corners) are the same.
_AGREEMENT = 0.1


@dataclass(frozen=True)
class _Described:
    """What a header says: itself, mended, the lattice in mm, and the unit of its lengths."""

    header: Header
    grid: Grid
    unit_name: str
    unit: float


def nifti_outline(path: Path) -> Outline:
    """Where a NIfTI image lies, as `read_nifti` has it, from its header alone."""
    return Outline(_described(path, math.inf).grid)


@np.errstate(over="ignore", invalid="ignore")  # numbers beyond float32, and no numbers
def read_nifti(path: Path) -> Raw:
    """A NIfTI image as `Raw`; the affine is the sform where there is one, else the qform.

    Sheared affines are kept. nibabel mends negative or missing voxel sizes silently, so the header
    is looked at before nibabel does that.
    """
    # A .gz is read to its end here, which nibabel does not do: that checks its checksum as well.
    is_gzip = path.name.lower().endswith(".gz")
    length = unpacked_length(path) if is_gzip else path.stat().st_size
    told = _described(path, length)
    with _valid():
        voxels = ArrayProxy(path, told.header.copy(), mmap=False)
        notes = _form_notes(told.header, told.grid.shape, told.unit)
        data = np.asarray(voxels, dtype=np.float32).reshape(told.grid.shape)
    if told.unit_name:
        notes = (f"The header's unit is {told.unit_name}: converted to millimetres.", *notes)
    name = path.name[: -len(".gz")] if is_gzip else path.name
    return Raw(data, told.grid.affine, Path(name).stem, (path,), notes=notes)


@np.errstate(over="ignore", invalid="ignore")
def _described(path: Path, length: float) -> _Described:
    header = _raw_header(path)
    shape = _check_header(header, length)
    unit_name, unit = _UNITS.get(int(header["xyzt_units"]) & 7, ("", 1.0))
    spacing = header["pixdim"][1:4].astype(np.float64) * unit
    try:
        check_spacing(spacing)
    except InputError as error:
        hint = f" (the header's unit is {unit_name})" if unit_name else ""
        raise InputError(f"{error}{hint}") from error
    with _valid():
        # Not by nibabel's own way in, which reads extensions of any size that they claim.
        mended = type(header)(header.binaryblock, header.endianness)
        matrix = mended.get_best_affine() * np.array([[unit], [unit], [unit], [1.0]])
        return _Described(mended, Grid(shape, checked_affine(matrix)), unit_name, unit)


@contextmanager
def _valid() -> Iterator[None]:
    """Quiet; what nibabel raises becomes an InputError."""
    try:
        with _quiet():
            yield
    except InputError:
        raise
    except (HeaderDataError, ImageFileError, OverflowError, ValueError) as error:
        raise InputError(f"its header is not valid ({error}); export it again") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep nibabel from printing what it mends in a header; what matters is said in the notes."""
    before = logger.disabled
    logger.disabled = True
    try:
        yield
    finally:
        logger.disabled = before


def _raw_header(path: Path) -> Header:
    """The header as it is in the file, in its own byte order, with nothing mended."""
    is_gzip = path.name.lower().endswith(".gz")
    try:
        with gzip.open(path) if is_gzip else path.open("rb") as stream:
            start = stream.read(540)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(
            f"its compressed data is damaged ({error}); copy or export it again"
        ) from error
    for kind in _KINDS:
        if len(start) >= kind.sizeof_hdr and kind.may_contain_header(start):
            header: Header = kind(start[: kind.sizeof_hdr], check=False)
            if bytes(header["magic"])[:2] == b"n+":
                return header
    raise InputError("it is not a NIfTI image; export it again as .nii.gz")


def _check_header(header: Header, length: float) -> tuple[int, int, int]:
    try:
        declared, kind = header.get_data_shape(), header.get_data_dtype()
    except (HeaderDataError, KeyError) as error:
        raise InputError(
            f"its header has an unknown data type (code {int(header['datatype'])}); export it again"
        ) from error
    if kind.fields or kind.kind == "c":
        what = "colours" if kind.fields else "complex numbers"
        raise InputError(
            f"its voxels are {what} ({kind}) where one number each is needed; give a grey-scale "
            "image (the magnitude, or one component)"
        )
    shape = checked_shape(declared)
    needed = float(header["vox_offset"]) + math.prod(shape) * kind.itemsize
    check_length(shape, needed, length)
    return shape


def _form_notes(header: Header, shape: tuple[int, int, int], unit: float) -> tuple[str, ...]:
    """What to say about the header's two descriptions of the lattice, sform and qform."""
    has_sform, has_qform = int(header["sform_code"]) > 0, int(header["qform_code"]) > 0
    if not (has_sform or has_qform):
        return (
            "The header does not say how the image lies in the patient (sform and qform codes are "
            "0): only its voxel size is known, so left and right may be swapped.",
        )
    if has_sform and has_qform:
        try:
            qform = header.get_qform()
        except (HeaderDataError, ValueError):
            return ("The qform in the header is not a rotation; the sform is used.",)
        apart = _apart(header.get_sform(), qform, shape) * unit
        if apart > _AGREEMENT:
            return (
                f"The sform and the qform in the header disagree by up to {apart:.2f} mm; "
                "the sform is used.",
            )
        return ()
    pixdim = header["pixdim"][1:4].astype(np.float64)
    used = np.linalg.norm(header.get_best_affine()[:3, :3], axis=0)
    if (np.abs(pixdim - used) * shape * unit).max() > _AGREEMENT:
        return (
            f"The header gives a voxel size of {lengths_text(pixdim * unit)} mm and an affine with "
            f"{lengths_text(used * unit)} mm; the affine is used.",
        )
    return ()


def _apart(first: FloatArray, second: FloatArray, shape: tuple[int, int, int]) -> float:
    """Largest distance between the outer corners of two lattices of one shape, in their unit."""
    ends = np.stack(np.meshgrid(*[(-0.5, n - 0.5) for n in shape], [1.0], indexing="ij"), -1)
    moved = ends.reshape(-1, 4) @ (first - second).T
    return float(np.linalg.norm(moved[:, :3], axis=1).max())
