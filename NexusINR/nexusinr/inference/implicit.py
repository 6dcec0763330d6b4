"""Nexus-INR at work: scans encoded plane by plane, any lattice decoded block by block."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nexusinr.geometry import Grid
from nexusinr.inference.engine import Restored, Steps, conditions_of
from nexusinr.inference.gpu import Coming, affordable
from nexusinr.inference.prepared import PreparedScan
from nexusinr.inference.progress import Progress
from nexusinr.inference.threads import each
from nexusinr.inference.tiles import Block, block_edges, lattice_of, occupied
from nexusinr.models.encoders import receptive_radius
from nexusinr.models.nexus_inr import T1W, Encoding, NexusINR, Sampled
from nexusinr.models.sampling import LatticeMap
from nexusinr.models.streaming import planes_at_once, streamed

#: Edge of the blocks in which a target lattice is decoded: on a CPU small enough for its cache and
#: for leaving out air, on a GPU so large that few kernels have to be started.
TILE, GPU_TILE = 40, 128

#: Voxels that enter the encoders at once: on a CPU so few that its cache holds most of what they
#: make, on a GPU enough to keep it busy, if its memory holds them. No block is larger either.
PIECE_VOXELS, GPU_PIECE_VOXELS = 100_000, GPU_TILE**3

#: Values that are kept for each point of a block while it is decoded, in features: counted.
DECODED_FEATURES = 20

#: Intensities by modality, float32, and tissue values of a block, uint8; None without tissues.
Decoding = tuple[dict[int, Coming], Coming | None]


class Implicit:
    """The engine of Nexus-INR (see `engine.Engine`): what is encoded serves any target."""

    steps = Steps("encoding", 0.54, "decoding", 0.18)

    def __init__(self, network: NexusINR) -> None:
        self.network = network

    @property
    def on_cpu(self) -> bool:
        """Whether the network is there now."""
        return next(self.network.parameters()).device.type == "cpu"

    @property
    def piece_voxels(self) -> int:
        """See the constants."""
        if self.on_cpu:
            return PIECE_VOXELS
        weight = next(self.network.parameters())
        return affordable(weight, self._passing_values, GPU_PIECE_VOXELS)

    def tile(self, piece_voxels: int) -> int:
        """See the constants; less where pieces had to be made smaller."""
        if self.on_cpu:
            return min(TILE, _edge(piece_voxels))
        values = DECODED_FEATURES * self.network.config.features
        return _edge(affordable(next(self.network.parameters()), values, piece_voxels))

    @property
    def _passing_values(self) -> int:
        """What the encoders keep of each voxel that is in them.

        Every layer has a window of its input, one and a half times the features on average.
        """
        layers = sum(map(receptive_radius, self.network.encoders(T1W)))
        return self.network.config.features * layers * 3 // 2

    @property
    def channels(self) -> int:
        """Length of an encoding at one voxel."""
        c = self.network.config
        return 1 + c.features * (1 + c.multi_modal_fusion)

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
        piece_voxels: int,
    ) -> Restored:
        """Wherever one of the scans shows head: each tells of both."""
        head, tile = np.any(list(inside.values()), axis=0), self.tile(piece_voxels)
        return decode(self.network, encoded, start, head, target, progress, with_tissues, tile)

    def memory(self, scans: Sequence[Grid], target: Grid, piece_voxels: int) -> int:
        """Encodings of all scans and what is streamed through the encoders of one."""
        kept = 4 * self.channels * sum(scan.voxels for scan in scans)
        if not piece_voxels:
            return kept
        plane = max(scan.voxels // scan.shape[0] for scan in scans)
        # At the end, when all layers let go of what they kept, windows are 8 planes longer.
        window = min(max(piece_voxels, plane) + 8 * plane, max(scan.voxels for scan in scans))
        return kept + 4 * self._passing_values * window


@dataclass
class EncodedScan:
    """A scan's encoding, batch of one, and the lattice that it lies on (slice axis last)."""

    encoding: Encoding
    grid: Grid


def encode(
    network: NexusINR,
    image: Tensor,
    conditions: Tensor,
    modality: int,
    grid: Grid,
    progress: Progress,
    piece_voxels: int = PIECE_VOXELS,
) -> EncodedScan:
    """Encodes one scan a few planes at a time (see `streaming`).

    Args:
        network: on its device.
        image: (1, 1, i, j, k), slice axis last, on the same device.
        conditions: (1, 6).
        modality: T1W or T2W.
        grid: the image's lattice.
        progress: told after each pass, and asked for a cancel before it.
        piece_voxels: what one pass may take.
    """
    conditions = network.told(conditions)
    streams = [streamed(encoder, conditions) for encoder in network.encoders(modality)]
    planes = image[0].permute(1, 2, 3, 0)
    count, (_, j, k) = len(planes), grid.shape
    step = planes_at_once(j, k, network.config.features, piece_voxels)
    channels = [1, *(network.config.features for _ in streams)]
    maps = image.new_empty(1, *grid.shape, sum(channels))
    done = 0
    for first in range(0, count, step):
        progress.check()
        new, last = planes[first : first + step], first + step >= count
        features = [stream(new, last) for stream in streams]
        ready = slice(done, done + len(features[0]))
        for place, found in zip(
            maps[0, ready].split(channels, dim=-1), (planes[ready], *features), strict=True
        ):
            place.copy_(found)
        done = ready.stop
        progress.tell(done / count)
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
        tile: edge of a block; see `tiles.block_edges` for thin lattices.
    """
    tissues = None
    if with_tissues and network.config.segmentation_enhanced:
        tissues = np.zeros(target.shape, dtype=np.uint8)
    todo = list(occupied(inside, block_edges(target.shape, tile)))

    def work(block: Block) -> Decoding:
        return decode_block(network, scans, lattice_of(target, block))

    on_cpu = next(network.parameters()).device.type == "cpu"
    with closing(each(work, todo, on_cpu)) as found:
        for n, (block, (values, classes)) in enumerate(zip(todo, found, strict=True)):
            head = inside[block]
            for modality, value in values.items():
                np.copyto(start[modality][block], value.wait().numpy(), where=head)
            if tissues is not None and classes is not None:
                np.copyto(tissues[block], classes.wait().numpy(), where=head)
            progress.tell((n + 1) / len(todo))
    return Restored(start, tissues)


def decode_block(network: NexusINR, scans: dict[int, EncodedScan], grid: Grid) -> Decoding:
    """Intensities by modality and tissue values of one small lattice, (I, J, K) each."""
    i, j, k = np.argsort(grid.shape, kind="stable").tolist()
    lattice = grid.permuted((i, j, k))  # the longest rows: those of a plane may be single points
    back = np.argsort((i, j, k)).tolist()
    sampled: dict[int, Sampled] = {}
    around = lattice.pad(1)
    for modality, scan in scans.items():
        sampled[modality] = network.sample(scan.encoding, LatticeMap([scan.grid], [around]))
    values, chances = {}, []
    for modality, own in sampled.items():
        decoded = network.decode(modality, own, sampled.get(1 - modality))
        values[modality] = Coming(decoded.intensity[0].float().permute(back))
        if decoded.logits is not None:
            # Classes first: along the points the sums of softmax are several times as fast.
            chances.append(decoded.logits[0].flatten(0, 2).t().contiguous().float().softmax(dim=0))
    if not chances:
        return values, None
    classes = _largest(sum(chances[1:], chances[0]))
    return values, Coming(classes.reshape(lattice.shape).permute(back))


def _edge(voxels: int) -> int:
    """Of a cube of so many voxels, at least one."""
    return max(round(voxels ** (1 / 3)), 1)


def _largest(values: Tensor) -> Tensor:
    """The row, (points,) uint8, of the largest of each column, (rows, points).

    `argmax` over rows takes as long as all the rest of the tissues.
    """
    best = values[0]
    row = torch.zeros(best.shape, dtype=torch.uint8, device=best.device)
    for n, value in enumerate(values[1:], 1):
        row.masked_fill_(value > best, n)
        best = torch.maximum(best, value)
    return row
