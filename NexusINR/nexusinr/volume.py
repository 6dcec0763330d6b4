"""A scan as a value: intensities, their lattice in patient space, and what the scanner said."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import nibabel as nib
import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from nexusinr.dicom import dicom_outline, read_dicom
from nexusinr.errors import InputError, OutOfMemory
from nexusinr.geometry import Affine, Grid
from nexusinr.itk import itk_outline, read_itk
from nexusinr.nifti import nifti_outline, read_nifti
from nexusinr.reading import LPS_TO_RAS, FloatImage, Outline, Raw, sizes_text

#: An axis is the slice axis where its slices are this many times coarser than the other voxels.
SLICE_RATIO = 1.2

#: The largest share of voxels that are not finite which is mended; more means a broken image.
MAX_NOT_FINITE = 0.01

#: A qform (float32 quaternion) that is off by more than this, in mm, does more harm than good.
QFORM_TOLERANCE = 0.005


class _Format(NamedTuple):
    """How a scan is read, and its headers alone."""

    read: Callable[[Path], Raw]
    outline: Callable[[Path], Outline]


_NIFTI, _ITK = _Format(read_nifti, nifti_outline), _Format(read_itk, itk_outline)
_DICOM = _Format(read_dicom, dicom_outline)
_FORMATS = {
    ".nii": _NIFTI,
    ".nii.gz": _NIFTI,
    ".nrrd": _ITK,
    ".nhdr": _ITK,
    ".mha": _ITK,
    ".mhd": _ITK,
}
_WRITABLE = (".nii", ".nii.gz", ".nrrd", ".mha")

#: How masks and real numbers are stored; integers are stored as they are.
_STORED: dict[str, np.dtype[Any]] = {"b": np.dtype(np.uint8), "f": np.dtype(np.float32)}


@dataclass(frozen=True, eq=False, repr=False)
class Volume:
    """A 3D scan. A value: make another one with `replace`.

    Attributes:
        data: intensities in the scan's own units, float32, (i, j, k).
        affine: voxel index to patient space.
        thickness: slice thickness along the slice axis and voxel size along the others, (3,), mm;
            without one, the spacing (slices that touch).
        name: how to call the scan; holds nothing that identifies the patient.
        notes: sentences about what was odd when it was read.
        sha256: of the file; for several files, of their sorted digests.
        path: where it was read from.

    Raises ValueError for data that is not 3D and for a thickness that is not positive.
    """

    data: FloatImage
    affine: Affine
    thickness: tuple[float, float, float] = None  # type: ignore[assignment]  # set below
    name: str = ""
    notes: tuple[str, ...] = ()
    sha256: str | None = None
    path: Path | None = None

    def __post_init__(self) -> None:
        data = np.asarray(self.data, dtype=np.float32)
        if data.ndim != 3:
            raise ValueError(f"a volume has three axes, not {data.ndim} (shape {data.shape})")
        given: Any = self.thickness
        if given is None:
            given = self.affine.spacing
        thickness = tuple(float(t) for t in given)
        if len(thickness) != 3 or not all(np.isfinite(t) and t > 0 for t in thickness):
            raise ValueError(f"a thickness is three positive lengths in mm, not {thickness}")
        object.__setattr__(self, "data", data)
        object.__setattr__(self, "thickness", thickness)

    @cached_property
    def grid(self) -> Grid:
        """The lattice of the voxels."""
        return Grid(self.data.shape, self.affine)

    @property
    def slice_axis(self) -> int | None:
        """The axis (0, 1, 2) across the slices; None where no axis is clearly the coarsest."""
        size = np.maximum(self.thickness, self.affine.spacing)
        axis = int(size.argmax())
        others = np.delete(size, axis)
        return axis if size[axis] >= SLICE_RATIO * others.max() - 1e-6 else None

    def replace(self, **changes: Any) -> Volume:
        """A copy with some attributes changed.

        A new affine with another spacing also resets the thickness, unless one is given.
        """
        affine = changes.get("affine", self.affine)
        if not np.allclose(affine.spacing, self.affine.spacing, rtol=1e-4):
            changes.setdefault("thickness", None)
        return replace(self, **changes)

    def __repr__(self) -> str:
        return f"Volume({describe(self)})"


def describe(volume: Volume) -> str:
    """In one line, for example ``LPS, 0.72 x 0.72 x 3.00 mm, 320 x 320 x 39``.

    Slices that are thinner or thicker than their spacing are named as well.
    """
    spacing = volume.affine.spacing
    lengths = " x ".join(f"{s:.2f}" for s in spacing)
    text = f"{volume.affine.orientation}, {lengths} mm, {sizes_text(volume.data.shape)}"
    axis = volume.slice_axis
    if axis is not None and abs(volume.thickness[axis] - spacing[axis]) > 0.01:
        text += f", slices {volume.thickness[axis]:.2f} mm thick"
    return text


def read_volume(path: str | Path) -> Volume:
    """Read a scan: NIfTI, NRRD, MetaImage, or a folder with a DICOM series.

    Raises InputError (one sentence: which file, what is wrong, what to do) for everything that is
    not one plausible, finite, non-constant 3D scan, and OutOfMemory where it does not fit.
    """
    path = Path(path)
    with _named(path):
        return _checked(_format(path).read(path), path)


def read_outline(path: str | Path) -> Volume:
    """A scan's lattice and slice thickness, as `read_volume` has them, from its headers alone.

    Its intensities are 0, and take no memory. Raises InputError as that does for headers.
    """
    path = Path(path)
    with _named(path):
        outline = _format(path).outline(path)
        empty = np.broadcast_to(np.float32(0), outline.grid.shape)
        return _thick(Volume(empty, outline.grid.affine, path=path), outline.thickness)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Puts the name of the file in front of what is wrong with it."""
    shown = path.name or path.resolve().name
    try:
        yield
    except InputError as error:
        raise InputError(f"{shown}: {' '.join(str(error).split())}") from error
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise InputError(
            f"{shown}: it cannot be read ({reason}); check the path and its permissions"
        ) from error
    except MemoryError as error:
        raise OutOfMemory(f"{shown}: too little memory to read it; close other programs") from error


def _format(path: Path) -> _Format:
    if path.is_dir():
        return _DICOM
    if not path.exists():
        raise InputError("there is no such file or folder; check the path")
    if path.stat().st_size == 0:
        raise InputError("the file is empty (0 bytes); copy or export it again")
    known = _FORMATS.get(_extension(path))
    if known is not None:
        return known
    with path.open("rb") as stream:
        is_dicom = stream.read(132)[128:] == b"DICM"
    if is_dicom:
        raise InputError("it is a single DICOM file; give the folder that holds the whole series")
    raise InputError(
        f"its name does not end in {', '.join(_FORMATS)}; give an image of one of these formats or "
        "a folder with a DICOM series"
    )


def _extension(path: Path) -> str:
    name = path.name.lower()
    return ".nii.gz" if name.endswith(".nii.gz") else path.suffix.lower()


def _checked(raw: Raw, path: Path) -> Volume:
    data, mended = _finite(np.ascontiguousarray(raw.data))
    if data.min() == data.max():
        raise InputError(
            f"every voxel has the value {data.flat[0]:g}, so there is nothing to see; give another "
            "image"
        )
    notes = raw.notes + mended
    digest = digest_of(raw.files)
    volume = Volume(data, raw.affine, name=raw.name, notes=notes, sha256=digest, path=path)
    return _thick(volume, raw.thickness)


def _thick(volume: Volume, thickness: tuple[float, float, float] | None) -> Volume:
    """With the thickness that the headers give; where they give none, slices touch."""
    return volume if thickness is None else volume.replace(thickness=thickness)


def _finite(data: FloatImage) -> tuple[FloatImage, tuple[str, ...]]:
    """Replace the few voxels that are not finite by the median of their finite neighbours."""
    bad = np.argwhere(~np.isfinite(data))
    if len(bad) == 0:
        return data, ()
    if len(bad) > MAX_NOT_FINITE * data.size:
        raise InputError(
            f"{len(bad)} of its {data.size} voxels ({len(bad) / data.size:.1%}) are not finite "
            "(NaN or infinite); replace them, for example by 0 outside the head"
        )
    offsets = np.stack(np.meshgrid(*[(-1, 0, 1)] * 3, indexing="ij"), -1).reshape(-1, 3)
    near = bad[:, None] + offsets
    inside = ((near >= 0) & (near < data.shape)).all(axis=-1)
    values = data[tuple(np.moveaxis(near.clip(0, np.array(data.shape) - 1), -1, 0))]
    values[~(inside & np.isfinite(values))] = np.nan
    values[np.isnan(values).all(axis=1)] = 0
    mended = data.copy()
    mended[tuple(bad.T)] = np.nanmedian(values, axis=1)
    return mended, (
        f"{len(bad)} of {data.size} voxels were not finite and were replaced by the median of "
        "their neighbours.",
    )


def digest_of(files: tuple[Path, ...]) -> str:
    """SHA-256 of a file, hexadecimal; of several files: of their sorted digests."""
    digests = sorted(_file_digest(file) for file in files)
    if len(digests) == 1:
        return digests[0]
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def _file_digest(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def write_volume(path: str | Path, data: NDArray[Any], affine: Affine) -> None:
    """Write an image, (i, j, k), as .nii.gz, .nii, .nrrd or .mha; integers stay, floats: float32.

    The file appears whole or not at all, and equal images give equal bytes.

    Raises InputError for another format, a folder that is missing, a full disk, and for a sheared
    affine in a format other than NIfTI; ValueError for data that is not 3D and real.
    """
    path, data = Path(path), np.asarray(data)
    if data.ndim != 3 or data.dtype.kind not in "biuf":
        raise ValueError(f"only real 3D images are written, not {data.dtype} of shape {data.shape}")
    extension = _extension(path)
    if extension not in _WRITABLE:
        raise InputError(
            f"{path.name}: images are written as {', '.join(_WRITABLE)}; choose such a name"
        )
    if not path.parent.is_dir():
        raise InputError(
            f"{path.name}: the folder {str(path.parent)!r} does not exist; create it first"
        )
    if affine.is_sheared and not extension.startswith(".nii"):
        raise InputError(
            f"{path.name}: its voxel axes are not at right angles, which only NIfTI can hold here; "
            "choose a name that ends in .nii.gz"
        )
    save = _save_nifti if extension.startswith(".nii") else _save_itk
    temporary = path.with_name(f".{uuid4().hex}{extension}")
    try:
        save(temporary, data.astype(_STORED.get(data.dtype.kind, data.dtype), copy=False), affine)
        with temporary.open("rb+") as stream:
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or "the image writer failed"
        raise InputError(
            f"{path.name}: it cannot be written ({reason}); check the folder's permissions and the "
            "free space on the disk"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _save_nifti(path: Path, data: NDArray[Any], affine: Affine) -> None:
    image = nib.Nifti1Image(data, affine.matrix, dtype=data.dtype)
    image.header.set_xyzt_units("mm")
    image.set_sform(affine.matrix, code=1)
    image.set_qform(affine.matrix, code=1)
    # A quaternion holds no shear, and near half a turn float32 loses millimetres.
    qform = Affine(image.header.get_qform())
    if not Grid(data.shape, affine).same_as(Grid(data.shape, qform), QFORM_TOLERANCE):
        image.set_qform(None, code=0)
    nib.save(image, path)


def _save_itk(path: Path, data: NDArray[Any], affine: Affine) -> None:
    image = sitk.GetImageFromArray(data.transpose(2, 1, 0))
    image.SetSpacing(affine.spacing.tolist())
    image.SetDirection((LPS_TO_RAS @ affine.direction).ravel().tolist())
    image.SetOrigin((LPS_TO_RAS @ affine.origin).tolist())
    sitk.WriteImage(image, str(path), useCompression=True)
