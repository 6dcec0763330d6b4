"""Nexus-INR in training: two scans in, each restored on the lattice of its own truth."""

from __future__ import annotations

from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from nexusinr.models.nexus_inr import Decoded, NexusINR
from nexusinr.training.dataset import Subject, TrainingData
from nexusinr.training.losses import modality_losses
from nexusinr.training.patches import Example, PatchSource
from nexusinr.training.protocols import BRATS
from nexusinr.training.task import MODALITIES, VALIDATION_SIZE, Restored, Task


class NexusTask(Task[Example]):
    """The losses of the paper, both modalities of a pair together."""

    architecture: ClassVar[str] = "NexusINR"
    source_class = PatchSource

    def draw(self, number: int) -> Example:
        """A batch of pairs that share one protocol."""
        return cast(PatchSource, self.source).draw(self.config.batch)

    def fixed(self, subject: Subject) -> list[Example]:
        """Two large patches."""
        data = TrainingData([subject], [])
        source = PatchSource(data, VALIDATION_SIZE, seed=1, context=0, device=self.device)
        return [source.from_subject(subject, BRATS, remap=0) for _ in range(2)]

    def run(self, network: nn.Module, example: Example) -> dict[int, Decoded]:
        """Both modalities."""
        return decode_example(cast(NexusINR, network), example)

    def terms(self, found: dict[int, Decoded], example: Example) -> dict[str, Tensor]:
        """Every term that the scans of the batch support, summed over the modalities."""
        network = cast(NexusINR, self.network)
        terms: dict[str, Tensor] = {}
        for modality, decoded in found.items():
            side = example.sides[modality]
            assert side is not None
            for name, value in modality_losses(
                network, modality, decoded, side.truth, side.tissues
            ).items():
                terms[name] = terms[name] + value if name in terms else value
        return terms

    def restored(self, found: dict[int, Decoded], example: Example) -> dict[str, Restored]:
        """Both modalities."""
        images = {}
        for modality, decoded in found.items():
            side = example.sides[modality]
            assert side is not None
            images[MODALITIES[modality]] = Restored(
                decoded.interpolated, decoded.intensity, side.truth
            )
        return images


def decode_example(network: NexusINR, example: Example) -> dict[int, Decoded]:
    """Encodes an example's scans and decodes each on the lattice of its own truth."""
    encodings = []
    for modality, side in enumerate(example.sides):
        encoding = None
        if side is not None:
            scan = side.scan.contiguous(memory_format=torch.channels_last_3d)
            encoding = network.encode(scan, side.conditions, modality)
        encodings.append(encoding)
    decoded = {}
    for modality, (side, own) in enumerate(zip(example.sides, encodings, strict=True)):
        if side is None or own is None:
            continue
        target = side.truth_grids
        other, guide = example.sides[1 - modality], encodings[1 - modality]
        # Interpolated in full precision: the scan itself is among the maps.
        with torch.autocast(side.scan.device.type, enabled=False):
            own_maps = network.sample(own, side.map_to(target))
            read = None
            if other is not None and guide is not None:
                read = network.sample(guide, other.map_to(target))
        decoded[modality] = network.decode(modality, own_maps, read)
    return decoded
