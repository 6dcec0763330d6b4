"""Run by every local worker as it starts."""

from __future__ import annotations

import signal


def dask_setup(worker: object) -> None:
    """Leaves Ctrl-C, which a terminal sends to every process, to the one that started the run."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
