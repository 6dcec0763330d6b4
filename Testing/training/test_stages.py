"""Examples for ICONet: lattices that fit, a truth for every stage, degraded scans."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nexusinr.geometry import Affine, Grid
from nexusinr.training.crops import MARGIN, Fine
from nexusinr.training.dataset import Subject, TrainingData
from nexusinr.training.loading import load
from nexusinr.training.protocols import slice_axis_last
from nexusinr.training.stages import CONTEXT, Staged, StageProtocol, StageSource

SIZE = 16


def subject(name: str = "person", **changes: object) -> Subject:
    noise = np.random.default_rng(0).uniform(0.2, 1, (2, 40, 40, 40)).astype(np.float16)
    images = (torch.from_numpy(noise[0]), torch.from_numpy(noise[1]))
    grid = Grid((40, 40, 40), Affine.from_parts((1, 1, 1)))
    values = {"images": images, "grids": (grid, grid), "tissues": None, "sharp": (0, 1, 2)}
    return Subject(name, **{**values, **changes})


def source(*people: Subject, **options: object) -> StageSource:
    return StageSource(TrainingData(list(people or [subject()]), []), SIZE, 0, **options)


def fine_patch() -> Fine:
    width = SIZE + 2 * MARGIN
    image = torch.rand(2, width, width, width, generator=torch.Generator().manual_seed(0))
    return Fine([None, image], torch.zeros(image.shape), np.zeros((2, 3)), np.ones(2))


def means(image: torch.Tensor, ratios: tuple[int, int, int]) -> torch.Tensor:
    """Block averages of (B, I, J, K), without our own acquisition model."""
    return torch.nn.functional.avg_pool3d(image[:, None], ratios)


class TestTruths:
    @pytest.mark.parametrize("axis", [0, 1, 2])
    def test_every_level_is_block_averages_of_the_fine_image(self, axis):
        fine = fine_patch()
        staged = source().acquired(fine, StageProtocol(axis, (2, 1, 4), 4), modality=1)
        inner = slice(MARGIN, -MARGIN)
        image = fine.images[1][:, inner, inner, inner]
        image = image.permute(0, *(1 + a for a in slice_axis_last(axis)))
        assert staged.plan == [(False, False, True), (True, False, True)]
        for level, ratios in enumerate(((2, 1, 4), (2, 1, 2), (1, 1, 1))):
            torch.testing.assert_close(staged.clean[level], means(image, ratios))
        assert torch.equal(staged.scan, staged.clean[0])

    def test_slices_with_gaps_are_filled_by_the_first_stage(self):
        fine = fine_patch()
        staged = source().acquired(fine, StageProtocol(2, (1, 1, 4), 3), modality=1)
        touching = source().acquired(fine, StageProtocol(2, (1, 1, 4), 4), modality=1)
        assert not torch.allclose(staged.clean[0], touching.clean[0], atol=0.01)
        torch.testing.assert_close(staged.clean[1], touching.clean[1])
        spacing, ratio = staged.conditions.exp().chunk(2, dim=1)
        np.testing.assert_allclose(spacing, [(1, 1, 4)] * 2, rtol=1e-5)
        np.testing.assert_allclose(ratio, [(1, 1, 0.75)] * 2, rtol=1e-5)

    def test_the_judged_part_is_the_same_place_at_every_level(self):
        staged = source().acquired(fine_patch(), StageProtocol(2, (2, 1, 4), 4), modality=1)
        for level, ratios in enumerate(((2, 1, 4), (2, 1, 2), (1, 1, 1))):
            inner = staged.inner(staged.clean[level], level)
            finest = staged.inner(staged.clean[-1], 2)
            assert inner.shape[2:] == tuple((SIZE - 2 * CONTEXT) // r for r in ratios)
            torch.testing.assert_close(inner, means(finest[:, 0], ratios))

    def test_a_degraded_scan_differs_and_its_truth_does_not(self):
        plain = StageProtocol(2, (1, 1, 2), 2)
        degraded = StageProtocol(2, (1, 1, 2), 2, degraded=True)
        first, second = (source().acquired(fine_patch(), p, 1) for p in (plain, degraded))
        assert not torch.allclose(first.scan, second.scan, atol=0.01)
        assert torch.equal(first.clean[0], second.clean[0])
        assert second.scan.min() >= 0


class TestDrawing:
    def test_modalities_take_turns(self):
        made = source()
        assert [made.draw(1, number).modality for number in range(4)] == [0, 1, 0, 1]

    def test_with_one_contrast_there_is_one(self):
        whole = subject()
        single = subject(images=(None, whole.images[1]), grids=(None, whole.grids[1]))
        assert [source(single).draw(1, number).modality for number in range(2)] == [1, 1]

    def test_brats_is_2_for_t1w_and_4_for_t2w_without_noise(self):
        made = source(brats_share=1.0)
        for number, stages in ((0, 1), (1, 2)):
            staged = made.draw(2, number)
            assert staged.plan == [(False, False, True)] * stages
            assert staged.scan.shape == (2, 1, SIZE, SIZE, SIZE // 2**stages)
            assert torch.equal(staged.scan, staged.clean[0])

    def test_all_others_fit_their_lattices(self):
        made, seen = source(brats_share=0.0), set()
        for number in range(30):
            staged = made.draw(1, number)
            assert staged.plan
            seen.add(tuple(staged.plan))
            for level, image in enumerate(staged.clean):
                assert staged.inner(image, level).numel() > 0
        assert len(seen) > 3

    def test_thick_slices_are_never_halved_in_plane_or_along_their_axis(self):
        """A ramp along the blurred axis is never averaged along it."""
        made = source(subject(sharp=(0, 1)), brats_share=0.0)
        for number in range(10):
            staged = made.draw(1, number)
            assert all(axes[:2] == (False, False) for axes in staged.plan)

    def test_the_same_numbers_give_the_same_example(self, folder):
        made = StageSource(load(folder), SIZE, 0, label_share=0.5, brats_share=0.0)

        def drawn(seeds: tuple[int, ...]) -> Staged:
            made.reseed(seeds)
            return made.draw(2, 1)

        first, again, other = drawn((3, 1, 0)), drawn((3, 1, 0)), drawn((3, 1, 1))
        assert torch.equal(first.scan, again.scan)
        assert torch.equal(first.clean[-1], again.clean[-1])
        same = first.scan.shape == other.scan.shape and torch.equal(first.scan, other.scan)
        assert not same

    @pytest.mark.parametrize("size", [12, 18])
    def test_a_size_that_does_not_fit_is_refused(self, size):
        with pytest.raises(ValueError, match=f"patch is {size}: ICONet needs a multiple of 4"):
            StageSource(TrainingData([subject()], []), size, 0)
