"""The main job as a user runs it: one command in a process of its own, files in and files out."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nexusinr.errors import Cancelled, InputError
from nexusinr.evaluation.benchmark.heads import Head
from nexusinr.volume import write_volume

#: Seconds between two looks whether the benchmark shall stop.
INTERVAL = 0.1


@dataclass(frozen=True)
class ColdRun:
    """A run of the command.

    Attributes:
        seconds: from its start to its end, the interpreter's start included.
        report: what it wrote of itself, as in report.json.
    """

    seconds: float
    report: dict[str, Any]


def run(
    head: Head,
    model: str,
    device: str,
    threads: int | None,
    cancelled: Callable[[], bool],
) -> ColdRun:
    """Restores a head from files. Raises Cancelled, and InputError where the command fails."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        spacing = " ".join(f"{s:g}" for s in head.grid.spacing)
        command = [sys.executable, "-m", "nexusinr.cli", "upsample", f"--spacing={spacing}"]
        command += ["--model", model, "--device", device, "--out", str(folder / "out")]
        for option, scan in zip(("t1w", "t2w"), head.scans, strict=True):
            path = folder / f"{option}.nii.gz"
            write_volume(path, scan.data, scan.affine)
            command += [f"--{option}", str(path)]
        if threads is not None:
            command += ["--threads", str(threads)]
        begun = time.monotonic()
        _wait(command, cancelled)
        seconds = time.monotonic() - begun
        report = json.loads((folder / "out" / "report.json").read_text(encoding="utf-8"))
    return ColdRun(seconds, report)


def _wait(command: list[str], cancelled: Callable[[], bool]) -> None:
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        while process.poll() is None:
            if cancelled():
                process.terminate()
                raise Cancelled("cancelled: nothing was written")
            time.sleep(INTERVAL)
        assert process.stderr is not None
        said = process.stderr.read().strip()
    if process.returncode:
        raise InputError(f"the run of the whole head ended with {process.returncode}: {said}")
