"""Measures of similarity and overlap, against hand-computed cases and other implementations."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage
from torchmetrics.functional.image import structural_similarity_index_measure

from nexusinr.evaluation.metrics import (
    Reference,
    axis_nearest,
    lpips,
    mean_interval,
    psnr,
    scale_and_mask,
    similarity,
    ssim,
    to_unit,
)
from nexusinr.evaluation.overlap import dice, hd95
from nexusinr.geometry import Affine

ALL = np.ones((2, 2, 2), dtype=bool)


def test_psnr_by_hand():
    reference = np.zeros((2, 2, 2))
    assert psnr(reference + 0.1, reference, ALL) == pytest.approx(20)
    assert psnr(reference + 0.01, reference, ALL) == pytest.approx(40)
    assert psnr(reference, reference, ALL) == math.inf


def test_psnr_looks_at_the_mask_only():
    reference, restored = np.zeros((2, 2, 2)), np.zeros((2, 2, 2))
    restored[0, 0, 0], restored[1, 1, 1] = 1.0, 0.1
    mask = np.zeros((2, 2, 2), dtype=bool)
    mask[1] = True
    # One of four voxels is wrong by 0.1: mean square 0.0025.
    assert psnr(restored, reference, mask) == pytest.approx(10 * math.log10(400))


def smooth(seed: int, shape=(24, 22, 20)) -> np.ndarray:
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 1.2)
    return ((noise - noise.min()) / np.ptp(noise)).astype(np.float32)


def test_ssim_agrees_with_torchmetrics():
    x, y = smooth(0), 0.7 * smooth(0) + 0.3 * smooth(1)
    _, full = structural_similarity_index_measure(
        torch.from_numpy(x)[None, None],
        torch.from_numpy(y)[None, None],
        data_range=1.0,
        sigma=1.5,
        return_full_image=True,
    )
    mask = np.random.default_rng(2).uniform(size=x.shape) > 0.5
    assert ssim(x, y, mask) == pytest.approx(
        float(full.numpy().reshape(x.shape)[mask].mean()), abs=1e-4
    )
    assert ssim(x, x, mask) == pytest.approx(1, abs=1e-6)


def test_ssim_of_constant_images_is_the_luminance_term():
    x, y = np.full((12, 12, 12), 0.5), np.full((12, 12, 12), 0.25)
    expected = (2 * 0.5 * 0.25 + 1e-4) / (0.5**2 + 0.25**2 + 1e-4)
    assert ssim(x, y, np.ones(x.shape, dtype=bool)) == pytest.approx(expected, abs=1e-5)


def test_scale_and_mask_of_a_stripped_scan():
    data = np.zeros((10, 10, 20))
    data[2:8, 2:8, 2:18] = np.arange(576).reshape(6, 6, 16) + 100
    scale, mask = scale_and_mask(data)
    assert np.array_equal(mask, data > 0)
    assert scale == pytest.approx(np.percentile(np.arange(576) + 100, 99.9))


def test_scale_and_mask_of_a_whole_head_is_the_bright_class():
    random = np.random.default_rng(0)
    data = np.abs(random.normal(10, 3, (16, 16, 16)))
    data[4:12, 4:12, 4:12] = random.normal(300, 20, (8, 8, 8))
    _, mask = scale_and_mask(data)
    assert mask.sum() == 512
    assert mask[4:12, 4:12, 4:12].all()


def test_an_empty_reference_is_refused():
    with pytest.raises(ValueError, match="empty"):
        scale_and_mask(np.zeros((4, 4, 4)))


def test_intensities_are_clipped_to_the_unit_range():
    assert to_unit(np.array([-5, 0, 50, 100, 200]), 100).tolist() == [0, 0, 0.5, 1, 1]


@given(factor=st.floats(1e-2, 1e3))
def test_units_of_the_scan_do_not_matter(factor: float):
    reference = np.where(smooth(0) > 0.5, 500 * smooth(0), 0)
    restored = reference + 20 * (smooth(1) - 0.5)
    affine = Affine.from_parts((1, 1, 1))
    once = similarity(restored, reference, affine)
    again = similarity(factor * restored, factor * reference, affine)
    assert again.psnr == pytest.approx(once.psnr, abs=0.01)
    assert again.ssim == pytest.approx(once.ssim, abs=1e-3)


def test_similarity_can_be_narrowed_and_refuses_what_does_not_fit():
    reference = np.where(smooth(0) > 0.5, smooth(0), 0)
    restored = reference.copy()
    restored[:, :, 10:] = 0
    affine = Affine.from_parts((1, 1, 1))
    within = np.zeros(reference.shape, dtype=bool)
    within[:, :, :10] = True
    assert similarity(restored, reference, affine, within).psnr == math.inf
    assert similarity(restored, reference, affine).psnr < 10
    with pytest.raises(ValueError, match="no voxel"):
        similarity(restored, reference, affine, np.zeros_like(within))
    with pytest.raises(ValueError, match="shape"):
        similarity(restored[1:], reference, affine)


def test_a_reference_is_cut_to_its_head_without_changing_a_figure():
    reference = np.zeros((40, 36, 30), np.float32)
    reference[2:20, 12:30, 8:22] = 200 * smooth(0, (18, 18, 14)) + 100
    restored = reference + 60 * smooth(1, reference.shape)
    scale, mask = scale_and_mask(reference)
    whole = ssim(to_unit(restored, scale), to_unit(reference, scale), mask)
    found = Reference(reference, Affine.from_parts((1, 1, 1)))
    assert found.compare(restored).ssim == pytest.approx(whole, abs=1e-6)
    assert found.compare(restored).ssim == found.compare(restored).ssim < 0.99
    assert np.array_equal(found.mask, mask)


def test_lpips_is_left_out_without_its_weights(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert lpips(smooth(0), smooth(1), axial=2) is None
    checkpoint = tmp_path / "hub" / "checkpoints" / "alexnet-owt-7be5be79.pth"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.write_bytes(b"these are not the weights")
    assert lpips(smooth(0), smooth(1), axial=2) is None


def cubes(shift: int) -> tuple[np.ndarray, np.ndarray]:
    reference, predicted = np.zeros((20, 12, 12), dtype=np.uint8), np.zeros((20, 12, 12), np.uint8)
    reference[4:12, 2:10, 2:10] = 2
    predicted[4 + shift : 12 + shift, 2:10, 2:10] = 2
    reference[0, 0, 0] = 3
    return predicted, reference


def test_dice_by_hand():
    predicted, reference = cubes(2)
    found = dice(predicted, reference, classes=(1, 2, 3))
    assert math.isnan(found[1])
    assert found[2] == pytest.approx(6 / 8)
    assert found[3] == 0


def test_hd95_is_in_millimetres_along_the_right_axis():
    predicted, reference = cubes(2)
    found = hd95(predicted, reference, spacing=(1.5, 1, 1), classes=(1, 2, 3))
    assert found[2] == pytest.approx(3.0)
    assert hd95(predicted, reference, spacing=(1, 1, 1.5), classes=(2,))[2] == pytest.approx(2.0)
    assert math.isnan(found[1])
    assert math.isnan(found[3])


def test_the_default_classes_are_the_tissues():
    labels = np.arange(1, 6).reshape(5, 1, 1).repeat(3, 1).repeat(3, 2)
    assert dice(labels, labels) == dict.fromkeys(range(1, 6), 1.0)


def test_mean_and_interval():
    values = np.random.default_rng(4).normal(30, 2, 200).tolist()
    mean, low, high = mean_interval(values)
    standard_error = np.std(values) / np.sqrt(200)
    assert mean == pytest.approx(np.mean(values))
    assert low == pytest.approx(mean - 1.96 * standard_error, abs=0.03)
    assert high == pytest.approx(mean + 1.96 * standard_error, abs=0.03)
    assert mean_interval(values) == (mean, low, high)
    assert mean_interval([5.0]) == (5, 5, 5)
    assert mean_interval([5.0, math.nan])[0] == 5
    assert mean_interval([math.inf, math.inf]) == (math.inf, math.inf, math.inf)
    with pytest.raises(ValueError, match="no values"):
        mean_interval([math.nan])


@pytest.mark.parametrize(
    ("orientation", "expected"),
    [(np.eye(3), (0, 1, 2)), ([[0, 0, -1], [-1, 0, 0], [0, 1, 0]], (2, 0, 1))],
)
def test_axis_nearest(orientation, expected):
    affine = Affine.from_parts((1, 2, 3), orientation)
    assert tuple(axis_nearest(affine, d) for d in "RAS") == expected
