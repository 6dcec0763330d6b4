"""Keeping what was measured, where scan and target see different detail."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nexusinr.acquisition import acquisition_between
from nexusinr.geometry import Affine, Grid
from nexusinr.inference.measured import keep_measured
from nexusinr.volume import Volume

TARGET = Grid((36, 36, 36), Affine.from_parts((1, 1, 1), origin=(-18, -18, -18)))
NOISE = 0.02


def turn(degrees: float) -> np.ndarray:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    matrix = np.eye(4)
    matrix[1:3, 1:3] = [[c, -s], [s, c]]
    return matrix


def anatomy(grid: Grid) -> np.ndarray:
    """Something smooth at the points of a lattice."""
    x, y, z = grid.affine.apply(np.indices(grid.shape).reshape(3, -1).T).T
    return (np.sin(x / 4) * np.cos(y / 5) + np.sin(z / 4)).reshape(grid.shape).astype(np.float32)


def scan_of(in_plane: float, degrees: float) -> Volume:
    """A noisy scan with slices of 3 mm; its middle lies in the target's."""
    count = int(30 / in_plane)
    affine = Affine.from_parts((in_plane, in_plane, 3), origin=(-15, -15, -15))
    grid = Grid((count, count, 10), affine.transformed(turn(degrees)))
    noise = np.random.default_rng(0).normal(0, NOISE, grid.shape).astype(np.float32)
    return Volume(anatomy(grid) + noise, grid.affine)


@pytest.mark.parametrize("degrees", [0, 16])
@pytest.mark.parametrize("in_plane", [0.4, 0.6, 0.91, 1.0, 1.7])
def test_noise_stays_noise(in_plane, degrees):
    """Also where the scan has more voxels than the target has to give."""
    scan, truth = scan_of(in_plane, degrees), anatomy(TARGET)
    kept = keep_measured(truth, scan, TARGET, 1.0)
    assert kept.after < 0.1 * kept.before
    assert np.std(kept.image - truth) < 4 * NOISE


def test_finer_voxels_are_kept_as_means():
    scan = scan_of(0.5, 0)
    kept = keep_measured(np.zeros(TARGET.shape, np.float32), scan, TARGET, 1.0)
    data = scan.data.reshape(30, 2, 30, 2, 10).mean(axis=(1, 3))
    half = np.diag([2, 2, 1, 1]).astype(float)
    half[:2, 3] = 0.5
    blocks = Grid((30, 30, 10), Affine(scan.affine.matrix @ half))
    model = acquisition_between(blocks, TARGET, np.array([1, 1, 3.0]), kept.profile)
    seen = model.forward(torch.from_numpy(kept.image)).numpy()
    np.testing.assert_allclose(seen[model.measured], data[model.measured], atol=1e-4)
    assert kept.before == pytest.approx(np.sqrt(np.mean(data[model.measured] ** 2)), rel=1e-4)
