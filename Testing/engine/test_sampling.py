"""Reading a feature map at the points of another lattice, against scipy and SimpleITK."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from scipy.ndimage import map_coordinates
from scipy.spatial.transform import Rotation
from torch import Tensor

from nexusinr.geometry import Affine, Grid
from nexusinr.models.sampling import LatticeMap
from nexusinr.resample import linear_matrix

TURN = Rotation.from_euler("xyz", (12, -25, 33), degrees=True).as_matrix()
PERMUTED = np.array([[0, 0, -1.0], [1, 0, 0], [0, 1, 0]])


def grid(shape, spacing, direction=None, centre=(3.0, -20.0, 41.0)) -> Grid:
    """A lattice around a point of patient space."""
    start = Grid(shape, Affine.from_parts(spacing, direction))
    return Grid(shape, Affine.from_parts(spacing, direction, np.array(centre) - start.centre))


def indices(scan_grid: Grid, target: Grid) -> np.ndarray:
    """Scan index of every target point, (3, I, J, K)."""
    index = np.stack(np.meshgrid(*map(np.arange, target.shape), indexing="ij"), -1)
    return np.moveaxis(scan_grid.affine.to_index(target.affine.apply(index)), -1, 0)


def linear(image: Tensor, scan_grid: Grid, target: Grid) -> np.ndarray:
    where = indices(scan_grid, target)
    return map_coordinates(image.double().numpy(), where, order=1, mode="nearest")


def in_lps(image: sitk.Image, at: Grid) -> sitk.Image:
    flip = np.diag((-1.0, -1.0, 1.0))
    image.SetSpacing(at.spacing.tolist())
    image.SetOrigin((flip @ at.affine.origin).tolist())
    image.SetDirection((flip @ at.affine.direction).ravel().tolist())
    return image


SCAN = grid((9, 8, 7), (1, 1.1, 2.5), PERMUTED)


@pytest.mark.parametrize(
    "target",
    [
        grid((5, 6, 4), (0.7, 1.3, 0.9), centre=(3.2, -20.3, 40.8)),
        grid((5, 6, 4), (0.7, 1.3, 0.9), PERMUTED.T * (-1, 1, -1)),
        grid((5, 6, 4), (0.7, 1.3, 0.9), TURN, centre=(3.2, -20.3, 40.8)),
        grid((14, 9, 19), (1, 1, 1), TURN),  # reaches beyond the scan
        grid((30, 9, 19), (1, 1, 1)),  # the same, parallel
    ],
    ids=["parallel", "permuted", "oblique", "oblique beyond", "parallel beyond"],
)
def test_agrees_with_scipy(target):
    features = torch.rand(1, *SCAN.shape, 3)
    found = LatticeMap([SCAN], [target]).sample(features)
    expected = [linear(channel, SCAN, target) for channel in features[0].unbind(-1)]
    np.testing.assert_allclose(found[0], np.stack(expected, -1), atol=1e-4)


@pytest.mark.parametrize("turn", [np.eye(3), PERMUTED.T, TURN], ids=("plain", "90", "oblique"))
def test_agrees_with_simpleitk(turn):
    """Another author's arithmetic from header to place, in LPS and (k, j, i)."""
    target, data = grid((5, 6, 4), (0.7, 1.3, 0.9), turn), torch.rand(SCAN.shape)
    moving = in_lps(sitk.GetImageFromArray(data.permute(2, 1, 0).numpy()), SCAN)
    reference = in_lps(sitk.Image(target.shape, sitk.sitkFloat32), target)
    resampled = sitk.Resample(moving, reference, sitk.Transform(), sitk.sitkLinear)
    found = LatticeMap([SCAN], [target]).sample(data[None, ..., None])
    expected = sitk.GetArrayFromImage(resampled).transpose(2, 1, 0)
    np.testing.assert_allclose(found[0, ..., 0], expected, atol=1e-4)


def test_both_ways_of_sampling_agree():
    """A batch with one oblique entry goes point by point; alone, the other goes by axis."""
    parallel = grid((6, 5, 9), (2, 1.7, 1.1), PERMUTED.T * (1, -1, 1))
    turned = grid((6, 5, 9), (2, 1.7, 1.1), TURN)
    alone = LatticeMap([SCAN], [parallel])
    together = LatticeMap([SCAN] * 2, [parallel, turned])
    assert alone.is_separable
    assert not together.is_separable
    features = torch.rand(2, *SCAN.shape, 3)
    found = together.sample(features)
    np.testing.assert_allclose(found[:1], alone.sample(features[:1]), atol=1e-5)
    alone = LatticeMap([SCAN], [turned])
    np.testing.assert_allclose(found[1:], alone.sample(features[1:]), atol=1e-6)


def test_a_batch_of_parallel_lattices_has_each_its_own_place():
    scans = [grid((5, 5, 3), (1, 1, 2), centre=(0, 0, c)) for c in (0, 0.3)]
    targets = [grid((4, 4, 6), (1, 1, size), centre=(0.2, 0, 0)) for size in (0.8, 1)]
    features = torch.rand(2, 5, 5, 3, 2)
    found = LatticeMap(scans, targets).sample(features)
    for n in range(2):
        alone = LatticeMap(scans[n : n + 1], targets[n : n + 1])
        np.testing.assert_allclose(found[n], alone.sample(features[n : n + 1])[0], atol=1e-6)


def test_coordinates_far_away_are_still_exact():
    far = grid((500, 2, 2), (0.5, 1, 1), TURN, centre=(900, -900, 900))
    target = Grid((1000, 2, 2), far.with_spacing((0.25, 1, 1)).affine)
    found = LatticeMap([far], [target]).coordinates(torch.zeros(1))
    np.testing.assert_allclose(found[0], np.moveaxis(indices(far, target), 0, -1), atol=5e-5)


def test_a_batch_shares_its_shapes():
    with pytest.raises(ValueError, match="shares its shapes"):
        LatticeMap([SCAN, SCAN.pad(1)], [SCAN, SCAN])


def test_linear_matrix_by_hand():
    found = linear_matrix(np.array([-0.4, 0.25, 1.0, 2.5]), 3)
    expected = [[1, 0, 0], [0.75, 0.25, 0], [0, 1, 0], [0, 0, 1]]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_array_equal(linear_matrix(np.array([-1.0, 0.5]), 1), [[1], [1]])
