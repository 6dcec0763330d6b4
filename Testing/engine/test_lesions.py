"""Planted lesions: their size, edge, contrast and place."""

from __future__ import annotations

import numpy as np
import pytest

from nexusinr.evaluation import lesions
from nexusinr.geometry import Affine, Grid

FINE = Grid((40, 40, 40), Affine.from_parts((0.8, 1.0, 0.9), origin=(-16, -20, -18)))
BALL = lesions.Lesion(np.array([0.3, -0.4, 0.2]), 7.0, np.eye(3) / 3.5)


@pytest.mark.parametrize("size", [3.0, 5.0, 10.0])
def test_a_lesion_has_the_size_it_is_said_to_have(size):
    grid = Grid((80, 80, 80), Affine.from_parts((0.25,) * 3, origin=(-10, -10, -10)))
    for seed in range(3):
        lesion = lesions.random_lesion(np.zeros(3), size, np.random.default_rng(seed))
        volume = float((lesion.distance(grid) <= 0).sum()) * 0.25**3
        assert volume == pytest.approx(np.pi / 6 * size**3, rel=0.02)
        radii = size / 2 / np.linalg.eigvalsh(lesion.to_ball) * 2 / size
        assert radii.max() / radii.min() <= lesions.ELONGATION[1] / lesions.ELONGATION[0] + 1e-6


def test_distance_is_that_from_the_edge_of_a_ball():
    points = FINE.affine.apply(np.stack(np.mgrid[:40, :40, :40], axis=-1))
    wanted = np.linalg.norm(points - BALL.centre, axis=-1) - 3.5
    found = BALL.distance(FINE)
    near = wanted <= lesions.SHELL[1]
    assert np.allclose(found[near], wanted[near])
    assert (found[~near] > lesions.SHELL[1]).all()
    elsewhere = lesions.Lesion(np.array([200.0, 0, 0]), 7.0, np.eye(3) / 3.5)
    assert np.isinf(elsewhere.distance(FINE)).all()


def test_the_edge_is_soft():
    distances = np.array([-3, -0.5, -0.25, 0, 0.25, 0.5, 3])
    assert np.allclose(lesions.weight(distances), [1, 1, 0.75, 0.5, 0.25, 0, 0])


def test_contrast_is_planted_in_units_of_the_white_matter_around():
    white = np.ones(FINE.shape, bool)
    white[:, :18] = False  # other tissue, twice as bright, says nothing of the level
    data = np.where(white, 50, 100).astype(np.float32)
    planted = lesions.plant(data, FINE, [BALL], 0.6, white)
    inside = BALL.distance(FINE) < -0.5
    assert np.allclose((planted - data)[inside], 0.6 * 50)
    assert np.array_equal(planted[BALL.distance(FINE) >= 0.5], data[BALL.distance(FINE) >= 0.5])
    (site,) = lesions.sites([BALL], white, FINE)
    soft = lesions.weight(BALL.distance(FINE)).reshape(-1)[site.inside].mean()
    assert site.contrast(planted) - site.contrast(data) == pytest.approx(30 * soft, rel=1e-5)


def test_contrast_by_hand():
    (site,) = lesions.sites([BALL], np.ones(FINE.shape, bool), FINE)
    distance = BALL.distance(FINE)
    data = np.where(distance <= 0, 7.0, 2.0).astype(np.float32)
    assert site.contrast(data) == pytest.approx(5)
    data[(distance > 0) & (distance < 1.5)] = 1000  # between lesion and shell
    data[distance > 4] = -1000
    assert site.contrast(data) == pytest.approx(5)
    with pytest.raises(ValueError, match="7 mm cannot be measured"):
        lesions.sites([BALL], np.zeros(FINE.shape, bool), FINE)


def test_lesions_lie_in_white_matter_and_apart():
    grid = Grid((60, 50, 50), Affine.from_parts((1, 1, 1)))
    white = np.zeros(grid.shape, bool)
    white[5:55, 10:40, 8:42] = True
    allowed = np.zeros(grid.shape, bool)
    allowed[:, 20:] = True
    sizes = (3.0, 10.0, 5.0, 3.0, 7.0)
    found = lesions.place(white, allowed, grid, sizes, np.random.default_rng(1))
    assert [lesion.size for lesion in found] == sorted(sizes, reverse=True)
    for n, lesion in enumerate(found):
        assert white[lesion.distance(grid) < -0.5].all()
        assert allowed[tuple(np.rint(lesion.centre).astype(int))]
        for other in found[:n]:
            both = (lesion.distance(grid) <= 3.5) & (other.distance(grid) <= 3.5)
            assert not both.any()
    assert lesions.place(white, np.zeros_like(white), grid, sizes, np.random.default_rng(1)) == []
    thin = np.zeros_like(white)
    thin[:, 20:24] = True
    narrow = lesions.place(thin, allowed, grid, sizes, np.random.default_rng(1))
    assert {lesion.size for lesion in narrow} == {3.0}
