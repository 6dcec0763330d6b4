"""The libraries of Slicer and VTK, loaded by a thread while the page starts.

There are some two hundred of them, and linking them is most of what importing these packages takes.
Python imports one after the other and holds its lock meanwhile; this thread does not, and what it
has loaded costs an import next to nothing.
"""

from __future__ import annotations

import ctypes
import importlib.util
import threading
from contextlib import suppress
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

PACKAGES = ("vtkmodules", "slicer_core")


def begin() -> threading.Thread:
    """Starts to load them.

    The thread is waited for at exit: a program that ends while a library is loaded may crash.
    """
    thread = threading.Thread(target=_load, name="preload")
    thread.start()
    return thread


def libraries() -> list[Path]:
    """Extension modules of the packages, as far as installed; other libraries come with them."""
    specs = filter(None, map(importlib.util.find_spec, PACKAGES))
    folders = [Path(folder) for spec in specs for folder in spec.submodule_search_locations or ()]
    return [
        path
        for folder in folders
        for path in sorted(folder.glob("vtk*"))
        if path.name.endswith(tuple(EXTENSION_SUFFIXES))
    ]


def _load() -> None:
    for path in libraries():
        with suppress(OSError):  # what cannot be loaded is for the import to explain
            ctypes.CDLL(str(path))
