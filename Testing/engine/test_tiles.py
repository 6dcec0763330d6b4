"""Lattices in pieces."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from nexusinr.inference.tiles import block_edges, blocks, occupied

edges = st.integers(1, 40)


@given(st.tuples(edges, edges, edges), st.tuples(edges, edges, edges))
def test_blocks_cover_a_lattice_once(shape, size):
    lattice = np.arange(np.prod(shape)).reshape(shape)
    found = [lattice[block] for block in blocks(shape, size)]
    assert all((np.array(block.shape) <= size).all() for block in found)
    whole = np.concatenate([block.ravel() for block in found])
    np.testing.assert_array_equal(np.sort(whole), lattice.ravel())


@given(st.tuples(st.integers(1, 300), edges, edges), st.integers(1, 40))
def test_blocks_of_thin_lattices_are_longer(shape, edge):
    found = block_edges(shape, edge)
    assert (found <= shape).all()
    assert (found >= np.minimum(shape, edge)).all()
    assert found.prod() <= edge**3
    # None could be doubled.
    for axis in np.flatnonzero(found < shape):
        longer = found.copy()
        longer[axis] = min(2 * found[axis], shape[axis])
        if found[axis] == found[found < shape].min():
            assert longer.prod() > edge**3


def test_a_plane_is_cut_into_few_blocks():
    np.testing.assert_array_equal(block_edges((256, 1, 256), 32), (256, 1, 128))


@given(arrays(bool, st.tuples(edges, edges, edges), elements=st.booleans()), st.integers(1, 40))
def test_boxes_are_the_smallest_that_hold_a_mask(mask, size):
    seen = np.zeros(mask.shape, int)
    for box in occupied(mask, size):
        seen[box] += 1
        for axis in range(3):
            assert mask[box].take(0, axis).any()
            assert mask[box].take(-1, axis).any()
    assert seen.max() <= 1
    assert (seen[mask] == 1).all()
