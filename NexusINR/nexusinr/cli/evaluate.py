"""`nexusinr evaluate`: fixed experiments on pairs whose truth is known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from nexusinr.cli import options
from nexusinr.cli.interrupt import until_done

if TYPE_CHECKING:
    from nexusinr.evaluation.protocol import Array, Restore
    from nexusinr.geometry import Grid
    from nexusinr.volume import Volume


def evaluate(
    pairs: Annotated[
        Path, Argument(help="Folder with a folder a subject: T1w.nii.gz and T2w.nii.gz.")
    ],
    out: Annotated[Path, Option(metavar="DIR", help="For scores.csv, scores.md and pictures.")],
    protocol: Annotated[
        str,
        Option(metavar="NAME", help="brats, or through-plane-N or orthogonal-N with N = 3 to 7."),
    ] = "brats",
    models: Annotated[
        list[str] | None,
        Option(metavar="NAME", help="Again for each model; default: nexus-inr alone."),
    ] = None,
    split: Annotated[
        str, Option(help="Subjects of this split count where a split.csv lies beside the pairs.")
    ] = "test",
    device: options.Device = "auto",
    threads: options.Threads = None,
) -> None:
    """Degrade fine pairs in a known way, restore them, and compare with the truth.

    Trilinear and cubic B-spline interpolation are scored in the same run.
    """
    names = models or [options.DEFAULT_MODEL]

    def work(cancelled: Callable[[], bool]) -> None:
        with options.needs_extra("train"):
            from nexusinr.evaluation import protocol as protocols

        options.use_threads(threads)
        restore = _restorer(names, device, cancelled)
        protocols.evaluate(pairs, protocol, names, out, restore, split)

    until_done(work)
    print((out / "scores.md").read_text(encoding="utf-8"))


def _restorer(names: list[str], device: str, cancelled: Callable[[], bool]) -> Restore:
    """Runs the main job on a degraded pair, every model in one session."""
    from nexusinr.errors import Cancelled
    from nexusinr.inference.pipeline import upsample
    from nexusinr.inference.session import Session

    sessions = {name: Session(name, device) for name in names}

    def restore(t1w: Volume, t2w: Volume, grid: Grid, model: str) -> tuple[Array, Array]:
        result = upsample(
            t1w,
            t2w,
            like=grid,
            session=sessions[model],
            register="none",  # the headers of a degraded pair are right
            segmentation=False,
            cancelled=cancelled,
        )
        assert result.t1w is not None
        assert result.t2w is not None
        return result.t1w.data, result.t2w.data

    if cancelled():
        raise Cancelled("cancelled")
    return restore
