"""A long night for one warm worker: many subjects of mixed sizes, cancels and bad requests.

Every answer is compared with what the same subject gives on its own, in this process. Writes
soak.csv and soak.png (memory, files, threads and processes of the worker after each subject), and
soak.json with what was found. Exit status 1: the memory did not stay flat, something leaked or was
wrong.

    .venv/bin/python Testing/Benchmarks/soak.py --subjects 200 --out soak
"""

from __future__ import annotations

import argparse
import csv
import gc
import hashlib
import json
import os
import sys
import tempfile
import time
from concurrent.futures import wait
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from random import Random
from typing import Any

import matplotlib
import numpy as np
import psutil
import torch

from nexusinr.errors import Cancelled, InputError, NexusError
from nexusinr.geometry import Affine, Grid
from nexusinr.inference.client import Client, start
from nexusinr.inference.pipeline import upsample
from nexusinr.models import weights
from nexusinr.models.nexus_inr import NexusINR, NexusINRConfig
from nexusinr.training.phantom import Phantom
from nexusinr.volume import write_volume

matplotlib.use("Agg")
import matplotlib.pyplot as plt

#: How far the memory may grow from the second quarter of the subjects to the last. It varies with
#: the sizes of the scans that happen to be kept: that it falls is no fault.
FLAT = 0.05

#: Seconds after which an answer is missing.
PATIENCE = 600

#: What lies in the temporary folder by this program's own doing.
KNOWN = ("log", "scans", "weights")

BAD_LINES = (
    b"{\n",
    b"[" * 2000 + b"\n",
    b"\xff\xfe\n",
    b'{"op": "status"}\n',
    b"x" * 70_000 + b"\n",
)


@dataclass(frozen=True)
class Sample:
    """The worker after one subject."""

    subject: int
    seconds: float
    memory_mb: float
    files: int
    threads: int
    processes: int
    right: bool


def main() -> int:
    """Runs the soak."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--subjects", type=int, default=200)
    parser.add_argument("--minutes", type=float, default=1e9, help="stop after so long")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("soak"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        os.environ["NEXUSINR_HOME"] = os.environ["TMPDIR"] = folder
        (Path(folder) / "scans").mkdir()
        _save_model()
        random = Random(arguments.seed)
        samples, counts = soak(
            Path(folder) / "scans", arguments.subjects, arguments.minutes, random
        )
        counts["left_in_temporary_folder"] = len(list(Path(folder).iterdir())) - len(KNOWN)
    _write(arguments.out, samples)
    return _judge(arguments.out, samples, counts)


def _save_model() -> None:
    """Small random weights: the soak is about the worker, not about its network."""
    torch.manual_seed(0)
    config = NexusINRConfig(features=8, growth=8, blocks=1, layers=2, decoder_width=32)
    card = {"name": "tiny", "architecture": "NexusINR", "version": "0", "config": config.to_dict()}
    weights.save(NexusINR(config), weights.user_folder(), card)


# --- the night --------------------------------------------------------------------------------


def soak(
    folder: Path, subjects: int, minutes: float, random: Random
) -> tuple[list[Sample], dict[str, int]]:
    """One sample for each subject, and counts of what else happened."""
    counts = {"cancelled": 0, "finished_before_cancel": 0, "bad_requests": 0, "wrong_answers": 0}
    samples = []
    with (folder.parent / "log").open("wb") as log:
        worker = start(log=log)
    process, begun = psutil.Process(worker.process.pid), time.monotonic()
    for number in range(subjects):
        if time.monotonic() - begun > 60 * minutes:
            break
        options = _subject(folder, number, random)
        expected = _digests(_alone(options, folder / "alone"))
        if random.random() < 0.3:
            _disturb(worker, options, random, counts)
        if random.random() < 0.3:
            _ask_badly(worker, options, random, counts)
        worker.request("upsample", **options, threads=1, out=folder / "out").result(PATIENCE)
        right = _digests(folder / "out") == expected
        counts["wrong_answers"] += not right
        samples.append(
            Sample(
                number + 1, round(time.monotonic() - begun, 1),
                round(process.memory_info().rss / 1e6, 1), process.num_fds(),
                process.num_threads(), len(process.children(recursive=True)), right,
            )
        )  # fmt: skip
    worker.close()
    counts["left_processes"] = int(process.is_running())
    return samples, counts


def _subject(folder: Path, number: int, random: Random) -> dict[str, Any]:
    """Two files of a phantom of any size, and what is wanted of them."""
    options: dict[str, Any] = {"model": "tiny", "device": "cpu", "register": "none"}
    shape = tuple(random.randrange(14, 27) for _ in range(3))
    for modality, axis in (("T1w", 2), ("T2w", random.randrange(3))):
        spacing = np.full(3, 4.0)
        spacing[axis] = random.choice((4.0, 6.0, 8.0))
        affine = Affine.from_parts(spacing, origin=-spacing * (np.array(shape) - 1) / 2)
        scan = Phantom(seed=number).image(Grid(shape, affine), modality)
        path = folder / f"{modality.lower()}.nii.gz"
        write_volume(path, scan.data, scan.affine)
        options[modality.lower()] = path
    return {**options, "spacing": random.choice((2.5, 3.0, 3.5))}


def _alone(options: dict[str, Any], out: Path) -> Path:
    upsample(**options, out=out)
    gc.collect()
    return out


def _digests(folder: Path) -> dict[str, str]:
    images = sorted(folder.glob("*.nii.gz"))
    return {image.name: hashlib.sha256(image.read_bytes()).hexdigest() for image in images}


def _disturb(
    worker: Client, options: dict[str, Any], random: Random, counts: dict[str, int]
) -> None:
    """A run that is cancelled at any time, perhaps with others waiting behind it."""
    out = options["t1w"].parent / "cancelled"
    calls = [
        worker.request("upsample", **{**options, "spacing": 1.5}, threads=1, out=out / str(n))
        for n in range(random.choice((1, 1, 3)))
    ]
    time.sleep(random.random())
    for call in calls:
        call.cancel()
    wait([call.done for call in calls], PATIENCE)
    for n, call in enumerate(calls):
        if isinstance(call.done.exception(0), Cancelled):
            counts["cancelled"] += 1
            counts["wrong_answers"] += (out / str(n)).exists()
        else:
            call.result(0)
            counts["finished_before_cancel"] += 1


def _ask_badly(
    worker: Client, options: dict[str, Any], random: Random, counts: dict[str, int]
) -> None:
    """What cannot be done has to be refused as bad input, and leave nothing."""
    folder = options["t1w"].parent
    (folder / "broken.nii.gz").write_bytes(options["t1w"].read_bytes()[: random.randrange(900)])
    bad: dict[str, Any] = random.choice(
        ({"t1w": folder / "missing.nii"}, {"t1w": folder / "broken.nii.gz"}, {"spacing": -1},
         {"model": "unknown"}, {"roi": [900, 0, 0, 5, 5, 5]}, {"max_memory": 0.001},
         {"nonsense": 1})
    )  # fmt: skip
    assert worker.process.stdin is not None
    worker.process.stdin.write(random.choice(BAD_LINES))
    worker.process.stdin.flush()
    counts["bad_requests"] += 2
    try:
        worker.request("upsample", **{**options, **bad}, out=folder / "bad").result(PATIENCE)
    except InputError:
        counts["wrong_answers"] += (folder / "bad").exists()
    except NexusError:
        counts["wrong_answers"] += 1
    else:
        counts["wrong_answers"] += 1


# --- what came of it --------------------------------------------------------------------------


def _write(out: Path, samples: list[Sample]) -> None:
    with (out / "soak.csv").open("w", newline="") as stream:
        table = csv.DictWriter(stream, [field.name for field in fields(Sample)])
        table.writeheader()
        table.writerows(asdict(sample) for sample in samples)
    figure, (top, bottom) = plt.subplots(2, 1, sharex=True, figsize=(8, 6), layout="constrained")
    subject = [sample.subject for sample in samples]
    top.plot(subject, [sample.memory_mb for sample in samples], color="tab:blue")
    if len(samples) >= 8:
        level = _level(samples, 1)
        top.axhspan(level * (1 - FLAT), level * (1 + FLAT), color="tab:green", alpha=0.2,
                    label=f"within {FLAT:.0%} of the second quarter")  # fmt: skip
        top.legend(loc="lower right")
    top.set(ylabel="memory of the worker, MB", title=f"{len(samples)} subjects, one worker")
    top.set_ylim(bottom=0)
    for name, colour in (("files", "tab:orange"), ("threads", "tab:purple"), ("processes", "k")):
        bottom.plot(subject, [getattr(sample, name) for sample in samples], colour, label=name)
    bottom.set(xlabel="subject", ylabel="of the worker, open")
    bottom.legend(loc="center right")
    figure.savefig(out / "soak.png", dpi=110)
    plt.close(figure)


def _level(samples: list[Sample], quarter: int) -> float:
    """Median memory within a quarter (0 to 3) of the subjects, MB."""
    length = len(samples) // 4
    part = samples[quarter * length : (quarter + 1) * length]
    return float(np.median([sample.memory_mb for sample in part]))


def _judge(out: Path, samples: list[Sample], counts: dict[str, int]) -> int:
    before, after = _level(samples, 1), _level(samples, 3)
    growth = after / before - 1
    early, late = samples[len(samples) // 4], samples[-1]
    counts |= {
        "leaked_files": max(late.files - early.files, 0),
        "leaked_threads": max(late.threads - early.threads, 0),
        "leaked_processes": late.processes + counts.pop("left_processes"),
    }
    told = {
        "subjects": len(samples),
        "seconds": round(late.seconds),
        "memory_MB_in_the_second_quarter": round(before),
        "memory_MB_in_the_last_quarter": round(after),
        "growth": f"{growth:+.1%}",
        **counts,
    }
    (out / "soak.json").write_text(json.dumps(told, indent=1) + "\n")
    for name, value in told.items():
        print(f"{name.replace('_', ' ')}: {value}")
    faults = ("wrong_answers", "leaked_files", "leaked_threads", "leaked_processes")
    is_right = growth <= FLAT and not any(counts[name] for name in faults)
    print("flat, nothing leaked, every answer right" if is_right else "NOT as it should be")
    return int(not is_right)


if __name__ == "__main__":
    sys.exit(main())
