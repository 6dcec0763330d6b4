"""Encoding and decoding in pieces that fit into memory and give the values of one piece."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nexusinr.geometry import Grid
from nexusinr.inference.progress import Progress
from nexusinr.models.encoders import receptive_radius
from nexusinr.models.nexus_inr import Encoding, NexusINR, Sampled
from nexusinr.models.sampling import LatticeMap

#: Voxels that one encoder pass takes at most; bounds memory and the time until a cancel is seen.
SLAB_VOXELS = 600_000

#: Edge of the blocks in which a target lattice is decoded: small enough for the CPU's cache, and
#: for leaving out air.
TILE = 32


@dataclass
class EncodedScan:
    """A scan's encoding, batch of one, and the lattice that it lies on (slice axis last)."""

    encoding: Encoding
    grid: Grid

    @property
    def bytes(self) -> int:
        """Memory it takes."""
        maps = self.encoding.maps
        return maps.numel() * maps.element_size()

    def around(self, target: Grid) -> EncodedScan:
        """The part that interpolation at the target's points reads."""
        index = self.grid.affine.to_index(target.corners())
        shape = np.array(self.grid.shape)
        start = np.clip(np.floor(index.min(axis=0)).astype(int), 0, shape - 1)
        start -= start % 2  # points midway between two voxels go to the even one, in any part
        stop = np.clip(np.ceil(index.max(axis=0)).astype(int) + 1, start + 1, shape)
        a, b, c = (slice(int(i), int(j)) for i, j in zip(start, stop, strict=True))
        part = Encoding(self.encoding.maps[:, a, b, c], self.encoding.conditions)
        return EncodedScan(part, self.grid.crop(start, stop))


def encode(
    network: NexusINR,
    image: Tensor,
    conditions: Tensor,
    modality: int,
    grid: Grid,
    progress: Progress,
    slab_voxels: int = SLAB_VOXELS,
) -> EncodedScan:
    """Encodes one scan slab by slab, with a halo of the encoder's receptive field.

    Args:
        network: on its device.
        image: (1, 1, i, j, k), slice axis last, on the same device.
        conditions: (1, 6).
        modality: T1W or T2W.
        grid: the image's lattice.
        progress: told of each slab; asked for a cancel before every layer.
        slab_voxels: what one pass may take.
    """
    halo = receptive_radius(network.shared[modality])
    size = image.shape[2:]
    axis = int(np.argmax(size))
    others = int(np.prod(size)) // size[axis]
    width = max(slab_voxels // others - 2 * halo, 4)
    maps: Tensor | None = None
    with _cancellable(network, progress):
        for start in range(0, size[axis], width):
            stop = min(start + width, size[axis])
            low, high = max(start - halo, 0), min(stop + halo, size[axis])
            piece = image.narrow(2 + axis, low, high - low)
            piece = piece.to(memory_format=torch.channels_last_3d)
            found = network.encode(piece, conditions, modality).maps
            if maps is None:
                maps = found.new_empty((1, *size, found.shape[-1]))
            maps.narrow(1 + axis, start, stop - start).copy_(
                found.narrow(1 + axis, start - low, stop - start)
            )
            progress.tell(stop / size[axis])
    assert maps is not None
    return EncodedScan(Encoding(maps, conditions), grid)


def blocks(shape: tuple[int, int, int], size: int) -> Iterator[tuple[slice, slice, slice]]:
    """Blocks of at most size^3 that cover a lattice."""
    ranges = [range(0, n, size) for n in shape]
    for corner in itertools.product(*ranges):
        i, j, k = (
            slice(first, min(first + size, n)) for first, n in zip(corner, shape, strict=True)
        )
        yield i, j, k


@dataclass
class Restored:
    """Decoded arrays on the target lattice (I, J, K): intensity by modality, tissue values."""

    intensity: dict[int, NDArray[np.float32]]
    tissues: NDArray[np.uint8] | None


def decode(
    network: NexusINR,
    scans: dict[int, EncodedScan],
    start: dict[int, NDArray[np.float32]],
    inside: NDArray[np.bool_],
    target: Grid,
    progress: Progress,
    with_tissues: bool = True,
    tile: int = TILE,
) -> Restored:
    """Decodes a target lattice block by block; blocks of air are left as they are.

    Args:
        network: on its device.
        scans: encoded scans by modality, one or two.
        start: by modality, what air shows: the scan interpolated on the target, (I, J, K),
            changed in place.
        inside: where there is head, (I, J, K); air is not computed.
        target: the lattice.
        progress: told of each block.
        with_tissues: whether the segmentation is wanted.
        tile: edge of a block.
    """
    tissues = None
    if with_tissues and network.config.segmentation_enhanced:
        tissues = np.zeros(target.shape, dtype=np.uint8)
    todo = [block for block in blocks(target.shape, tile) if inside[block].any()]
    for n, block in enumerate(todo):
        first = np.array([s.start for s in block])
        grid = target.crop(first, [s.stop for s in block])
        values, classes = decode_block(network, scans, grid)
        head = inside[block]
        for modality, value in values.items():
            start[modality][block][head] = value[head]
        if tissues is not None and classes is not None:
            tissues[block][head] = classes[head]
        progress.tell((n + 1) / len(todo))
    return Restored(start, tissues)


def decode_block(
    network: NexusINR, scans: dict[int, EncodedScan], grid: Grid
) -> tuple[dict[int, NDArray[np.float32]], NDArray[np.uint8] | None]:
    """Intensities by modality and tissue values of one small lattice, (I, J, K)."""
    sampled: dict[int, Sampled] = {}
    around = grid.pad(1)
    for modality, scan in scans.items():
        part = scan.around(around)
        sampled[modality] = network.sample(part.encoding, LatticeMap([part.grid], [around]))
    values, chances = {}, []
    for modality, own in sampled.items():
        decoded = network.decode(modality, own, sampled.get(1 - modality))
        values[modality] = decoded.intensity[0].float().cpu().numpy()
        if decoded.logits is not None:
            chances.append(decoded.logits[0].float().softmax(dim=-1))
    if not chances:
        return values, None
    return values, sum(chances[1:], chances[0]).argmax(dim=-1).to(torch.uint8).cpu().numpy()


class _cancellable:  # noqa: N801 - reads as a function
    """Asks for a cancel before every convolution: a slab of a large encoder takes seconds."""

    def __init__(self, network: nn.Module, progress: Progress) -> None:
        self._network, self._progress = network, progress
        self._hooks: list[torch.utils.hooks.RemovableHandle] = []

    def __enter__(self) -> None:
        for module in self._network.modules():
            if isinstance(module, nn.Conv3d):
                self._hooks.append(module.register_forward_pre_hook(self._check))

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def _check(self, module: nn.Module, inputs: object) -> None:
        self._progress.check()
