"""Lattices: half-voxel conventions, orientation, parallel axes, overlap."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from nexusinr.geometry import Affine, Grid

AFFINES = st.from_type(Affine)
SHAPE = (20, 24, 10)
SHEAR = np.array([[1, 0.2, 0.1], [0, 1, -0.15], [0, 0, 1]])


def grid(spacing=(1, 1, 1), direction=None, origin=(0, 0, 0), shape=SHAPE) -> Grid:
    return Grid(shape, Affine.from_parts(spacing, direction, origin))


def sheared(affine: Affine) -> Affine:
    matrix = affine.matrix.copy()
    matrix[:3, :3] = affine.direction @ SHEAR * affine.spacing
    return Affine(matrix)


class TestAffine:
    @pytest.mark.parametrize(
        ("matrix", "words"),
        [
            (np.eye(3), "shape"),
            (np.diag((1, 1, 0, 1)), "singular"),
            (np.diag((1, np.nan, 1, 1)), "not finite"),
            (np.diag((1, 1, 1, 2)), "last row"),
            ([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], "singular"),
        ],
    )
    def test_refuses_what_is_no_lattice(self, matrix, words):
        with pytest.raises(ValueError, match=words):
            Affine(matrix)

    def test_is_a_value(self):
        matrix = np.eye(4)
        affine = Affine(matrix)
        matrix[0, 0] = 5
        assert affine == Affine(np.eye(4))
        for array in (affine.matrix, affine.spacing, affine.direction, affine.inverse):
            with pytest.raises(ValueError, match="read-only"):
                array[0] = 7

    def test_equal_ones_have_equal_hashes(self):
        plus, minus = np.eye(4), np.eye(4)
        minus[0, 1] = -0.0
        assert Affine(plus) == Affine(minus)
        assert hash(Affine(plus)) == hash(Affine(minus))

    @given(AFFINES)
    def test_parts_and_inverse(self, affine):
        again = Affine.from_parts(affine.spacing, affine.direction, affine.origin)
        np.testing.assert_allclose(again.matrix, affine.matrix, atol=1e-9)
        points = np.random.default_rng(0).uniform(-100, 100, (5, 2, 3))
        np.testing.assert_allclose(affine.apply(affine.to_index(points)), points, atol=1e-6)
        assert not affine.is_sheared
        assert sheared(affine).is_sheared

    @given(AFFINES)
    def test_orientation_agrees_with_nibabel(self, affine):
        strongest = np.sort(np.abs(affine.direction), axis=0)[-1]
        assume((strongest > 0.8).all())  # nearer to 45 degrees, the nearest axis is open to debate
        assert affine.orientation == "".join(nib.aff2axcodes(affine.matrix))

    def test_orientation_names_each_axis_once(self):
        for seed in range(200):
            turn = Rotation.random(random_state=seed).as_matrix()
            letters = Affine.from_parts((1, 1, 1), turn).orientation
            assert {frozenset("LR"), frozenset("PA"), frozenset("IS")} == {
                next(pair for pair in map(frozenset, ("LR", "PA", "IS")) if letter in pair)
                for letter in letters
            }

    def test_transformed_moves_points_in_patient_space(self):
        affine = Affine.from_parts((1, 2, 3), origin=(5, 6, 7))
        move = np.eye(4)
        move[:3, :3] = Rotation.from_euler("z", 90, degrees=True).as_matrix()
        move[:3, 3] = (1, 0, 0)
        np.testing.assert_allclose(affine.transformed(move).origin, (-6 + 1, 5, 7), atol=1e-12)


class TestGrid:
    @pytest.mark.parametrize("shape", [(1, 2), (0, 1, 1), (1.5, 2, 2), (-1, 2, 2)])
    def test_refuses_shapes_that_are_none(self, shape):
        with pytest.raises(ValueError, match="at least 1"):
            Grid(shape, Affine(np.eye(4)))

    def test_corner_is_kept_from_4_mm_to_1_mm(self):
        thick = grid((1, 1, 4))
        fine = thick.with_spacing(1)
        assert fine.shape == (20, 24, 40)
        np.testing.assert_allclose(fine.corner, thick.corner)
        np.testing.assert_allclose(fine.affine.origin - thick.affine.origin, (0, 0, -1.5))

    @given(AFFINES, st.tuples(*[st.floats(0.25, 6)] * 3))
    def test_with_spacing_covers_the_grid_and_less_than_a_voxel_more(self, affine, spacing):
        old = Grid(SHAPE, affine)
        new = old.with_spacing(spacing)
        np.testing.assert_allclose(new.corner, old.corner, atol=1e-9)
        np.testing.assert_allclose(new.spacing, spacing)
        excess = new.extent - old.extent
        assert (excess > -1.1e-3 * new.spacing).all()
        assert ((excess < new.spacing) | (np.array(new.shape) == 1)).all()

    @pytest.mark.parametrize("spacing", [0, -1, (1, np.nan, 1), (1, 1, np.inf)])
    def test_with_spacing_refuses(self, spacing):
        with pytest.raises(ValueError, match="positive"):
            grid().with_spacing(spacing)

    @given(AFFINES, st.tuples(*[st.integers(-5, 5)] * 3), st.tuples(*[st.integers(1, 9)] * 3))
    def test_crop_keeps_every_voxel_where_it_is(self, affine, start, size):
        whole = Grid(SHAPE, affine)
        part = whole.crop(start, np.add(start, size))
        assert part.shape == size
        inner = np.array([(0, 0, 0), np.subtract(size, 1)])
        there = whole.affine.apply(inner + start)
        np.testing.assert_allclose(part.affine.apply(inner), there, atol=1e-9)

    def test_crop_refuses_an_empty_region(self):
        with pytest.raises(ValueError, match="empty region"):
            grid().crop((0, 0, 4), (5, 5, 4))

    def test_pad_grows_every_side(self):
        padded = grid((1, 2, 3)).pad(2)
        assert padded.shape == (24, 28, 14)
        np.testing.assert_allclose(padded.affine.origin, (-2, -4, -6))
        assert padded.crop((2, 2, 2), (22, 26, 12)).same_as(grid((1, 2, 3)))

    def test_corners_extent_and_centre(self):
        box = grid((1, 2, 3), origin=(0.5, 1, 1.5))
        np.testing.assert_allclose(box.corner, 0)
        np.testing.assert_allclose(box.extent, (20, 48, 30))
        np.testing.assert_allclose(box.centre, (10, 24, 15))
        assert {tuple(c) for c in box.corners().round(9)} == {
            (x, y, z) for x in (0, 20) for y in (0, 48) for z in (0, 30)
        }
        assert box.voxels == 4800

    @given(AFFINES, AFFINES)
    def test_index_map(self, first, second):
        one, other = Grid(SHAPE, first), Grid(SHAPE, second)
        index = np.array((3.0, 4.0, 5.0, 1.0))
        there = other.affine.apply((one.index_map_to(other) @ index)[:3])
        np.testing.assert_allclose(there, first.apply(index[:3]), atol=1e-6)


class TestParallelAxes:
    @given(AFFINES, st.permutations(range(3)), st.tuples(*[st.sampled_from((-1, 1))] * 3))
    def test_permuted_and_flipped(self, affine, order, signs):
        direction = affine.direction[:, order] * signs
        other = grid((0.7, 1.3, 5), direction, (7, -3, 2))
        assert other.axes_in(Grid(SHAPE, affine)) == tuple(order)

    @given(AFFINES)
    def test_oblique_is_not_parallel(self, affine):
        turn = Rotation.from_euler("x", 1, degrees=True).as_matrix()
        other = grid(direction=turn @ affine.direction)
        assert other.axes_in(Grid(SHAPE, affine)) is None

    def test_rounding_of_a_float32_header_does_not_matter(self):
        direction = Rotation.from_euler("xyz", (3, -8, 12), degrees=True).as_matrix()
        exact = grid((0.9, 0.9, 4), direction, (-80, 90, 11))
        rounded = Grid(SHAPE, Affine(exact.affine.matrix.astype(np.float32)))
        assert rounded.axes_in(exact) == (0, 1, 2)

    @given(AFFINES)
    def test_sheared(self, affine):
        bent = Grid(SHAPE, sheared(affine))
        assert bent.axes_in(bent.crop((2, 2, 2), (8, 8, 8))) == (0, 1, 2)
        assert bent.axes_in(Grid(SHAPE, affine)) is None


class TestComparison:
    def test_overlap_values(self):
        whole = grid()
        assert whole.overlap(whole) == 1
        assert whole.overlap(grid(origin=(0, 0, 5))) == pytest.approx(0.5, abs=0.03)
        assert grid(origin=(10, 12, 0)).overlap(whole) == pytest.approx(0.25, abs=0.03)
        assert whole.overlap(grid(origin=(100, 0, 0))) == 0
        assert whole.crop((5, 5, 5), (8, 8, 8)).overlap(whole) == 1

    @given(AFFINES)
    def test_a_shift_of_a_tenth_of_a_millimetre_is_caught(self, affine):
        moved = np.eye(4)
        moved[0, 3] = 0.1
        here = Grid(SHAPE, affine)
        assert not here.same_as(Grid(SHAPE, affine.transformed(moved)))
        assert here.same_as(Grid(SHAPE, affine.transformed(moved)), tolerance=0.11)
        moved[0, 3] = 1e-4
        assert here.same_as(Grid(SHAPE, affine.transformed(moved)))

    def test_another_size_is_another_grid(self):
        assert not grid().same_as(grid(shape=(20, 24, 11)))
