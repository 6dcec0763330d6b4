"""Nexus-INR at work: scans encoded piece by piece, any lattice decoded block by block."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nexusinr.geometry import Grid
from nexusinr.inference.engine import Restored, Steps, conditions_of
from nexusinr.inference.prepared import PreparedScan
from nexusinr.inference.progress import Progress
from nexusinr.inference.tiles import (
    blocks,
    cancellable,
    indices_around,
    piece_edges,
    with_halo,
)
from nexusinr.models.encoders import receptive_radius
from nexusinr.models.nexus_inr import Encoding, NexusINR, Sampled
from nexusinr.models.sampling import LatticeMap

#: Voxels that one pass of an encoder takes at most, halo included; bounds memory. What is smaller
#: has more halo.
PIECE_VOXELS = 1_400_000

#: Working space of one pass per voxel and feature channel, in bytes.
PASS_BYTES = 4 * 9

#: Edge of the blocks in which a target lattice is decoded: on a CPU small enough for its cache and
#: for leaving out air, on a GPU with enough points to keep it busy.
TILE, GPU_TILE = 24, 64


class Implicit:
    """The engine of Nexus-INR (see `engine.Engine`): what is encoded serves any target."""

    steps = Steps("encoding", 0.37, "decoding", 0.35)
    piece_voxels = PIECE_VOXELS

    def __init__(self, network: NexusINR) -> None:
        self.network = network

    @property
    def channels(self) -> int:
        """Length of an encoding at one voxel."""
        c = self.network.config
        guiding = 2 * c.attention_width if c.cross_attention else 0
        return 1 + c.features * (1 + c.multi_modal_fusion) + guiding

    def serves(self, encoded: EncodedScan, scan: PreparedScan, target: Grid) -> bool:
        """Always."""
        return True

    def encode(
        self,
        modality: int,
        scan: PreparedScan,
        target: Grid,
        progress: Progress,
        piece_voxels: int,
    ) -> EncodedScan:
        """The scan's feature maps, on its own lattice."""
        weight = next(self.network.parameters())
        image = torch.from_numpy(scan.image)[None, None].to(weight)
        conditions = conditions_of(scan).to(weight)
        return encode(self.network, image, conditions, modality, scan.grid, progress, piece_voxels)

    def decode(
        self,
        encoded: dict[int, EncodedScan],
        start: dict[int, NDArray[np.float32]],
        inside: dict[int, NDArray[np.bool_]],
        target: Grid,
        progress: Progress,
        with_tissues: bool,
    ) -> Restored:
        """Wherever one of the scans shows head: each tells of both."""
        head = np.any(list(inside.values()), axis=0)
        on_cpu = next(self.network.parameters()).device.type == "cpu"
        tile = TILE if on_cpu else GPU_TILE
        return decode(self.network, encoded, start, head, target, progress, with_tissues, tile)

    def memory(self, scans: Sequence[Grid], target: Grid, piece_voxels: int) -> int:
        """Encodings of all scans and one pass."""
        sizes = [scan.voxels for scan in scans]
        piece = min(piece_voxels, max(sizes))
        return sum(sizes) * self.channels * 4 + piece * PASS_BYTES * self.network.config.features


@dataclass
class EncodedScan:
    """A scan's encoding, batch of one, and the lattice that it lies on (slice axis last)."""

    encoding: Encoding
    grid: Grid

    def around(self, target: Grid) -> EncodedScan:
        """The part that interpolation at the target's points reads."""
        start, stop = indices_around(self.grid, target)
        start -= start % 2  # points midway between two voxels go to the even one, in any part
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
    piece_voxels: int = PIECE_VOXELS,
) -> EncodedScan:
    """Encodes one scan piece by piece, with a halo of the encoder's receptive field.

    Args:
        network: on its device.
        image: (1, 1, i, j, k), slice axis last, on the same device.
        conditions: (1, 6).
        modality: T1W or T2W.
        grid: the image's lattice.
        progress: told of each piece; asked for a cancel before every layer.
        piece_voxels: what one pass may take.
    """
    halo = receptive_radius(network.shared[modality])
    pieces = list(blocks(grid.shape, piece_edges(grid.shape, halo, piece_voxels)))
    maps: Tensor | None = None
    with cancellable(network, progress):
        for n, piece in enumerate(pieces):
            around, inner = with_halo(piece, halo, grid.shape)
            part = image[0, 0][around][None, None].contiguous(memory_format=torch.channels_last_3d)
            found = network.encode(part, conditions, modality).maps[0]
            if maps is None:
                maps = found.new_empty((1, *grid.shape, found.shape[-1]))
            maps[0][piece] = found[inner]
            progress.tell((n + 1) / len(pieces))
    assert maps is not None
    return EncodedScan(Encoding(maps, conditions), grid)


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
