"""What a run says: JSON lines for programs, a progress bar and plain sentences for people."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from nexusinr.inference import protocol

Listener = Callable[[float, str, float | None], None]


def emit(event: dict[str, Any]) -> bool:
    """One event as one line of JSON on stdout; False where nobody reads any more."""
    try:
        print(json.dumps(event), flush=True)
    except BrokenPipeError:
        # What is still in the buffer must not fail a second time when the process ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return False
    return True


class JsonEvents:
    """Progress as JSON lines. `is_lost`: whoever read them has gone."""

    def __init__(self) -> None:
        self.is_lost = False

    def __call__(self, fraction: float, step: str, eta: float | None) -> None:
        """A progress listener; seconds to go are null while they are not known."""
        self.is_lost |= not emit(protocol.progress(fraction, step, eta))


@contextmanager
def progress_bar() -> Iterator[Listener | None]:
    """A progress listener that draws a bar on stderr; None where that is no terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    columns = (
        TextColumn("{task.description:<26}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[left]}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("starting", total=1.0, left="")

        def show(fraction: float, step: str, eta: float | None) -> None:
            left = "" if eta is None else f"{eta:.0f} s left"
            bar.update(task, completed=fraction, description=step, left=left)

        yield show


def describe(report: dict[str, Any], files: dict[str, Any]) -> str:
    """A run in a few lines: files, lattice, tissues, what was odd."""
    lattice = report["lattice"]
    sizes = " x ".join(str(n) for n in lattice["shape"])
    spacing = " x ".join(f"{s:.2f}" for s in lattice["spacing_mm"])
    lines = [*(str(path) for path in files.values())]
    lines.append(f"Lattice: {sizes} voxels of {spacing} mm, {lattice['orientation']}")
    if report["tissue_volumes_ml"]:
        volumes = report["tissue_volumes_ml"].items()
        lines.append("Tissues: " + ", ".join(f"{name} {ml:.1f} mL" for name, ml in volumes))
    if (adaptation := report.get("adaptation")) and adaptation["applied"]:
        lines.append(f"Adapted to these scans: {adaptation['reason']}")
    lines += [f"Warning: {warning}" for warning in report["warnings"]]
    lines.append(report["notice"])
    return "\n".join(lines)
