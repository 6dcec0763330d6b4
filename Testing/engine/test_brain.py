"""Tissue outside of the brain is put right; the brain's own stays as it is."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nexusinr.inference.brain import within_brain
from nexusinr.labels import CSF, GREY, WHITE


def head(spacing: tuple[float, float, float]) -> dict[str, np.ndarray]:
    """Masks of a ball in a shell of 6 mm, 12 mm away from it, with a muscle of 15 mm beside."""
    shape = [round(160 / step) for step in spacing]
    axes = [(np.arange(n) - n / 2 + 0.5) * s for n, s in zip(shape, spacing, strict=True)]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    radius = np.sqrt(x**2 + y**2 + z**2)
    return {
        "white": radius < 30,
        "grey": (radius >= 30) & (radius < 45),
        "sulcus": (radius < 47) & (np.abs(x) < 1.6) & (y > 0) & (radius > 35),
        "scalp": (radius > 60) & (radius < 66),
        "muscle": (np.abs(x) < 7.5) & (np.abs(y) < 7.5) & (z > 68),
    }


def tissues_of(masks: dict[str, np.ndarray]) -> np.ndarray:
    tissues = np.zeros(masks["white"].shape, dtype=np.uint8)
    tissues[masks["white"]] = WHITE
    tissues[masks["grey"] | masks["scalp"] | masks["muscle"]] = GREY
    tissues[masks["sulcus"]] = CSF
    return tissues


@pytest.mark.parametrize("spacing", [(2, 2, 2), (1.5, 1.5, 4), (3, 1.5, 2)], ids=str)
def test_scalp_and_muscle_go_and_the_brain_stays(spacing):
    masks = head(spacing)
    tissues = tissues_of(masks)
    kept = within_brain(tissues, np.array(spacing, dtype=float))
    brain = masks["white"] | masks["grey"] | masks["sulcus"]
    np.testing.assert_array_equal(kept[brain], tissues[brain])
    assert not kept[~brain].any()
    assert kept.dtype == np.uint8


def test_both_hemispheres_of_a_lattice_that_leaves_out_the_middle_stay():
    masks = head((2, 2, 2))
    tissues = tissues_of(masks)
    tissues[36:44] = 0
    kept = within_brain(tissues, np.full(3, 2.0))
    brain = masks["white"] | masks["grey"]
    brain[36:44] = False
    assert (kept[brain] == tissues[brain]).mean() > 0.999  # all but the sharpest edges


def test_too_little_of_a_head_is_left_alone():
    plane = np.full((60, 60, 1), GREY, dtype=np.uint8)
    assert within_brain(plane, np.ones(3)) is plane
    nothing = np.zeros((50, 50, 50), dtype=np.uint8)
    assert not within_brain(nothing, np.ones(3)).any()
    specks = np.zeros((50, 50, 50), dtype=np.uint8)
    specks[::5, ::5, ::5] = WHITE  # no core anywhere: nothing to go by
    np.testing.assert_array_equal(within_brain(specks, np.ones(3)), specks)


@settings(max_examples=10, deadline=None)
@given(st.permutations(range(3)), st.tuples(*[st.booleans()] * 3))
def test_turned_and_mirrored_it_is_the_same(order, mirrored):
    tissues = tissues_of(head((3, 3, 3)))
    flips = [axis for axis in range(3) if mirrored[axis]]
    turned = np.flip(tissues.transpose(order), flips)
    expected = np.flip(within_brain(tissues, np.full(3, 3.0)).transpose(order), flips)
    np.testing.assert_array_equal(within_brain(turned, np.full(3, 3.0)), expected)
