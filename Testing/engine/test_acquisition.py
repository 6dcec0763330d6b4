"""The acquisition model: exact transposes, kept mass, places to 0.01 mm, and the projection."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from nexusinr.acquisition import (
    ObliqueAcquisition,
    Profile,
    SeparableAcquisition,
    acquisition_between,
    block_average,
    degrade,
    profile_matrix,
    project,
)
from nexusinr.geometry import Affine, Grid
from nexusinr.volume import Volume

AFFINES = st.from_type(Affine)
PROFILES = st.sampled_from(("gaussian", "box"))
BOTH = pytest.mark.parametrize("profile", ["gaussian", "box"])
TURN = Rotation.from_euler("xyz", (8, -15, 20), degrees=True).as_matrix()


@dataclass(frozen=True)
class Case:
    """A scan's lattice within that of a fine image, and how thick its slices are."""

    scan: Grid
    target: Grid
    thickness: np.ndarray
    profile: Profile

    def model(self) -> SeparableAcquisition | ObliqueAcquisition:
        return acquisition_between(self.scan, self.target, self.thickness, self.profile)


def case(
    affine: Affine,
    order: tuple[int, ...] = (0, 1, 2),
    signs: tuple[int, ...] = (1, 1, 1),
    ratios: tuple[float, ...] = (1, 1, 3),
    thick: float = 1.0,
    shift: tuple[float, ...] = (0, 0, 0),
    profile: Profile = "gaussian",
    turn: np.ndarray | None = None,
    shape: tuple[int, int, int] = (9, 8, 10),
) -> Case:
    """A scan whose axes are the target's, reordered, flipped and turned.

    Ratios are the scan's voxel sizes in target voxels, the third the distance between slices;
    thick is slice thickness over that distance; the shift is in target voxels.
    """
    target = Grid(shape, affine)
    spacing = affine.spacing[list(order)] * ratios
    sizes = np.maximum(np.floor(target.extent[list(order)] / spacing + 1e-6), 1).astype(int)
    direction = affine.direction[:, list(order)] * signs
    if turn is not None:
        direction = turn @ direction
    centre = affine.apply((np.array(shape) - 1) / 2 + shift)
    origin = centre - direction @ (spacing * (sizes - 1) / 2)
    scan = Grid(tuple(sizes.tolist()), Affine.from_parts(spacing, direction, origin))
    return Case(scan, target, spacing * (1, 1, thick), profile)


@st.composite
def separable(draw: st.DrawFn, blocks: bool = True) -> Case:
    """With blocks, some profiles are boxes that may end within a target voxel."""
    in_plane = draw(st.sampled_from((1.0, 1.0, 1.3))) if blocks else 1.0
    return case(
        draw(AFFINES),
        tuple(draw(st.permutations(range(3)))),
        tuple(draw(st.sampled_from((-1, 1))) for _ in range(3)),
        (in_plane, in_plane, draw(st.sampled_from((1.0, 2.0, 2.7, 4.0)))),
        draw(st.sampled_from((0.7, 1.0, 1.2))),
        tuple(draw(st.floats(-0.5, 0.5)) for _ in range(3)),
        draw(PROFILES) if blocks else "gaussian",
    )


@st.composite
def oblique(draw: st.DrawFn) -> Case:
    turn = Rotation.from_rotvec([draw(st.floats(0.02, 0.4)) for _ in range(3)]).as_matrix()
    spacing = [draw(st.floats(0.8, 1.2)) for _ in range(3)]
    affine = Affine.from_parts(spacing, origin=(draw(st.floats(-90, 90)), 20, -30))
    made = case(affine, (2, 0, 1), (1, -1, 1), (1, 1, 2), profile=draw(PROFILES), turn=turn)
    return Case(made.scan, made.target.pad(4), made.thickness, made.profile)


def noise(shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape))


def places(grid: Grid) -> np.ndarray:
    """Patient coordinates of every voxel centre, (i, j, k, 3)."""
    return grid.affine.apply(np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), -1))


def blob(grid: Grid, centre: np.ndarray, sigma: float) -> torch.Tensor:
    return torch.from_numpy(np.exp(-0.5 * ((places(grid) - centre) ** 2).sum(-1) / sigma**2))


def centre_of_mass(image: torch.Tensor, grid: Grid) -> np.ndarray:
    weights = image.numpy()[..., None]
    return (places(grid) * weights).sum((0, 1, 2)) / weights.sum()


def moved(grid: Grid, offset: tuple[float, float, float]) -> Grid:
    matrix = np.eye(4)
    matrix[:3, 3] = offset
    return Grid(grid.shape, grid.affine.transformed(matrix))


class TestTranspose:
    @given(separable())
    def test_of_parallel_lattices(self, made):
        model = made.model()
        assert isinstance(model, SeparableAcquisition)
        self.check(model)

    @settings(max_examples=10)
    @given(oblique())
    def test_of_lattices_at_an_angle(self, made):
        model = made.model()
        assert isinstance(model, ObliqueAcquisition)
        assert model.measured.any()
        self.check(model)

    @staticmethod
    def check(model):
        x, y = noise((2, *model.target.shape)), noise((2, *model.scan.shape), 1)
        there, back = model.forward(x), model.adjoint(y)
        assert (there.shape, back.shape) == (y.shape, x.shape)
        assert (there * y).sum().item() == pytest.approx((x * back).sum().item(), abs=1e-9)


class TestMass:
    @given(st.one_of(separable(), oblique()))
    def test_constants_stay_where_measured(self, made):
        model = made.model()
        seven = model.forward(torch.full(made.target.shape, 7.0, dtype=torch.float64))
        kept = torch.from_numpy(model.measured)
        np.testing.assert_allclose(seven[kept], 7, rtol=1e-3)
        assert (seven[~kept] == 0).all()

    @given(st.integers(6, 12), st.data())
    def test_slices_that_touch_share_out_everything(self, size, data):
        slices = data.draw(st.integers(1, size))
        target = Grid((4, size, 3), data.draw(AFFINES))
        spacing = target.spacing * (1, size / slices, 1)
        scan = Grid.from_corner((4, slices, 3), spacing, target.affine.direction, target.corner)
        x = noise(target.shape)
        y = SeparableAcquisition(scan, target, spacing, "box").forward(x)
        assert y.sum().item() * size / slices == pytest.approx(x.sum().item(), abs=1e-9)

    def test_a_slice_beyond_the_image_is_not_measured(self):
        made = case(Affine(np.eye(4)), ratios=(1, 1, 2), profile="box")
        grown = made.scan.pad(2)
        model = SeparableAcquisition(grown, made.target, made.thickness, "box")
        expected = np.zeros(grown.shape, bool)
        expected[2:-2, 2:-2, 2:-2] = True
        assert (model.measured == expected).all()


class TestPlaces:
    """Half a voxel is the classic error; these see a hundredth of a millimetre."""

    CASES = pytest.mark.parametrize(
        "options",
        [
            {"ratios": (1, 1, 3)},
            {"order": (2, 0, 1), "signs": (-1, 1, -1), "ratios": (1, 1.3, 2.7)},
            {"thick": 0.7, "shift": (0.3, -0.2, 0.4)},
            {"turn": TURN},
        ],
        ids=["plain", "permuted", "gap", "oblique"],
    )
    OFFSETS = pytest.mark.parametrize("offset", [(0.1, 0, 0), (0, 0.1, 0), (0, 0, 0.1)])

    @staticmethod
    def set_up(options, profile):
        affine = Affine.from_parts((1, 0.9, 1.1), TURN.T, (30, -60, 12))
        made = case(affine, profile=profile, shape=(30, 32, 28), **options)
        target = made.target.pad(6)
        point = target.centre + np.array((0.6, -0.7, 0.4))
        return Case(made.scan, target, made.thickness, profile), point

    @BOTH
    @CASES
    def test_a_blob_stays_where_it_is(self, options, profile):
        made, point = self.set_up(options, profile)
        y = made.model().forward(blob(made.target, point, 2.2))
        assert np.abs(centre_of_mass(y, made.scan) - point).max() < 0.01

    @BOTH
    @CASES
    @OFFSETS
    def test_a_tenth_of_a_millimetre_in_the_header_is_seen(self, options, profile, offset):
        made, point = self.set_up(options, profile)
        x = blob(made.target, point, 2.2)
        elsewhere = Case(moved(made.scan, offset), made.target, made.thickness, profile).model()
        y = elsewhere.forward(x)
        error = centre_of_mass(y, made.scan) - point
        assert np.abs(error + offset).max() < 0.01
        right = project(x, y, elsewhere, weight=0)[1].before
        wrong = project(x, y, made.model(), weight=0)[1].before
        assert right < 1e-9
        assert wrong > 0.01 * y.square().mean().sqrt()

    @given(separable(blocks=False))
    def test_a_ramp_reads_the_place_of_every_voxel(self, made):
        assert self.ramp_error(made) < 1e-4

    @given(separable())
    def test_a_box_that_ends_within_a_voxel_moves_by_a_twelfth_at_most(self, made):
        assert self.ramp_error(made) < 1 / 12 + 1e-4

    @staticmethod
    def ramp_error(made):
        target = made.target.pad(12)
        model = SeparableAcquisition(made.scan, target, made.thickness, made.profile)
        ramps = torch.from_numpy(np.moveaxis(places(target), -1, 0).copy())
        seen = np.moveaxis(model.forward(ramps).numpy(), 0, -1)
        error = target.affine.to_index(seen) - target.affine.to_index(places(made.scan))
        return np.abs(error).max()


class TestProfiles:
    @pytest.mark.parametrize("thickness", [2, 3, 4.5, 8])
    def test_gaussian_has_the_width_asked_for(self, thickness):
        centres = np.linspace(30, 50, 2001)
        weights, coverage = profile_matrix(centres, 81, thickness, "gaussian")
        assert coverage == pytest.approx(1, abs=1e-4)
        seen = weights[:, 40]
        above = centres[seen > seen.max() / 2]
        assert above[-1] - above[0] == pytest.approx(thickness, abs=0.05)
        assert (above[-1] + above[0]) / 2 == pytest.approx(40, abs=0.01)

    def test_box_by_hand(self):
        weights, coverage = profile_matrix(np.array([1.5, 2.0, 0.0]), 5, 3, "box")
        np.testing.assert_allclose(weights[0], np.array([0.5, 1, 1, 0.5, 0]) / 3)
        np.testing.assert_allclose(weights[1], np.array([0, 1, 1, 1, 0]) / 3)
        np.testing.assert_allclose(weights[2], 0)  # a third of it lies outside
        np.testing.assert_allclose(coverage, (1, 1, 2 / 3))

    @BOTH
    @pytest.mark.parametrize("thickness", [1.0, 0.5])
    def test_no_thicker_than_a_target_voxel_is_interpolation(self, profile, thickness):
        weights, _ = profile_matrix(np.array([1.0, 1.25]), 4, thickness, profile)
        np.testing.assert_allclose(weights, [[0, 1, 0, 0], [0, 0.75, 0.25, 0]], atol=1e-12)

    def test_the_slice_profile_belongs_to_the_axis_that_is_degraded(self):
        data = np.random.default_rng(0).random((12, 5, 6), np.float32)
        cube = Volume(data, Affine(np.eye(4)))
        slab = Volume(data, Affine.from_parts((1, 1, 4)))  # its own slices are thicker yet
        np.testing.assert_allclose(degrade(slab, 0, 3).data, degrade(cube, 0, 3).data, atol=1e-6)

    @given(AFFINES, st.permutations(range(3)), st.tuples(*[st.sampled_from((-1, 1))] * 3), PROFILES)
    def test_on_its_own_lattice_it_is_the_identity(self, affine, order, signs, profile):
        made = case(affine, tuple(order), signs, ratios=(1, 1, 1), profile=profile)
        model, x = made.model(), noise(made.target.shape)
        flips = [axis for axis in range(3) if signs[axis] < 0]
        expected = x.permute(*order).flip(flips)
        np.testing.assert_allclose(model.forward(x), expected, atol=1e-6)
        np.testing.assert_allclose(model.pseudo_inverse(expected), x, atol=1e-6)


class TestProjection:
    @given(separable())
    def test_twice_is_once(self, made):
        model = made.model()
        y = model.forward(noise(made.target.shape, 2))
        once, first = project(noise(made.target.shape), y, model)
        twice, second = project(once, y, model)
        np.testing.assert_allclose(twice, once, atol=1e-8)
        assert second.before == pytest.approx(first.after)

    @BOTH
    @pytest.mark.parametrize("ratio", [1.5, 2, 3.7])
    def test_reproduces_the_scan(self, ratio, profile):
        made = case(Affine(np.eye(4)), ratios=(1, 1, ratio), profile=profile, shape=(6, 7, 16))
        model = made.model()
        truth, start = noise(made.target.shape, 3), noise(made.target.shape)
        restored, seen = project(start, model.forward(truth), model)
        assert seen.before > 0.1
        assert seen.after < 1e-9
        # The projection is the shortest way there: it never moves away from the truth.
        assert (restored - truth).norm() < (start - truth).norm()

    @pytest.mark.parametrize("weight", [0, 0.5, 1])
    def test_weight_is_the_share_of_the_residual_taken_away(self, weight):
        made = case(Affine(np.eye(4)), ratios=(1, 1, 2.5), profile="box")
        model = made.model()
        start, y = noise(made.target.shape), noise(made.scan.shape, 1)
        whole, _ = project(start, y, model)
        part, seen = project(start, y, model, weight)
        assert seen.after == pytest.approx((1 - weight) * seen.before, abs=1e-9)
        np.testing.assert_allclose(part, start + weight * (whole - start), atol=1e-12)

    @settings(max_examples=10)
    @given(oblique())
    def test_oblique_residual_falls_below_a_hundredth(self, made):
        model = made.model()
        y = model.forward(noise(made.target.shape, 2)).float()
        _, seen = project(noise(made.target.shape).float(), y, model)
        assert seen.before > 0.05
        assert seen.after < 0.01 * seen.before

    @pytest.mark.parametrize("ratio", [1.3, 0.7, 0.4])
    @BOTH
    def test_more_voxels_than_there_are_unknowns_do_no_harm(self, ratio, profile):
        """Oblique, in-plane voxels finer than the target's: it cannot be reproduced."""
        made = case(
            Affine.from_parts((1.5, 1.5, 1.5)),
            ratios=(ratio, ratio, 2.2),
            profile=profile,
            turn=TURN,
            shape=(14, 14, 14),
        )
        y = noise(made.scan.shape) + 1
        x, residual = project(torch.zeros(made.target.shape), y, made.model())
        assert residual.after < residual.before
        assert x.abs().max() < 20 * y.abs().max()

    def test_unmeasured_slices_change_nothing(self):
        made = case(Affine(np.eye(4)), ratios=(1, 1, 2), profile="box")
        model = SeparableAcquisition(made.scan.pad(3), made.target, made.thickness, "box")
        x, y = noise(made.target.shape), noise(model.scan.shape, 1)
        changed = torch.where(torch.from_numpy(model.measured), y, y + 100)
        np.testing.assert_array_equal(project(x, y, model)[0], project(x, changed, model)[0])

    @pytest.mark.parametrize("turn", [None, TURN], ids=["parallel", "oblique"])
    def test_works_without_autograd(self, turn):
        made = case(Affine(np.eye(4)), ratios=(1, 1, 2), turn=turn)
        model = acquisition_between(made.scan, made.target.pad(4), made.thickness)
        x, y = noise(model.target.shape), noise(model.scan.shape, 1)
        expected = project(x, y, model)[0]
        for quiet in (torch.no_grad, torch.inference_mode):
            with quiet():
                np.testing.assert_array_equal(project(x + 0, y + 0, model)[0], expected)

    @BOTH
    @pytest.mark.parametrize("turn", [None, TURN], ids=["parallel", "oblique"])
    def test_forward_is_differentiable(self, turn, profile):
        small = case(Affine(np.eye(4)), ratios=(1, 1, 2), turn=turn, shape=(3, 3, 4))
        model = acquisition_between(small.scan, small.target.pad(2), small.thickness, profile)
        x = noise(model.target.shape).requires_grad_()
        assert torch.autograd.gradcheck(model.forward, x, fast_mode=True)
        (gradient,) = torch.autograd.grad(model.forward(x).square().sum() / 2, x)
        np.testing.assert_allclose(gradient, model.adjoint(model.forward(x.detach())), atol=1e-12)


class TestDegrade:
    @given(AFFINES, st.integers(0, 2), st.floats(1, 4), st.floats(0, 2), PROFILES)
    def test_first_slice_begins_at_the_corner(self, affine, axis, ratio, gap_ratio, profile):
        fine = Volume(np.zeros((9, 10, 11), np.float32), affine)
        size = affine.spacing[axis]
        thickness, gap = ratio * size, gap_ratio * size
        low = degrade(fine, axis, thickness, gap, profile)
        assert low.thickness[axis] == pytest.approx(thickness)
        assert low.affine.spacing[axis] == pytest.approx(thickness + gap)
        np.testing.assert_allclose(low.affine.direction, affine.direction, atol=1e-9)
        face = [0.0, 0.0, 0.0]
        face[axis] = -thickness / (thickness + gap) / 2
        begin = [-0.5 if a == axis else 0.0 for a in range(3)]
        np.testing.assert_allclose(low.affine.apply(face), affine.apply(begin), atol=1e-9)
        rest = fine.grid.extent[axis] - low.data.shape[axis] * (thickness + gap) + gap
        assert -2e-3 * (thickness + gap) <= rest < thickness + gap
        others = [a for a in range(3) if a != axis]
        assert [low.data.shape[a] for a in others] == [fine.data.shape[a] for a in others]

    @given(AFFINES, st.integers(0, 2), st.integers(1, 3), st.integers(0, 2))
    def test_box_slices_of_a_ramp_read_their_own_places(self, affine, axis, ratio, gap):
        spacing = affine.spacing[axis]
        for patient_axis in range(3):
            ramp = places(Grid((6, 7, 8), affine))[..., patient_axis]
            low = degrade(Volume(ramp, affine), axis, ratio * spacing, gap * spacing, "box")
            expected = places(low.grid)[..., patient_axis]
            np.testing.assert_allclose(low.data, expected, atol=2e-4)

    @given(AFFINES, st.integers(0, 2), st.integers(1, 5))
    def test_box_equals_block_average(self, affine, axis, factor):
        volume = Volume(np.random.default_rng(0).random((7, 8, 9), np.float32), affine)
        blocks = block_average(volume, axis, factor)
        slices = degrade(volume, axis, factor * affine.spacing[axis], profile="box")
        np.testing.assert_allclose(blocks.data, slices.data, atol=1e-6)
        assert blocks.grid.same_as(slices.grid, 1e-6)
        assert blocks.thickness == pytest.approx(slices.thickness)
        np.testing.assert_allclose(blocks.grid.corner, volume.grid.corner, atol=1e-9)

    def test_block_average_by_hand(self):
        data = np.arange(5, dtype=np.float32)[None, :, None] * np.ones((2, 1, 3), np.float32)
        low = block_average(Volume(data, Affine.from_parts((1, 0.8, 1), origin=(0, 0.4, 0))), 1, 2)
        np.testing.assert_array_equal(low.data[0, :, 0], (0.5, 2.5))  # the fifth voxel is left out
        np.testing.assert_allclose(low.affine.origin, (0, 0.8, 0))
        np.testing.assert_allclose(low.affine.spacing, (1, 1.6, 1))

    def test_gap_by_hand(self):
        data = np.zeros((1, 1, 8), np.float32)
        data[0, 0] = np.arange(8)
        low = degrade(Volume(data, Affine(np.eye(4))), 2, 2, gap=1, profile="box")
        np.testing.assert_allclose(low.data[0, 0], (0.5, 3.5, 6.5))
        np.testing.assert_allclose(low.affine.origin, (0, 0, 0.5))

    @BOTH
    def test_nothing_is_changed_by_slices_of_one_voxel(self, oblique_volume, profile):
        for axis in range(3):
            same = degrade(oblique_volume, axis, oblique_volume.affine.spacing[axis], 0, profile)
            np.testing.assert_allclose(same.data, oblique_volume.data, rtol=1e-5)
            assert same.grid.same_as(oblique_volume.grid, 1e-9)


CUBE = Volume(np.random.default_rng(0).random((6, 6, 6), np.float32), Affine(np.eye(4)))


class TestRefusals:
    @pytest.mark.parametrize(
        ("values", "words"),
        [
            ({"axis": 3}, "axis"),
            ({"axis": -1}, "axis"),
            ({"thickness": 0.5}, "cannot be made"),
            ({"thickness": 0}, "cannot be made"),
            ({"thickness": float("nan")}, "cannot be made"),
            ({"thickness": float("inf")}, "cannot be made"),
            ({"thickness": 7}, "no slice"),
            ({"thickness": 6}, "too little"),  # a Gaussian reaches beyond a single slice
            ({"gap": -1}, "gap"),
            ({"gap": float("nan")}, "gap"),
            ({"profile": "triangle"}, "profile"),
        ],
    )
    def test_degrade(self, values, words):
        with pytest.raises(ValueError, match=words):
            degrade(CUBE, **{"axis": 0, "thickness": 2, **values})

    @pytest.mark.parametrize(("axis", "factor"), [(0, 0), (0, -2), (0, 7), (3, 2), (-1, 2)])
    def test_block_average(self, axis, factor):
        with pytest.raises(ValueError, match=str(axis if axis not in range(3) else factor)):
            block_average(CUBE, axis, factor)

    @pytest.mark.parametrize("weight", [-0.1, 1.1, float("nan")])
    def test_project(self, weight):
        x = torch.zeros(6, 6, 6)
        model = acquisition_between(CUBE.grid, CUBE.grid, np.ones(3))
        with pytest.raises(ValueError, match="between 0 and 1"):
            project(x, x, model, weight)

    def test_separable_acquisition_of_lattices_at_an_angle(self):
        made = case(Affine(np.eye(4)), turn=TURN)
        with pytest.raises(ValueError, match="not parallel"):
            SeparableAcquisition(made.scan, made.target, made.thickness)
