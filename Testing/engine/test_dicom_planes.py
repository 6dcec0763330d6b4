"""Lattices as upright image planes, and real numbers as 16 bits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexusinr.dicom_out.planes import planes_of
from nexusinr.dicom_out.series import Rescale
from nexusinr.errors import InputError
from nexusinr.geometry import Affine, Grid


@given(affine=st.from_type(Affine))
def test_images_are_upright(affine):
    planes = planes_of(Grid((5, 4, 6), affine))
    rows, columns, across = planes.grid.affine.direction.T
    assert np.cross(rows, columns) @ across == pytest.approx(1, abs=1e-6)
    seen = {0: ("A", "S"), 1: ("R", "S"), 2: ("R", "A")}[int(np.abs(across).argmax())]
    for direction, side in zip((rows, columns), seen, strict=True):
        # Towards the other side, as far as it runs along that axis at all.
        assert direction["RAS".index(side)] <= 1e-6
    longest = affine.spacing.max()
    if longest >= 1.2 * np.sort(affine.spacing)[1]:
        assert planes.grid.spacing[2] == longest


def test_a_lattice_without_right_angles_is_refused():
    matrix = np.array([[1, 0.2, 0.1, 0], [0, 1, 0.3, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    with pytest.raises(InputError, match="no two axes of this lattice are at right angles"):
        planes_of(Grid((5, 5, 5), Affine(matrix)))


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6), st.booleans())
def test_rescaling_costs_less_than_a_20000th_of_the_range(low, extent, at_zero):
    low = 0.0 if at_zero else low
    values = np.linspace(low, low + extent, 999).astype(np.float32)
    rescale = Rescale(float(values.min()), float(values.max()))
    back = rescale.levels(values) * float(rescale.slope) + float(rescale.intercept)
    assert np.abs(back - values).max() <= max(np.ptp(values), 1e-9) / 20000


def test_whole_numbers_and_nothing_come_back_exactly():
    values = np.arange(-37, 2900, dtype=np.float32)
    rescale = Rescale(-37.3, 2900.9)
    back = rescale.levels(values) * float(rescale.slope) + float(rescale.intercept)
    np.testing.assert_array_equal(back, values)


def test_an_image_of_one_value():
    rescale = Rescale(5.0, 5.0)
    assert rescale.levels(np.full(3, 5, np.float32)) * rescale.slope + rescale.intercept == (
        pytest.approx([5, 5, 5])
    )
