"""Time and peak memory of the main job on a whole head, as a user runs it.

A phantom of 240 x 240 x 160 voxels of 1 mm is acquired as T1w with 2 mm and T2w with 4 mm slices;
`nexusinr upsample` restores both at 1 mm in a process of its own. Prints one JSON object.

    .venv/bin/python Testing/Benchmarks/whole_head.py --device cpu
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from nexusinr.acquisition import block_average
from nexusinr.training.phantom import Phantom, default_grid
from nexusinr.volume import write_volume

SHAPE = (240, 240, 160)


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--model", default="nexus-inr")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(Path(folder), arguments.model, arguments.device), indent=2))


def measure(folder: Path, model: str, device: str) -> dict[str, object]:
    """Makes the scans, runs the command, and reads what its report says."""
    grid = default_grid(1.0, SHAPE)
    (t1w, t2w), _ = Phantom(seed=1).images(grid, ["T1w", "T2w"])
    for name, scan in (("t1w", block_average(t1w, 2, 2)), ("t2w", block_average(t2w, 1, 4))):
        write_volume(folder / f"{name}.nii.gz", scan.data, scan.affine)
    command = [Path(sys.executable).with_name("nexusinr"), "upsample", "--spacing", "1"]
    command += ["--t1w", folder / "t1w.nii.gz", "--t2w", folder / "t2w.nii.gz"]
    command += ["--out", folder / "out", "--model", model, "--device", device]
    begun = time.monotonic()
    subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL)
    seconds = time.monotonic() - begun
    report = json.loads((folder / "out" / "report.json").read_text(encoding="utf-8"))
    return {
        "model": model,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "device": report["device"]["description"],
        "lattice": report["lattice"]["shape"],
        "seconds": round(seconds, 1),
        "steps": report["seconds"],
        "peak_memory_gb": report["peak_memory_gb"],
    }


if __name__ == "__main__":
    main()
