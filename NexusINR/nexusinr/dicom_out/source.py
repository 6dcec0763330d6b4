"""What a derived series takes over from the DICOM series that it is made of.

Only the elements that are named here are read: nothing private, and no free text beyond what
identifies patient and study in a PACS.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from pydicom import config
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from nexusinr.dicom import UNUSABLE, Slice, find_stack, frame_groups
from nexusinr.dicom_out.planes import decimals
from nexusinr.errors import InputError
from nexusinr.volume import Volume, digest_of

#: Identifiers. They stay as they are, valid or not, as a PACS files everything by them.
IDENTIFIERS = (
    "PatientName", "PatientID", "IssuerOfPatientID", "StudyInstanceUID", "StudyID",
    "AccessionNumber", "FrameOfReferenceUID", "SpecificCharacterSet",
)  # fmt: skip

#: Patient and study, with what says whether the patient's identity was removed.
PATIENT_AND_STUDY = (
    "SpecificCharacterSet", "PatientName", "PatientID", "IssuerOfPatientID", "TypeOfPatientID",
    "PatientBirthDate", "PatientSex", "PatientIdentityRemoved", "DeidentificationMethod",
    "DeidentificationMethodCodeSequence", "PatientAge", "PatientSize", "PatientWeight",
    "StudyInstanceUID", "StudyDate", "StudyTime", "StudyID", "AccessionNumber",
    "ReferringPhysicianName", "StudyDescription", "LongitudinalTemporalInformationModified",
)  # fmt: skip

#: Where the coordinates count.
FRAME = ("FrameOfReferenceUID", "PositionReferenceIndicator")

#: How the images were acquired, and what they may still show of the patient.
ACQUISITION = (
    "BodyPartExamined", "Laterality", "PatientPosition", "ProtocolName", "AcquisitionDate",
    "AcquisitionTime", "ContrastBolusAgent", "ContrastBolusRoute", "ScanningSequence",
    "SequenceVariant", "ScanOptions", "MRAcquisitionType", "SequenceName", "RepetitionTime",
    "EchoTime", "InversionTime", "TriggerTime", "EchoTrainLength", "EchoNumbers", "FlipAngle",
    "NumberOfAverages", "ImagingFrequency", "ImagedNucleus", "MagneticFieldStrength",
    "PixelBandwidth", "ReceiveCoilName", "BurnedInAnnotation", "RecognizableVisualFeatures",
    "LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod",
)  # fmt: skip

#: What shows the intensities well.
WINDOW = ("WindowCenter", "WindowWidth", "VOILUTFunction")

#: The scanner.
EQUIPMENT = (
    "Manufacturer", "ManufacturerModelName", "InstitutionName", "StationName",
    "DeviceSerialNumber", "SoftwareVersions",
)  # fmt: skip

_NAMES = dict.fromkeys((*PATIENT_AND_STUDY, *FRAME, *ACQUISITION, *WINDOW, *EQUIPMENT))

#: What else is read: of enhanced images, the values that hold for single frames.
_READ = (
    *_NAMES, "SOPClassUID", "SOPInstanceUID", "NumberOfFrames", "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
)  # fmt: skip

#: Enhanced images call some values otherwise.
_ENHANCED_NAMES = {"EchoTime": "EffectiveEchoTime"}


@dataclass(frozen=True, eq=False, repr=False)
class Source:
    """A series that was restored.

    Attributes:
        header: of its middle slice; what was not valid in it is left out.
        number: of the series; 0 where it has none.
        images: a reference to each of its images, as in SourceImageSequence.
    """

    header: Dataset
    number: int
    images: tuple[Dataset, ...]

    def part(self, names: Iterable[str]) -> Dataset:
        """The elements of these names that it has."""
        chosen = Dataset()
        for name in names:
            if name in self.header:
                chosen[name] = self.header[name]
        return chosen


def read_source(volume: Volume) -> Source:
    """Who, when and how, from the folder that a scan was read from.

    Raises InputError for a scan that is no MR series in DICOM, for one without the identifiers
    that a derived series needs, and where the files are not those any more that the scan was read
    from.
    """
    path = volume.path
    if path is None or not path.is_dir():
        shown = volume.name if path is None else path.name
        raise InputError(
            f"{shown or 'a scan'}: it is no DICOM folder, and DICOM can be written of DICOM alone; "
            "give the series as a DICOM folder or leave DICOM out"
        )
    try:
        return _read(path, volume.sha256)
    except InputError as error:
        raise InputError(f"{path.resolve().name}: {error}") from error
    except OSError as error:
        raise InputError(
            f"{path.resolve().name}: it cannot be read any more ({error.strerror}); start again"
        ) from error


def _read(folder: Path, digest: str | None) -> Source:
    stack, _ = find_stack(folder)
    if digest_of(tuple(sorted({plane.file for plane in stack}))) != digest:
        raise InputError("its files have changed since they were read; start again")
    if any(plane.modality != "MR" for plane in stack):
        raise InputError(
            f"its modality is {stack[0].modality!r}, and only MR series can be written as DICOM; "
            "leave DICOM out"
        )
    middle = stack[len(stack) // 2]
    with config.disable_value_validation():
        whole = pydicom.dcmread(middle.file, stop_before_pixels=True, specific_tags=list(_READ))
        missing = [
            n for n in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID") if not whole.get(n)
        ]
        if missing:
            raise InputError(
                f"its header lacks {missing[0]}, to which a derived series has to refer; export "
                "the series again or leave DICOM out"
            )
        header = _header(whole, middle.frame)
        images = _references(stack, str(whole.SOPClassUID), int(whole.get("NumberOfFrames") or 1))
    return Source(header, stack[0].number or 0, images)


def _header(whole: Dataset, frame: int) -> Dataset:
    levels = [whole]
    if "PerFrameFunctionalGroupsSequence" in whole:
        levels += frame_groups(whole, frame)
    header = Dataset()
    for name in _NAMES:
        for level in levels:
            try:
                header[name] = _element(level, name)
            except (*UNUSABLE, OverflowError):
                continue
            break
    return header


def _element(level: Dataset, name: str) -> DataElement:
    """One element as it may be written. Raises where it is not there, empty or not valid."""
    kind = dictionary_VR(name)
    found = level[name if name in level else _ENHANCED_NAMES.get(name, name)]
    if found.is_empty:
        raise ValueError(f"{name} is empty")
    value = found.value
    if kind == "DS":
        value = decimals(np.atleast_1d(np.asarray(value, dtype=np.float64)))
    mode = config.IGNORE if name in IDENTIFIERS else config.RAISE
    return DataElement(name, kind, value, validation_mode=mode)


def _references(stack: list[Slice], storage: str, frames: int) -> tuple[Dataset, ...]:
    """To the images of a stack; of those with several frames, to the frames that are in it."""
    used: dict[str, list[int]] = {}
    for plane in stack:
        used.setdefault(plane.instance, []).append(plane.frame + 1)
    references = []
    for instance, numbers in used.items():
        reference = Dataset()
        reference.ReferencedSOPClassUID = storage
        reference.ReferencedSOPInstanceUID = instance
        if len(numbers) < frames:
            reference.ReferencedFrameNumber = sorted(numbers)
        references.append(reference)
    return tuple(references)
