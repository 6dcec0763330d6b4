"""What a cohort will take: voxels from the headers, seconds from what was measured before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from nexusinr.cohort import records
from nexusinr.cohort.folder import Folder
from nexusinr.cohort.pair import NO_SCAN, Pair
from nexusinr.cohort.settings import Settings
from nexusinr.errors import InputError, OutOfMemory
from nexusinr.geometry import Affine, Grid
from nexusinr.inference.measured import KEEPING
from nexusinr.inference.request import Scans, estimate, target
from nexusinr.inference.session import Session
from nexusinr.models.nexus_inr import MODALITIES
from nexusinr.models.weights import Card
from nexusinr.volume import Volume, read_outline

#: Bytes that a voxel of a written image takes, compressed: most of it is noise in float32.
IMAGE_BYTES, TISSUE_BYTES = 3.2, 0.1

#: Seconds that a voxel takes while an oblique scan is kept (`Estimate.oblique`), on one core: from
#: 2.6e-6 for a clean phantom to 6.5e-6 for pure noise.
OBLIQUE_SECONDS = 4e-6


@dataclass(frozen=True)
class Pace:
    """Seconds a voxel of the output, and where that was measured, in words."""

    seconds: float
    origin: str


@dataclass(frozen=True)
class Cost:
    """Of one session.

    Attributes:
        grid: the lattice of its result.
        memory: bytes.
        disk: bytes.
        oblique: as `Estimate.oblique`.
    """

    grid: Grid
    memory: int
    disk: float
    oblique: int

    def seconds(self, pace: Pace) -> float:
        """On one worker."""
        return pace.seconds * self.grid.voxels + OBLIQUE_SECONDS * self.oblique


def check_spacing(settings: Settings) -> None:
    """Raises InputError for a spacing that no result can have, before any scan is read."""
    cube = Volume(np.zeros((4, 4, 4), np.float32), Affine.from_parts((1, 1, 1)))
    target(Scans({0: cube}), settings.spacing, None, None)


def costs(pairs: Sequence[Pair], settings: Settings) -> list[Cost | str]:
    """One a session; where its headers already show that it cannot be restored: why.

    Lattice and memory are those of the run itself, by the same functions, unless it moves the T2w
    scan. Raises InputError for a spacing that nothing can have.
    """
    check_spacing(settings)
    session = Session(settings.model, "cpu")
    return [_cost(pair, settings, session) for pair in pairs]


def _cost(pair: Pair, settings: Settings, session: Session) -> Cost | str:
    if not pair.scans:
        return NO_SCAN
    try:
        scans = Scans(
            {MODALITIES.index(m): read_outline(scan.path) for m, scan in pair.scans.items()}
        )
        grid = target(scans, settings.spacing, None, None).work
    except (InputError, OutOfMemory) as error:
        return str(error)
    needed = estimate(scans, grid, session)
    each = IMAGE_BYTES * len(pair.scans) + TISSUE_BYTES * settings.segmentation
    return Cost(grid, needed.memory, each * grid.voxels, needed.oblique)


def pace(folder: Folder, settings: Settings, card: Card) -> Pace | None:
    """From earlier sessions in the output folder, else from the model's card; None: not known.

    What oblique scans take is left out.
    """
    measured = []
    for record in records.read_all(folder):
        if record.report.get("model", {}).get("sha256") == settings.weights:
            voxels = np.prod(record.report["lattice"]["shape"], dtype=np.int64)
            steps = {**record.report["seconds"], KEEPING: 0.0}
            measured.append(sum(steps.values()) / int(voxels))
    if measured:
        return Pace(median(measured), f"measured on {len(measured)} sessions in the output folder")
    head = card.details.get("whole_head")
    if head is None:
        return None
    voxels = np.prod(head["lattice"], dtype=np.int64)
    return Pace(head["seconds"] / int(voxels), f"measured on {head['machine']}, {head['device']}")
