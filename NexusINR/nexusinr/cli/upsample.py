"""`nexusinr upsample`: the main job."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Option

from nexusinr.cli import options
from nexusinr.cli.console import JsonEvents, Listener, describe, emit, progress_bar
from nexusinr.cli.interrupt import until_done
from nexusinr.errors import InputError

if TYPE_CHECKING:
    from nexusinr.inference.pipeline import Result

FORMATS = "NIfTI, NRRD, MetaImage or DICOM folder"


def upsample(
    out: Annotated[Path, Option("--out", metavar="DIR", help="Folder for the results.")],
    t1w: Annotated[
        Path | None, Option("--t1w", metavar="PATH", help=f"T1w scan: {FORMATS}.")
    ] = None,
    t2w: Annotated[Path | None, Option("--t2w", metavar="PATH", help="T2w scan, likewise.")] = None,
    spacing: Annotated[
        str | None,
        Option(
            metavar="S | SX SY SZ",
            help="Of the result, mm, along the axes of the T1w scan (T2w where there is none). "
            "Default: the finest of the inputs, isotropic, not under 0.5.",
        ),
    ] = None,
    like: Annotated[
        Path | None,
        Option(metavar="PATH", help="Take over exactly the lattice of this image instead."),
    ] = None,
    roi: Annotated[
        tuple[float, float, float, float, float, float] | None,
        Option(metavar="R A S SX SY SZ", help="Only this box: its centre and its sizes, mm."),
    ] = None,
    model: options.Model = options.DEFAULT_MODEL,
    device: options.Device = "auto",
    register: Annotated[
        str,
        Option(
            metavar="auto|rigid|none",
            help="Move the T2w scan onto the T1w scan: where the headers clearly disagree, "
            "wherever it helps, or never.",
        ),
    ] = "auto",
    consistency: Annotated[
        float,
        Option(
            metavar="WEIGHT",
            help="How much the result has to reproduce the acquired slices, 0 to 1.",
        ),
    ] = 1.0,
    no_segmentation: Annotated[
        bool, Option("--no-segmentation", help="Leave the tissues out.")
    ] = False,
    dicom: Annotated[
        bool,
        Option(
            "--dicom",
            help="Write DICOM for a PACS as well: a derived series for each scan and a "
            "segmentation. The scans have to be DICOM folders.",
        ),
    ] = False,
    adapt: Annotated[
        bool,
        Option(
            "--adapt",
            help="First adapt a copy of the weights to these scans, from what they resolve within "
            "their slices: some minutes. It is used only where it gains on patches that were kept "
            "apart; the report says how much.",
        ),
    ] = False,
    ensemble: Annotated[
        int,
        Option(
            min=1,
            max=8,
            metavar="1...8",
            help="Self-ensemble: average this many restorations, of mirrored copies of the scans. "
            "Each takes as long as one; default: 1, none.",
        ),
    ] = 1,
    threads: options.Threads = None,
    max_memory: Annotated[
        float | None,
        Option(min=0.1, metavar="GB", help="Memory that may be used; default: what is free."),
    ] = None,
    as_json: Annotated[
        bool, Option("--json", help="Tell progress, result and errors as JSON lines on stdout.")
    ] = False,
) -> None:
    """Restore a T1w and a T2w scan, or one of them, on any lattice.

    Writes t1w_sr.nii.gz, t2w_sr.nii.gz, segmentation.nii.gz, report.json and comparison.png into
    the folder of --out: all of them or, where something fails, none. With --dicom there is a folder
    derived_dicom as well. A model that gives no tissues writes no segmentation, and says so.
    """
    steps = None if spacing is None else parse_spacing(spacing)

    def work(listener: Listener | None, cancelled: Callable[[], bool]) -> Result:
        from nexusinr.inference import pipeline

        options.use_threads(threads)
        return pipeline.upsample(
            t1w,
            t2w,
            spacing=steps,
            like=like,
            roi=roi,
            model=model,
            device=device,
            register=register,
            consistency=consistency,
            segmentation=not no_segmentation,
            dicom=dicom,
            adapt=adapt,
            ensemble=ensemble,
            out=out,
            max_memory=max_memory,
            progress=listener,
            cancelled=cancelled,
        )

    if as_json:
        events = JsonEvents()
        result = until_done(lambda stop: work(events, lambda: stop() or events.is_lost))
        files = {name: str(path) for name, path in result.files.items()}
        emit({"event": "result", "files": files, "report": result.report})
        return
    with progress_bar() as bar:
        result = until_done(lambda stop: work(bar, stop))
    print(describe(result.report, result.files))


def parse_spacing(text: str) -> tuple[float, ...]:
    """``"1"`` or ``"0.9 0.9 3"`` as numbers. Raises InputError where one is none."""
    try:
        return tuple(float(word) for word in text.split())
    except ValueError:
        raise InputError(f"--spacing: {text!r} is not one number or three, in mm") from None
