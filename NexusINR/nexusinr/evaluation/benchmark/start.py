"""How soon a new process is ready, and how much is installed for it."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import nexusinr
from nexusinr.errors import Cancelled

#: New processes that are timed; the quickest counts: the files are then in the system's cache.
RUNS = 3

#: What a process does that is ready to restore: it imports, and loads and verifies the weights.
READY = "import sys; from nexusinr.inference.session import Session; Session(*sys.argv[1:])"


def help_seconds(cancelled: Callable[[], bool]) -> float:
    """Of ``nexusinr --help``, the interpreter's start included. Raises Cancelled."""
    return _quickest([sys.executable, "-m", "nexusinr.cli", "--help"], cancelled)


def ready_seconds(model: str, device: str, cancelled: Callable[[], bool]) -> float:
    """Until a new process has a model on its device. Raises Cancelled."""
    return _quickest([sys.executable, "-c", READY, model, device], cancelled)


def installed_gb() -> float:
    """Size of the package, its weights and all that it needs to restore, without extras."""
    package = Path(nexusinr.__file__).parent
    own = [file for file in package.rglob("*") if file.is_file()]
    needed = _needed("nexusinr", {})
    needed.pop("nexusinr", None)  # it may be installed as a mere reference to this folder
    listed = [Path(str(file.locate())) for found in needed.values() for file in found.files or []]
    return sum(file.stat().st_size for file in {*own, *listed} if file.is_file()) / 1e9


def _quickest(command: list[str], cancelled: Callable[[], bool]) -> float:
    times = []
    for _ in range(RUNS):
        if cancelled():
            raise Cancelled("cancelled: nothing was written")
        begun = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - begun)
    return min(times)


def _needed(name: str, known: dict[str, metadata.Distribution]) -> dict[str, metadata.Distribution]:
    """A distribution and those that it requires, and they in turn, by name."""
    try:
        known[name] = found = metadata.distribution(name)
    except metadata.PackageNotFoundError:  # for another system; or run from its folder
        return known
    for line in found.requires or []:
        wanted = re.match(r"[\w.-]+", line)
        if wanted and "extra ==" not in line and wanted.group() not in known:
            _needed(wanted.group(), known)
    return known
