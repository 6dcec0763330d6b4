"""The ways to the same lattice that are compared with: the paper's and that of ArSSR.

Both are given the sizes and the sampling of the network at hand, so that only the way differs.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from nexusinr.geometry import Grid
from nexusinr.inference.implicit import EncodedScan
from nexusinr.models.attention import CrossModalAttention
from nexusinr.models.nexus_inr import NexusINR, Sampled
from nexusinr.models.sampling import LatticeMap


def decode_dense(network: NexusINR, scans: dict[int, EncodedScan], grid: Grid) -> dict[int, Tensor]:
    """The paper's dense path, intensities (1, I, J, K) by modality.

    Every feature is brought to the lattice first; keys and values are projected there, and every
    point attends, in air as well.
    """
    around = grid.pad(1)
    sampled: dict[int, Sampled] = {}
    for modality, scan in scans.items():
        _, _, _, projected = network.split(scan.encoding.maps)
        size = 0 if projected is None else projected.shape[-1]
        plain = replace(scan.encoding, maps=scan.encoding.maps[..., : -size or None])
        found = network.sample(plain, LatticeMap([scan.grid], [around]))
        if size:
            attention = network.attention[1 - modality]
            assert isinstance(attention, CrossModalAttention)
            shared = network.split(found.maps)[1]
            found = replace(found, maps=torch.cat((found.maps, attention.project(shared)), dim=-1))
        sampled[modality] = found
    return {
        modality: network.decode(modality, own, sampled.get(1 - modality)).intensity
        for modality, own in sampled.items()
    }


def decode_each(network: NexusINR, scans: dict[int, EncodedScan], grid: Grid) -> dict[int, Tensor]:
    """ArSSR: every scan by itself, intensities (1, I, J, K) by modality."""
    found = {}
    for modality, scan in scans.items():
        lattice_map = LatticeMap([scan.grid], [grid.pad(1)])
        found[modality] = network.decode(modality, network.sample(scan.encoding, lattice_map))
    return {modality: decoded.intensity for modality, decoded in found.items()}


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
