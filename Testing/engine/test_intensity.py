"""Head and air, scaling, and the warning for swapped scans."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from nexusinr.geometry import Affine
from nexusinr.intensity import (
    CROSS,
    Normalisation,
    _filled,
    foreground,
    head_of,
    looks_swapped,
    normalise,
)
from nexusinr.volume import Volume, read_volume

SHAPE = (48, 56, 20)  # 4 x 4 x 8 mm: thick slices


def radius() -> np.ndarray:
    """1 on the surface of an ellipsoid in the middle that is cut by the lowest slice, (i, j, k)."""
    i, j, k = np.ogrid[tuple(slice(n) for n in SHAPE)]
    return np.sqrt(((i - 23.5) / 20) ** 2 + ((j - 27.5) / 24) ** 2 + ((k - 8) / 10) ** 2)


def head(t1w: bool, stripped: bool = False, seed: int = 0) -> np.ndarray:
    """Scalp, dark bone, dark or bright fluid, brain, ventricles; air is noise or exactly 0."""
    random, r = np.random.default_rng(seed), radius()
    air, fat, bone = 8, 900, 20
    fluid, brain = (60, 300) if t1w else (800, 250)
    shells = [(0.25, fluid), (0.8, brain), (0.86, fluid), (0.92, bone), (1.0, fat)]
    data = np.full(SHAPE, float(air))
    for limit, value in reversed(shells):
        data[r <= limit] = value
    data = np.abs(data + random.normal(0, 8, SHAPE))
    return np.where(r <= 0.86, data + 1, 0) if stripped else data


@pytest.mark.parametrize("t1w", [True, False])
@pytest.mark.parametrize("dtype", [np.float32, np.int16])
def test_a_whole_head_is_found_with_its_bone_and_fluid(t1w, dtype):
    found = foreground(head(t1w).astype(dtype))
    truth = radius() <= 1
    assert 2 * np.count_nonzero(found & truth) / (found.sum() + truth.sum()) > 0.995


@given(offset=st.integers(-2000, 2000))
def test_a_head_does_not_depend_on_where_zero_is(offset: int):
    data = head(True).round()
    assert np.array_equal(foreground(data), foreground(data + offset))


def test_air_rounded_to_zero_is_still_air():
    data = np.clip(head(True) - 14, 0, None).round()
    assert np.mean(data == 0) > 0.3
    assert np.mean(foreground(data) == (radius() <= 1)) > 0.99


@pytest.mark.parametrize("t1w", [True, False])
def test_a_skull_stripped_head_is_everything_above_zero(t1w):
    data = head(t1w, stripped=True)
    assert np.array_equal(foreground(data), data > 0)
    undershoot = data - np.where(np.arange(SHAPE[0])[:, None, None] == 0, 3.0, 0.0)
    assert np.array_equal(foreground(undershoot), data > 0)


def test_small_bright_things_outside_are_left_out():
    data = head(False)
    data[1:3, 1:3, 15:17] = 1000
    assert not foreground(data)[1:3, 1:3, 15:17].any()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (np.full((4, 4, 4), 3), "same value, 3"),
        (np.zeros((4, 4)), "three axes"),
        (np.array([[[0, np.nan, 1]]]), "1 voxels that are not finite"),
    ],
)
def test_bad_data_are_named(data, words):
    for function in (foreground, normalise):
        with pytest.raises(ValueError, match=words):
            function(data)


def test_an_empty_mask_is_refused():
    with pytest.raises(ValueError, match="no contrast"):
        normalise(head(True), np.zeros(SHAPE, dtype=bool))


@given(
    scale=st.floats(1e-3, 1e4), offset=st.floats(-1e3, 1e3), values=st.lists(st.floats(-1e3, 1e3))
)
def test_undo_is_the_inverse_of_apply(scale: float, offset: float, values: list[float]):
    norm, data = Normalisation(offset, scale), np.array(values, dtype=np.float32)
    there_and_back = norm.undo(norm.apply(data))
    assert np.abs(there_and_back - data).max(initial=0) < 1e-3


@pytest.mark.parametrize("stripped", [True, False])
def test_normalised_intensities_are_about_0_to_1(stripped):
    data = head(False, stripped)
    found, norm = normalise(data)
    assert norm.offset == 0
    assert np.percentile(found[radius() <= 0.86], 99.9) == pytest.approx(1, abs=0.15)
    assert norm.undo(found) == pytest.approx(data, abs=0.01)


def test_negative_intensities_start_at_their_minimum():
    data = head(False) - 1000
    found, norm = normalise(data)
    assert norm.offset == data.min()
    assert found.min() == 0
    assert found.dtype == np.float32


def test_the_scale_hardly_depends_on_the_voxel_size():
    fine = head(False)
    coarse = fine.reshape(24, 2, 28, 2, 20).mean(axis=(1, 3))
    assert normalise(coarse)[1].scale == pytest.approx(normalise(fine)[1].scale, rel=0.05)


def pair(stripped: bool) -> tuple[Volume, Volume]:
    affine = Affine.from_parts((4, 4, 8))
    return tuple(Volume(head(t1w, stripped, seed=t1w), affine) for t1w in (True, False))


@pytest.mark.parametrize("stripped", [True, False])
def test_swapped_scans_are_noticed_and_others_are_not(stripped):
    t1w, t2w = pair(stripped)
    assert looks_swapped(t1w, t2w) is None
    assert looks_swapped(t1w, t1w) is None
    assert "look swapped" in looks_swapped(t2w, t1w)


def test_too_little_common_head_is_not_judged():
    t1w, t2w = pair(stripped=True)
    away = t1w.affine.transformed([[1, 0, 0, 150], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    assert looks_swapped(t2w, t1w.replace(affine=away)) is None


@pytest.mark.parametrize("subject", ["infant01", "infant16", "ms19", "mslong03", "tcga-du-7294"])
def test_real_pairs_swapped_and_not(data_folder, subject):
    t1w, t2w = (
        read_volume(data_folder / "pairs" / subject / f"{m}.nii.gz") for m in ("T1w", "T2w")
    )
    assert looks_swapped(t1w, t2w) is None
    assert looks_swapped(t2w, t1w) is not None


@given(arrays(bool, st.tuples(*[st.integers(1, 7)] * 3)), st.integers(0, 2))
def test_holes_are_filled_slice_by_slice(mask, axis):
    found = _filled(mask, axis)
    for n in range(mask.shape[axis]):
        expected = ndimage.binary_fill_holes(mask.take(n, axis), CROSS)
        np.testing.assert_array_equal(found.take(n, axis), expected)


def test_a_head_is_worked_out_once_for_each_scan():
    affine = Affine.from_parts((4, 4, 8))
    scan, other = Volume(head(t1w=True), affine), Volume(head(t1w=True)[::-1], affine)
    found = head_of(scan)
    assert found is head_of(scan)
    np.testing.assert_array_equal(found, foreground(scan.data))
    np.testing.assert_array_equal(head_of(other), found[::-1])
    with pytest.raises(ValueError, match="read-only"):
        found[0] = True
