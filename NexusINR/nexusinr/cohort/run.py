"""A cohort from beginning to end: send every session out, collect what became of it, report."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from nexusinr.cohort import cluster, dataset, records, report
from nexusinr.cohort.cluster import Where
from nexusinr.cohort.cost import check_spacing
from nexusinr.cohort.folder import Folder, opened, refusal, stop
from nexusinr.cohort.pair import Pair
from nexusinr.cohort.records import Record
from nexusinr.cohort.settings import Means, Settings
from nexusinr.cohort.subject import Job, Outcome, restore
from nexusinr.cohort.validation import invalid_names
from nexusinr.inference import protocol

if TYPE_CHECKING:
    from distributed import Client, Future

#: Seconds between two looks at what is done.
INTERVAL = 0.1

#: Times that Dask tries again what failed for no reason of the session's own.
RETRIES = 1

#: Times that a session is sent once more because its place on the cluster was lost.
RESENT = 3

LOST = "the cluster was lost while it was restored"


@dataclass(frozen=True)
class Summary:
    """What became of a cohort.

    Attributes:
        outcomes: one a session, in the order of the plan.
        report: the HTML file.
        failures: the CSV file.
        odd_names: files whose names are not those of BIDS derivatives.
    """

    outcomes: tuple[Outcome, ...]
    report: Path
    failures: Path
    odd_names: tuple[str, ...]

    def count(self, *states: str) -> int:
        """How many sessions came to one of these states."""
        return sum(outcome.state in states for outcome in self.outcomes)


class Listener(Protocol):
    """Told how a run goes."""

    def started(self, workers: int, dashboard: str) -> None:
        """The workers are there, or will be; the address of Dask's dashboard."""
        ...

    def came(self, outcome: Outcome, done: int, total: int, seconds_left: float | None) -> None:
        """One session is over."""
        ...


def run(
    pairs: Sequence[Pair],
    root: Path,
    out: Path,
    settings: Settings,
    means: Means,
    where: Where,
    listener: Listener,
    stopped: Callable[[], bool],
    again: bool = False,
) -> Summary:
    """Restores every session that is not done yet, and reports on the whole folder.

    Args:
        pairs: the sessions.
        root: folder of the source data set.
        out: folder of the derivatives.
        settings: how to restore.
        means: what a worker may use.
        where: which workers.
        listener: told how it goes.
        stopped: asked often; when it says True, nothing more is begun and what is at work ends.
        again: whether to redo what is done already.

    Raises InputError for a spacing that nothing can have, where the folder cannot be written or is
    in use, and where there are no workers to be had.
    """
    check_spacing(settings)
    workers, means = cluster.sized(where, means)
    with opened(out) as room:
        folder = room.folder
        try:
            dataset.describe(folder, root)
            job = Job(settings, means, root, room, again)
            with cluster.connected(where, min(workers, len(pairs)), folder.cache) as client:
                there = len(client.nthreads())
                listener.started(max(min(workers, len(pairs)), there), client.dashboard_link)
                outcomes = _collected(client, job, pairs, listener, stopped)
            for pair in pairs:
                _keep_failure(folder, pair, outcomes[pair.label])
            written = report.write(folder)
        except OSError as error:
            raise refusal(out, error) from error
    results = tuple(outcomes[pair.label] for pair in pairs)
    return Summary(results, *written, tuple(invalid_names(folder.path)))


def _collected(
    client: Client,
    job: Job,
    pairs: Sequence[Pair],
    listener: Listener,
    stopped: Callable[[], bool],
) -> dict[str, Outcome]:
    """What became of every session, by label."""
    outcomes: dict[str, Outcome] = {}
    begun = time.monotonic()
    for pair, outcome in _as_they_come(client, job, pairs, stopped):
        outcomes[pair.label] = outcome
        fresh = sum(o.state != "same" for o in outcomes.values())
        passed = time.monotonic() - begun
        left = (len(pairs) - len(outcomes)) * passed / fresh if fresh else None
        listener.came(outcome, len(outcomes), len(pairs), left)
    missing = (pair.label for pair in pairs if pair.label not in outcomes)
    return outcomes | {label: Outcome(label, "stopped") for label in missing}


def _as_they_come(
    client: Client, job: Job, pairs: Sequence[Pair], stopped: Callable[[], bool]
) -> Iterator[tuple[Pair, Outcome]]:
    from distributed import as_completed

    def send(pair: Pair) -> Future[Outcome]:
        return client.submit(restore, job, pair, pure=False, retries=RETRIES)

    waiting = {future: (pair, 0) for pair in pairs for future in [send(pair)]}
    done = as_completed(list(waiting))
    while waiting:
        if stopped():
            stop(job.run)
            client.cancel(list(waiting))
            return
        if not done.has_ready():
            time.sleep(INTERVAL)
            continue
        future = next(done)
        if future.status in ("lost", "pending"):  # its result was lost with a worker before it
            done.add(future)  # came here: Dask computes it again
            continue
        pair, sent = waiting.pop(future)
        outcome = _outcome(future, pair)
        if outcome is not None:
            yield pair, outcome
        elif sent < RESENT:
            waiting[replacement := send(pair)] = pair, sent + 1
            done.add(replacement)
        else:
            yield pair, Outcome(pair.label, "failed", 1, LOST)


def _outcome(future: Future[Outcome], pair: Pair) -> Outcome | None:
    """None where Dask gave up on a session that is not known to be at fault."""
    from distributed import CancelledError, KilledWorker

    try:
        return future.result()
    except (CancelledError, KilledWorker):  # the scheduler forgot it, or its worker was killed
        return None
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        return Outcome(pair.label, "failed", 1, f"its files cannot be written ({reason})")
    except Exception as error:  # whatever a worker may raise: it becomes the outcome
        told = protocol.failure(error)
        return Outcome(pair.label, "failed", told["code"], told["message"])


def _keep_failure(folder: Folder, pair: Pair, outcome: Outcome) -> None:
    """Writes down why a session failed; what an earlier run left of it stays known."""
    if outcome.state != "failed":
        return
    before = records.read(folder, pair.label)
    failed = Record(
        pair.subject,
        pair.session,
        "failed",
        files={} if before is None else before.files,
        notes=pair.notes,
        code=outcome.code,
        reason=outcome.reason,
    )
    records.write(folder, pair.label, failed)
