"""Fixed experiments: fine pairs are degraded in a known way, restored, and compared.

Every protocol restores each scan on its own original lattice, runs the plain interpolations beside
the models, and scores only where the degraded scan reaches.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nexusinr.acquisition import block_average, degrade
from nexusinr.errors import InputError
from nexusinr.evaluation import report
from nexusinr.evaluation.metrics import axis_nearest, similarity
from nexusinr.evaluation.report import Score
from nexusinr.geometry import Grid
from nexusinr.resample import Kind, covered, interpolate
from nexusinr.volume import Volume, read_volume

Array = NDArray[np.float32]

#: (degraded T1w, degraded T2w, lattice, model name) to both restored arrays on that lattice.
Restore = Callable[[Volume, Volume, Grid, str], tuple[Array, Array]]

BASELINES: tuple[Kind, ...] = ("trilinear", "cubic")

#: Scans whose voxels are longer than this in one direction are no reference for a protocol.
MAX_SPACING_RATIO = 1.5

MODALITIES = ("T1w", "T2w")

#: Where a subject's two scans lie in its folder: our own layout, then the one of BraTS.
_LAYOUTS = (("T1w", "T2w"), ("{id}_t1", "{id}_t2"))


@dataclass(frozen=True)
class Protocol:
    """A named way to degrade a pair: degrade(t1w, t2w) gives (t1w, t2w) as thick slices."""

    name: str
    summary: str
    degrade: Callable[[Volume, Volume], tuple[Volume, Volume]]


@dataclass(frozen=True)
class Pair:
    """The files of one subject."""

    subject: str
    t1w: Path
    t2w: Path


def _brats(t1w: Volume, t2w: Volume) -> tuple[Volume, Volume]:
    return (
        block_average(t1w, axis_nearest(t1w.affine, "S"), 2),
        block_average(t2w, axis_nearest(t2w.affine, "A"), 4),
    )


def _thick(thickness: float, across_t1w: str, across_t2w: str) -> Protocol:
    """Gaussian slices across an anatomical direction (``R``, ``A``, ``S``) of each scan."""
    orthogonal = across_t1w != across_t2w

    def apply(t1w: Volume, t2w: Volume) -> tuple[Volume, Volume]:
        return (
            degrade(t1w, axis_nearest(t1w.affine, across_t1w), thickness),
            degrade(t2w, axis_nearest(t2w.affine, across_t2w), thickness),
        )

    kind = "orthogonal" if orthogonal else "through-plane"
    where = "T1w axial, T2w coronal" if orthogonal else "both axial"
    return Protocol(f"{kind}-{thickness:g}", f"slices of {thickness:g} mm, {where}", apply)


PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol("brats", "T1w averaged 2x along z, T2w 4x along y (paper, section 4.1)", _brats),
        *(_thick(thickness, "S", "S") for thickness in (3, 4, 5, 6, 7)),
        *(_thick(thickness, "S", "A") for thickness in (3, 4, 5, 6, 7)),
    )
}


def subjects(folder: Path, split: str | None = "test") -> list[Pair]:
    """The pairs in a folder, sorted by subject.

    Each subject has a folder of its own with T1w.nii.gz and T2w.nii.gz, or, as BraTS has it,
    ID_t1.nii.gz and ID_t2.nii.gz (or .nii). A ``pairs`` folder inside is looked into. Where a
    split.csv (columns subject, split) lies beside, only the subjects of that split count.

    Raises InputError where nothing is found.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder: give one that holds a folder for each subject")
    pairs = folder / "pairs" if (folder / "pairs").is_dir() else folder
    wanted = _listed(pairs, split) if split else None
    found = [_pair(path) for path in sorted(pairs.iterdir()) if path.is_dir()]
    chosen = [p for p in found if p is not None and (wanted is None or p.subject in wanted)]
    if not chosen:
        of_split = "" if wanted is None else f" of the split {split!r}"
        raise InputError(
            f"{folder} has no pair{of_split}: each subject needs a folder with T1w.nii.gz and "
            "T2w.nii.gz (or ID_t1.nii.gz and ID_t2.nii.gz)"
        )
    return chosen


def _pair(folder: Path) -> Pair | None:
    for names in _LAYOUTS:
        for extension in (".nii.gz", ".nii"):
            t1w, t2w = (folder / (name.format(id=folder.name) + extension) for name in names)
            if t1w.is_file() and t2w.is_file():
                return Pair(folder.name, t1w, t2w)
    return None


def _listed(pairs: Path, split: str) -> set[str] | None:
    beside = (pairs, pairs.parent) if pairs.name == "pairs" else (pairs,)
    table = next((p / "split.csv" for p in beside if (p / "split.csv").is_file()), None)
    if table is None:
        return None
    with table.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    if not rows or not {"subject", "split"} <= rows[0].keys():
        raise InputError(f"{table} needs the columns subject and split, and a row a subject")
    return {row["subject"] for row in rows if row["split"] == split}


def unusable(t1w: Volume, t2w: Volume) -> str | None:
    """Why a pair is no reference (thick slices already), in words; None where it is one."""
    for modality, scan in zip(MODALITIES, (t1w, t2w), strict=True):
        spacing = scan.affine.spacing
        if spacing.max() > MAX_SPACING_RATIO * spacing.min():
            lengths = " x ".join(f"{length:.2f}" for length in spacing)
            return f"its {modality} has voxels of {lengths} mm: no fine reference"
    return None


def evaluate(
    pairs_folder: Path,
    protocol: str,
    models: Sequence[str],
    out: Path,
    restore: Restore | None = None,
    split: str | None = "test",
    log: Callable[[str], None] = print,
) -> list[Score]:
    """Run one protocol over all subjects; leaves scores.csv, scores.md and a PNG a subject in out.

    restore runs a model (see Restore); it may be left out where models is empty, for the plain
    interpolations alone. The CSV is brought up to date after every subject.

    Raises InputError for an unknown protocol, and where no subject can be used.
    """
    if protocol not in PROTOCOLS:
        raise InputError(f"no protocol {protocol!r}: choose from {', '.join(PROTOCOLS)}")
    if models and restore is None:
        raise ValueError("models are to be evaluated, but nothing was given that runs them")
    pairs = subjects(Path(pairs_folder), split)
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    scores: list[Score] = []
    for pair in pairs:
        truths = read_volume(pair.t1w), read_volume(pair.t2w)
        reason = unusable(*truths)
        if reason is not None:
            log(f"{pair.subject}: left out, {reason}")
            continue
        own = _subject(pair.subject, truths, PROTOCOLS[protocol], models, restore, out)
        log(_line(own))
        scores += own
        report.write_csv(scores, out / "scores.csv")
    if not scores:
        raise InputError(f"no pair in {pairs_folder} can be used with the protocol {protocol!r}")
    title = f"{protocol}: {PROTOCOLS[protocol].summary}"
    (out / "scores.md").write_text(report.markdown(scores, title), encoding="utf-8")
    return scores


def _subject(
    subject: str,
    truths: tuple[Volume, Volume],
    protocol: Protocol,
    models: Sequence[str],
    restore: Restore | None,
    out: Path,
) -> list[Score]:
    degraded = protocol.degrade(*truths)
    restored: list[dict[str, Array]] = [
        {kind: interpolate(scan, truth.grid, kind) for kind in BASELINES}
        for scan, truth in zip(degraded, truths, strict=True)
    ]
    if restore is not None:
        for model in models:
            both = _restore(restore, degraded, truths, model)
            for images, data in zip(restored, both, strict=True):
                images[model] = data
    scores = []
    for modality, truth, scan, images in zip(MODALITIES, truths, degraded, restored, strict=True):
        within = covered(scan.grid, truth.grid)
        for method, data in images.items():
            value = similarity(data, truth.data, truth.affine, within)
            scores.append(Score(subject, modality, method, value))
    report.picture(
        subject,
        dict(zip(MODALITIES, truths, strict=True)),
        dict(zip(MODALITIES, degraded, strict=True)),
        dict(zip(MODALITIES, restored, strict=True)),
        out / f"{subject}.png",
    )
    return scores


def _restore(
    restore: Restore, degraded: tuple[Volume, Volume], truths: tuple[Volume, Volume], model: str
) -> tuple[Array, Array]:
    """Both scans, each on its own original lattice: one run where that is the same lattice."""
    t1w, t2w = restore(*degraded, truths[0].grid, model)
    if not truths[0].grid.same_as(truths[1].grid):
        _, t2w = restore(*degraded, truths[1].grid, model)
    return t1w, t2w


def _line(scores: Sequence[Score]) -> str:
    parts = [f"{s.modality} {s.method} {s.value.psnr:.2f} dB / {s.value.ssim:.4f}" for s in scores]
    return f"{scores[0].subject}: " + ", ".join(parts)
