"""`nexusinr batch`: the main job on every session of a cohort."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from typer import Argument, Option

from nexusinr.cli import options
from nexusinr.cli.console import Listener, progress_bar
from nexusinr.cli.interrupt import stop_on_signals
from nexusinr.cli.upsample import parse_spacing
from nexusinr.errors import Cancelled

if TYPE_CHECKING:
    from nexusinr.cohort.cluster import Where
    from nexusinr.cohort.pair import Pair
    from nexusinr.cohort.run import Summary
    from nexusinr.cohort.settings import Means, Settings
    from nexusinr.cohort.source import Source
    from nexusinr.cohort.subject import Outcome

#: Exit status where some sessions failed.
SOME_FAILED = 1


def batch(
    source: Annotated[
        Path,
        Argument(
            metavar="BIDS",
            help="A BIDS data set, folders as in BraTS, or a .csv table of pairs (columns "
            "subject, session, t1w, t2w).",
        ),
    ],
    out: Annotated[Path, Argument(help="Folder for the BIDS derivatives and the report.")],
    participant_label: Annotated[
        list[str] | None,
        Option(metavar="LABEL[,LABEL...]", help="Only these participants; default: all."),
    ] = None,
    session_label: Annotated[
        list[str] | None,
        Option(metavar="LABEL[,LABEL...]", help="Only these sessions; default: all."),
    ] = None,
    dry_run: Annotated[
        bool, Option("--dry-run", help="Only tell what would be done, and what it would cost.")
    ] = False,
    skip: Annotated[
        bool,
        Option(
            "--skip/--no-skip",
            help="Leave alone what is done with the same scans, options and weights.",
        ),
    ] = True,
    spacing: Annotated[
        str | None,
        Option(
            metavar="S | SX SY SZ",
            help="Of the results, mm; default: the finest of each pair, isotropic, not under 0.5.",
        ),
    ] = None,
    model: options.Model = options.DEFAULT_MODEL,
    device: options.Device = "auto",
    register: Annotated[
        Literal["auto", "rigid", "none"],
        Option(metavar="auto|rigid|none", help="As for nexusinr upsample."),
    ] = "auto",
    consistency: Annotated[
        float, Option(min=0.0, max=1.0, metavar="WEIGHT", help="As for nexusinr upsample.")
    ] = 1.0,
    no_segmentation: Annotated[
        bool, Option("--no-segmentation", help="Leave the tissues out.")
    ] = False,
    dicom: Annotated[
        bool,
        Option(
            "--dicom", help="Write DICOM for a PACS as well, where the scans are DICOM folders."
        ),
    ] = False,
    workers: Annotated[
        int | None,
        Option(
            min=1,
            metavar="N",
            help="Worker processes, or jobs at once with --slurm. Default: one a GPU, or as many "
            "as cores and memory allow.",
        ),
    ] = None,
    scheduler: Annotated[
        str | None, Option(metavar="ADDRESS", help="Of a Dask scheduler that runs already.")
    ] = None,
    slurm: Annotated[
        Path | None,
        Option(
            metavar="FILE",
            help="Send jobs to Slurm: YAML with options of dask_jobqueue.SLURMCluster, at least "
            "cores and memory of a job.",
        ),
    ] = None,
    threads: Annotated[
        int | None, Option(min=1, metavar="N", help="CPU threads of each worker.")
    ] = None,
    max_memory: Annotated[
        float | None, Option(min=0.1, metavar="GB", help="Memory of each worker.")
    ] = None,
) -> int:
    """Restore every session of a cohort, as BIDS derivatives with one report.

    Of several T1w or T2w scans in a session one is taken: without contrast agent before with, as
    acquired before reconstructed otherwise (rec-), then by acq-, then the first run; a T2w scan
    that shares these with the T1w scan goes first. The plan (--dry-run) and the report say so. To
    choose others, give a table of pairs.

    The same command goes on where it was interrupted, and does again what has changed. Exit
    status: 0 every session is done, 1 some are listed in OUT/failures.csv, 2 bad usage.
    """
    with options.needs_extra("cohort"):
        from nexusinr.cohort.cluster import Where
        from nexusinr.cohort.settings import Means, Settings
        from nexusinr.cohort.source import find, select
        from nexusinr.models import weights

        where = Where(workers, scheduler, slurm)
        where.check()
        card = weights.find(model)
        weights.verify(card)
        settings = Settings(
            model,
            card.sha256,
            None if spacing is None else parse_spacing(spacing),
            register,
            consistency,
            not no_segmentation,
            dicom,
        )
        means = Means(device, threads=threads, max_memory=max_memory)
        found = find(source)
        pairs = select(found.pairs, participant_label or [], session_label or [])
        if dry_run:
            print(_plan(found, pairs, out, settings, means, where))
            return 0
        return _run(found, pairs, out, settings, means, where, again=not skip)


def _run(
    found: Source,
    pairs: list[Pair],
    out: Path,
    settings: Settings,
    means: Means,
    where: Where,
    again: bool,
) -> int:
    """Exit status. Raises Cancelled where it was stopped."""
    from nexusinr.cohort import run

    with stop_on_signals() as stopped, progress_bar() as bar:
        summary = run.run(
            pairs, found.root, out, settings, means, where, _Told(bar), stopped, again
        )
    return _summed_up(summary)


class _Told:
    """Tells how the run goes: a line a session, and the bar where there is one."""

    def __init__(self, bar: Listener | None) -> None:
        self._bar = bar

    def started(self, workers: int, dashboard: str) -> None:
        """The workers are there, or will be."""
        print(f"Workers: {workers}; Dask's dashboard: {dashboard}", flush=True)
        if self._bar is not None:
            self._bar(0.0, "waiting for the first session", None)

    def came(self, outcome: Outcome, done: int, total: int, seconds_left: float | None) -> None:
        """One session is over."""
        told = {
            "done": f"done in {outcome.seconds:.0f} s",
            "same": "done before",
            "failed": f"failed: {outcome.reason}",
            "stopped": "stopped",
        }
        print(f"{outcome.label}: {told[outcome.state]}", flush=True)
        if self._bar is not None:
            self._bar(done / total, f"{done} of {total} sessions", seconds_left)


def _plan(
    found: Source,
    pairs: list[Pair],
    out: Path,
    settings: Settings,
    means: Means,
    where: Where,
) -> str:
    from nexusinr.cohort import cluster, cost, plan
    from nexusinr.cohort.folder import Folder
    from nexusinr.models import weights

    workers, _ = cluster.sized(where, means)
    folder = Folder(out.resolve())
    pace = cost.pace(folder, settings, weights.find(settings.model))
    return plan.describe(
        found,
        pairs,
        settings,
        cost.costs(pairs, settings),
        pace,
        min(workers, len(pairs)),
        folder,
    )


def _summed_up(summary: Summary) -> int:
    """Says what became of the cohort. Raises Cancelled where it was stopped."""
    total, done = len(summary.outcomes), summary.count("done", "same")
    if summary.odd_names:
        print(f"Warning: not named as BIDS derivatives: {', '.join(summary.odd_names)}")
    if summary.count("stopped"):
        raise Cancelled(f"stopped: {done} of {total} sessions are done, the same command goes on")
    failed = summary.count("failed")
    told = f"{done} of {total} sessions are done ({summary.count('same')} were before)"
    print(f"{told}; {failed} failed: see {summary.failures}" if failed else told)
    print(f"Report: {summary.report}")
    return SOME_FAILED if failed else 0
