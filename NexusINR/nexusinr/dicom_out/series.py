"""A restored scan as a series of MR images.

One file a plane, MR Image Storage: every PACS and viewer takes it, and programs like Slicer,
dcm2niix and ITK read it as a volume. Enhanced MR Image Storage, one file a volume, would demand
descriptions of the acquisition that a classic source does not give and a restored image does not
have, and many archives and viewers still refuse it or show single frames without their place.

Intensities are real numbers, so each series has a rescale slope and intercept. The standard does
not list them for MR images, but scanners write them, and viewers and readers apply them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.charset import convert_encodings, default_encoding
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_sequence
from pydicom.tag import Tag
from pydicom.uid import MRImageStorage
from pydicom.valuerep import DSfloat

from nexusinr import __version__
from nexusinr.dicom_out.derived import MANUFACTURER, Lineage, code, new_uid, save
from nexusinr.dicom_out.planes import Planes, decimal
from nexusinr.dicom_out.source import ACQUISITION, WINDOW, Source
from nexusinr.reading import lengths_text

#: What 16 bits hold, less one for the rounding of the lowest value.
_LEVELS = 2**16 - 2

#: Of the acquisition, what has to be there, and what is said where the source does not say it:
#: no known sequence ("research mode"), and otherwise nothing.
_DEFAULTS = {
    "ScanningSequence": "RM", "SequenceVariant": "NONE", "ScanOptions": None,
    "MRAcquisitionType": None, "RepetitionTime": None, "EchoTime": None,
    "EchoTrainLength": None, "PatientPosition": None,
}  # fmt: skip

_SOURCES = Tag("SourceImageSequence")


class Rescale:
    """Real numbers as 16-bit levels: value = slope * level + intercept.

    The slope is a power of two and the intercept a multiple of it, so that 0 and, in all usual
    ranges, whole numbers come back exactly. The error is at most 1/65534 of the range.
    """

    def __init__(self, low: float, high: float) -> None:
        slope = 2.0 ** math.ceil(math.log2((high - low or 1.0) / _LEVELS))
        self.slope: DSfloat = decimal(slope)
        self.intercept: DSfloat = decimal(math.floor(low / slope) * slope)

    def levels(self, values: NDArray[np.float32]) -> NDArray[np.uint16]:
        """The nearest levels, little-endian."""
        above = values.astype(np.float64) - float(self.intercept)
        levels = np.rint(above / float(self.slope))
        return np.clip(levels, 0, 2**16 - 1).astype("<u2")


def write_series(
    folder: Path,
    name: str,
    image: NDArray[np.float32],
    planes: Planes,
    lineage: Lineage,
    tell: Callable[[float], None],
) -> list[Dataset]:
    """Writes one file a plane, named by its number.

    Args:
        folder: where to; it is made.
        name: of the scan, ``T1w`` or ``T2w``.
        image: restored intensities, float32, (i, j, k).
        planes: how its lattice is cut.
        lineage: where it comes from.
        tell: told of the share that is done.

    Returns the headers, without patient, study and scanner, to refer to.

    Raises OSError.
    """
    folder.mkdir(parents=True)
    rescale = Rescale(float(image.min()), float(image.max()))
    common = _common(name, planes, rescale, lineage)
    headers = []
    for k, pixels in enumerate(planes.arrange(image)):
        header = Dataset()
        header.update(common)
        header.SOPInstanceUID = new_uid()
        header.InstanceNumber = k + 1
        header.ImagePositionPatient = planes.position(k)
        headers.append(header)
        whole = Dataset()
        whole.update(header)
        lineage.describe(whole)
        whole.add_new("PixelData", "OW", rescale.levels(pixels).tobytes())
        # So that the references, which are encoded already, are written as they are.
        whole.set_original_encoding(False, True, convert_encodings(whole.SpecificCharacterSet))
        save(whole, folder / f"{k + 1:04d}.dcm")
        tell((k + 1) / planes.grid.shape[2])
    return headers


def _common(name: str, planes: Planes, rescale: Rescale, lineage: Lineage) -> Dataset:
    """What all images of a series share."""
    common = Dataset()
    _add_acquisition(common, lineage.source)
    common.update(lineage.frame)
    common.SOPClassUID = MRImageStorage
    common.ImageType = ["DERIVED", "SECONDARY", "OTHER"]
    common.Modality = "MR"
    common.SeriesInstanceUID = new_uid()
    common.SeriesNumber = lineage.number(1)
    lengths = lengths_text(planes.grid.spacing)
    common.SeriesDescription = f"{name} super-resolution {lengths} mm (NexusINR)"
    _add_origin(common, lineage)
    common.PixelSpacing, common.ImageOrientationPatient = planes.spacing, planes.directions
    common.SliceThickness = common.SpacingBetweenSlices = planes.distance
    common.Columns, common.Rows, _ = planes.grid.shape
    common.SamplesPerPixel, common.PhotometricInterpretation = 1, "MONOCHROME2"
    common.BitsAllocated, common.BitsStored, common.HighBit = 16, 16, 15
    common.PixelRepresentation = 0
    common.RescaleSlope, common.RescaleIntercept = rescale.slope, rescale.intercept
    common.RescaleType = "US"  # unspecified, as are the units of the source
    return common


def _add_acquisition(common: Dataset, source: Source) -> None:
    for name, value in _DEFAULTS.items():
        setattr(common, name, value)
    common.update(source.part(ACQUISITION))
    if "IR" in common.ScanningSequence and "InversionTime" not in common:
        common.InversionTime = None
    if "BodyPartExamined" not in common and "Laterality" not in common:
        common.Laterality = None  # it could be one of a pair
    window = source.part(WINDOW)
    if "WindowCenter" in window and "WindowWidth" in window:
        common.update(window)
        common.WindowCenter = _first(window["WindowCenter"])
        common.WindowWidth = _first(window["WindowWidth"])


def _first(element: DataElement) -> DSfloat:
    """The first of several values."""
    return element.value[0] if element.VM > 1 else element.value


def _add_origin(common: Dataset, lineage: Lineage) -> None:
    """When, by what and of what the images were made."""
    derivation = lineage.derivation
    day, time = f"{derivation.made:%Y%m%d}", f"{derivation.made:%H%M%S.%f}"
    common.InstanceCreationDate = common.SeriesDate = common.ContentDate = day
    common.InstanceCreationTime = common.SeriesTime = common.ContentTime = time
    common.Manufacturer = common.ManufacturerModelName = MANUFACTURER
    common.SoftwareVersions = __version__
    common.ImageComments = derivation.notice
    common.DerivationDescription = derivation.description
    common.DerivationCodeSequence = [code("113085", "DCM", "Spatial resampling")]
    common[_SOURCES] = _encoded(lineage.images)


def _encoded(images: tuple[Dataset, ...]) -> RawDataElement:
    """The references as they stand in a file: encoded once, not once a plane."""
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    write_sequence(buffer, DataElement(_SOURCES, "SQ", list(images)), [default_encoding])
    value = buffer.getvalue()
    return RawDataElement(_SOURCES, "SQ", len(value), value, 0, False, True)
