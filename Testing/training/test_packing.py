"""Training data in one file is the training data in its folder."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from safetensors.torch import save_file

from nexusinr.training import packing
from nexusinr.training.dataset import Subject, TrainingData
from nexusinr.training.loading import load
from nexusinr.training.packing import _differences, _sums, pack


@pytest.fixture(scope="module")
def packed(folder, tmp_path_factory) -> Path:
    return pack(load(folder), tmp_path_factory.mktemp("packed") / "data.safetensors")


def assert_same(plain: Subject, cropped: Subject) -> None:
    """Equal where the cropped one is, and air everywhere else."""
    assert (plain.name, plain.sharp) == (cropped.name, cropped.sharp)
    for whole, part, grid, own in zip(
        plain.images, cropped.images, plain.grids, cropped.grids, strict=True
    ):
        assert (whole is None) == (part is None)
        if whole is None or part is None:
            continue
        start = np.round(grid.affine.to_index(own.affine.origin)).astype(int)
        assert own.same_as(grid.crop(start, start + part.shape), 1e-6)
        place = tuple(slice(n, n + size) for n, size in zip(start, part.shape, strict=True))
        assert torch.equal(whole[place], part)
        assert part.dtype == whole.dtype
        assert (whole > 0).sum() == (part > 0).sum()
        assert part.numel() < whole.numel()
        if plain.tissues is not None and part is cropped.lead:
            assert torch.equal(plain.tissues[place], cropped.tissues)
    assert (plain.tissues is None) == (cropped.tissues is None)


def test_is_the_folder_to_the_bit(folder, packed):
    plain, again = load(folder), load(packed)
    for one, other in zip(plain.subjects, again.subjects, strict=True):
        assert_same(one, other)
    for one, other in zip(plain.label_maps, again.label_maps, strict=True):
        assert one.name == other.name
        assert torch.equal(one.labels, other.labels)
        assert torch.equal(one.tissue_of, other.tissue_of)


def test_leaves_people_out(folder, packed, tmp_path):
    part = load(pack(load(folder, ("infant02",)), tmp_path / "part.safetensors"))
    assert "infant02" not in [s.name for s in part.subjects]
    assert [s.name for s in load(packed, ("infant02",)).subjects] == [s.name for s in part.subjects]


@given(arrays(np.uint16, st.tuples(*[st.integers(1, 5)] * 3)))
def test_differences_are_undone(numbers):
    assert np.array_equal(_sums(_differences(numbers)), numbers)


def test_another_file_is_refused(tmp_path):
    foreign, broken = tmp_path / "foreign.safetensors", tmp_path / "broken.safetensors"
    save_file({"weight": torch.zeros(2)}, foreign)
    broken.write_bytes(b"no tensors")
    with pytest.raises(ValueError, match=r"foreign\.safetensors: no packed training data"):
        packing.load(foreign)
    with pytest.raises(ValueError, match=r"broken\.safetensors: it cannot be read"):
        packing.load(broken)
    with pytest.raises(ValueError, match=r"a packed file is called"):
        pack(TrainingData([], []), tmp_path / "data.bin")


def test_a_real_scan_takes_a_third(data_folder, tmp_path):
    """Of its size in memory; a whole folder of 300 MiB then stays below 50 MiB."""
    (tmp_path / "pairs").mkdir()
    os.symlink(data_folder / "pairs" / "infant01", tmp_path / "pairs" / "infant01")
    (tmp_path / "split.csv").write_text("subject,split\ninfant01,train\n")
    file = pack(load(tmp_path), tmp_path / "one.safetensors")
    (subject,) = load(file).subjects
    assert file.stat().st_size < 0.35 * load(file).bytes
    assert_same(load(tmp_path).subjects[0], subject)
