"""The ways to the same lattice that are compared with: the paper's and that of ArSSR.

Both are given the sizes of the network at hand, so that only the way differs, and are written with
torch's own functions: features are read by `grid_sample`, and neighbours are gathered.
"""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from nexusinr.geometry import Grid
from nexusinr.inference.implicit import EncodedScan
from nexusinr.models.attention import CrossModalAttention
from nexusinr.models.neighbourhood import shifts
from nexusinr.models.nexus_inr import Encoding, NexusINR, Sampled
from nexusinr.models.position import Position
from nexusinr.models.sampling import LatticeMap


def decode_dense(network: NexusINR, scans: dict[int, EncodedScan], grid: Grid) -> dict[int, Tensor]:
    """The paper's dense path, intensities (1, I, J, K) by modality; of a network in dense form.

    Every feature is brought to the lattice first; keys and values are projected there, and every
    point attends, in air as well.
    """
    sampled = {
        modality: _read(network, scan.encoding, LatticeMap([scan.grid], [grid.pad(1)]))
        for modality, scan in scans.items()
    }
    return {
        modality: network.decode(modality, own, sampled.get(1 - modality)).intensity
        for modality, own in sampled.items()
    }


def decode_each(network: NexusINR, scans: dict[int, EncodedScan], grid: Grid) -> dict[int, Tensor]:
    """ArSSR: every scan by itself, intensities (1, I, J, K) by modality."""
    found = {}
    for modality, scan in scans.items():
        lattice_map = LatticeMap([scan.grid], [grid.pad(1)])
        found[modality] = network.decode(modality, _read(network, scan.encoding, lattice_map))
    return {modality: decoded.intensity for modality, decoded in found.items()}


def _read(network: NexusINR, encoding: Encoding, lattice_map: LatticeMap) -> Sampled:
    """As `network.sample`, by `grid_sample`."""
    maps = encoding.maps.permute(0, 4, 1, 2, 3)
    last = torch.tensor(lattice_map.scan_shape, device=maps.device) - 1
    where = lattice_map.coordinates(maps) / last.clamp(min=1) * 2 - 1
    read = functional.grid_sample(
        maps, where.flip(-1).to(maps.dtype), padding_mode="border", align_corners=True
    )
    frequencies = network.config.frequencies
    position = PlainPosition(lattice_map, encoding.conditions, frequencies)
    return Sampled(read.permute(0, 2, 3, 4, 1), position)


class PlainPosition(Position):
    """The same encoding, spelled out at every point."""

    def mapped(self, weight: Tensor) -> list[Tensor]:
        """See Position."""
        return [functional.linear(self.full(), weight)]


class GatheringAttention(CrossModalAttention):
    """The same attention, all neighbours of all points gathered before they are weighed."""

    def forward(self, query: Tensor, guide: Tensor) -> Tensor:
        """See CrossModalAttention."""
        around = torch.stack(shifts(self.key_value(guide).movedim(-1, 1)), dim=-1)
        key, value = around.movedim(1, -1).split(self.width, dim=-1)
        asked = self.query(query).unsqueeze(-2) * self.width**-0.5
        weights = torch.softmax((asked * key).sum(-1) + self.distance_bias[self.distance], dim=-1)
        return self.out((weights.unsqueeze(-1) * value).sum(-2))


def dense_form(network: NexusINR) -> NexusINR:
    """A copy of a network for the dense path, with the same weights."""
    dense = copy.deepcopy(network)
    if not dense.config.cross_attention:
        return dense
    for n, part in enumerate(dense.attention):
        if isinstance(part, CrossModalAttention):
            gathering = GatheringAttention(dense.config.features, part.width)
            gathering.load_state_dict(part.state_dict())
            dense.attention[n] = gathering.to(part.query.weight.device, part.query.weight.dtype)
    return dense


def arssr_form(network: NexusINR) -> NexusINR:
    """A network of the same sizes with every switch off; untrained, since only its time counts."""
    config = replace(
        network.config,
        multi_modal_fusion=False,
        cross_attention=False,
        segmentation_enhanced=False,
    )
    weight = next(network.parameters())
    plain = NexusINR(config).eval().to(weight.device, weight.dtype)
    plain.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    return plain
