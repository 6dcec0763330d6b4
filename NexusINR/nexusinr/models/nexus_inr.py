"""Nexus-INR (Zhang et al.): two scans in, both at any point of patient space out.

Every scan keeps its own lattice, its slice axis turned to the last array axis. `encode` runs once
a scan; `decode` reads the encodings at the points of a target lattice and can be called for as
many lattices as wanted. Feature tensors are channels last, (B, I, J, K, C).

Where this goes beyond the paper: the guidance is mutual (T1w attends to T2w as well, since the
thick axis of one is a thin axis of the other; `mutual_guidance=False` gives the paper's one-way
form), the decoder predicts a residual over trilinear interpolation, positions are relative to the
nearest scan voxel, and encoders and decoders know spacing and slice thickness.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from nexusinr.labels import CLASSES
from nexusinr.models import bfloat16
from nexusinr.models.attention import CrossModalAttention
from nexusinr.models.decoders import Positions, build_decoder
from nexusinr.models.encoders import DenseBlock, build_encoder, he_initialise
from nexusinr.models.position import Position, position_size
from nexusinr.models.sampling import LatticeMap

#: Modality indices of the paper (1 and 2 there).
T1W, T2W = 0, 1

#: Residual branches begin at this share of their natural size.
RESIDUAL_START = 0.2

#: Unit outputs of the decoder mean this much intensity, about the size of what interpolation
#: misses: the optimiser's steps then fit.
RESIDUAL_SCALE = 0.1

MODALITIES = ("T1w", "T2w")


@dataclass(frozen=True)
class NexusINRConfig:
    """Sizes and switches. `paper()` gives the published sizes; the defaults suit a CPU.

    The first three switches are the columns of table 2; with all off the network is ArSSR (Wu et
    al. 2022): one encoder a scan, no guidance, no segmentation. Without `conditioning` it is not
    told of spacing and thickness.
    """

    encoder: str = "rdn"
    features: int = 32
    growth: int = 16
    blocks: int = 3
    layers: int = 3
    decoder: str = "mlp"
    decoder_width: int = 96
    decoder_depth: int = 3
    attention_width: int = 16
    frequencies: int = 3
    classes: int = CLASSES
    multi_modal_fusion: bool = True
    cross_attention: bool = True
    segmentation_enhanced: bool = True
    mutual_guidance: bool = True
    conditioning: bool = True

    @classmethod
    def paper(cls) -> NexusINRConfig:
        """The sizes of paper section 4.2: RDN with 128 features, decoder of 4 x 256."""
        return cls(
            features=128,
            growth=64,
            blocks=8,
            layers=3,
            decoder_width=256,
            decoder_depth=4,
            attention_width=64,
            mutual_guidance=False,
        )

    def to_dict(self) -> dict[str, object]:
        """Plain values, as they travel in a checkpoint."""
        return asdict(self)


@dataclass
class Encoding:
    """One scan, encoded: everything that decoding reads, side by side in one tensor.

    maps: (B, i, j, k, 1 + 2C): image | shared | specific.
    """

    maps: Tensor
    conditions: Tensor


@dataclass
class Sampled:
    """An encoding read at the points of a target lattice.

    maps: as in Encoding, on the target lattice grown by one voxel, (B, I+2, J+2, K+2, ...).
    position: e_m of eq. 17, on the target lattice itself.
    """

    maps: Tensor
    position: Position


@dataclass
class Decoded:
    """What one modality's decoding gives on a target lattice, channels last.

    intensity (B, I, J, K); logits (B, I, J, K, classes); `interpolated` is the scan by trilinear
    interpolation. The features serve the auxiliary losses alone.
    """

    intensity: Tensor
    logits: Tensor | None
    fused: Tensor
    shared: Tensor
    specific: Tensor | None
    guide_shared: Tensor | None
    interpolated: Tensor
    positions: Positions


class NexusINR(nn.Module):
    """The network. See the module's docstring for what is fixed and NexusINRConfig for the rest."""

    def __init__(self, config: NexusINRConfig | None = None) -> None:
        super().__init__()
        self.config = c = config or NexusINRConfig()

        def encoders() -> nn.ModuleList:
            return nn.ModuleList(
                build_encoder(c.encoder, c.features, c.growth, c.blocks, c.layers)
                for _ in MODALITIES
            )

        self.shared = encoders()
        if c.multi_modal_fusion:
            self.specific = encoders()
            self.project = nn.ModuleList(_mlp(2 * c.features, c.features) for _ in MODALITIES)
            self.classifier = nn.Linear(c.features, len(MODALITIES))
        if c.cross_attention:
            self.attention = nn.ModuleList(
                CrossModalAttention(c.features, c.attention_width) if guided else nn.Identity()
                for guided in map(self._guided, range(len(MODALITIES)))
            )
        if c.segmentation_enhanced:
            self.segment = nn.ModuleList(_mlp(c.features, c.classes) for _ in MODALITIES)
            self.fuse = nn.ModuleList(_mlp(c.features + c.classes, c.features) for _ in MODALITIES)
        self.apply(_initialise)
        self._start_undecided()
        inputs = c.features + len(MODALITIES) * position_size(c.frequencies)
        self.decoder = nn.ModuleList(
            build_decoder(c.decoder, inputs, c.decoder_width, c.decoder_depth) for _ in MODALITIES
        )

    def _start_undecided(self) -> None:
        """No tissue and no modality is likelier than another in a fresh network.

        Random guesses would cost more than everything else: for hundreds of steps the encoders
        would learn to take them back, and not to restore.
        """
        heads: list[nn.Module] = []
        if self.config.multi_modal_fusion:
            heads.append(self.classifier)
        if self.config.segmentation_enhanced:
            heads += [mlp[-1] for mlp in self.segment if isinstance(mlp, nn.Sequential)]
        for head in heads:
            assert isinstance(head, nn.Linear)
            nn.init.zeros_(head.weight)

    def _guided(self, modality: int) -> bool:
        return modality == T2W or self.config.mutual_guidance

    # --- once a scan -----------------------------------------------------------------------

    def encode(self, image: Tensor, conditions: Tensor, modality: int) -> Encoding:
        """Eqs. 2-3: one scan to its feature maps, on its own lattice.

        Args:
            image: (B, 1, i, j, k), intensities of about 0 ... 1, slice axis last.
            conditions: (B, 6), from `scan_conditions`.
            modality: T1W or T2W.
        """
        conditions = self.told(conditions)
        features = [
            encoder(image, conditions).permute(0, 2, 3, 4, 1) for encoder in self.encoders(modality)
        ]
        return Encoding(torch.cat((image.permute(0, 2, 3, 4, 1), *features), dim=-1), conditions)

    def told(self, conditions: Tensor) -> Tensor:
        """What the network is to know of a scan's spacing and thickness: zeros for nothing."""
        return conditions if self.config.conditioning else torch.zeros_like(conditions)

    def encoders(self, modality: int) -> list[nn.Module]:
        """Those of a modality's scan: shared and, with fusion, specific."""
        kinds = [self.shared, self.specific] if self.config.multi_modal_fusion else [self.shared]
        return [kind[modality] for kind in kinds]

    def split(self, maps: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Image, shared and specific (or None) of an Encoding's maps."""
        c = self.config.features
        specific = maps[..., 1 + c :] if self.config.multi_modal_fusion else None
        return maps[..., :1], maps[..., 1 : 1 + c], specific

    # --- once a target lattice -------------------------------------------------------------

    def sample(self, encoding: Encoding, lattice_map: LatticeMap) -> Sampled:
        """Eqs. 4-5, 7-8, 13-14: reads a scan's encoding at the points of a target lattice.

        Args:
            encoding: of one scan.
            lattice_map: from that scan to the target lattice *grown by one voxel on every side*
                (where the attention looks for neighbours).
        """
        position = self.position(lattice_map, encoding.conditions)
        return Sampled(lattice_map.sample(encoding.maps), position)

    def position(self, lattice_map: LatticeMap, conditions: Tensor) -> Position:
        """Eq. 17, of the scan with these conditions; for the map see `sample`."""
        return Position(lattice_map, conditions, self.config.frequencies)

    def decode(self, modality: int, own: Sampled, guide: Sampled | None = None) -> Decoded:
        """One modality on a target lattice (eqs. 6, 15-17, 20-25).

        Args:
            modality: the modality to restore.
            own: its scan at the target's points.
            guide: the other scan at the same points, or None where there is no other scan.
        """
        image, shared, specific = self.split(_inner(own.maps))
        guide_shared = None
        fused = shared
        if guide is not None:
            _, around, _ = self.split(guide.maps)
            guide_shared = _inner(around)
            if self.config.cross_attention and self._guided(modality):
                fused = shared + self.attention[modality](shared, around)  # eq. 6
        features = fused
        if specific is not None:
            mixed = self._perceptron(self.project[modality], fused, specific)  # eq. 15
            features = mixed + fused  # eq. 16
        logits = None
        if self.config.segmentation_enhanced:
            logits = self._perceptron(self.segment[modality], features)  # eqs. 20-21
            features = self._perceptron(self.fuse[modality], features, logits)  # eqs. 22-23
        positions = (own.position, None if guide is None else guide.position)
        with bfloat16.factors(self):
            residual = self.decoder[modality](features, positions)  # eqs. 24-25
        return Decoded(
            intensity=(image + RESIDUAL_SCALE * residual)[..., 0],  # eq. 1
            logits=logits,
            fused=fused,
            shared=shared,
            specific=specific,
            guide_shared=guide_shared,
            interpolated=image[..., 0],
            positions=positions,
        )

    def _perceptron(self, layers: nn.Module, *inputs: Tensor) -> Tensor:
        """A point-wise perceptron of inputs side by side."""
        with bfloat16.factors(self):
            found: Tensor = layers(torch.cat(inputs, dim=-1))
        return found

    def decode_alone(self, modality: int, decoded: Decoded) -> Tensor:
        """Self-reconstruction (eqs. 10-11): intensity (B, I, J, K) from shared features alone."""
        residual = self.decoder[modality](decoded.shared, decoded.positions)
        return decoded.interpolated + RESIDUAL_SCALE * residual[..., 0]


def scan_conditions(spacing: Tensor, thickness: Tensor) -> Tensor:
    """What the network is told of a scan: spacing and thickness (B, 3) mm to (B, 6) logarithms."""
    return torch.cat((spacing.log(), (thickness / spacing).log()), dim=-1)


def _mlp(inputs: int, outputs: int) -> nn.Sequential:
    width = max(inputs // 2, outputs)
    return nn.Sequential(nn.Linear(inputs, width), nn.ReLU(inplace=True), nn.Linear(width, outputs))


def _initialise(module: nn.Module) -> None:
    """Residual branches start small, so that the sums they are added to keep their size."""
    he_initialise(module)
    if isinstance(module, DenseBlock):
        module.fuse.weight.data *= RESIDUAL_START
    elif isinstance(module, CrossModalAttention):
        module.out.weight.data *= RESIDUAL_START


def _inner(x: Tensor) -> Tensor:
    return x[:, 1:-1, 1:-1, 1:-1]
