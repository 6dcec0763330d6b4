"""Pairs of other contrasts, rendered from label maps."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

SCRIPT = Path(__file__).parents[1] / "Benchmarks" / "other_contrasts.py"


@pytest.fixture(scope="module")
def script() -> dict:
    return runpy.run_path(str(SCRIPT))


def blocks() -> np.ndarray:
    """Air, then a slab each of white matter, grey matter, fluid and a lesion."""
    labels = np.zeros((12, 50, 12), int)
    for n, label in enumerate((1, 2, 16, 17)):
        labels[:, 10 + 10 * n : 20 + 10 * n] = label
    return labels


@pytest.mark.parametrize(
    ("contrast", "order"),
    [
        ("t1w", ("csf", "lesion", "grey", "white")),
        ("t2w", ("white", "grey", "lesion", "csf")),
        ("flair", ("csf", "white", "grey", "lesion")),
        ("t1w-gadolinium", ("csf", "grey", "white", "lesion")),
        ("pd", ("white", "grey", "csf", "lesion")),
    ],
)
def test_tissues_from_dark_to_bright(script, contrast, order):
    image = script["render"](blocks(), contrast, seed=3)
    slabs = {name: 12 + 10 * n for n, name in enumerate(("white", "grey", "csf", "lesion"))}
    found = {name: image[:, first : first + 6].mean() for name, first in slabs.items()}
    assert tuple(sorted(found, key=found.get)) == order
    assert image[:, :8].max() == 0


def test_a_folder_that_can_be_evaluated(script, data_folder, monkeypatch, tmp_path):
    monkeypatch.setitem(script["main"].__globals__, "MAPS", 1)
    monkeypatch.setitem(script["main"].__globals__, "EDGE", 32)
    monkeypatch.setenv("NEXUSINR_DATA", str(data_folder))
    monkeypatch.setattr(sys, "argv", ["other_contrasts.py", str(tmp_path)])
    script["main"]()
    folders = sorted(p.name for p in tmp_path.iterdir())
    assert len(folders) == len(script["PAIRINGS"])
    first, second = (nib.load(tmp_path / folders[0] / f"{name}.nii.gz") for name in ("T1w", "T2w"))
    assert first.shape == second.shape == (32, 32, 32)
    assert not np.allclose(first.get_fdata(), second.get_fdata())
