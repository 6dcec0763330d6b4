"""Blur, ringing and noise of a batch, each example by its own measure."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter, gaussian_filter1d

from nexusinr.training.filters import blur, noisy, ringing

IMAGES = torch.rand(3, 20, 22, 24, generator=torch.Generator().manual_seed(0))


def test_blur_is_a_gaussian_of_each_examples_own_width():
    sigma = torch.tensor([0.0, 0.8, 1.5])
    found = blur(IMAGES, sigma).numpy()
    np.testing.assert_allclose(found[0], IMAGES[0], atol=1e-6)
    for n in (1, 2):
        expected = gaussian_filter(IMAGES[n].numpy(), float(sigma[n]), mode="constant", truncate=8)
        np.testing.assert_allclose(found[n], expected, atol=1e-4)


def test_blur_along_one_axis_leaves_the_others():
    found = blur(IMAGES, torch.full((3,), 1.2), axes=(1,)).numpy()
    expected = gaussian_filter1d(IMAGES.numpy(), 1.2, axis=2, mode="constant", truncate=8)
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_ringing_overshoots_at_an_edge_and_keeps_the_mean(axis):
    step = torch.zeros(3, 32, 32, 32)
    step.movedim(1 + axis, 1)[:, 8:24] = 1
    found = ringing(step, torch.tensor([1.0, 0.8, 0.4]), axis)
    torch.testing.assert_close(found[0], step[0], atol=1e-5, rtol=0)
    assert found[1].max() > 1.05
    assert found[2].max() > 1.05
    other = found[2].movedim(axis, 0)
    assert (other - other[:, :1, :1]).abs().max() < 1e-5  # along that axis alone
    torch.testing.assert_close(found.mean(dim=(1, 2, 3)), step.mean(dim=(1, 2, 3)))


def test_noise_has_each_examples_own_deviation():
    flat = torch.full((3, 20, 20, 20), 0.5)
    generator = torch.Generator().manual_seed(0)
    found = noisy(flat, torch.tensor([0.0, 0.02, 0.05]), generator)
    assert torch.equal(found[0], flat[0])
    assert found[1].std().item() == pytest.approx(0.02, rel=0.05)
    assert found[2].std().item() == pytest.approx(0.05, rel=0.05)
    assert noisy(flat * 0, torch.ones(3), generator).min() == 0
