"""Slicer for tests: real MRML, real Qt, and stand-ins for what is only in the application.

``start`` makes ``import slicer, qt, ctk, vtk`` work as inside Slicer 5.12. A stand-in accepts
nothing that Slicer would refuse. Where the environment variable SLICER_BASE_PYTHON names the Python
folder of a real Slicer (with ``slicer/ScriptedLoadableModule.py`` in it), its own base classes,
parameter node and package functions take the place of those here.
"""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent.parent

# PySide6 6.12 gives a reference to None away with every call that returns nothing. Before Python
# 3.12, which made None immortal, the process aborts when the last one is gone.
if sys.version_info < (3, 12):
    ctypes.c_ssize_t.from_address(id(None)).value += 1 << 40


def start(scratch: Path) -> Any:
    """Starts the one application of this process; `scratch` is a folder for all that it writes."""
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    sys.path.insert(0, str(HERE))
    import slicer

    real = os.environ.get("SLICER_BASE_PYTHON")
    slicer.__path__.append(str(Path(real, "slicer") if real else HERE / "slicerpython"))

    from slicerapp import application, modules, widgets

    application.python_slicer(scratch / "Slicer", sys.executable)
    app = application.make_application(scratch / "Slicer", scratch)
    widgets.install()
    modules.make_modules(app._core)
    import slicer.packaging

    return app
