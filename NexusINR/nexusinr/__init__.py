"""Super-resolution of T1w and T2w brain MRI onto any lattice, with tissue segmentation.

The public names below are loaded at first use, so that ``import nexusinr`` costs nothing and does
not need torch::

    from nexusinr import Grid, read_volume, upsample
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nexusinr.geometry import Affine, Grid
    from nexusinr.inference.pipeline import Result, upsample
    from nexusinr.inference.session import Session
    from nexusinr.volume import Volume, read_volume, write_volume

    __version__: str

__all__ = [
    "Affine",
    "Grid",
    "Result",
    "Session",
    "Volume",
    "__version__",
    "read_volume",
    "upsample",
    "write_volume",
]

_HOME = {
    "Affine": "nexusinr.geometry",
    "Grid": "nexusinr.geometry",
    "Result": "nexusinr.inference.pipeline",
    "Session": "nexusinr.inference.session",
    "Volume": "nexusinr.volume",
    "read_volume": "nexusinr.volume",
    "upsample": "nexusinr.inference.pipeline",
    "write_volume": "nexusinr.volume",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        value: Any = _installed_version()
    elif name in _HOME:
        value = getattr(import_module(_HOME[name]), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _installed_version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(__name__)
    except PackageNotFoundError:  # run from a source folder, as Slicer does
        return "0+source"
