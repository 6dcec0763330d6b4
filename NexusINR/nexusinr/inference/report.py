"""report.json: what went in, what was done, what came out, in plain values."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
from numpy.typing import NDArray

from nexusinr import __version__
from nexusinr.geometry import Grid
from nexusinr.labels import DEEP_GREY, GREY, TISSUES, WHITE
from nexusinr.models.nexus_inr import MODALITIES
from nexusinr.volume import Volume

if TYPE_CHECKING:
    from nexusinr.inference.measured import Kept
    from nexusinr.inference.session import Session
    from nexusinr.registration import RigidResult

NOTICE = "Derived images for research; not for primary diagnosis."

#: Grey and white matter that a part of a head has not, mL.
WHOLE_BRAIN = 200.0

#: Shares of white matter in the two that a segmentation may find; brains have about 0.4 to 0.5.
WHITE_SHARE = (0.25, 0.65)


def describe_input(modality: int, volume: Volume) -> dict[str, Any]:
    """One scan: file, digest, geometry."""
    return {
        "modality": MODALITIES[modality],
        "path": None if volume.path is None else str(volume.path),
        "sha256": volume.sha256,
        **describe_lattice(volume.grid),
        "thickness_mm": [round(t, 4) for t in volume.thickness],
    }


def describe_lattice(grid: Grid) -> dict[str, Any]:
    """Sizes, spacing, orientation, affine."""
    return {
        "shape": list(grid.shape),
        "spacing_mm": [round(float(s), 6) for s in grid.spacing],
        "orientation": grid.affine.orientation,
        "affine": [[round(float(v), 6) for v in row] for row in grid.affine.matrix],
    }


def describe_model(session: Session) -> dict[str, Any]:
    """Name, version and digest of the weights, and of those that were adapted to the case."""
    card, adapted = session.card, session.adapted_sha256
    known = {"name": card.name, "version": card.version, "sha256": card.sha256}
    return known if adapted is None else {**known, "adapted_sha256": adapted}


def describe_registration(mode: str, result: RigidResult | None, applied: bool) -> dict[str, Any]:
    """What was found and whether the T2w scan was moved by it."""
    if result is None:
        return {"mode": mode, "applied": False}
    return {
        "mode": mode,
        "applied": applied,
        "matrix_ras": [[round(float(v), 6) for v in row] for row in result.matrix],
        "mutual_information_before": round(result.mi_before, 4),
        "mutual_information_after": round(result.mi_after, 4),
        "rotation_deg": round(result.rotation_deg, 3),
        "translation_mm": round(result.translation_mm, 3),
        "displacement_mean_mm": round(result.displacement_mean, 3),
        "reason": result.reason,
    }


def describe_consistency(kept: dict[int, Kept], weight: float) -> dict[str, Any]:
    """Residuals in the units of each scan."""
    return {
        "weight": weight,
        **{
            MODALITIES[m]: {"profile": k.profile, "before": k.before, "after": k.after}
            for m, k in kept.items()
        },
    }


def tissue_volumes(tissues: NDArray[np.uint8] | None, grid: Grid) -> dict[str, float]:
    """Volume of each tissue, mL."""
    if tissues is None:
        return {}
    voxel = abs(float(np.linalg.det(grid.affine.matrix[:3, :3]))) / 1000
    counts = np.bincount(tissues.ravel(), minlength=len(TISSUES) + 1)
    return {t.name: round(float(counts[t.value]) * voxel, 3) for t in TISSUES}


def doubts(volumes: dict[str, float]) -> list[str]:
    """A sentence where the tissues of a whole brain have shares that no brain has.

    Args:
        volumes: from `tissue_volumes`.
    """
    grey, white, deep = (volumes.get(TISSUES[t - 1].name, 0.0) for t in (GREY, WHITE, DEEP_GREY))
    brain = grey + white + deep
    low, high = WHITE_SHARE
    if brain < WHOLE_BRAIN or low <= white / brain <= high:
        return []
    return [
        f"the segmentation cannot be right: {white / brain:.0%} of the brain would be white "
        "matter. Do not use it or its volumes"
    ]


def peak_memory_gb() -> float:
    """The most memory that this process has held so far, GB."""
    if sys.platform == "win32":
        return round(psutil.Process().memory_info().peak_wset / 1e9, 3)
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak * (1 if sys.platform == "darwin" else 1024) / 1e9, 3)


def software() -> dict[str, str]:
    """Versions that a result depends on."""
    import torch

    return {"nexusinr": __version__, "torch": torch.__version__, "numpy": np.__version__}
