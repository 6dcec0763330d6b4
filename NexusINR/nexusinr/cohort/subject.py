"""One session, restored on a worker: what Dask runs."""

from __future__ import annotations

import gc
import logging
import os
import threading
import time
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from nexusinr.cohort import records
from nexusinr.cohort.fingerprint import fingerprint
from nexusinr.cohort.folder import Folder, Run, move
from nexusinr.cohort.pair import NO_SCAN, Pair
from nexusinr.cohort.records import Record
from nexusinr.cohort.settings import Means, Settings
from nexusinr.errors import Cancelled, InputError, NexusError

if TYPE_CHECKING:
    from nexusinr.inference.session import Session

#: Workers that may be lost over one session before it is given up.
TRIES = 2

#: Share of a worker's memory that a run may plan with; Dask ends a worker that takes all of it.
MEMORY_SHARE = 0.9

LOST = (
    f"{TRIES} workers were lost while they worked on it (killed, as the system does when memory "
    "runs out, or crashed): try it alone with nexusinr upsample"
)

#: A process restores one session at a time, however many threads Dask has given it.
_ONE_AT_A_TIME = threading.Lock()


@dataclass(frozen=True)
class Job:
    """What a worker has to know besides the session.

    Attributes:
        settings: how to restore.
        means: by what.
        root: folder of the source data set.
        run: where to work.
        again: whether to redo what is done already.
    """

    settings: Settings
    means: Means
    root: Path
    run: Run
    again: bool = False


@dataclass(frozen=True)
class Outcome:
    """What became of one session.

    Attributes:
        label: of the session.
        state: ``same``: it was done before; ``stopped``: the run was, before it was done.
        code: exit status that the same scans would give alone.
        reason: why it failed, in one sentence.
        seconds: that it took.
    """

    label: str
    state: Literal["done", "same", "failed", "stopped"]
    code: int = 0
    reason: str = ""
    seconds: float = 0.0


def restore(job: Job, pair: Pair) -> Outcome:
    """Restores one session, unless that is done, and publishes its files.

    Errors that are meant for the user become the outcome; others are raised, for Dask to retry.
    """
    with _ONE_AT_A_TIME:
        if not job.run.is_on:
            return Outcome(pair.label, "stopped")
        if job.run.lost_tries(pair.label) >= TRIES:
            return Outcome(pair.label, "failed", NexusError.exit_code, LOST)
        begun = time.monotonic()
        try:
            with job.run.one_try(pair.label):
                state = _restored(job, pair)
        except (NexusError, OSError) as error:
            if isinstance(error, Cancelled) or not job.run.is_on:
                return Outcome(pair.label, "stopped")
            if isinstance(error, OSError):
                raise
            reason = " ".join(str(error).split())
            return Outcome(pair.label, "failed", error.exit_code, reason)
        finally:
            gc.collect()
        return Outcome(pair.label, state, seconds=round(time.monotonic() - begun, 3))


def _restored(job: Job, pair: Pair) -> Literal["done", "same"]:
    if not pair.scans:
        raise InputError(NO_SCAN)
    folder, inputs = job.run.folder, fingerprint(pair)
    digest = job.settings.digest(pair, inputs)
    known = records.read(folder, pair.label)
    if known is not None and known.holds(digest, folder) and not job.again:
        return "same"
    with job.run.staging() as made:
        files, record = _made(job, pair, made)
        if fingerprint(pair) != inputs:
            raise InputError("its scans were changed while they were restored: run it again")
        _publish(folder, pair, files, record, digest, known)
    return "done"


def _made(job: Job, pair: Pair, made: Path) -> tuple[dict[str, Path], Record]:
    """The files of one session, by their names to be, and what is to be known of it."""
    # Before the first import of matplotlib, which would take the home folder.
    os.environ.setdefault("MPLCONFIGDIR", str(job.run.folder.cache))
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)  # it tells of its list
    from nexusinr.cohort.derivatives import arrange
    from nexusinr.cohort.thumbnail import thumbnail, windows
    from nexusinr.inference.pipeline import upsample
    from nexusinr.intensity import background_value
    from nexusinr.volume import read_volume

    scans = {modality: read_volume(scan.path) for modality, scan in pair.scans.items()}
    name, threads, memory = _own_share(job.means)
    session = _session(job.settings.model, job.settings.weights, job.means.device_of(name), threads)
    try:
        result = upsample(
            scans.get("T1w"),
            scans.get("T2w"),
            **job.settings.for_upsample(),
            out=made,
            session=session,
            max_memory=memory,
            cancelled=lambda: not job.run.is_on,
        )
    finally:
        session.move(session.device)  # forgets the scans: no other session has them
        if session.notes:  # it works in smaller pieces, or elsewhere: the next one starts afresh
            _session.cache_clear()
    stripped = {m: background_value(scan.data) is not None for m, scan in scans.items()}
    files = arrange(made, pair, job.settings, job.root, result.report, stripped)
    restored = {m: v for m, v in (("T1w", result.t1w), ("T2w", result.t2w)) if v is not None}
    grey = windows(scans)
    record = Record(
        subject=pair.subject,
        session=pair.session,
        state="done",
        notes=pair.notes,
        report={key: value for key, value in result.report.items() if key != "inputs"},
        thumbnail=thumbnail(scans, restored, grey),
        contrast={modality: high - low for modality, (low, high) in grey.items()},
    )
    return files, record


def _own_share(means: Means) -> tuple[object, int, float | None]:
    """Name of this worker, CPU threads and GB of memory that it may use."""
    from distributed import get_worker

    worker = get_worker()
    limit = worker.memory_manager.memory_limit
    memory = means.max_memory or (MEMORY_SHARE * limit / 1e9 if limit else None)
    return worker.name, means.threads or worker.state.nthreads, memory


@lru_cache(maxsize=1)
def _session(model: str, weights: str, device: str, threads: int) -> Session:
    """The model, kept warm from one session of a cohort to the next."""
    import SimpleITK as sitk
    import torch

    from nexusinr.inference.session import Session

    torch.set_num_threads(threads)
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)
    session = Session(model, device)
    if session.card.sha256 != weights:
        raise InputError(
            f"this worker has other weights of {model!r} than the program that sent the work: "
            "install the same on both"
        )
    return session


def _publish(
    folder: Folder,
    pair: Pair,
    files: dict[str, Path],
    record: Record,
    digest: str,
    known: Record | None,
) -> None:
    """Moves files to their places, takes away those of an earlier run, and says that it is done.

    Whatever happens in between, the session then counts as not done, and what may lie there is
    known.
    """
    sizes = {name: path.stat().st_size for name, path in files.items()}
    before = {} if known is None else known.files
    moving = Record(pair.subject, pair.session, "moving", files={**before, **sizes})
    records.write(folder, pair.label, moving)
    for name, path in files.items():
        target = folder.path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        move(path, target)
    for name in before.keys() - sizes.keys():
        if name.startswith(f"sub-{pair.subject}/") and ".." not in name:
            (folder.path / name).unlink(missing_ok=True)
    records.write(folder, pair.label, replace(record, digest=digest, files=sizes))
