"""A GPU restores what the CPU restores: both models, parallel and oblique lattices."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from nexusinr.geometry import Affine, Grid
from nexusinr.inference import device
from nexusinr.inference.pipeline import upsample
from nexusinr.inference.progress import Progress
from nexusinr.inference.session import Session
from nexusinr.inference.tiles import indices_around
from nexusinr.volume import Volume

PRESENT = {"cuda": torch.cuda.is_available, "mps": torch.backends.mps.is_available}

#: Mean squared error as a share of the range. In half precision it is 50 dB, to which restoring,
#: off by some 35 dB, adds 0.1 dB at most.
ALLOWED = {torch.float32: 1e-7, torch.float16: 1e-5}


@pytest.fixture(params=PRESENT)
def gpu(request) -> str:
    if not PRESENT[request.param]():
        pytest.skip(f"this machine has no {request.param} device")
    return request.param


def check_alike(found: np.ndarray, right: np.ndarray, precision: torch.dtype) -> None:
    """Both are images of one head."""
    scale = np.percentile(right, 99.5) - right.min()
    assert np.square((found - right) / scale).mean() < ALLOWED[precision]


@pytest.mark.parametrize("model", ["nexus-inr", "iconet"])
def test_a_run(gpu, model, thick_pair):
    options = {"spacing": 2, "register": "none"}
    found = upsample(*thick_pair, model=model, device=gpu, **options)
    session = Session(model, "cpu")
    session.move(session.device.in_float32())
    right = upsample(*thick_pair, session=session, **options)
    precision = device.choose(gpu).dtype
    check_alike(found.t1w.data, right.t1w.data, precision)
    check_alike(found.t2w.data, right.t2w.data, precision)
    if right.segmentation is not None:
        assert (found.segmentation == right.segmentation).mean() > 0.99


def test_an_oblique_plane(gpu, thick_pair):
    session = Session("nexus-inr", gpu)
    turned = np.array([[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, 1]])
    centre = thick_pair[0].grid.centre
    plane = Grid((40, 40, 1), Affine.from_parts((1, 1, 1), turned, centre - turned @ (20, 20, 0)))

    def cut() -> np.ndarray:
        scans = {m: session.prepare(scan) for m, scan in enumerate(thick_pair)}
        return session.decode(scans, plane, Progress()).intensity[0]

    found, precision = cut(), session.device.dtype
    session.move(device.choose("cpu").in_float32())
    check_alike(found, cut(), precision)


@pytest.mark.parametrize("model", ["nexus-inr", "iconet"])
def test_half_precision_is_enough(model, thick_pair):
    """That of GPUs, computed on the CPU, which takes its time: a small part of the head."""
    part = Grid((14, 14, 14), Affine.from_parts((2, 2, 2), origin=thick_pair[0].grid.centre - 14))
    scans = [scan.replace(**cropped(scan, part)) for scan in thick_pair]
    session, found = Session(model, "cpu"), {}
    for precision in (torch.float32, torch.float16):
        session.move(device.Device("cpu", "CPU", "a test", precision))
        found[precision] = upsample(*scans, session=session, like=part, register="none")
    half, right = found[torch.float16], found[torch.float32]
    assert not np.array_equal(half.t1w.data, right.t1w.data)
    check_alike(half.t1w.data, right.t1w.data, torch.float16)
    check_alike(half.t2w.data, right.t2w.data, torch.float16)


def cropped(scan: Volume, part: Grid) -> dict[str, Any]:
    """Data and affine of what of a scan lies in a part of space."""
    start, stop = indices_around(scan.grid, part)
    i, j, k = (slice(a, b) for a, b in zip(start, stop, strict=True))
    return {"data": scan.data[i, j, k], "affine": scan.grid.crop(start, stop).affine}
