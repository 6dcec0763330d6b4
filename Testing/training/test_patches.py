"""Patches: scans and truths that belong together in space, for every kind of subject."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates
from torch import Tensor

from nexusinr.acquisition import block_average
from nexusinr.geometry import Affine, Grid
from nexusinr.labels import CSF, GREY, WHITE
from nexusinr.models.nexus_inr import T1W, T2W
from nexusinr.training.crops import crop
from nexusinr.training.dataset import LabelMap, Subject, TrainingData
from nexusinr.training.losses import UNKNOWN
from nexusinr.training.patches import Example, PatchSource, Side
from nexusinr.training.protocols import BRATS, Protocol, draw_protocol, slice_axis_last, turns
from nexusinr.volume import Volume

SHAPE = (44, 40, 42)
SIZE = 12
TURN = np.array([[0, -1, 0], [-1, 0, 0], [0, 0, 1.0]])
AFFINE = Affine.from_parts((0.9, 0.9, 0.9), TURN, (20, -30, 5))
FLIPS = [flip for n in range(4) for flip in itertools.combinations(range(3), n)]
FINE = Protocol(axes=(2, 1), steps=(1, 1), thickness=(1, 1))


def wave(points: np.ndarray) -> np.ndarray:
    """An image that is known everywhere in patient space; it fades out before the scan ends."""
    x, y, z = np.moveaxis(points - Grid(SHAPE, AFFINE).centre, -1, 0)
    ripples = np.sin(x / 9 + y / 30) + np.cos(y / 9 - z / 20) + np.sin(z / 9 + x / 40)
    return (0.6 + 0.15 * ripples) * np.exp(-(x**2 + y**2 + z**2) / 50)


def places(grid: Grid) -> np.ndarray:
    return grid.affine.apply(np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), -1))


def read(image: Tensor, index: np.ndarray, order: int = 1) -> np.ndarray:
    """The image at indices (..., 3), by splines."""
    return map_coordinates(image.numpy(), np.moveaxis(index, -1, 0), order=order)


def subject(shift: tuple[float, float, float] = (0, 0, 0), **changes: object) -> Subject:
    """The wave, seen by both scans; the T2w lattice moved in patient space by some mm."""
    matrix = np.eye(4)
    matrix[:3, 3] = shift
    grids = (Grid(SHAPE, AFFINE), Grid(SHAPE, AFFINE.transformed(matrix)))
    images = tuple(torch.from_numpy(wave(places(grid)).astype(np.float16)) for grid in grids)
    made = Subject("subject", images, grids, None, (0, 1, 2))
    return dataclasses.replace(made, **changes)


def source(*subjects: Subject, seed: int = 0, size: int = SIZE, **options: object) -> PatchSource:
    data = TrainingData(list(subjects), [])
    return PatchSource(data, size, seed, **{"context": 0, **options})


def example_of(seed: int, protocol: Protocol, made: Subject, size: int = SIZE) -> Example:
    return source(made, seed=seed, size=size).from_subject(made, protocol, remap=0)


def both(example: Example) -> tuple[Side, Side]:
    first, second = example.sides
    assert first is not None
    assert second is not None
    return first, second


def labels() -> LabelMap:
    steps = np.stack(np.meshgrid(*[np.arange(40)] * 3, indexing="ij"))
    radius = np.sqrt(((steps - 19.5) ** 2).sum(0))
    ids = np.select([radius < 10, radius < 14, radius < 16, radius < 18], [1, 2, 3, 30], 0)
    tissue_of = np.zeros(36, np.uint8)
    tissue_of[1:4] = WHITE, GREY, CSF
    return LabelMap("ball", torch.from_numpy(ids.astype(np.uint8)), torch.from_numpy(tissue_of))


class TestCrop:
    IMAGE = torch.arange(1.0, 61).reshape(3, 4, 5)

    @given(st.tuples(*[st.integers(-9, 9)] * 3), st.integers(1, 8))
    def test_is_the_image_inside_and_zero_beyond(self, start, width):
        found = crop(self.IMAGE, np.array(start), width)
        assert found.shape == (width,) * 3
        padded = torch.nn.functional.pad(self.IMAGE, (20,) * 6)
        i, j, k = (n + 20 for n in start)
        assert torch.equal(found, padded[i : i + width, j : j + width, k : k + width])

    def test_keeps_the_type_and_the_image(self):
        image = torch.ones(3, 3, 3, dtype=torch.uint8)
        found = crop(image, np.array((0, 0, 0)), 2)
        found += 1
        assert found.dtype == torch.uint8
        assert (image == 1).all()


class TestPlaces:
    """Scan and truth show the same thing at the same place of the patch's patient space."""

    @staticmethod
    def displacement(first: Side, second: Side) -> np.ndarray:
        """How far, in voxels, the second truth's image lies from where the first truth has it."""
        index = first.truth_grids[0].affine.to_index(places(second.truth_grids[0]))
        inside = ((index > 3) & (index < SIZE - 4)).all(-1)
        difference = read(first.truth[0], index, order=3) - second.truth[0].numpy()
        slopes = [read(torch.from_numpy(s), index) for s in np.gradient(first.truth[0].numpy())]
        design = np.stack([slope[inside] for slope in slopes], axis=-1)
        return np.linalg.lstsq(design, difference[inside], rcond=None)[0]

    @pytest.mark.parametrize("seed", range(4))
    @pytest.mark.parametrize(
        "shift", [(0, 0, 0), (0.3, 0, 0), (0, -0.4, 0.2), (1.1, 0.7, -2.5)], ids=str
    )
    def test_a_moved_t2w_lattice_is_where_its_header_says(self, shift, seed):
        first, second = both(example_of(seed, FINE, subject(shift)))
        assert np.abs(self.displacement(first, second)).max() < 0.02
        offset = second.truth_grids[0].affine.origin - first.truth_grids[0].affine.origin
        assert np.abs(offset).max() <= 0.5 + 1e-6
        ignored = dataclasses.replace(second, truth_grids=first.truth_grids)
        np.testing.assert_allclose(self.displacement(first, ignored), -offset, atol=0.1)

    def test_sub_voxel_offset_by_hand(self):
        """0.27 mm along patient x are 0.3 voxels against array axis 1, which runs towards -x."""
        for seed in range(8):
            first, second = both(example_of(seed, FINE, subject((0.27, 0, 0))))
            offset = second.truth_grids[0].affine.origin - first.truth_grids[0].affine.origin
            np.testing.assert_allclose(np.abs(offset), (0, 0.3, 0), atol=1e-6)

    @pytest.mark.parametrize("seed", range(4))
    def test_a_scan_is_its_truth_seen_through_the_protocol(self, seed):
        """Blocks of 2 along k and of 4 along j, averaged without our own acquisition model."""
        for modality, side in enumerate(both(example_of(seed, BRATS, subject((0.3, 0.2, 0))))):
            axis, factor = ((2, 2), (1, 4))[modality]
            truth = Volume(side.truth[0].numpy(), side.truth_grids[0].affine)
            low = block_average(truth, axis, factor)
            order = slice_axis_last(axis)
            np.testing.assert_allclose(side.scan[0, 0], low.data.transpose(order), atol=1e-5)
            assert side.grids[0].same_as(low.grid.permuted(order), 1e-9)
            assert side.scan.shape[2:] == side.grids[0].shape

    @pytest.mark.parametrize("seed", range(4))
    def test_any_protocol_keeps_places(self, seed):
        """A smooth image looks the same, wherever and however it is scanned: to 0.1 voxels."""
        protocol = Protocol((0, 2), (2.3, 1.7), (2, 1.5), (1.2, 1), profile="gaussian")
        for side in both(example_of(seed, protocol, subject())):
            index = side.truth_grids[0].affine.to_index(places(side.grids[0]))
            inside = ((index >= 0) & (index <= SIZE - 1)).all(-1)
            low = side.scan[0, 0].numpy()
            expected = read(side.truth[0], index)
            slope = np.abs(np.gradient(side.truth[0].numpy())).max()
            assert np.abs(low - expected)[inside].max() < 0.35 * slope
            assert abs((low - expected)[inside].mean()) < 0.05 * slope

    def test_misalignment_moves_the_header_and_not_the_image(self):
        moved = dataclasses.replace(BRATS, misalignment=(0.4, -0.3, 0.2))
        plain, wrong = (both(example_of(5, p, subject())) for p in (BRATS, moved))
        for modality in (T1W, T2W):
            assert torch.equal(plain[modality].scan, wrong[modality].scan)
            shift = np.array((0.4, -0.3, 0.2)) * modality
            for name in ("grids", "truth_grids"):
                here, there = (getattr(s[modality], name)[0].affine for s in (plain, wrong))
                np.testing.assert_allclose(there.matrix[:3, :3], here.matrix[:3, :3])
                np.testing.assert_allclose(there.origin - here.origin, shift, atol=1e-9)

    def test_the_tissues_go_with_the_truth(self):
        made = subject()
        image = made.images[0]
        assert image is not None
        tissues = (image > 0.5).byte()
        for seed in range(4):
            made = dataclasses.replace(made, tissues=tissues)
            for side in both(example_of(seed, BRATS, made)):
                assert torch.equal(side.tissues, (side.truth > 0.5).byte())

    def test_without_labels_no_tissue_is_known(self):
        for side in both(example_of(0, BRATS, subject())):
            assert (side.tissues == UNKNOWN).all()

    def test_conditions_tell_spacing_and_thickness_slice_axis_last(self):
        protocol = Protocol((0, 2), (3, 2), (2.4, 2), (1.0, 1.5), profile="gaussian")
        for side, step, thick, plane in zip(
            both(example_of(0, protocol, subject())), (3, 2), (2.4, 2), (1.0, 1.5), strict=True
        ):
            spacing = side.conditions[0, :3].exp().numpy()
            assert 0.8 <= spacing[0] / plane <= 1.1  # a fine voxel is some 0.8 to 1.1 mm
            np.testing.assert_allclose(spacing / spacing[0], (1, 1, step / plane), rtol=1e-5)
            ratio = side.conditions[0, 3:].exp().numpy()
            np.testing.assert_allclose(ratio, (1, 1, thick / step), rtol=1e-5)

    def test_the_target_is_grown_by_a_voxel_for_the_attention(self):
        side, _ = both(example_of(0, BRATS, subject()))
        lattice_map = side.map_to(side.truth_grids)
        assert lattice_map.target_shape == (SIZE + 2,) * 3
        assert lattice_map.scans == side.grids


class TestProtocols:
    def draw(self, sharp: tuple[int, ...], brats_share: float, count: int = 300) -> list[Protocol]:
        rng = np.random.default_rng(0)
        return [draw_protocol(rng, sharp, brats_share) for _ in range(count)]

    def test_brats_is_the_evaluations_own(self):
        for protocol in self.draw((0, 1, 2), 1.0):
            assert (protocol.steps, protocol.thickness) == ((2, 4), (2, 4))
            assert protocol.axes[0] != protocol.axes[1]
            assert (protocol.in_plane, protocol.noise, protocol.profile) == ((1, 1), 0, "box")

    def test_any_others_lie_within_what_is_trained(self):
        for protocol in self.draw((0, 1, 2), 0.0):
            for step, thick, plane in zip(
                protocol.steps, protocol.thickness, protocol.in_plane, strict=True
            ):
                assert 1 <= step <= 6
                assert max(0.7 * step, 1) - 1e-9 <= thick <= max(step, 1)
                assert 1 <= plane <= min(1.5, step)

    def test_thick_slices_keep_their_voxels_along_the_blurred_axis(self):
        assert all(p.in_plane == (1, 1) for p in self.draw((0, 1), 0.0))

    @pytest.mark.parametrize("brats_share", [0.0, 1.0])
    def test_slices_never_lie_across_an_axis_that_is_blurred_already(self, brats_share):
        drawn = self.draw((0, 1), brats_share)
        assert {axis for protocol in drawn for axis in protocol.axes} == {0, 1}
        assert {axis for p in self.draw((2,), brats_share) for axis in p.axes} == {2}

    def test_each_scan_is_missing_now_and_then_but_never_both(self):
        present = [p.present for p in self.draw((0, 1, 2), 0.0)]
        assert set(present) == {(True, True), (True, False), (False, True)}
        assert 0.7 < np.mean([all(p) for p in present]) < 0.9
        present = [p.present for p in self.draw((0, 1, 2), 1.0)]
        assert 0.9 < np.mean([all(p) for p in present]) < 1
        assert all(t2w for _, t2w in present)


class TestBatches:
    def test_what_is_drawn_shares_its_shapes(self):
        made = source(subject(), subject((0.3, 0, 0), sharp=(0, 1)), brats_share=0.3)
        for _ in range(10):
            for side in made.draw(3).sides:
                if side is not None:
                    assert side.scan.shape[0] == side.truth.shape[0] == len(side.grids) == 3
                    assert side.conditions.shape == (3, 6)
                    assert side.map_to(side.truth_grids).is_separable

    def test_a_batch_is_its_examples_side_by_side(self):
        """Every patch is cut, scanned and described as it would be alone."""
        people = [subject((0.3, 0.1 * n, 0)) for n in range(3)]
        made = source(*people)
        cuts = [made.cut_turned(person, (0, 1, 2), remap=0) for person in people]
        whole = both(made.acquired(made.fine(cuts), BRATS))
        for n, cut in enumerate(cuts):
            alone = both(made.acquired(made.fine([cut]), BRATS))
            for one, side in zip(whole, alone, strict=True):
                for name in ("scan", "conditions", "truth", "tissues"):
                    assert torch.equal(getattr(one, name)[n : n + 1], getattr(side, name)), name
                assert one.grids[n].same_as(side.grids[0], 1e-9)
                assert one.truth_grids[n].same_as(side.truth_grids[0], 1e-9)

    def test_each_of_a_batch_has_a_contrast_and_noise_of_its_own(self):
        person = subject()
        made = source(person)
        cut = dataclasses.replace(made.cut_turned(person, (0, 1, 2), 0), remap=True)
        side, _ = both(made.acquired(made.fine([cut] * 2), dataclasses.replace(FINE, noise=0.1)))
        assert not torch.allclose(side.truth[0], side.truth[1], atol=0.01)
        noise = side.scan[:, 0].permute(0, 1, 2, 3) - side.truth
        assert not torch.allclose(noise[0], noise[1], atol=0.01)

    def test_all_of_a_batch_have_the_same_scans(self):
        whole = subject()
        single = subject(images=(whole.images[0], None), grids=(whole.grids[0], None))
        made = source(whole, single, brats_share=1.0)
        found = {tuple(side is not None for side in made.draw(2).sides) for _ in range(20)}
        assert {(True, True), (True, False)} <= found

    @given(st.permutations(range(3)), st.integers(0, 5))
    def test_a_turned_patch_is_the_same_patch_turned(self, way, seed):
        made, turn = subject((0.3, 0.2, -0.1)), tuple(way)
        plain = both(source(seed=seed).from_subject(made, FINE, 0))
        turned = both(source(seed=seed).from_subject(made, FINE, 0, turn))
        offsets = [s[1].truth_grids[0].affine.origin - s[0].truth_grids[0].affine.origin
                   for s in (plain, turned)]  # fmt: skip
        np.testing.assert_allclose(np.abs(offsets[1]), np.abs(offsets[0][way]), atol=1e-9)
        for one, other in zip(plain, turned, strict=True):
            ways = [one.truth[0].permute(turn).flip(axes) for axes in FLIPS]
            assert any(torch.equal(way, other.truth[0]) for way in ways)

    @pytest.mark.parametrize("sharp", [(0, 1), (0, 2), (1, 2)])
    def test_a_turn_puts_slices_across_sharp_axes(self, sharp):
        ways = turns(BRATS.axes, sharp)
        assert len(ways) == 2
        assert all({way[2], way[1]} == set(sharp) for way in ways)
        assert len(turns(BRATS.axes, (0, 1, 2))) == 6
        assert turns(BRATS.axes, (1,)) == []

    def test_slices_around_what_is_restored_are_scanned(self):
        """Half a slice of context: no point lies beyond the centre of the last slice."""
        made = subject()
        for side in both(source(made, size=16, context=2).from_subject(made, BRATS, remap=0)):
            assert side.truth.shape == side.tissues.shape == (1, 12, 12, 12)
            index = side.grids[0].affine.to_index(places(side.truth_grids[0]))
            assert (index >= 0).all()
            assert (index <= np.array(side.grids[0].shape) - 1).all()
        bare = both(source(made, size=16).from_subject(made, BRATS, remap=0))[1]
        assert torch.equal(side.truth, bare.truth[:, 2:-2, 2:-2, 2:-2])


class TestSource:
    def test_the_same_seed_draws_the_same_examples(self):
        made = PatchSource(TrainingData([subject()], [labels()]), SIZE, 0, label_share=0.5)
        for seed in range(6):
            made.reseed((7, seed))
            first = made.draw()
            made.reseed((7, seed))
            again = made.draw()
            for one, other in zip(first.sides, again.sides, strict=True):
                assert (one is None) == (other is None)
                if one is not None and other is not None:
                    assert torch.equal(one.scan, other.scan)
                    assert torch.equal(one.truth, other.truth)
                    assert one.grids[0] == other.grids[0]
        different = made.draw()
        sides = [s for s in different.sides if s is not None]
        assert not any(
            torch.equal(s.truth, o.truth) for s in sides for o in first.sides if o is not None
        )

    def test_a_missing_scan_is_missing(self):
        made = subject()
        for present in ((True, False), (False, True)):
            protocol = dataclasses.replace(BRATS, present=present)
            sides = example_of(0, protocol, made).sides
            assert tuple(side is not None for side in sides) == present

    @pytest.mark.parametrize("modality", [T1W, T2W])
    def test_a_subject_of_one_contrast_is_there_whatever_the_protocol(self, modality):
        whole = subject()
        images, grids = [None, None], [None, None]
        images[modality], grids[modality] = whole.images[modality], whole.grids[modality]
        single = subject(images=tuple(images), grids=tuple(grids))
        for present in ((True, True), (True, False), (False, True)):
            protocol = dataclasses.replace(BRATS, present=present)
            example = example_of(0, protocol, single)
            side = example.sides[modality]
            assert example.sides[1 - modality] is None
            assert side is not None
            assert side.scan.std() > 0

    def test_a_t2w_scan_of_another_spacing_is_left_out(self):
        whole = subject()
        other = Grid(SHAPE, Affine.from_parts((0.9, 0.9, 3), TURN))
        example = example_of(0, BRATS, subject(grids=(whole.grids[0], other)))
        assert example.sides[0] is not None
        assert example.sides[1] is None

    def test_thick_slices_are_degraded_in_their_plane(self):
        made = source(subject(sharp=(0, 1)), brats_share=1.0)
        for _ in range(8):
            for side in made.draw().sides:
                if side is not None:
                    across = side.grids[0].affine.direction[:, 2]
                    assert np.abs(across).argmax() != 2
                    assert side.truth.shape == (1, SIZE, SIZE, SIZE)

    def test_label_maps_alone_are_enough(self):
        made = PatchSource(TrainingData([], [labels()]), SIZE, 0, brats_share=1.0, context=0)
        tissues = set()
        for _ in range(6):
            for side in made.draw().sides:
                if side is not None:
                    assert side.truth.shape == side.tissues.shape == (1, SIZE, SIZE, SIZE)
                    tissues |= set(side.tissues.unique().tolist())
        assert {0, CSF, GREY, WHITE} <= tissues

    def test_share_of_label_maps(self):
        made = PatchSource(TrainingData([subject()], [labels()]), 8, 0, label_share=0.3)
        known = []
        for _ in range(60):
            side = next(s for s in made.draw().sides if s is not None)
            known.append(bool((side.tissues != UNKNOWN).any()))
        assert 0.15 < np.mean(known) < 0.45

    def test_weights_choose_by_the_start_of_the_name(self):
        names = ("infant01", "infant02", "ms19", "other")
        made = source(*(subject(name=name) for name in names), weights={"infant": 2.0, "ms": 0.0})
        np.testing.assert_allclose(made.chances, (0.4, 0.4, 0, 0.2))

    def test_noise_is_on_the_scan_and_not_on_the_truth(self):
        noisy = dataclasses.replace(BRATS, noise=0.05)
        plain, seen = (both(example_of(3, p, subject()))[0] for p in (BRATS, noisy))
        assert torch.equal(plain.truth, seen.truth)
        assert (seen.scan - plain.scan).std().item() == pytest.approx(0.05, rel=0.2)

    def test_contrast_is_remapped_in_both_scans_and_their_truths(self):
        made = subject()
        plain, other = (source(made, seed=3).from_subject(made, FINE, remap=r) for r in (0, 1))
        for axis, before, after in zip(FINE.axes, both(plain), both(other), strict=True):
            assert not torch.allclose(before.truth, after.truth, atol=0.02)
            same = after.truth[0].permute(slice_axis_last(axis))
            np.testing.assert_allclose(after.scan[0, 0], same, atol=1e-6)

    def test_patches_reach_beyond_the_edge_and_are_zero_there(self):
        made = source(subject(), size=SHAPE[0])
        side, _ = both(made.from_subject(subject(), BRATS, remap=0))
        assert (side.truth == 0).any()
        assert side.truth.max() > 0.5

    def test_an_empty_image_is_refused(self):
        empty = subject(images=(torch.zeros(SHAPE), None), grids=(Grid(SHAPE, AFFINE), None))
        with pytest.raises(ValueError, match="empty"):
            source(empty).draw()

    def test_every_voxel_of_every_scan_is_measured(self):
        flat = torch.full(SHAPE, 0.04)  # as air, where no patch is taken from
        flat[19:26, 17:24, 18:25] = 0.06
        made = subject(images=(flat, flat))
        patches, rng = source(made), np.random.default_rng(0)
        for _ in range(40):
            drawn = draw_protocol(rng, (0, 1, 2), brats_share=0)
            quiet = dataclasses.replace(drawn, noise=0, present=(True, True))
            for side in both(patches.from_subject(made, quiet, remap=0)):
                assert side.scan.min() > 0.04 - 1e-6
