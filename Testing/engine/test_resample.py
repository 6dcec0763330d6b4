"""Interpolation onto other lattices, against functions whose values are known everywhere."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given
from hypothesis import strategies as st

from nexusinr.geometry import Affine, Grid
from nexusinr.resample import covered, interpolate
from nexusinr.volume import Volume

SHEAR = np.array([[1, 0.3, 0, -20], [0, 1.2, 0.2, -25], [0.1, 0, 3, -12], [0, 0, 0, 1]])


def points(grid: Grid) -> np.ndarray:
    index = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), axis=-1)
    return grid.affine.apply(index)


def ramp(grid: Grid) -> Volume:
    """A straight line in patient space, one unit a mm along an oblique direction."""
    return Volume(points(grid) @ (0.48, -0.6, 0.64) + 7, grid.affine)


def within(scan: Grid, share: float = 0.5) -> Grid:
    """An oblique lattice well inside a scan's outermost voxel centres."""
    turned = np.linalg.qr(np.array([[1, 0.2, 0.1], [-0.3, 1, 0.2], [0.1, -0.1, 1]]))[0]
    size = share * scan.spacing.min() * (np.array(scan.shape) - 1).min() / np.sqrt(3)
    corner = scan.centre - turned @ np.full(3, size / 2)
    return Grid.from_corner((7, 6, 5), np.array((size / 7, size / 6, size / 5)), turned, corner)


@given(affine=st.from_type(Affine))
def test_trilinear_keeps_a_straight_line_on_any_pair_of_lattices(affine: Affine):
    scan = Grid((9, 8, 7), affine)
    target = within(scan)
    found = interpolate(ramp(scan), target)
    assert np.abs(found - ramp(target).data).max() < 0.005  # a shift of 0.1 mm would give 0.05


@pytest.mark.parametrize("kind", ["trilinear", "cubic"])
def test_a_sheared_scan_is_read_where_it_is(kind):
    scan = Grid((40, 36, 14), Affine(SHEAR))
    target = within(scan, 0.4)
    assert np.abs(interpolate(ramp(scan), target, kind) - ramp(target).data).max() < 0.01


@pytest.mark.parametrize("kind", ["nearest", "trilinear", "cubic"])
def test_the_same_lattice_gives_the_same_values(kind, oblique_volume):
    found = interpolate(oblique_volume, oblique_volume.grid, kind)
    assert np.abs(found - oblique_volume.data).max() < 0.01  # of values up to about 1000
    assert found.dtype == np.float32


def test_cubic_is_exact_for_a_parabola_and_trilinear_is_not():
    scan = Grid((30, 30, 30), Affine.from_parts((1, 1, 1)))
    target = within(scan, 0.5)
    parabola = Volume(points(scan)[..., 0] ** 2, scan.affine)
    truth = points(target)[..., 0] ** 2
    assert np.abs(interpolate(parabola, target, "cubic") - truth).max() < 0.01
    assert np.abs(interpolate(parabola, target, "trilinear") - truth).max() > 0.1


def test_thick_slices_keep_their_corner_and_repeat_their_edge():
    thick = Grid.from_corner((3, 3, 4), (1, 1, 4), np.eye(3), (0, 0, 0))
    fine = thick.with_spacing(1)
    values = np.broadcast_to(np.arange(4.0), thick.shape)
    found = interpolate(Volume(values, thick.affine), fine)[1, 1]
    # The centres of the slices lie at 2, 6, 10 and 14 mm, those of the fine voxels at 0.5, 1.5, ...
    expected = np.clip((np.arange(16) + 0.5 - 2) / 4, 0, 3)
    assert found == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("kind", "itk"), [("trilinear", sitk.sitkLinear), ("cubic", sitk.sitkBSpline)]
)
def test_agrees_with_itk(kind, itk):
    scan = Grid((22, 20, 18), Affine.from_parts((1.1, 0.9, 1.4), origin=(-12, -9, -12)))
    data = np.random.default_rng(3).normal(size=scan.shape).astype(np.float32)
    target = within(scan, 0.7)
    flip = np.diag((-1.0, -1.0, 1.0))
    resample = sitk.ResampleImageFilter()
    resample.SetInterpolator(itk)
    resample.SetSize(target.shape)
    resample.SetOutputSpacing(target.spacing.tolist())
    resample.SetOutputDirection((flip @ target.affine.direction).ravel().tolist())
    resample.SetOutputOrigin((flip @ target.affine.origin).tolist())
    image = sitk.GetImageFromArray(data.T.copy())
    image.SetSpacing(scan.spacing.tolist())
    image.SetDirection(flip.ravel().tolist())
    image.SetOrigin((flip @ scan.affine.origin).tolist())
    expected = sitk.GetArrayFromImage(resample.Execute(image)).T
    found = interpolate(Volume(data, scan.affine), target, kind)
    assert np.abs(found - expected).max() < 2e-3


def test_covered_is_the_extent_to_the_outer_faces():
    scan = Grid.from_corner((4, 4, 2), (1, 1, 4), np.eye(3), (0, 0, 0))
    inside = covered(scan, scan.with_spacing(1).pad(2))
    assert inside.shape == (8, 8, 12)
    assert inside[2:-2, 2:-2, 2:-2].all()
    assert inside.sum() == 4 * 4 * 8


@given(affine=st.from_type(Affine))
def test_a_scan_covers_itself_and_nothing_far_away(affine: Affine):
    scan = Grid((5, 4, 3), affine)
    far = scan.crop((10, 0, 0), (14, 4, 3))
    assert covered(scan, scan).all()
    assert not covered(scan, far).any()


def test_an_unknown_kind_is_named(oblique_volume):
    with pytest.raises(ValueError, match="unknown interpolation 'sinc'"):
        interpolate(oblique_volume, oblique_volume.grid, "sinc")
