"""The built-in sample: a computed head, scanned in thick slices, made in a child process.

``python -m nexusinr.web.sample FOLDER`` writes ``t1w.nii.gz`` and ``t2w.nii.gz``.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from nexusinr.errors import NexusError
from nexusinr.inference import protocol

#: Voxel size of the computed head, mm.
SPACING = 1.5

NAMES = ("t1w.nii.gz", "t2w.nii.gz")


async def make(folder: Path) -> list[Path]:
    """The two scans, computed unless they are there already. Raises NexusError where it fails."""
    paths = [folder / name for name in NAMES]
    if not all(path.exists() for path in paths):
        folder.mkdir(parents=True, exist_ok=True)
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", __name__, str(folder)),
            env={**os.environ, **protocol.environment()},
        )
        try:
            status = await process.wait()
        except asyncio.CancelledError:
            process.kill()
            raise
        if status != 0:
            raise NexusError(f"the sample could not be computed (status {status}); see the log")
    return paths


def write(folder: Path) -> None:
    """Computes and writes the two scans."""
    from nexusinr.training import phantom
    from nexusinr.volume import write_volume

    scans = phantom.acquire(*phantom.pair(SPACING, noise=0.0)[:2])
    for name, scan in zip(NAMES, scans, strict=True):
        write_volume(folder / name, scan.data, scan.affine)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
