"""The main job, top to bottom: scans in, restored scans and tissues on any lattice out."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nexusinr import registration
from nexusinr.dicom_out import export
from nexusinr.dicom_out.derived import Derivation
from nexusinr.errors import InputError
from nexusinr.geometry import Grid
from nexusinr.inference import report
from nexusinr.inference.adaptation.tuning import Adaptation, Schedule, adapt_to
from nexusinr.inference.brain import within_brain
from nexusinr.inference.comparison import draw_comparison
from nexusinr.inference.engine import Restored
from nexusinr.inference.measured import KEEPING, Kept, keep_measured
from nexusinr.inference.output import OutputFolder
from nexusinr.inference.prepared import PreparedScan
from nexusinr.inference.progress import Listener, Progress
from nexusinr.inference.request import (
    Scans,
    Target,
    check_memory,
    check_pair,
    read_scans,
    target,
)
from nexusinr.inference.session import MEMBERS, Session
from nexusinr.models.nexus_inr import MODALITIES, T1W, T2W
from nexusinr.registration import RigidResult
from nexusinr.resample import covered
from nexusinr.volume import Volume, write_volume

#: `auto` moves a scan only where its header is off by more than this, in mm on average: thick
#: slices are not aligned better than that.
AUTO_DISPLACEMENT = 1.0

ALIGNMENTS = ("auto", "rigid", "none")

#: What adapting to a case, and one more member of an ensemble, take in shares of a plain run.
ADAPTING_SHARE = 1.5
MEMBER_SHARE = 0.72

#: Names of the files that a run writes; images by modality. DICOM is a folder.
IMAGES = ("t1w_sr.nii.gz", "t2w_sr.nii.gz")
SEGMENTATION = "segmentation.nii.gz"
COMPARISON = "comparison.png"
REPORT = "report.json"
DICOM = "derived_dicom"


@dataclass(frozen=True)
class Result:
    """What `upsample` gives.

    Attributes:
        t1w: restored T1w scan in the units of the input; None where none was given.
        t2w: likewise.
        segmentation: tissue values (labels.TISSUES), uint8, (I, J, K); None where
            not wanted or where the model gives none.
        grid: the lattice of all three.
        report: plain values, as in report.json.
        files: what was written, by name.
    """

    t1w: Volume | None
    t2w: Volume | None
    segmentation: NDArray[np.uint8] | None
    grid: Grid
    report: dict[str, Any]
    files: dict[str, Path] = field(default_factory=dict)


def upsample(
    t1w: Volume | str | Path | None = None,
    t2w: Volume | str | Path | None = None,
    *,
    spacing: float | tuple[float, ...] | None = None,
    like: Grid | Volume | str | Path | None = None,
    roi: tuple[float, ...] | None = None,
    model: str = "nexus-inr",
    device: str = "auto",
    register: str = "auto",
    consistency: float = 1.0,
    segmentation: bool = True,
    dicom: bool = False,
    adapt: bool | Schedule = False,
    ensemble: int = 1,
    out: str | Path | None = None,
    session: Session | None = None,
    max_memory: float | None = None,
    progress: Listener | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Result:
    """Restores a T1w and a T2w scan, or one of them, on any lattice.

    Args:
        t1w: a scan or its path.
        t2w: a scan or its path.
        spacing: mm along the axes of the T1w scan (T2w where there is none), one number or three;
            default: the finest of the inputs, isotropic, not under 0.5 mm.
        like: a lattice to take over exactly, instead.
        roi: only this box: centre R A S and three sizes, mm.
        model: name of the weights.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        register: ``auto`` moves the T2w scan where the headers clearly disagree, ``rigid``
            wherever mutual information gains, ``none`` never.
        consistency: 0 ... 1, how much of the residual against the acquired slices is taken away.
        segmentation: whether tissues are wanted; not every model gives them.
        dicom: whether DICOM is written as well: a derived series for each scan and a segmentation
            for a PACS. The scans have to be MR series in DICOM.
        adapt: whether a copy of the weights is adapted to the scans first, from what they resolve
            within their slices: some minutes (a Schedule tells how many). It is used only where
            it restores a part of the scans that it was not shown better.
        ensemble: 1 ... 8 restorations, of mirrored copies of the scans, are averaged; each takes
            as long as one.
        out: folder to write to; None: nothing is written.
        session: a model that is loaded already (then model and device are not looked at).
        max_memory: GB that may be used; None: what is free.
        progress: told of fraction, step and seconds to go.
        cancelled: asked often; when it says True, Cancelled is raised.

    Raises InputError for what cannot be used, OutOfMemory, Cancelled.
    """
    _check_options(register, consistency, ensemble)
    watch = Progress(progress, cancelled, total=effort(bool(adapt), ensemble))
    with ExitStack() as stack:
        folder = None if out is None else stack.enter_context(OutputFolder(out))
        with watch.step("reading", 0.03):
            scans = read_scans(t1w, t2w)
            lattice = target(scans, spacing, like, roi)
            check_pair(scans)
            if dicom:
                export.check(list(scans.volumes.values()), lattice.grid)
            if folder is not None:
                _check_sources(scans, folder)
        with watch.step("loading the model", 0.02):
            session = session or Session(model, device)
            check_memory(scans, lattice.work, session, max_memory)
        with watch.step("registering", 0.05):
            scans, alignment = _align(scans, register, session)
        prepared = _prepare(session, scans)
        session, adaptation = _adapt(session, prepared, adapt, watch)
        restored = _restore(session, prepared, lattice.work, watch, segmentation, ensemble)
        with watch.step(KEEPING, 0.12):
            kept = {}
            for m, scan in prepared.items():
                kept[m] = _keep(restored.intensity[m], scan, lattice, consistency)
                watch.tell(len(kept) / len(prepared))
        result = _result(scans, kept, restored.tissues, lattice)
        with watch.step("writing", 0.06):
            result.report.update(
                _report(result, scans, session, alignment, kept, consistency, watch)
            )
            result.report["ensemble"] = ensemble
            _report_adaptation(result.report, adaptation)
            if segmentation and result.segmentation is None:
                result.report["warnings"].append(
                    f"the model {session.card.name} gives no tissues: there is no segmentation"
                )
            if folder is not None:
                result.files.update(_write(result, scans, folder, dicom, watch))
        watch.finish()
    return result


def effort(adapt: bool, ensemble: int) -> float:
    """How long a run is expected to take, in plain runs."""
    return 1 + ADAPTING_SHARE * adapt + MEMBER_SHARE * (ensemble - 1)


def _check_options(register: str, consistency: float, ensemble: int) -> None:
    if register not in ALIGNMENTS:
        raise InputError(f"unknown registration {register!r}: choose auto, rigid or none")
    if not 0 <= consistency <= 1:
        raise InputError(f"a consistency weight of {consistency:g} cannot be used: give 0 to 1")
    if ensemble not in range(1, len(MEMBERS) + 1):
        raise InputError(
            f"an ensemble of {ensemble} cannot be made: give 1 (none) to {len(MEMBERS)} members"
        )


def _check_sources(scans: Scans, folder: OutputFolder) -> None:
    """An earlier run's DICOM folder is replaced or removed as a whole: no scan may be in it."""
    goes = (folder.path / DICOM).resolve()
    for volume in scans.volumes.values():
        if volume.path is not None and volume.path.resolve().is_relative_to(goes):
            raise InputError(
                f"{volume.path.name}: this scan lies in {goes.name}, which is a result that would "
                "be replaced; choose another output folder"
            )


def _align(scans: Scans, mode: str, session: Session) -> tuple[Scans, dict[str, Any]]:
    """Moves the T2w scan onto the T1w scan where their headers disagree."""
    if len(scans.volumes) < 2 or mode == "none":
        return scans, report.describe_registration(mode, None, applied=False)
    try:
        found = session.align(scans.volumes[T1W], scans.volumes[T2W])
    except ValueError as error:
        raise InputError(str(error)) from error
    wanted = found.accepted and (mode == "rigid" or found.displacement_mean > AUTO_DISPLACEMENT)
    described = report.describe_registration(mode, found, applied=wanted)
    if not wanted:
        return scans, described
    moved = {**scans.volumes, T2W: registration.apply(found, scans.volumes[T2W])}
    return Scans(moved, [*scans.warnings, _moved(found)]), described


def _moved(found: RigidResult) -> str:
    return (
        f"the headers of the two scans disagree: the T2w scan was moved by "
        f"{found.displacement_mean:.1f} mm on average ({found.rotation_deg:.1f} degrees)"
    )


def _prepare(session: Session, scans: Scans) -> dict[int, PreparedScan]:
    prepared = {}
    for modality, volume in scans.volumes.items():
        try:
            prepared[modality] = session.prepare(volume)
        except ValueError as error:
            raise InputError(f"{MODALITIES[modality]}: {error}") from error
    return prepared


def _adapt(
    session: Session,
    prepared: dict[int, PreparedScan],
    wanted: bool | Schedule,
    watch: Progress,
) -> tuple[Session, Adaptation | None]:
    if not wanted:
        return session, None
    schedule = Schedule() if wanted is True else wanted
    with watch.step("adapting", ADAPTING_SHARE):
        return adapt_to(session, prepared, schedule, watch)


def _restore(
    session: Session,
    prepared: dict[int, PreparedScan],
    lattice: Grid,
    watch: Progress,
    segmentation: bool,
    ensemble: int,
) -> Restored:
    steps = session.engine.steps
    if ensemble == 1:  # otherwise each member has an encoding of its own
        for modality, scan in prepared.items():
            name = f"{steps.encoding} {MODALITIES[modality]}"
            with watch.step(name, steps.encoding_share / len(prepared)):
                session.encode(modality, scan, lattice, watch)
        with watch.step(steps.decoding, steps.decoding_share):
            return session.decode(prepared, lattice, watch, segmentation)
    with watch.step(f"{steps.decoding} {ensemble} times", ensemble * MEMBER_SHARE):
        return session.decode_ensemble(prepared, lattice, watch, segmentation, ensemble)


def _keep(image: NDArray[np.float32], scan: PreparedScan, lattice: Target, weight: float) -> Kept:
    """Consistency, then back to the scan's units; beyond the scan there is nothing."""
    kept = keep_measured(image, scan.whole, lattice.work, weight)
    values = scan.normalisation.undo(lattice.cut(kept.image))
    values[~covered(scan.whole.grid, lattice.grid)] = scan.normalisation.offset
    scale = scan.normalisation.scale
    return Kept(values, kept.profile, kept.before * scale, kept.after * scale)


def _result(
    scans: Scans,
    kept: dict[int, Kept],
    tissues: NDArray[np.uint8] | None,
    lattice: Target,
) -> Result:
    volumes = {
        m: Volume(kept[m].image, lattice.grid.affine, name=scan.name)
        for m, scan in scans.volumes.items()
    }
    return Result(
        t1w=volumes.get(T1W),
        t2w=volumes.get(T2W),
        segmentation=None
        if tissues is None
        else lattice.cut(within_brain(tissues, lattice.work.spacing)),
        grid=lattice.grid,
        report={},
    )


def _report(
    result: Result,
    scans: Scans,
    session: Session,
    alignment: dict[str, Any],
    kept: dict[int, Kept],
    consistency: float,
    watch: Progress,
) -> dict[str, Any]:
    missing = [
        f"the {MODALITIES[m]} scan covers {share:.0%} of the output: the rest is left empty"
        for m, scan in scans.volumes.items()
        if (share := result.grid.overlap(scan.grid)) < 0.9
    ]
    volumes = report.tissue_volumes(result.segmentation, result.grid)
    return {
        "notice": report.NOTICE,
        "inputs": [report.describe_input(m, v) for m, v in scans.volumes.items()],
        "lattice": report.describe_lattice(result.grid),
        "model": report.describe_model(session),
        "device": {
            "name": session.device.name,
            "description": session.device.description,
            "reason": session.device.reason,
        },
        "registration": alignment,
        "consistency": report.describe_consistency(kept, consistency),
        "tissue_volumes_ml": volumes,
        "seconds": {name: round(value, 3) for name, value in watch.seconds.items()},
        "peak_memory_gb": report.peak_memory_gb(),
        "warnings": [*scans.warnings, *missing, *session.notes, *report.doubts(volumes)],
        "software": report.software(),
    }


def _report_adaptation(told: dict[str, Any], adaptation: Adaptation | None) -> None:
    told["adaptation"] = None if adaptation is None else adaptation.described()
    if adaptation is not None and not adaptation.applied:
        told["warnings"].append(f"not adapted: {adaptation.reason}")


def _write(
    result: Result, scans: Scans, folder: OutputFolder, dicom: bool, watch: Progress
) -> dict[str, Path]:
    affine = result.grid.affine
    restored = {m: v for m, v in ((T1W, result.t1w), (T2W, result.t2w)) if v is not None}
    images: dict[str, Any] = {IMAGES[m]: volume.data for m, volume in restored.items()}
    if result.segmentation is not None:
        images[SEGMENTATION] = result.segmentation
    with ThreadPoolExecutor(1 + len(images), "write") as pool:
        files = [
            pool.submit(write_volume, folder.file(name), image, affine)
            for name, image in images.items()
        ]
        picture = pool.submit(
            draw_comparison,
            {MODALITIES[m]: v for m, v in scans.volumes.items()},
            {MODALITIES[m]: v for m, v in restored.items()},
            folder.file(COMPARISON),
        )
        for n, written in enumerate((*files, picture)):
            written.result()
            watch.tell(0.5 * (n + 1) / (1 + len(files)))
    if dicom:
        _write_dicom(result, restored, scans, folder.file(DICOM), watch.part(0.5, 0.4))
    folder.write_json(REPORT, result.report)
    watch.tell(0.95)
    return folder.publish(instead_of=(*IMAGES, SEGMENTATION, COMPARISON, REPORT, DICOM))


def _write_dicom(
    result: Result, restored: dict[int, Volume], scans: Scans, path: Path, watch: Progress
) -> None:
    model, moved = result.report["model"], result.report["registration"]["applied"]
    version = model["version"] + (", adapted" if "adapted_sha256" in model else "")
    export.write(
        path,
        [
            export.RestoredScan(MODALITIES[m], scans.volumes[m], volume, moved and m == T2W)
            for m, volume in restored.items()
        ],
        result.segmentation,
        Derivation(model["name"], version, model["sha256"], report.NOTICE),
        watch.tell,
    )
