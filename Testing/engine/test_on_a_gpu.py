"""What a GPU would refuse, found without one: see the fixture `stand_in_gpu`."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nexusinr.geometry import Affine, Grid
from nexusinr.inference import implicit
from nexusinr.inference.device import Device
from nexusinr.inference.pipeline import upsample
from nexusinr.inference.progress import Progress
from nexusinr.inference.session import Session

TURNED = np.array([[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, 1]])


@pytest.fixture(params=[torch.float16, torch.float32], ids=["half", "full"])
def session(request, stand_in_gpu):
    """Models on a GPU, by name."""

    def make(model: str) -> Session:
        made = Session(model, "cpu")
        made.move(Device(stand_in_gpu.type, "GPU", "a test", request.param))
        return made

    return make


@pytest.mark.parametrize("model", ["nexus-inr", "iconet"])
def test_a_run(model, session, thick_pair):
    used = session(model)
    result = upsample(*thick_pair, session=used, spacing=2, register="none")
    assert result.t1w.data.shape == result.t2w.data.shape
    assert used.device.name == "meta"  # it did not fall back to the CPU
    assert not used.notes


@pytest.mark.parametrize("missing", [0, 1])
def test_one_scan_alone(missing, session, thick_pair):
    scans = [None if m == missing else scan for m, scan in enumerate(thick_pair)]
    result = upsample(*scans, session=session("nexus-inr"), spacing=2)
    assert (result.t1w is None, result.t2w is None) == (missing == 0, missing == 1)


def test_an_oblique_plane(session, thick_pair):
    centre = thick_pair[0].grid.centre
    plane = Grid((40, 40, 1), Affine.from_parts((1, 1, 1), TURNED, centre - TURNED @ (20, 20, 0)))
    asked = session("nexus-inr")
    scans = {m: asked.prepare(scan) for m, scan in enumerate(thick_pair)}
    found = asked.decode(scans, plane, Progress())
    assert found.intensity[0].shape == plane.shape


def test_blocks_shrink_where_memory_is_short(session, thick_pair, monkeypatch):
    """Before the CPU takes over: it was not the encoders that had no room."""
    decode_block, sizes = implicit.decode_block, []

    def short(network, scans, grid):
        sizes.append(grid.voxels)
        if grid.voxels > 1000:
            raise torch.OutOfMemoryError(f"no room for {grid.voxels} points")
        return decode_block(network, scans, grid)

    monkeypatch.setattr(implicit, "GPU_PIECE_VOXELS", 16**3)
    monkeypatch.setattr(implicit, "decode_block", short)
    used = session("nexus-inr")
    upsample(*thick_pair, session=used, spacing=2, register="none")
    assert used.notes == ["out of memory while decoding: going on in smaller pieces"] * 2
    assert used.device.name == "meta"
    assert max(sizes[2:]) <= 1000 < min(sizes[:2])


def test_the_stand_in_is_strict(stand_in_gpu):
    there = torch.ones(4, 8, dtype=torch.half, device=stand_in_gpu)
    with pytest.raises(AssertionError, match="mm of tensors on"):
        there @ torch.ones(8, 8, dtype=torch.half)
    with pytest.raises(AssertionError, match="mm of"):
        torch.nn.functional.linear(there, torch.ones(8, 8, device=stand_in_gpu))
    with pytest.raises(RuntimeError, match="item"):
        bool(there.any())
