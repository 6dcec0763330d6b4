"""The workers: on this machine, on a Dask cluster that runs already, or as jobs of Slurm."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import torch

from nexusinr.cohort.settings import Means
from nexusinr.errors import InputError
from nexusinr.inference.device import choose

if TYPE_CHECKING:
    from distributed import Client

#: CPU threads of a local worker, where nothing else is asked for.
THREADS = 4

#: Bytes of memory for each local worker; a whole head at 1 mm takes 3.2 GB.
MEMORY = 4_000_000_000

#: Jobs of Slurm at once, where nothing else is asked for.
SLURM_JOBS = 8

#: Seconds that a scheduler gets to answer.
PATIENCE = 20

#: Losses of a worker after which Dask would give up the tasks that waited there. Which session a
#: worker was lost over is counted by `Run.one_try`: those that only waited are to go on.
ALLOWED_FAILURES = 1000

#: Run by every local worker as it starts.
PRELOAD = "nexusinr.cohort.preload"


@dataclass(frozen=True)
class Where:
    """Which workers are asked for: those of this machine, unless an address or a file is given.

    Attributes:
        workers: how many; None: as many as make sense.
        scheduler: address of a scheduler that runs already.
        slurm: YAML file with the options of `dask_jobqueue.SLURMCluster`.
    """

    workers: int | None = None
    scheduler: str | None = None
    slurm: Path | None = None

    def check(self) -> None:
        """Raises InputError for what cannot be had at once."""
        if self.scheduler is not None and self.slurm is not None:
            raise InputError("both --scheduler and --slurm are given: choose one")
        if self.scheduler is not None and self.workers is not None:
            raise InputError("--workers is for workers of one's own: leave it out with --scheduler")


def sized(where: Where, means: Means) -> tuple[int, Means]:
    """How many workers there will be at least, and what each may use.

    On this machine: one a GPU; without GPUs, as many as its cores and its memory allow. Raises
    InputError for a device that this machine does not have.
    """
    if where.slurm is not None:
        threads = means.threads or slurm_threads(where.slurm)
        return where.workers or SLURM_JOBS, replace(means, threads=threads)
    if where.scheduler is not None:
        return 1, means
    choose(means.device)
    gpus = _gpus(means.device)
    if gpus:
        return where.workers or gpus, replace(means, gpus=gpus, threads=means.threads or THREADS)
    cores = _cores()
    fitting = max(int(psutil.virtual_memory().total // MEMORY), 1)
    if where.workers is None:
        threads = means.threads or min(THREADS, cores)
        return max(min(cores // threads, fitting), 1), replace(means, threads=threads)
    return where.workers, replace(means, threads=means.threads or max(cores // where.workers, 1))


def _cores() -> int:
    """Those that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _gpus(device: str) -> int:
    if device not in ("auto", "cuda"):
        return 0
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


@contextmanager
def connected(where: Where, workers: int, cache: Path) -> Iterator[Client]:
    """A client of the cluster; what was started for it is ended with it.

    Args:
        where: which workers.
        workers: how many, at least.
        cache: folder for what Dask would write into the home folder; jobs of Slurm reach it.

    Raises InputError where no scheduler answers and for a Slurm file that cannot be used.
    """
    if where.slurm is not None:
        # dask_jobqueue writes its defaults into the folder that is in force when dask is imported.
        os.environ.setdefault("DASK_CONFIG", str(cache))
    import dask
    from distributed import Client

    settings = {
        "distributed.scheduler.allowed-failures": ALLOWED_FAILURES,
        "distributed.comm.timeouts.connect": f"{PATIENCE}s",
        "distributed.worker.profile.enabled": False,  # it keeps an hour of call trees in memory
    }
    with contextlib.ExitStack() as stack:
        stack.enter_context(dask.config.set(settings))
        address: Any = where.scheduler
        if where.slurm is not None:
            keys = stack.enter_context(tempfile.TemporaryDirectory(prefix="keys-", dir=cache))
            address = stack.enter_context(_slurm(where.slurm, workers, Path(keys)))
        elif address is None:
            scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="nexusinr-"))
            address = stack.enter_context(_local(workers, scratch))
        try:
            client = stack.enter_context(Client(address, timeout=PATIENCE))
        except (OSError, ValueError) as error:
            raise InputError(
                f"no Dask scheduler answers at {address!r}: check the address, for example "
                "tcp://node:8786"
            ) from error
        yield client


def _local(workers: int, scratch: str) -> Any:
    from distributed import LocalCluster

    return LocalCluster(
        n_workers=workers,
        threads_per_worker=1,
        host="127.0.0.1",
        security=True,  # others on this machine could send code to run: keys for this run alone
        dashboard_address=":0",
        local_directory=scratch,
        preload=[PRELOAD],
        silence_logs=logging.CRITICAL,
    )


def _slurm(file: Path, workers: int, keys: Path) -> Any:
    """Jobs that are sent again when they are lost or their time is up.

    Unless the file says otherwise, they speak TLS with keys of this run alone.

    Args:
        file: as for `read_slurm`.
        workers: at most.
        keys: a private folder that the jobs reach.
    """
    options = {"security": _security(keys), **read_slurm(file)}
    if shutil.which("sbatch") is None:
        raise InputError("there is no sbatch here: --slurm works on a machine that submits jobs")
    from dask_jobqueue.slurm import SLURMCluster

    try:
        cluster = SLURMCluster(**options)
    except (TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{file.name}: Slurm cannot be used with these options ({reason})") from (
            error
        )
    cluster.adapt(minimum_jobs=0, maximum_jobs=workers)
    return cluster


def _security(keys: Path) -> Any:
    """A new key, in files for whoever may read that folder."""
    from distributed.security import Security

    new = Security.temporary()
    for name, text in (("cert", new.tls_client_cert), ("key", new.tls_client_key)):
        (keys / name).write_text(text, encoding="ascii")
    files = {
        f"tls_{role}_{name}": str(keys / name)
        for role in ("client", "scheduler", "worker")
        for name in ("cert", "key")
    }
    return Security(tls_ca_file=str(keys / "cert"), require_encryption=True, **files)


def read_slurm(file: Path) -> dict[str, Any]:
    """The options of `dask_jobqueue.SLURMCluster` in a YAML file.

    ``cores`` are those of a job; its ``processes`` (default: 1) share them, and each restores one
    session at a time. Raises InputError for a file without ``cores`` and ``memory``.
    """
    import yaml

    try:
        options = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{file.name}: it cannot be read as YAML ({reason})") from error
    if not isinstance(options, dict) or not {"cores", "memory"} <= options.keys():
        raise InputError(
            f"{file.name}: it has to give the options of dask_jobqueue.SLURMCluster, at least "
            "cores and memory of a job"
        )
    processes, cores = options.get("processes", 1), options["cores"]
    if not all(isinstance(n, int) and n > 0 for n in (processes, cores)):
        raise InputError(f"{file.name}: cores and processes are whole numbers, at least 1")
    # Dask gets one thread a process, so that no session waits for another in the same process.
    return {"job_cpu": cores, **options, "cores": processes, "processes": processes}


def slurm_threads(file: Path) -> int:
    """CPU threads for each process of a job."""
    options = read_slurm(file)
    return max(int(options["job_cpu"]) // int(options["processes"]), 1)
