"""A Dask cluster of two worker processes, small cohorts, and an undisturbed run to compare with."""

from __future__ import annotations

import hashlib
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from nexusinr.volume import Volume, write_volume

#: Subjects of the small cohort.
SUBJECTS = ("01", "02", "03")

#: For a machine that is busy: seconds after which a test gives up.
PATIENCE = 300

#: Quick, and the same on every machine.
FIXED = ("--spacing", 4, "--register", "none", "--device", "cpu", "--threads", 1)


def write_scans(stem: Path, pair: tuple[Volume, Volume], seed: int) -> None:
    """A T1w and a T2w scan of one head, a little different for every seed."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    for modality, scan in zip(("T1w", "T2w"), pair, strict=True):
        noise = np.random.default_rng(seed).normal(0, 8, scan.data.shape)
        data = np.where(scan.data > 0, scan.data + noise, 0)
        write_volume(f"{stem}_{modality}.nii.gz", data, scan.affine)


def contents(out: Path) -> dict[str, str]:
    """Digest of every file of the subjects, by its name within the output folder."""
    return {
        path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(out.glob("sub-*/**/*"))
        if path.is_file()
    }


def of_subject(files: dict[str, str], *subjects: str) -> dict[str, str]:
    """Those of some subjects alone."""
    return {n: d for n, d in files.items() if n.startswith(tuple(f"sub-{s}/" for s in subjects))}


@pytest.fixture(scope="session")
def helpers() -> SimpleNamespace:
    return SimpleNamespace(
        PATIENCE=PATIENCE, FIXED=FIXED, SUBJECTS=SUBJECTS, write_scans=write_scans,
        contents=contents, of_subject=of_subject, watching=watching, small_disk=small_disk,
    )  # fmt: skip


@pytest.fixture(scope="session")
def cluster(tiny_model, tmp_path_factory) -> Iterator[Any]:
    """Two worker processes of one thread each, as somebody else would have started them."""
    private = tmp_path_factory.mktemp("dask")
    os.environ.setdefault("DASK_CONFIG", str(private))
    import dask
    from distributed import LocalCluster
    from matplotlib import get_cachedir

    # Whoever waits at a lost worker is given up at once: the harshest a scheduler can be.
    harsh = dask.config.set({"distributed.scheduler.allowed-failures": 0})
    with (
        harsh,
        LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            dashboard_address=":0",
            local_directory=str(private),
            env={"MPLCONFIGDIR": get_cachedir()},  # its list of fonts takes seconds to make
            silence_logs=50,
        ) as cluster,
    ):
        yield cluster


@pytest.fixture
def batch(cluster, tiny_model, command) -> Callable[..., tuple[int, str, str]]:
    """`nexusinr batch` on the two workers: exit status, stdout, stderr."""

    def run(source: Path, out: Path, *options: object) -> tuple[int, str, str]:
        fixed = ("--scheduler", cluster.scheduler_address, "--model", tiny_model, *FIXED)
        return command("batch", source, out, *fixed, *options)

    return run


@pytest.fixture(scope="session")
def cohort(thick_pair, tmp_path_factory) -> Path:
    """Three subjects as BIDS has them; not to be changed."""
    root = tmp_path_factory.mktemp("cohort") / "bids"
    for seed, subject in enumerate(SUBJECTS):
        write_scans(root / f"sub-{subject}" / "anat" / f"sub-{subject}", thick_pair, seed)
    return root


@pytest.fixture(scope="session")
def undisturbed(cohort, cluster, tiny_model, tmp_path_factory) -> Path:
    """The output folder of a run in which nothing went wrong; not to be changed."""
    from nexusinr.cli import main

    out = tmp_path_factory.mktemp("undisturbed") / "out"
    fixed = ("--scheduler", cluster.scheduler_address, "--model", tiny_model, *FIXED)
    assert main(list(map(str, ("batch", cohort, out, *fixed)))) == 0
    return out


@contextmanager
def watching(found: Callable[[], list[Path]], act: Callable[[Path], None], times: int = 1):
    """Acts, while something runs, on the first so many different paths that appear."""
    over, seen = threading.Event(), set()

    def watch() -> None:
        while not over.is_set() and len(seen) < times:
            for path in found():
                if path not in seen and len(seen) < times:
                    seen.add(path)
                    act(path)
            time.sleep(0.002)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


@contextmanager
def small_disk(path: Path, *options: str) -> Iterator[Callable[..., None]]:
    """A file system of its own; gives what changes its options. Skips where there can be none."""
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(path)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("only root, on a system with mount, can make a small file system")

    def remount(*changed: str) -> None:
        subprocess.run(["mount", "-o", ",".join(("remount", *changed)), str(path)], check=True)

    try:
        yield remount
    finally:
        subprocess.run(["umount", str(path)], check=True)
