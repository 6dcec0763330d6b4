"""What lies behind restored scans: the same from both ways of interpolating."""

from __future__ import annotations

import gc

import numpy as np
import pytest
import torch

from nexusinr.geometry import Affine, Grid
from nexusinr.inference.backdrop import Backdrops
from nexusinr.inference.prepared import PreparedScan
from nexusinr.resample import covered

TURN = np.array([[0.8, -0.6, 0], [0.48, 0.64, -0.6], [0.36, 0.48, 0.8]])


@pytest.fixture(scope="module")
def scans(thick_pair) -> dict[int, PreparedScan]:
    return {m: PreparedScan(scan) for m, scan in enumerate(thick_pair)}


def plane(scans: dict[int, PreparedScan], direction: np.ndarray) -> Grid:
    """Larger than the scans."""
    centre = scans[0].whole.grid.centre + 0.3
    origin = centre - direction @ (60, 60, 0)
    return Grid((120, 120, 1), Affine.from_parts((1, 1, 1), direction, origin))


@pytest.mark.parametrize("direction", [TURN, np.eye(3)], ids=["oblique", "parallel"])
@torch.inference_mode()
def test_a_gpu_would_show_the_same(direction, scans):
    """What it computes, computed here."""
    target, cpu = plane(scans, direction), Backdrops(torch.device("cpu"))
    images, masks = cpu.at(scans, target)
    for modality, scan in scans.items():
        image, head = cpu._cut(scan, target)
        assert image.shape == head.shape == target.shape
        assert np.abs(image - images[modality]).max() < 1e-4
        # Where a voxel of the head has no weight at all, rounding decides.
        differs = (head > 0) & covered(scan.whole.grid, target) != masks[modality]
        assert head[differs].max(initial=0) < 1e-4
        assert masks[modality].any()
        assert not masks[modality].all()


@torch.inference_mode()
def test_a_scan_that_is_gone_is_not_kept(thick_pair):
    scan, backdrops = PreparedScan(thick_pair[0]), Backdrops(torch.device("cpu"))
    backdrops._cut(scan, plane({0: scan}, TURN))
    assert len(backdrops._there) == 1
    del scan
    gc.collect()
    assert not backdrops._there


def test_large_lattices_stay_off_the_gpu(scans, stand_in_gpu, monkeypatch):
    backdrops, cut = Backdrops(stand_in_gpu), []
    monkeypatch.setattr(backdrops, "_cut", lambda scan, target: cut.append(scan) or (0, 0))
    target = plane(scans, TURN)
    monkeypatch.setattr("nexusinr.inference.backdrop.GPU_POINTS", target.voxels - 1)
    assert backdrops.at(scans, target)[0][0].shape == target.shape
    assert not cut


def test_a_full_gpu_leaves_it_to_the_cpu(scans, stand_in_gpu, monkeypatch):
    def full(scan, target):
        raise RuntimeError("MPS backend out of memory (MPS allocated: 9.07 GB)")

    target, backdrops = plane(scans, TURN), Backdrops(stand_in_gpu)
    monkeypatch.setattr(backdrops, "_cut", full)
    found, _ = backdrops.at(scans, target)
    right, _ = Backdrops(torch.device("cpu")).at(scans, target)
    assert np.array_equal(found[0], right[0])


def test_mirrored_scans_have_a_digest_of_their_own(scans):
    scan = scans[0]
    assert scan.digest == scan.digest != scan.mirrored((0,)).digest
    assert scan.mirrored((0,)).mirrored((0,)).digest == scan.digest
