"""Lattices in pieces: blocks, the part of a scan that a block reads, a cancel between layers."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage
from torch import nn

from nexusinr.geometry import Grid
from nexusinr.inference.progress import Progress

#: A part of a lattice.
Block = tuple[slice, slice, slice]


def blocks(shape: tuple[int, int, int], size: ArrayLike) -> Iterator[Block]:
    """Blocks of at most `size` voxels, one edge or three, that cover a lattice."""
    edges = np.broadcast_to(np.asarray(size, dtype=int), (3,)).tolist()
    ranges = [range(0, n, edge) for n, edge in zip(shape, edges, strict=True)]
    for corner in itertools.product(*ranges):
        i, j, k = (
            slice(first, min(first + edge, n))
            for first, edge, n in zip(corner, edges, shape, strict=True)
        )
        yield i, j, k


def lattice_of(grid: Grid, block: Block) -> Grid:
    """The lattice of a block of another one."""
    return grid.crop([s.start for s in block], [s.stop for s in block])


def block_edges(shape: tuple[int, int, int], edge: int) -> NDArray[np.int64]:
    """Edges of blocks of `edge`³ voxels, (3,): longer where the lattice is thinner than a cube."""
    whole = np.array(shape)
    edges: NDArray[np.int64] = np.minimum(whole, edge)
    while (edges < whole).any():
        axis = np.where(edges < whole, edges, whole.max() + 1).argmin()
        longer = edges.copy()
        longer[axis] = min(2 * edges[axis], whole[axis])
        if longer.prod() > edge**3:
            break
        edges = longer
    return edges


def occupied(mask: NDArray[np.bool_], size: ArrayLike) -> Iterator[Block]:
    """Boxes of at most `size` voxels, one edge or three, that hold all of a mask.

    The mask's own box is cut into blocks of about one size: small ones would cost nearly as much.
    Of each, the box around the mask's voxels is taken; blocks of air are left out.
    """
    for whole in _boxes(mask):
        shape = np.array([s.stop - s.start for s in whole])
        edges = np.ceil(shape / np.ceil(shape / np.asarray(size))).astype(int)
        i, j, k = shape.tolist()
        for block in blocks((i, j, k), edges):
            outer = _within(whole, block)
            for inner in _boxes(mask[outer]):
                yield _within(outer, inner)


def _boxes(mask: NDArray[np.bool_]) -> list[Block]:
    """The box around a mask's voxels, or none."""
    return ndimage.find_objects(mask.astype(np.uint8))


def _within(outer: Block, inner: Block) -> Block:
    """A part of a part, in indices of the whole."""
    i, j, k = (
        slice(a.start + b.start, a.start + b.stop) for a, b in zip(outer, inner, strict=True)
    )
    return i, j, k


def indices_around(
    scan: Grid, target: Grid, margin: int = 0
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First and last index (exclusive) of the scan's voxels that a target reaches into.

    Grown by a margin, kept inside the scan; at least one voxel along every axis.
    """
    index = scan.affine.to_index(target.corners())
    shape = np.array(scan.shape)
    start = np.clip(np.floor(index.min(axis=0)).astype(int) - margin, 0, shape - 1)
    stop = np.clip(np.ceil(index.max(axis=0)).astype(int) + 1 + margin, start + 1, shape)
    return start, stop


class cancellable:  # noqa: N801 - reads as a function
    """Asks for a cancel at every convolution, forwards and backwards: one pass takes seconds."""

    def __init__(self, network: nn.Module, progress: Progress) -> None:
        self._network, self._progress = network, progress
        self._hooks: list[torch.utils.hooks.RemovableHandle] = []

    def __enter__(self) -> None:
        for module in self._network.modules():
            if isinstance(module, nn.Conv3d):
                self._hooks.append(module.register_forward_pre_hook(self._check))
                self._hooks.append(module.register_forward_hook(self._check_backwards))

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def _check(self, module: nn.Module, inputs: object) -> None:
        self._progress.check()

    def _check_backwards(self, module: nn.Module, inputs: object, output: torch.Tensor) -> None:
        if output.requires_grad:
            output.register_hook(lambda gradient: self._progress.check())
