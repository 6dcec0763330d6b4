"""`nexusinr demo`: the main job on a head that is computed, so that the truth is known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Option

from nexusinr.cli import options
from nexusinr.cli.console import Listener, describe, progress_bar
from nexusinr.cli.interrupt import until_done
from nexusinr.cli.view import serve
from nexusinr.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from nexusinr.inference.pipeline import Result
    from nexusinr.volume import Volume

#: Voxel size of the truth, mm.
SPACING = 1.5

METHODS = ("trilinear", "cubic", "restored")

SCANS = ("t1w.nii.gz", "t2w.nii.gz")


def demo(
    out: Annotated[Path, Option(metavar="DIR", help="Folder for scans and results.")] = Path(
        "demo-output"
    ),
    model: options.Model = options.DEFAULT_MODEL,
    device: options.Device = "auto",
    threads: options.Threads = None,
    view: Annotated[
        bool, Option(envvar="VIEW", help="Serve the viewer afterwards, until Ctrl-C.")
    ] = True,
) -> None:
    """Scan a computed head in thick slices, restore it, and compare with the truth.

    The T1w scan has axial slices of 3 mm, the T2w scan tilted coronal slices of 4 mm.
    """
    with progress_bar() as bar:
        result, table = until_done(lambda stop: _run(out, model, device, threads, bar, stop))
    print(describe(result.report, result.files))
    print()
    print(table)
    print(f"\nThe picture: {result.files['comparison.png']}")
    if view:
        _serve([out / name for name in SCANS], device)


def _run(
    out: Path,
    model: str,
    device: str,
    threads: int | None,
    listener: Listener | None,
    cancelled: Callable[[], bool],
) -> tuple[Result, str]:
    from nexusinr.inference.output import OutputFolder
    from nexusinr.inference.pipeline import upsample
    from nexusinr.training import phantom
    from nexusinr.volume import write_volume

    options.use_threads(threads)
    if listener is not None:
        listener(0.0, "computing the head", None)
    truths = phantom.pair(SPACING, noise=0.0)[:2]
    scans = phantom.acquire(*truths)
    with OutputFolder(out) as folder:
        for name, scan in zip(SCANS, scans, strict=True):
            write_volume(folder.file(name), scan.data, scan.affine)
        folder.publish()
    result = upsample(
        *(out / name for name in SCANS),
        like=truths[0].grid,
        model=model,
        device=device,
        out=out,
        progress=listener,
        cancelled=cancelled,
    )
    return result, _table(truths, scans, result)


def _serve(scans: list[Path], device: str) -> None:
    """The viewer with the scans in it, for as long as it is wanted."""
    print("\nThe scans in a browser, until Ctrl-C:", flush=True)
    try:
        serve(scans, device=device, open_browser=False)
    except InputError as error:  # the demo itself is done
        print(f"No viewer: {error}")


def _table(truths: tuple[Volume, ...], scans: tuple[Volume, ...], result: Result) -> str:
    """PSNR of each method on each scan, in lines of text."""
    from nexusinr.resample import interpolate

    lines = ["PSNR, dB".ljust(12) + "".join(method.rjust(12) for method in METHODS)]
    restored = (result.t1w, result.t2w)
    for name, truth, scan, fine in zip(("T1w", "T2w"), truths, scans, restored, strict=True):
        assert fine is not None
        images = [interpolate(scan, truth.grid, kind) for kind in ("trilinear", "cubic")]
        values = [_psnr(image, truth, scan) for image in (*images, fine.data)]
        lines.append(name.ljust(12) + "".join(f"{value:12.2f}" for value in values))
    return "\n".join(lines)


def _psnr(image: NDArray[np.float32], truth: Volume, scan: Volume) -> float:
    """Within the head and the scan, as `nexusinr evaluate` has it."""
    from nexusinr.evaluation.metrics import psnr, scale_and_mask, to_unit
    from nexusinr.resample import covered

    scale, mask = scale_and_mask(truth.data)
    mask &= covered(scan.grid, truth.grid)
    return psnr(to_unit(image, scale), to_unit(truth.data, scale), mask)
