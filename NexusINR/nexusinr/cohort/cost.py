"""What a cohort will take: voxels from the headers, seconds from what was measured before."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import nibabel as nib
import numpy as np

from nexusinr.cohort import records
from nexusinr.cohort.folder import Folder
from nexusinr.cohort.pair import Pair
from nexusinr.cohort.settings import Settings
from nexusinr.errors import InputError
from nexusinr.geometry import Affine, Grid
from nexusinr.inference.request import Scans, estimate, target
from nexusinr.inference.session import Session
from nexusinr.models.nexus_inr import MODALITIES
from nexusinr.models.weights import Card
from nexusinr.volume import Volume

#: Bytes that a voxel of a written image takes, compressed: most of it is noise in float32.
IMAGE_BYTES, TISSUE_BYTES = 3.2, 0.1


#: What a header that is none makes nibabel raise.
_UNREADABLE = (
    OSError,
    EOFError,
    ValueError,
    zlib.error,
    nib.filebasedimages.ImageFileError,
    nib.spatialimages.HeaderDataError,
    nib.wrapstruct.WrapStructError,
)


@dataclass(frozen=True)
class Pace:
    """Seconds a voxel of the output, and where that was measured, in words."""

    seconds: float
    origin: str


@dataclass(frozen=True)
class Cost:
    """Of one session: the lattice of its result, GB of memory, GB on disk."""

    grid: Grid
    memory: float
    disk: float


def check_spacing(settings: Settings) -> None:
    """Raises InputError for a spacing that no result can have, before any scan is read."""
    cube = Volume(np.zeros((4, 4, 4), np.float32), Affine.from_parts((1, 1, 1)))
    target(Scans({0: cube}), settings.spacing, None, None)


def costs(pairs: Sequence[Pair], settings: Settings) -> list[Cost | None]:
    """One a session; None where no header tells: DICOM, other formats, damaged files.

    Raises InputError for a spacing that nothing can have.
    """
    check_spacing(settings)
    session = Session(settings.model, "cpu")
    return [_cost(pair, settings, session) for pair in pairs]


def _cost(pair: Pair, settings: Settings, session: Session) -> Cost | None:
    volumes = {}
    for number, modality in enumerate(MODALITIES):
        if modality in pair.scans:
            volume = _empty(pair.scans[modality].path)
            if volume is None:
                return None
            volumes[number] = volume
    if not volumes:
        return None
    scans = Scans(volumes)
    try:
        grid = target(scans, settings.spacing, None, None).grid
    except InputError:
        return None
    memory = estimate(scans, grid, session).memory / 1e9
    each = IMAGE_BYTES * len(volumes) + TISSUE_BYTES * settings.segmentation
    return Cost(grid, memory, each * grid.voxels / 1e9)


def _empty(path: Path) -> Volume | None:
    """A scan without its intensities: what the header of a NIfTI file tells."""
    try:
        image = nib.Nifti1Image.from_filename(path)
        return Volume(np.broadcast_to(np.float32(0), image.shape), Affine(image.affine))
    except _UNREADABLE:
        return None


def pace(folder: Folder, settings: Settings, card: Card) -> Pace | None:
    """From earlier sessions in the output folder, else from the model's card; None: not known."""
    measured = []
    for record in records.read_all(folder):
        if record.report.get("model", {}).get("sha256") == settings.weights:
            voxels = np.prod(record.report["lattice"]["shape"], dtype=np.int64)
            measured.append(sum(record.report["seconds"].values()) / int(voxels))
    if measured:
        return Pace(median(measured), f"measured on {len(measured)} sessions in the output folder")
    head = card.details.get("whole_head")
    if head is None:
        return None
    voxels = np.prod(head["lattice"], dtype=np.int64)
    return Pace(head["seconds"] / int(voxels), f"measured on {head['machine']}, {head['device']}")
