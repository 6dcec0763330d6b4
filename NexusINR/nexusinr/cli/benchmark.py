"""`nexusinr benchmark`: what the main job costs on this machine."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

from typer import Option

from nexusinr.cli import options
from nexusinr.cli.interrupt import until_done

#: The whole head: voxels of 1 mm.
SHAPE = (240, 240, 160)


def benchmark(
    out: Annotated[Path, Option(metavar="DIR", help="Folder for the results.")] = Path(
        "benchmark-output"
    ),
    model: options.Model = options.DEFAULT_MODEL,
    device: options.Device = "auto",
    threads: options.Threads = None,
    quick: Annotated[
        bool, Option("--quick", help="A quarter of a head; not how the cost grows.")
    ] = False,
) -> None:
    """Measure the main job on a computed head: seconds, memory, share of the machine's own peak.

    Beside it, on the same scans in the same run: B-spline interpolation, the paper's dense path
    and ArSSR. Nothing else should run on the machine: it takes about half an hour on two cores.
    """
    page = until_done(lambda stop: _run(out, model, device, threads, quick, stop))
    print(page, end="")
    print(f"\nThe figures: {out / 'benchmark.json'}")


def _run(
    out: Path,
    model: str,
    device: str,
    threads: int | None,
    quick: bool,
    cancelled: Callable[[], bool],
) -> str:
    from nexusinr.evaluation.benchmark import Plan, measure, write
    from nexusinr.inference.output import OutputFolder
    from nexusinr.training.phantom import Phantom, default_grid

    options.use_threads(threads)
    with OutputFolder(out) as folder:
        _say("computing the head")
        grid = default_grid(1.0, SHAPE)
        (t1w, t2w), _ = Phantom(seed=1).images(grid, ("T1w", "T2w"))
        plan = Plan.quick() if quick else Plan()
        values = measure((t1w, t2w), plan, model, device, threads, _say, cancelled)
        return write(values, folder)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
