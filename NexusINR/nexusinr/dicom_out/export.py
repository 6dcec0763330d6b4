"""The DICOM output of a run: what can be refused before it, and the folder that is written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nexusinr.dicom_out.derived import Derivation, Lineage, frame_of
from nexusinr.dicom_out.planes import planes_of
from nexusinr.dicom_out.segmentation import check_highdicom, write_segmentation
from nexusinr.dicom_out.series import write_series
from nexusinr.dicom_out.source import Source, read_source
from nexusinr.errors import InputError
from nexusinr.geometry import Grid
from nexusinr.volume import Volume


@dataclass(frozen=True)
class RestoredScan:
    """One scan of a run.

    Attributes:
        name: ``T1w`` or ``T2w``.
        scan: as it was read from its folder.
        restored: intensities in the units of the scan, on the lattice of the run.
        moved: whether the scan was moved onto the first one, whose frame of reference is then its.
    """

    name: str
    scan: Volume
    restored: Volume
    moved: bool = False


def check(scans: Sequence[Volume], grid: Grid) -> None:
    """Before a run: whether its results can be written as DICOM.

    Raises InputError where a scan is no MR series in DICOM or lacks the identifiers that are
    needed, where the scans are of two patients, where DICOM cannot hold the lattice, and where
    highdicom is missing.
    """
    check_highdicom()
    planes_of(grid)
    _sources(scans)


def write(
    folder: Path,
    scans: Sequence[RestoredScan],
    tissues: NDArray[np.uint8] | None,
    derivation: Derivation,
    tell: Callable[[float], None] = lambda fraction: None,
) -> None:
    """Writes ``t1w/0001.dcm`` ..., ``t2w/0001.dcm`` ... and ``segmentation/0001.dcm``.

    The headers of the sources are read again, so that nobody's name is kept during a run.

    Args:
        folder: where to; it is made.
        scans: all of one lattice. The segmentation goes with the first.
        tissues: values of labels.TISSUES, (i, j, k); None: no segmentation.
        derivation: how the images were made.
        tell: told of the share that is done.

    Raises InputError as `check` does and where the sources have changed; OSError.
    """
    planes = planes_of(scans[0].restored.grid)
    sources = _sources([each.scan for each in scans])
    images = tuple(image for source in sources for image in source.images)
    first = frame_of(sources[0])
    headers, lineages = [], []
    for number, (each, source) in enumerate(zip(scans, sources, strict=True)):
        own = "FrameOfReferenceUID" in source.header and not each.moved
        lineages.append(Lineage(source, frame_of(source) if own else first, images, derivation))
        headers.append(
            write_series(
                folder / each.name.lower(),
                each.name,
                each.restored.data,
                planes,
                lineages[-1],
                _part(tell, number, len(scans) + 1),
            )
        )
    if tissues is not None:
        write_segmentation(folder / "segmentation", tissues, planes, lineages[0], headers[0])
    tell(1.0)


def _part(tell: Callable[[float], None], number: int, count: int) -> Callable[[float], None]:
    return lambda done: tell((number + done) / count)


def _sources(scans: Sequence[Volume]) -> list[Source]:
    sources = [read_source(scan) for scan in scans]
    patients = {source.header.get("PatientID") for source in sources} - {None, ""}
    if len(patients) > 1:
        raise InputError(
            "the two series have different patient IDs, so nothing can be filed under one of them: "
            "give scans of one patient or leave DICOM out"
        )
    return sources
