"""Reads what training draws from, wherever it lies."""

from __future__ import annotations

from pathlib import Path

from nexusinr.training import layouts, packing
from nexusinr.training.dataset import TrainingData


def load(data: Path, leave_out: tuple[str, ...] = ()) -> TrainingData:
    """Reads the training part of a folder (see training.layouts) or of a packed file.

    Args:
        data: a folder, or a file that training.packing wrote.
        leave_out: training subjects that are kept for validation.

    Raises ValueError where there is nothing to train on, where the layout is none that is known,
    and where a subject to be left out is not there to train on.
    """
    whole = packing.load(data) if data.is_file() else layouts.read(data)
    return whole.without(leave_out)
