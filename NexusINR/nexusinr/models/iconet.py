"""ICONet (Kui et al. 2025): one scan restored in stages, each of which doubles what still needs it.

In every stage two branches of RSCFL blocks run side by side. The reconstruction branch gives a
clean image at the stage's own scale (without noise, ringing and blur), the super-resolution branch
the image with some axes doubled; after every pair of blocks a fusion module gates the features of
each into the other. A stage's fine image is the next stage's input, and both images of every stage
are there to be supervised. Tensors are (B, C, i, j, k), the slice axis last.

The source gives the parts and how they are joined; the rest is decided here:

* Volumes, not slices; a stage doubles any of the axes. Thick slices need it along one alone.
* One set of weights serves all stages, told of spacing and slice thickness: any number of stages
  works, each learns from all, and the weights stay small.
* The clean image is a residual over the input, the fine image one over linear interpolation of
  the clean image: a fresh network is that interpolation, and what the reconstruction branch
  removes does not come back.
* Corners are kept: the voxels of a doubled axis lie at -0.25, 0.25, 0.75 ... of the old index.
* Every operation has a finite reach (`ICONet.radius`): pieces give the values of the whole.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from nexusinr.models.encoders import Conditioning, Pointwise, conv3, he_initialise
from nexusinr.models.nexus_inr import RESIDUAL_SCALE, RESIDUAL_START
from nexusinr.models.rscfl import RSCFL, strip

#: Which of the axes i, j, k a stage doubles.
Axes = tuple[bool, bool, bool]

#: A spacing that is coarser than wanted by less than this share counts as reached: 1.02 mm is 1 mm.
CLOSE_ENOUGH = 0.05


@dataclass(frozen=True)
class ICONetConfig:
    """Sizes.

    Attributes:
        features: channels of either branch.
        blocks: RSCFL blocks of either branch, each pair followed by a fusion.
        reach: how far, in voxels, a block relates positions and averages channels.
    """

    features: int = 32
    blocks: int = 3
    reach: int = 3

    def to_dict(self) -> dict[str, object]:
        """Plain values, as they travel in a checkpoint."""
        return asdict(self)


@dataclass
class Stage:
    """What one stage gives.

    Attributes:
        clean: the image at the stage's input scale, (B, 1, i, j, k).
        fine: the image with the stage's axes doubled, (B, 1, i', j', k'); the next stage's input.
    """

    clean: Tensor
    fine: Tensor


class Fusion(nn.Module):
    """SR-Rec fusion: each stream takes from the other what a gate, from both, lets through."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gates = Pointwise(2 * channels, 2 * channels)
        self.to_clean = Pointwise(channels, channels)
        self.to_fine = Pointwise(channels, channels)

    def forward(self, clean: Tensor, fine: Tensor) -> tuple[Tensor, Tensor]:
        """Features of both branches, (B, C, i, j, k) each, to the same."""
        both = torch.sigmoid(self.gates(torch.cat((clean, fine), dim=1)))
        for_clean, for_fine = both.chunk(2, dim=1)
        return clean + for_clean * self.to_clean(fine), fine + for_fine * self.to_fine(clean)


class Doubling(nn.Module):
    """Doubles features along one axis: a convolution gives either half of every voxel.

    Begins as linear interpolation, so that an axis that training never doubled does no harm.
    """

    def __init__(self, channels: int, axis: int) -> None:
        super().__init__()
        self.axis = axis
        self.halves = strip(channels, 2 * channels, axis, 1)

    def start_as_interpolation(self) -> None:
        """Each half is three quarters of its voxel and a quarter of the neighbour on its side."""
        channels = self.halves.in_channels
        weight = torch.zeros(2, channels, channels, 3)
        same = torch.arange(channels)
        weight[0, same, same] = torch.tensor((0.25, 0.75, 0.0))
        weight[1, same, same] = torch.tensor((0.0, 0.75, 0.25))
        with torch.no_grad():
            self.halves.weight.copy_(weight.reshape(self.halves.weight.shape))
            assert self.halves.bias is not None
            self.halves.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, i, j, k) to the same with one axis doubled."""
        halves = self.halves(x).permute(0, 2, 3, 4, 1).unflatten(-1, (2, -1))
        behind = self.axis + 2  # where the halves of a voxel belong: behind its own axis
        return halves.movedim(4, behind).flatten(behind - 1, behind).permute(0, 4, 1, 2, 3)


class ICONet(nn.Module):
    """The network. See the module's docstring for what is fixed and ICONetConfig for the rest."""

    def __init__(self, config: ICONetConfig | None = None) -> None:
        super().__init__()
        self.config = c = config or ICONetConfig()
        self.first = conv3(1, c.features)
        self.condition = nn.ModuleList(Conditioning(c.features) for _ in range(2))
        self.reconstruct = nn.ModuleList(RSCFL(c.features, c.reach) for _ in range(c.blocks))
        self.resolve = nn.ModuleList(RSCFL(c.features, c.reach) for _ in range(c.blocks))
        self.fuse = nn.ModuleList(Fusion(c.features) for _ in range(c.blocks))
        self.doubling = nn.ModuleList(Doubling(c.features, axis) for axis in range(3))
        self.detail = conv3(c.features, c.features)
        self.clean_head = conv3(c.features, 1)
        self.fine_head = conv3(c.features, 1)
        self.apply(_initialise)
        for head in (self.clean_head, self.fine_head):
            nn.init.zeros_(head.weight)

    @property
    def radius(self) -> int:
        """How far, in voxels of a stage's input, its images reach in any direction.

        The first convolution, the blocks, and two voxels for what gives the images: halving and
        the two convolutions behind it, which are half as wide, or those two alone.
        """
        c = self.config
        return 1 + c.blocks * (max(c.reach, 1) + 1) + 2

    def forward(self, image: Tensor, conditions: Tensor, plan: Sequence[Axes]) -> list[Stage]:
        """Restores a scan, stage by stage.

        Args:
            image: (B, 1, i, j, k), intensities of about 0 ... 1, slice axis last. Kept in its own
                precision; only features are in that of the weights.
            conditions: (B, 6), from `scan_conditions`, of the scan.
            plan: the axes that each stage doubles, e.g. from `stage_plan`.

        Returns:
            One Stage for each entry of the plan, in order.
        """
        stages: list[Stage] = []
        for axes in plan:
            stages.append(self.stage(image, conditions, axes))
            image, conditions = stages[-1].fine, conditions_after(conditions, axes)
        return stages

    def stage(self, image: Tensor, conditions: Tensor, axes: Axes) -> Stage:
        """One stage: (B, 1, i, j, k) at the scale that the conditions describe."""
        weight = self.first.weight
        conditions = conditions.to(weight)
        shallow = self.first(image.to(weight))
        clean, fine = (condition(shallow, conditions) for condition in self.condition)
        for reconstruct, resolve, fuse in zip(
            self.reconstruct, self.resolve, self.fuse, strict=True
        ):
            clean, fine = fuse(reconstruct(clean), resolve(fine))
        clean_image = image + RESIDUAL_SCALE * self.clean_head(clean).to(image.dtype)
        for axis in range(3):
            if axes[axis]:
                fine = self.doubling[axis](fine)
        residual = self.fine_head(torch.relu(self.detail(fine)))
        start = interpolate_doubled(clean_image, axes)
        return Stage(clean_image, start + RESIDUAL_SCALE * residual.to(image.dtype))


def stage_plan(spacing: Sequence[float], target: Sequence[float]) -> list[Axes]:
    """The fewest stages after which no axis is coarser than wanted; none where none is now.

    The coarsest axes are doubled first, the others as late as they can be: voxels become cubes
    early and early stages stay small. What is within CLOSE_ENOUGH of the target has reached it.
    Slice thickness has no say: slices that overlap or leave gaps lie on the same lattice as those
    that touch, and the network is told of it.

    Args:
        spacing: of the scan along i, j, k, mm.
        target: the spacing to be reached along the same axes, mm.

    Raises ValueError for spacings that are not positive and finite.
    """
    if not all(0 < s < math.inf for s in (*spacing, *target)):
        raise ValueError(f"spacings are positive, in mm, not {list(spacing)} and {list(target)}")
    i, j, k = (
        max(math.ceil(math.log2(own / (wanted * (1 + CLOSE_ENOUGH)))), 0)
        for own, wanted in zip(spacing, target, strict=True)
    )
    return [(i >= left, j >= left, k >= left) for left in range(max(i, j, k), 0, -1)]


def conditions_after(conditions: Tensor, axes: Axes) -> Tensor:
    """What a stage's output is described by, (B, 6): half the spacing, and slices that touch."""
    doubled = torch.tensor(axes, device=conditions.device)
    spacing, thickness = conditions.chunk(2, dim=-1)
    return torch.cat((spacing - math.log(2) * doubled, thickness.masked_fill(doubled, 0.0)), dim=-1)


def interpolate_doubled(image: Tensor, axes: Axes) -> Tensor:
    """Linear interpolation along the marked axes, (B, C, i, j, k): corners kept, edges repeated."""
    if not any(axes):
        return image
    factors = [2.0 if doubled else 1.0 for doubled in axes]
    return functional.interpolate(
        image, scale_factor=factors, mode="trilinear", align_corners=False
    )


def _initialise(module: nn.Module) -> None:
    """He initialisation without bias; what is added to a stream starts small, as in Nexus-INR."""
    he_initialise(module)
    if isinstance(module, RSCFL):
        module.out.weight.data *= RESIDUAL_START
    elif isinstance(module, Fusion):
        module.to_clean.weight.data *= RESIDUAL_START
        module.to_fine.weight.data *= RESIDUAL_START
    elif isinstance(module, Doubling):
        module.start_as_interpolation()
