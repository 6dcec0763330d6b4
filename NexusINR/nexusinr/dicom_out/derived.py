"""What the new MR series and the new segmentation have in common: whose they are, how made."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid

from nexusinr import __version__
from nexusinr.dicom_out.source import EQUIPMENT, FRAME, PATIENT_AND_STUDY, Source

#: Of the equipment that makes these images, as DICOM calls programs too.
MANUFACTURER = "NexusINR"

#: The largest number of a source series that is continued; DICOM's numbers end at 2**31.
_LARGEST_NUMBER = 10**9

#: Elements of patient, study and frame of reference that have to be there, though maybe empty.
_ALWAYS_THERE = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime",
    "StudyID", "AccessionNumber", "ReferringPhysicianName", "PositionReferenceIndicator",
)  # fmt: skip


@dataclass(frozen=True)
class Derivation:
    """How the images were made.

    Attributes:
        model: name of the weights.
        version: of the weights.
        sha256: of the weights file.
        notice: what everybody who sees the images has to know.
        made: when.
    """

    model: str
    version: str
    sha256: str
    notice: str
    made: datetime = field(default_factory=datetime.now)

    @property
    def description(self) -> str:
        """In words, for DerivationDescription."""
        return (
            f"Restored by super-resolution on another lattice with NexusINR {__version__}, model "
            f"{self.model} {self.version}, weights SHA-256 {self.sha256}"
        )


@dataclass(frozen=True)
class Lineage:
    """Where a new object comes from.

    Attributes:
        source: the series whose patient, study and acquisition are its own.
        frame: of reference.
        images: a reference to every image that it was made of.
        derivation: how.
    """

    source: Source
    frame: Dataset
    images: tuple[Dataset, ...]
    derivation: Derivation

    def number(self, thousands: int) -> int:
        """Of a new series: some thousands above that of the source."""
        return min(max(self.source.number, 0), _LARGEST_NUMBER) + thousands * 1000

    def describe(self, dataset: Dataset) -> None:
        """Patient, study, frame of reference and scanner, into a new object."""
        for name in _ALWAYS_THERE:
            setattr(dataset, name, None)
        dataset.SpecificCharacterSet = "ISO_IR 100"  # as what names none is read
        dataset.update(self.source.part(PATIENT_AND_STUDY))
        dataset.update(self.frame)
        scanner = self.source.part(EQUIPMENT)
        if "Manufacturer" in scanner:
            purpose = code("109101", "DCM", "Acquisition Equipment")
            scanner.PurposeOfReferenceCodeSequence = [purpose]
            dataset.ContributingEquipmentSequence = [scanner]


def frame_of(source: Source) -> Dataset:
    """The frame of reference of a series: a new one where it names none."""
    frame = source.part(FRAME)
    if "FrameOfReferenceUID" not in frame:
        frame.FrameOfReferenceUID = new_uid()
    return frame


def new_uid() -> UID:
    """One that needs no registered root (2.25 and a random UUID)."""
    return generate_uid(prefix=None)


def code(value: str, scheme: str, meaning: str) -> Dataset:
    """A coded word as an item of a sequence."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def save(dataset: Dataset, path: Path) -> None:
    """Writes an object and makes sure that it is on the disk. Raises OSError."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta = meta
    with path.open("wb") as stream:
        dataset.save_as(stream, enforce_file_format=True)
        stream.flush()
        os.fsync(stream.fileno())
