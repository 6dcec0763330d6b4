"""Lattices in pieces."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from nexusinr.inference.tiles import LEAST_EDGE, blocks, piece_edges, with_halo

edges = st.integers(1, 40)


@given(st.tuples(edges, edges, edges), st.integers(0, 12), st.integers(1, 20_000))
def test_pieces_cover_a_lattice_once_and_keep_the_limit(shape, halo, limit):
    lattice = np.arange(np.prod(shape)).reshape(shape)
    size = piece_edges(shape, halo, limit)
    found = []
    for block in blocks(shape, size):
        around, inner = with_halo(block, halo, shape)
        grown = lattice[around]
        assert grown.size <= limit or size.max() <= LEAST_EDGE
        np.testing.assert_array_equal(grown[inner], lattice[block])
        for part, outer, n in zip(block, around, shape, strict=True):
            assert outer.start == max(part.start - halo, 0)
            assert outer.stop == min(part.stop + halo, n)
        found.append(lattice[block].ravel())
    np.testing.assert_array_equal(np.sort(np.concatenate(found)), lattice.ravel())


def test_a_piece_has_halo_only_towards_others():
    np.testing.assert_array_equal(piece_edges((240, 240, 80), 12, 1_400_000), (120, 120, 80))
