"""The reader of DICOM folders: one series of classic slices, or one enhanced (multi-frame) file.

pydicom reads the headers, and only the elements listed here, so nothing that identifies the
patient is ever loaded; GDCM, through SimpleITK, decodes the pixels and applies the rescale slope.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.filereader import read_dataset, read_preamble
from pydicom.uid import DeflatedExplicitVRLittleEndian

from nexusinr.errors import InputError
from nexusinr.geometry import FloatArray, Grid
from nexusinr.reading import (
    LPS_TO_RAS,
    FloatImage,
    Outline,
    Raw,
    check_shrunk,
    check_spacing,
    checked_affine,
    checked_shape,
)

_ELEMENTS = [
    "SOPInstanceUID", "SeriesInstanceUID", "SeriesNumber", "Modality", "Rows", "Columns",
    "SamplesPerPixel", "NumberOfFrames", "ImagePositionPatient", "ImageOrientationPatient",
    "PixelSpacing", "SliceThickness", "SpacingBetweenSlices", "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
]  # fmt: skip

#: What pydicom and the conversions below raise for a file that is damaged or that holds no plane.
UNUSABLE = (
    ArithmeticError, AttributeError, BytesLengthException, EOFError, LookupError,
    NotImplementedError, OSError, RecursionError, TypeError, ValueError, struct.error,
)  # fmt: skip

#: Voxel sizes (mm) and directions (cosines) that differ by less than this are alike.
_ALIKE = 1e-3

#: Two slices closer than this (mm) are at the same place.
_SAME_PLACE = 0.01

#: The largest departure from even spacing that is accepted, as a share of the spacing.
_UNEVEN = 0.05

#: Departures from even spacing above this (mm) are mentioned.
_JITTER = 0.01


@dataclass(frozen=True, eq=False)
class Slice:
    """One image plane. Positions and directions in LPS, lengths in mm."""

    file: Path
    frame: int
    instance: str
    series: str
    number: int | None
    modality: str
    colours: int
    size: tuple[int, int]  # columns, rows
    spacing: tuple[float, float]  # between columns, between rows
    position: FloatArray  # (3,)
    directions: FloatArray  # (2, 3): along a row, along a column
    thickness: float | None
    between: float | None
    one_scale: bool  # whether one rescale slope and intercept serves the whole file

    @property
    def normal(self) -> FloatArray:
        """The unit vector across the slice, (3,), LPS."""
        return np.cross(self.directions[0], self.directions[1])


def read_dicom(folder: Path) -> Raw:
    """The largest stack of parallel slices below a folder, as `Raw`, sorted by position.

    The affine comes from the slice positions, so a stack whose slices are shifted against one
    another (gantry tilt) is kept as a sheared lattice.

    Raises InputError where there is no such stack, or where slices are missing, doubled or
    unevenly spaced.
    """
    ordered, notes = find_stack(folder)
    outline, odd = _outline(ordered)
    files = tuple(sorted({plane.file for plane in ordered}))
    check_shrunk(outline.grid.voxels, sum(file.stat().st_size for file in files))
    return Raw(
        _pixels(ordered, outline.grid.shape),
        outline.grid.affine,
        _title(ordered[0]),
        files,
        outline.thickness,
        (*notes, *odd),
    )


def dicom_outline(folder: Path) -> Outline:
    """Where the stack lies that `read_dicom` reads, from its headers alone."""
    ordered, _ = find_stack(folder)
    return _outline(ordered)[0]


def _outline(ordered: list[Slice]) -> tuple[Outline, tuple[str, ...]]:
    """Where a sorted stack lies, and what was odd about it."""
    first = ordered[0]
    shape = checked_shape((*first.size, len(ordered)))
    step, step_notes = _step(ordered)
    check_spacing((*first.spacing, float(np.linalg.norm(step))))
    along_rows, along_columns = first.directions * np.reshape(first.spacing, (2, 1))
    matrix = np.eye(4)
    matrix[:3] = LPS_TO_RAS @ np.column_stack((along_rows, along_columns, step, first.position))
    grid = Grid(shape, checked_affine(matrix))
    thickness, notes = _thickness(ordered, float(grid.spacing[2]))
    along = None if thickness is None else (*first.spacing, thickness)
    return Outline(grid, along), (*step_notes, *notes)


def find_stack(folder: Path) -> tuple[list[Slice], tuple[str, ...]]:
    """The slices that `read_dicom` reads, in its order, and what was odd about the choice.

    Raises InputError where there are none or where they cannot be decoded.
    """
    slices, left_out = _find(folder)
    stacks = _stacks(slices)
    if not stacks:
        raise InputError(
            "there is no DICOM image with a position and a voxel size in this folder; give the "
            "folder that holds the files of one MR series"
        )
    stack = max(stacks, key=len)
    _check_stack(stack)
    normal = stack[0].normal
    ordered = sorted(stack, key=lambda s: float(s.position @ normal))
    return ordered, _choice_notes(stacks, stack, left_out)


def _check_stack(stack: list[Slice]) -> None:
    if stack[0].colours != 1:
        raise InputError("its images are in colour; give the series as the scanner made it")
    if not all(plane.one_scale for plane in stack):
        raise InputError(
            "its frames have different rescale slopes, which cannot be decoded reliably; export "
            "the series as single slices"
        )


def _title(plane: Slice) -> str:
    return "DICOM series" if plane.number is None else f"DICOM series {plane.number}"


def _find(folder: Path) -> tuple[list[Slice], int]:
    """All image planes below a folder, each once, and how many DICOM files held none."""
    found: dict[tuple[str, int], Slice] = {}
    left_out = 0
    for file in sorted(p for p in folder.rglob("*") if p.is_file() and p.name != "DICOMDIR"):
        try:
            with pydicom.config.disable_value_validation():
                header = read_header(file, _ELEMENTS)
                planes = list(_planes(file, header))
        except InvalidDicomError:
            continue
        except UNUSABLE:
            left_out += 1
            continue
        for plane in planes:
            found.setdefault((plane.instance, plane.frame), plane)
    return list(found.values()), left_out


def read_header(file: Path, elements: list[str]) -> Dataset:
    """Some elements of a file.

    Raises InvalidDicomError for other files, and one of UNUSABLE for damaged and for deflated ones:
    pydicom inflates the whole of these, to any size.
    """
    if file.stat().st_size == 0:  # which cannot be mapped
        raise InvalidDicomError("an empty file")
    with (
        file.open("rb") as stream,
        mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
    ):
        content = cast(BinaryIO, mapped)  # asked for more than there is, it takes no memory for it
        read_preamble(content, force=False)
        meta = read_dataset(content, False, True, stop_when=lambda tag, *_: tag.group != 2)
        if meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
            raise ValueError("a deflated DICOM file")
        content.seek(0)
        return pydicom.dcmread(content, stop_before_pixels=True, specific_tags=elements)


def _planes(file: Path, header: Dataset) -> Iterator[Slice]:
    """The planes of one file; one of UNUSABLE is raised where a plane has no place."""
    frames = int(header.get("NumberOfFrames") or 1)
    enhanced = "PerFrameFunctionalGroupsSequence" in header
    if frames != (len(header.PerFrameFunctionalGroupsSequence) if enhanced else 1):
        raise ValueError(f"{frames} frames, and not as many descriptions")
    described = [frame_groups(header, frame) if enhanced else [header] for frame in range(frames)]
    # GDCM rescales every frame of a file like the first one.
    scales = {(_value(g, "RescaleSlope", 1), _value(g, "RescaleIntercept", 0)) for g in described}
    for frame, groups in enumerate(described):
        directions = np.reshape(np.array(_value(groups, "ImageOrientationPatient"), float), (2, 3))
        lengths = np.linalg.norm(directions, axis=1, keepdims=True)
        if np.abs(lengths - 1).max() > 0.01 or abs(directions[0] @ directions[1]) > 0.01:
            raise ValueError("the directions of rows and columns are not at right angles")
        rows, columns = (float(v) for v in _value(groups, "PixelSpacing"))
        number = header.get("SeriesNumber")
        yield Slice(
            file=file,
            frame=frame,
            instance=str(header.get("SOPInstanceUID", file)),
            series=str(header.SeriesInstanceUID),
            number=None if number is None else int(number),
            modality=str(header.get("Modality", "")),
            colours=int(header.get("SamplesPerPixel", 1)),
            size=(int(header.Columns), int(header.Rows)),
            spacing=(columns, rows),
            position=np.array(_value(groups, "ImagePositionPatient"), float).reshape(3),
            directions=directions / lengths,
            thickness=_positive(groups, "SliceThickness"),
            between=_positive(groups, "SpacingBetweenSlices"),
            one_scale=len(scales) == 1,
        )


def frame_groups(header: Dataset, frame: int) -> list[Dataset]:
    """What an enhanced file says about one frame: its own macros first, then the shared ones."""
    levels = [
        header.PerFrameFunctionalGroupsSequence[frame],
        *header.get("SharedFunctionalGroupsSequence", [])[:1],
    ]
    macros = (
        "PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence",
        "PixelValueTransformationSequence", "FrameVOILUTSequence", "MREchoSequence",
        "MRTimingAndRelatedParametersSequence",
    )  # fmt: skip
    return [level[macro].value[0] for level in levels for macro in macros if level.get(macro)]


def _value(groups: Iterable[Dataset], name: str, default: Any = None) -> Any:
    for group in groups:
        value = group.get(name)
        if value is not None:
            return value
    if default is None:
        raise AttributeError(name)
    return default


def _positive(groups: Iterable[Dataset], name: str) -> float | None:
    value = float(_value(groups, name, 0) or 0)
    return value if np.isfinite(value) and value > 0 else None


def _stacks(slices: list[Slice]) -> list[list[Slice]]:
    """Slices grouped into stacks of one series, size and direction; low series numbers first."""
    series: dict[str, list[Slice]] = {}
    for plane in slices:
        series.setdefault(plane.series, []).append(plane)
    stacks = [stack for planes in series.values() for stack in _parallel(planes)]
    return sorted(stacks, key=lambda s: (s[0].number is None, s[0].number or 0, s[0].series))


def _parallel(planes: list[Slice]) -> Iterator[list[Slice]]:
    """The slices of one series, in stacks: each goes with the first that it is like."""
    sizes = np.array([plane.size for plane in planes], dtype=object)
    places = np.array([(*plane.spacing, *plane.directions.ravel()) for plane in planes])
    left = np.arange(len(planes))
    while left.size:
        first = left[0]
        alike = np.isclose(places[left], places[first], atol=_ALIKE).all(axis=1)
        alike &= (sizes[left] == sizes[first]).all(axis=1)
        alike[0] = True  # also where its numbers are none
        yield [planes[n] for n in left[alike]]
        left = left[~alike]


def _choice_notes(stacks: list[list[Slice]], stack: list[Slice], left_out: int) -> tuple[str, ...]:
    notes = []
    if len(stacks) > 1:
        sizes = ", ".join(str(len(s)) for s in stacks)
        notes.append(
            f"The folder holds {len(stacks)} stacks of slices (of {sizes} slices): the largest, "
            f"{_title(stack[0])}, was read."
        )
    if left_out:
        notes.append(f"{left_out} DICOM files without an image in a known place were left out.")
    if stack[0].modality != "MR":
        notes.append("The series is not an MR scan by its header.")
    return tuple(notes)


def _step(ordered: list[Slice]) -> tuple[FloatArray, tuple[str, ...]]:
    """From one slice to the next, (3,), LPS mm. Raises InputError where that is not one step."""
    positions = np.stack([s.position for s in ordered])
    gaps = np.diff(positions @ ordered[0].normal)
    usual = float(np.median(gaps))
    if gaps.min() < _SAME_PLACE:
        raise InputError(
            f"the {len(ordered)} images of {_title(ordered[0])} lie at "
            f"{int((gaps >= _SAME_PLACE).sum()) + 1} places (several echoes, phases or time "
            "points); export one of them alone"
        )
    if gaps.max() > 1.5 * usual:
        after = int(gaps.argmax()) + 1
        raise InputError(
            f"a slice is missing: slices {after} and {after + 1} of {len(ordered)} are "
            f"{gaps.max():.2f} mm apart, the others {usual:.2f} mm; export the whole series again"
        )
    step = (positions[-1] - positions[0]) / (len(ordered) - 1)
    even = positions[0] + np.arange(len(ordered))[:, None] * step
    off = float(np.linalg.norm(positions - even, axis=1).max())
    if off > _UNEVEN * usual:
        raise InputError(
            f"its slices are not evenly spaced: {gaps.min():.2f} to {gaps.max():.2f} mm apart, up "
            f"to {off:.2f} mm from an even stack; export a series with one spacing"
        )
    notes = []
    if off > _JITTER:
        notes.append(f"The slices are up to {off:.2f} mm off an even spacing, which is taken.")
    between = ordered[0].between
    if between is not None and abs(between - usual) > 0.1:
        notes.append(
            f"The header gives {between:.2f} mm between slices, their positions {usual:.2f} mm: "
            "the positions are used."
        )
    return step, tuple(notes)


def _thickness(ordered: list[Slice], spacing: float) -> tuple[float | None, tuple[str, ...]]:
    given = [s.thickness for s in ordered if s.thickness is not None]
    if given and np.median(given) <= 20:
        return float(np.median(given)), ()
    return None, (
        f"The header gives no usable slice thickness: the slice spacing, {spacing:.2f} mm, is "
        "taken.",
    )


def _pixels(ordered: list[Slice], shape: tuple[int, int, int]) -> FloatImage:
    """The decoded and rescaled intensities, (i along rows, j along columns, k), float32."""
    data = np.empty(shape, dtype=np.float32)
    files: dict[Path, FloatImage] = {}
    for k, plane in enumerate(ordered):
        if plane.file not in files:
            files = {plane.file: _decode(plane.file)}
        frames = files[plane.file]
        if plane.frame >= len(frames) or frames.shape[:0:-1] != shape[:2]:
            raise InputError(
                f"slice {k + 1} of {len(ordered)} has another size than its header says; export "
                "the series again"
            )
        data[:, :, k] = frames[plane.frame].T
    return data


def _decode(file: Path) -> FloatImage:
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(file))
    reader.SetOutputPixelType(sitk.sitkFloat32)
    try:
        array: FloatImage = sitk.GetArrayFromImage(reader.Execute())
    except RuntimeError as error:
        raise InputError(
            "the pixels of a slice cannot be decoded (truncated file or unknown compression); "
            "export the series again"
        ) from error
    return array.reshape(-1, *array.shape[-2:])
