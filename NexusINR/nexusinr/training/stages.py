"""Examples for ICONet: one thick-slice scan, and the truth of every stage of its restoration.

Scans are 2 or 4 fine voxels thick (and 1 or 2 wide), so that the lattices of all stages fit into
the fine one exactly. Everything is in fine voxels, the slice axis last.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nexusinr.acquisition import Profile, SeparableAcquisition
from nexusinr.geometry import Affine, Grid
from nexusinr.models.iconet import Axes, stage_plan
from nexusinr.training.crops import MARGIN, CropSource, Cut, Fine
from nexusinr.training.dataset import LabelMap, Subject, TrainingData
from nexusinr.training.filters import blur, noisy, ringing, uniform
from nexusinr.training.patches import conditions
from nexusinr.training.protocols import BRATS, slice_axis_last

#: Fine voxels at each face that are seen and not judged: the thickest slice there is.
CONTEXT = 4

#: How often a scan has ringing and is blurred; protocol `brats` has neither, and no noise.
RINGING_SHARE = 0.3
BLUR_SHARE = 0.3

#: Standard deviations of the noise, intensities of 0 ... 1, and the share that has one.
NOISE = (0.005, 0.04)
NOISE_SHARE = 0.6


@dataclass(frozen=True)
class StageProtocol:
    """How one scan is acquired; lengths in fine voxels.

    Attributes:
        axis: slice axis of the turned patch.
        ratios: spacing of the scan along its own axes, slice axis last; 1, 2 or 4 each.
        thickness: of its slices.
        profile: of its slices.
        degraded: whether there is noise, ringing and blur.
    """

    axis: int
    ratios: tuple[int, int, int]
    thickness: float
    profile: Profile = "box"
    degraded: bool = False


class Staged:
    """A batch of B scans of one modality and what every stage should give.

    Args:
        modality: 0 (T1w) or 1 (T2w).
        scan: the degraded images, (B, 1, i, j, k).
        conditions: what the network is told of them, (B, 6).
        plan: the axes that each stage doubles.
        clean: for each stage the image at its input lattice without noise, ringing and blur, and
            in the end the fine truth: entry n + 1 is what the super-resolution branch of stage n
            should give; (B, 1, i, j, k) each.
        borders: for each entry of `clean`, how many voxels along each axis are not judged, (3,).
    """

    def __init__(
        self,
        modality: int,
        scan: Tensor,
        conditions: Tensor,
        plan: list[Axes],
        clean: list[Tensor],
        borders: list[tuple[int, int, int]],
    ) -> None:
        self.modality, self.scan, self.conditions = modality, scan, conditions
        self.plan, self.clean, self.borders = plan, clean, borders

    def inner(self, image: Tensor, level: int) -> Tensor:
        """The judged part of an image (B, 1, i, j, k) on the lattice of a level."""
        sizes = zip(self.borders[level], image.shape[-3:], strict=True)
        i, j, k = (slice(border, size - border) for border, size in sizes)
        return image[..., i, j, k]


class StageSource(CropSource):
    """Draws examples for ICONet; arguments as of CropSource, and the share of protocol `brats`.

    Raises ValueError for a size that the lattices of thick slices do not fit into.
    """

    def __init__(
        self,
        data: TrainingData,
        size: int,
        seed: int,
        label_share: float = 0.22,
        brats_share: float = 0.6,
        weights: dict[str, float] | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        if size % CONTEXT or size < 4 * CONTEXT:
            raise ValueError(f"patch is {size}: ICONet needs a multiple of 4, 16 or more")
        super().__init__(data, size, seed, label_share, weights, device)
        self.brats_share = brats_share
        sources: list[Subject | LabelMap] = [*data.subjects, *data.label_maps]
        self.modalities = [m for m in (0, 1) if any(s.contrasts[m] for s in sources)]

    def draw(self, batch: int, number: int) -> Staged:
        """The batch of a number: the modalities take turns."""
        modality = self.modalities[number % len(self.modalities)]
        first = self._pick_with(modality)
        protocol = self._protocol(modality, first.sharp)
        cuts: list[Cut] = []
        source = first
        while len(cuts) < batch:
            cut = self.cut(source, (protocol.axis,))
            if cut is not None and (max(protocol.ratios[:2]) == 1 or len(source.sharp) == 3):
                cuts.append(cut)
            source = self._pick_with(modality)
        return self.acquired(self.fine(cuts, (modality,)), protocol, modality)

    def acquired(self, fine: Fine, protocol: StageProtocol, modality: int) -> Staged:
        """What a scanner and each stage should make of fine patches."""
        image = fine.images[modality]
        assert image is not None
        image = image.permute(0, *(1 + axis for axis in slice_axis_last(protocol.axis)))
        plan = stage_plan(protocol.ratios, (1, 1, 1))
        spacing = np.array(protocol.ratios, dtype=float)
        thickness = np.array((*spacing[:2], protocol.thickness))
        told = conditions(spacing, thickness, fine.millimetres).to(image.device)
        clean = [self._seen(image, spacing, thickness, protocol.profile)]
        borders = [_border(spacing)]
        for axes in plan:
            spacing = np.where(axes, spacing / 2, spacing)
            thickness = np.where(axes, spacing, thickness)
            clean.append(self._seen(image, spacing, thickness, protocol.profile))
            borders.append(_border(spacing))
        scan = self._degraded(clean[0][:, 0])[:, None] if protocol.degraded else clean[0]
        return Staged(modality, scan.contiguous(), told, plan, clean, borders)

    def fixed(self, subject: Subject) -> list[Staged]:
        """One patch of each contrast of a person, acquired as protocol `brats` does."""
        found = []
        for modality in (m for m in (0, 1) if subject.contrasts[m]):
            step = int(BRATS.steps[modality])
            protocol = StageProtocol(BRATS.axes[modality], (1, 1, step), step)
            cut = self.cut_turned(subject, (0, 1, 2), remap=0)
            found.append(self.acquired(self.fine([cut], (modality,)), protocol, modality))
        return found

    def _pick_with(self, modality: int) -> Subject | LabelMap:
        while True:
            source = self.pick()
            if source.contrasts[modality]:
                return source

    def _protocol(self, modality: int, sharp: tuple[int, ...]) -> StageProtocol:
        axis = int(self.rng.choice(sharp))
        if self.rng.random() < self.brats_share:
            step = int(BRATS.steps[modality])
            return StageProtocol(axis, (1, 1, step), step)
        step = int(self.rng.choice((1, 2, 4), p=(0.1, 0.45, 0.45)))
        coarse = self.rng.random(2) < 0.2
        # Where slices were thick already there is no truth along them that could be restored.
        i, j = np.where(coarse & (len(sharp) == 3), 2, 1).tolist()
        if max(i, j, step) == 1:
            step = 2
        gap = self.rng.uniform(0, 0.3) * (self.rng.random() < 0.5)
        profile: Profile = "gaussian" if self.rng.random() < 0.5 else "box"
        return StageProtocol(axis, (i, j, step), max(step * (1 - gap), 1), profile, degraded=True)

    def _seen(
        self, image: Tensor, spacing: np.ndarray, thickness: np.ndarray, profile: Profile
    ) -> Tensor:
        """The acquisition of fine images (B, W, W, W) on a lattice, (B, 1, i, j, k)."""
        fine = Grid((self.size,) * 3, Affine.from_parts((1, 1, 1)))
        i, j, k = np.round(self.size / spacing).astype(int).tolist()
        lattice = Grid.from_corner((i, j, k), spacing, np.eye(3), fine.corner)
        model = SeparableAcquisition(lattice, fine.pad(MARGIN), thickness, profile)
        return model.forward(image)[:, None].contiguous()

    def _degraded(self, images: Tensor) -> Tensor:
        """Blur, ringing along an in-plane axis and noise, each example by its own measure."""
        batch = len(images)

        def sometimes(share: float, low: float, high: float, otherwise: float) -> Tensor:
            chosen = uniform(self.generator, batch, 0, 1) < share
            drawn = uniform(self.generator, batch, low, high)
            return torch.where(chosen, drawn, torch.full_like(drawn, otherwise))

        images = blur(images, sometimes(BLUR_SHARE, 0.3, 0.8, otherwise=0), axes=(0, 1))
        kept = sometimes(RINGING_SHARE, 0.6, 0.9, otherwise=1)
        images = ringing(images, kept, axis=int(self.rng.integers(2)))
        return noisy(images, sometimes(NOISE_SHARE, *NOISE, otherwise=0), self.generator)


def _border(spacing: np.ndarray) -> tuple[int, int, int]:
    i, j, k = (CONTEXT // spacing).astype(int).tolist()
    return i, j, k
