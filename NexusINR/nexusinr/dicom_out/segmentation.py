"""Tissues as a DICOM segmentation (SEG), coded, of the restored series that it lies on.

A binary one, one bit a voxel and tissue: label maps are newer than most archives and viewers. Its
frames refer to the planes of the restored series, on whose lattice they lie, so that viewers show
them on it; that series refers to the images of the scanner.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from nexusinr import __version__
from nexusinr.dicom_out.derived import MANUFACTURER, Derivation, Lineage, new_uid, save
from nexusinr.dicom_out.planes import Planes
from nexusinr.errors import InputError
from nexusinr.labels import TISSUES, Tissue

if TYPE_CHECKING:
    from highdicom.seg import SegmentDescription

#: What highdicom asks of a source: it is given nothing of the patient, as it writes unusual names
#: into the log.
_NOT_TOLD = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID",
    "StudyDate", "StudyTime",
)  # fmt: skip


def check_highdicom() -> None:
    """Raises InputError where the library that writes segmentations is missing."""
    try:
        import highdicom  # noqa: F401
    except ImportError:
        raise InputError(
            "--dicom needs highdicom, which is not installed: pip install 'nexusinr[dicom]'"
        ) from None


def write_segmentation(
    folder: Path,
    tissues: NDArray[np.uint8],
    planes: Planes,
    lineage: Lineage,
    headers: list[Dataset],
) -> None:
    """Writes one file with one segment a tissue; the numbers of the segments are label values.

    Args:
        folder: where to; it is made.
        tissues: values of labels.TISSUES, (i, j, k).
        planes: how its lattice is cut.
        lineage: where it comes from.
        headers: of the planes of the restored series, as `write_series` gives them.

    Raises OSError.
    """
    from highdicom.seg import Segmentation

    derivation = lineage.derivation
    result = Segmentation(
        source_images=[_untold(header, lineage) for header in headers],
        pixel_array=np.ascontiguousarray(planes.arrange(tissues)),
        segmentation_type="BINARY",
        segment_descriptions=[_described(tissue, derivation) for tissue in TISSUES],
        series_instance_uid=new_uid(),
        series_number=lineage.number(2),
        sop_instance_uid=new_uid(),
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=MANUFACTURER,
        software_versions=__version__,
        device_serial_number=derivation.sha256,
        omit_empty_frames=bool(tissues.any()),
        content_label="TISSUES",
        content_description=derivation.notice,
        series_description="Tissues (NexusINR)",
        content_date=derivation.made.date(),
        content_time=derivation.made.time(),
    )
    lineage.describe(result)
    folder.mkdir(parents=True)
    save(result, folder / "0001.dcm")


def _untold(header: Dataset, lineage: Lineage) -> Dataset:
    image = Dataset()
    image.update(header)
    image.StudyInstanceUID = lineage.source.header.StudyInstanceUID
    for name in _NOT_TOLD:
        setattr(image, name, None)
    del image.Manufacturer  # otherwise taken for the scanner
    return image


def _described(tissue: Tissue, derivation: Derivation) -> SegmentDescription:
    from highdicom import AlgorithmIdentificationSequence
    from highdicom.color import CIELabColor
    from highdicom.seg import SegmentDescription
    from highdicom.sr import CodedConcept

    made_by = AlgorithmIdentificationSequence(
        name=f"NexusINR {derivation.model}",
        version=derivation.version,
        family=CodedConcept("123110", "DCM", "Artificial Intelligence"),
        parameters={"weights SHA-256": derivation.sha256},
    )
    return SegmentDescription(
        segment_number=tissue.value,
        segment_label=tissue.name,
        segmented_property_category=CodedConcept(
            tissue.category.value, tissue.category.scheme, tissue.category.meaning
        ),
        segmented_property_type=CodedConcept(
            tissue.code.value, tissue.code.scheme, tissue.code.meaning
        ),
        algorithm_type="AUTOMATIC",
        algorithm_identification=made_by,
        display_color=CIELabColor.from_rgb(*tissue.colour),
    )
