"""A night's cohort, measured: wall time with one local worker and with more, and their memory.

Computes heads and scans them; one scan is cut off in the middle. `nexusinr batch` restores all of
them, once for each number of workers, each with one CPU thread, in a folder of its own. Writes
cohort.csv (memory after each subject), cohort.json, cohort.png and report.png (the report as
Chromium shows it), and prints what was found. Exit status 1: a result differs from run to run, the
memory did not stay flat, or another subject failed than the one that had to.

    python Testing/Benchmarks/cohort.py --subjects 12 --voxel 3 --workers 1 2 --out cohort

For memory over many subjects: --subjects 100 --voxel 4 --workers 2 --model small --out flat.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import psutil
import torch

from nexusinr.evaluation.benchmark import machine
from nexusinr.models import weights
from nexusinr.models.nexus_inr import NexusINR, NexusINRConfig
from nexusinr.training import phantom
from nexusinr.volume import write_volume

matplotlib.use("Agg")
import matplotlib.pyplot as plt

#: How far the memory of the workers may grow from the second quarter of the subjects to the last.
#: Fewer subjects than this tell nothing.
FLAT, ENOUGH = 0.05, 40

#: How thick the slices of the T1w and of the T2w scans are, in voxels of the results.
SLICES = (2, 3)

#: The subject with a scan that ends in the middle.
CUT = "cut"

CHROMIUM = Path("/usr/bin/chromium")


@dataclass(frozen=True)
class Sample:
    """The processes of a run when another subject was done.

    Attributes:
        workers: of the run.
        done: subjects.
        seconds: since the start.
        worker_mb: memory of a worker, on average.
        main_mb: of the program that sends the subjects out, with Dask's scheduler.
    """

    workers: int
    done: int
    seconds: float
    worker_mb: float
    main_mb: float


@dataclass(frozen=True)
class Run:
    """One run over the cohort."""

    workers: int
    seconds: float
    failed: list[str]
    digests: dict[str, str]
    samples: list[Sample] = field(repr=False)


def main() -> int:
    """Measures what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--subjects", type=int, default=12)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--voxel", type=float, default=2.0, help="of the results, mm")
    parser.add_argument("--model", default="nexus-inr", help="small: random weights, quick")
    parser.add_argument("--out", type=Path, default=Path("cohort"))
    arguments = parser.parse_args()
    out = arguments.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="cohort-") as folder:
        room = Path(folder)
        if arguments.model == "small":
            os.environ["NEXUSINR_HOME"] = folder
            _save_model()
        compute(room / "bids", arguments.subjects, arguments.voxel)
        options = ("--model", arguments.model, "--spacing", str(arguments.voxel))
        runs = [
            restore(room / "bids", room / f"out-{count}", count, options)
            for count in arguments.workers
        ]
        picture(room / f"out-{arguments.workers[-1]}" / "report.html", out / "report.png")
    return _tell(out, runs, arguments)


def _save_model() -> None:
    """Small random weights, for runs that are not about the network."""
    torch.manual_seed(0)
    config = NexusINRConfig(features=8, growth=8, blocks=1, layers=2, decoder_width=32)
    card = {"name": "small", "architecture": "NexusINR", "version": "0"}
    weights.save(NexusINR(config), weights.user_folder(), {**card, "config": config.to_dict()})


# --- the cohort -------------------------------------------------------------------------------


def compute(bids: Path, subjects: int, voxel: float) -> None:
    """Subjects of a BIDS data set, T1w and tilted T2w, and one with a scan that is cut off."""
    for number in range(subjects):
        truths = phantom.pair(voxel, seed=number)[:2]
        anat = _anat(bids, f"{number + 1:03d}")
        scans = phantom.acquire(*truths, *(voxel * slices for slices in SLICES))
        for modality, scan in zip(("T1w", "T2w"), scans, strict=True):
            write_volume(f"{anat}_{modality}.nii.gz", scan.data, scan.affine)
    whole = Path(f"{_anat(bids, '001')}_T1w.nii.gz").read_bytes()
    Path(f"{_anat(bids, CUT)}_T1w.nii.gz").write_bytes(whole[: len(whole) // 2])


def _anat(bids: Path, subject: str) -> Path:
    folder = bids / f"sub-{subject}" / "anat"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"sub-{subject}"


def restore(bids: Path, out: Path, workers: int, options: tuple[str, ...]) -> Run:
    """One run of the command line."""
    command = [
        sys.executable, "-m", "nexusinr.cli", "batch", str(bids), str(out), *options,
        "--workers", str(workers), "--threads", "1", "--device", "cpu",
    ]  # fmt: skip
    samples: list[Sample] = []
    begun = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(f"[{workers}] {line}", end="", flush=True)
            if re.match(r"sub-\w+: done in", line):
                passed = round(time.monotonic() - begun, 1)
                memory = _memory(process.pid, workers)
                samples.append(Sample(workers, len(samples) + 1, passed, *memory))
    seconds = time.monotonic() - begun
    with (out / "failures.csv").open(newline="") as lines:
        failed = [row["subject"] for row in csv.DictReader(lines)]
    images = sorted(out.glob("sub-*/**/*.nii.gz"))
    digests = {i.relative_to(out).as_posix(): _digest(i) for i in images}
    return Run(workers, round(seconds, 1), failed, digests, samples)


def _memory(pid: int, workers: int) -> tuple[float, float]:
    """MB of a worker, on average, and of the program itself; workers are its largest children."""
    main = psutil.Process(pid)
    sizes = []
    for child in main.children(recursive=True):
        try:
            sizes.append(child.memory_info().rss)
        except psutil.NoSuchProcess:
            continue
    largest = sorted(sizes)[-workers:]
    return round(float(np.mean(largest)) / 1e6, 1), round(main.memory_info().rss / 1e6, 1)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def picture(report: Path, file: Path) -> None:
    """The top of the report in Chromium."""
    from playwright.sync_api import sync_playwright

    options = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=options)
        page = browser.new_page(viewport={"width": 1500, "height": 900})
        page.goto(report.as_uri())
        height = page.evaluate("document.documentElement.scrollHeight")
        page.set_viewport_size({"width": 1500, "height": min(height, 1100)})
        page.screenshot(path=file)
        browser.close()


# --- what came of it --------------------------------------------------------------------------


def _tell(out: Path, runs: list[Run], arguments: argparse.Namespace) -> int:
    samples = [sample for run in runs for sample in run.samples]
    with (out / "cohort.csv").open("w", newline="") as stream:
        table = csv.DictWriter(stream, [f.name for f in fields(Sample)])
        table.writeheader()
        table.writerows(asdict(sample) for sample in samples)
    _draw(out / "cohort.png", runs)
    told: dict[str, Any] = {
        "subjects": arguments.subjects,
        "voxel_mm": arguments.voxel,
        "model": arguments.model,
        "machine": machine.describe(),
        "same_results": all(run.digests == runs[0].digests for run in runs),
        "only_the_cut_one_failed": all(run.failed == [f"sub-{CUT}"] for run in runs),
        "runs": [_told_of(run, runs[0]) for run in runs],
    }
    (out / "cohort.json").write_text(json.dumps(told, indent=1) + "\n")
    print(json.dumps(told, indent=1))
    growths = [run["growth"] for run in told["runs"] if run["growth"] is not None]
    is_right = told["same_results"] and told["only_the_cut_one_failed"]
    return int(not is_right or any(growth > FLAT for growth in growths))


def _told_of(run: Run, first: Run) -> dict[str, Any]:
    """Efficiency: of the workers, against the first run; growth: of their memory."""
    work = first.seconds * first.workers
    return {
        "workers": run.workers,
        "seconds": run.seconds,
        "efficiency": round(work / (run.seconds * run.workers), 3),
        "worker_mb": max((s.worker_mb for s in run.samples), default=0.0),
        "main_mb": max((s.main_mb for s in run.samples), default=0.0),
        "growth": growth(run.samples),
    }


def growth(samples: list[Sample]) -> float | None:
    """Of a worker's memory, from the second quarter to the last, as a share; None: too few."""
    if len(samples) < ENOUGH:
        return None
    quarter = len(samples) // 4
    memory = [sample.worker_mb for sample in samples]
    before, after = np.median(memory[quarter : 2 * quarter]), np.median(memory[-quarter:])
    return round(float(after / before) - 1, 4)


def _draw(file: Path, runs: list[Run]) -> None:
    figure, axis = plt.subplots(figsize=(8, 3.6), layout="constrained")
    for run in runs:
        done = [sample.done for sample in run.samples]
        axis.plot(
            done, [s.worker_mb for s in run.samples], label=f"a worker ({run.workers} in all)"
        )
        axis.plot(
            done, [s.main_mb for s in run.samples], "--", label=f"the program with {run.workers}"
        )
    axis.set(xlabel="subjects done", ylabel="memory, MB")
    axis.set_ylim(bottom=0)
    axis.legend()
    figure.savefig(file, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    sys.exit(main())
