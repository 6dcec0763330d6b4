"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from nexusinr.errors import InputError

Model = Annotated[str, typer.Option("--model", help="Name of the weights: see nexusinr models.")]
DEFAULT_MODEL = "nexus-inr"

Device = Annotated[
    str,
    typer.Option("--device", metavar="auto|cpu|cuda|cuda:N|mps", help="Where to compute."),
]

Threads = Annotated[
    int | None, typer.Option("--threads", min=1, metavar="N", help="CPU threads; default: all.")
]


def use_threads(count: int | None) -> None:
    """Bounds the CPU threads of torch and ITK."""
    if count is None:
        return
    import SimpleITK as sitk
    import torch

    torch.set_num_threads(count)
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(count)


@contextmanager
def needs_extra(name: str) -> Iterator[None]:
    """Says which optional dependencies are missing. Raises InputError."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise InputError(
            f"this command needs {error.name}, which is not installed: "
            f"pip install 'nexusinr[{name}]'"
        ) from error
