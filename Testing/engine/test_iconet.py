"""ICONet and its parts: shapes, places, cost, reach, plans, conditions and gradients."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from nexusinr.errors import InputError
from nexusinr.geometry import Affine, Grid
from nexusinr.models import weights
from nexusinr.models.iconet import (
    CLOSE_ENOUGH,
    Doubling,
    ICONet,
    ICONetConfig,
    conditions_after,
    interpolate_doubled,
    stage_plan,
)
from nexusinr.models.nexus_inr import scan_conditions
from nexusinr.models.rscfl import RSCFL, local_mean
from nexusinr.resample import interpolate
from nexusinr.volume import Volume

TINY = ICONetConfig(features=4, blocks=1, reach=2)
SLICES = (False, False, True)
ALL = (True, True, True)
NONE = (False, False, False)
PLANS = tuple(itertools.product((False, True), repeat=3))
ANY_AXES = pytest.mark.parametrize("axes", PLANS, ids=["".join("-x"[d] for d in p) for p in PLANS])


def trained(config: ICONetConfig = TINY, seed: int = 0) -> ICONet:
    """Random weights everywhere: a fresh network predicts nothing, and would hide what it reads."""
    torch.manual_seed(seed)
    network = ICONet(config)
    for head in (network.clean_head, network.fine_head):
        torch.nn.init.normal_(head.weight, std=0.1)
    for condition in network.condition:
        torch.nn.init.normal_(condition.net[-1].weight, std=0.1)
    return network.eval()


def image(*shape: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).random((1, 1, *shape), np.float32))


def conditions(spacing=(1.0, 1.0, 4.0), thickness=(1.0, 1.0, 4.0)) -> Tensor:
    return scan_conditions(torch.tensor([spacing]), torch.tensor([thickness]))


# --- shapes and gradients ---------------------------------------------------------------------


@ANY_AXES
@torch.inference_mode()
def test_a_stage_doubles_the_marked_axes_alone(axes):
    (stage,) = trained()(
        image(5, 6, 7).expand(2, -1, -1, -1, -1), conditions().repeat(2, 1), [axes]
    )
    assert stage.clean.shape == (2, 1, 5, 6, 7)
    wanted = [n * (1 + d) for n, d in zip((5, 6, 7), axes, strict=True)]
    assert stage.fine.shape == (2, 1, *wanted)
    assert torch.equal(stage.fine[0], stage.fine[1])


@torch.inference_mode()
def test_a_fine_image_is_the_next_stage_s_input():
    network, scan, told = trained(), image(6, 5, 4), conditions()
    assert network(scan, told, []) == []
    first, second = network(scan, told, [SLICES, ALL])
    assert second.clean.shape == first.fine.shape == (1, 1, 6, 5, 8)
    assert second.fine.shape == (1, 1, 12, 10, 16)
    again = network.stage(first.fine, conditions_after(told, SLICES), ALL)
    assert torch.equal(again.fine, second.fine)
    assert torch.equal(again.clean, second.clean)


def test_gradients_reach_every_part():
    network = trained(ICONetConfig(features=16, blocks=2, reach=2))
    stages = network(image(8, 8, 8), conditions(), [SLICES, ALL])
    sum((stage.clean.square().mean() + stage.fine.square().mean()) for stage in stages).backward()
    still = [
        name
        for name, parameter in network.named_parameters()
        if parameter.grad is None or not parameter.grad.abs().max() > 0
    ]
    assert still == []


def test_the_branches_learn_from_one_another():
    """The clean image depends on the super-resolution branch, and the fine image on the other."""
    network = trained()
    (stage,) = network(image(6, 6, 6), conditions(), [SLICES])
    (grad,) = torch.autograd.grad(
        stage.clean.sum(), network.resolve[0].local.weight, retain_graph=True
    )
    assert grad.abs().max() > 0
    residual = stage.fine - interpolate_doubled(stage.clean, SLICES)
    (grad,) = torch.autograd.grad(residual.sum(), network.reconstruct[0].local.weight)
    assert grad.abs().max() > 0


@torch.inference_mode()
def test_images_keep_their_precision():
    """Features may be coarse, what they are added to is not."""
    network, scan = trained(), image(6, 6, 6).double() + 1e-9
    stage = network(scan, conditions(), [SLICES])[0]
    assert stage.clean.dtype == stage.fine.dtype == torch.float64
    assert torch.equal(ICONet(TINY)(scan, conditions(), [SLICES])[0].clean, scan)
    coarse = network(scan.float(), conditions(), [SLICES])[0]
    assert (coarse.fine - stage.fine).abs().max() < 1e-5


# --- places -----------------------------------------------------------------------------------


@ANY_AXES
@torch.inference_mode()
def test_a_ramp_stays_where_it_is(axes):
    """Intensities that are a position, in mm, read off at the voxel centres of the fine lattice."""
    grid = Grid((6, 7, 8), Affine.from_parts((1.2, 0.8, 4.0), origin=(-3, 5, 20)))
    fine = grid.with_spacing(grid.spacing / np.where(axes, 2, 1))
    assert fine.corner == pytest.approx(grid.corner)
    (stage,) = ICONet(TINY)(
        torch.from_numpy(positions(grid))[:, None], conditions().repeat(3, 1), [axes]
    )
    error = (stage.fine[:, 0].numpy() - positions(fine))[:, 2:-2, 2:-2, 2:-2]
    assert np.abs(error).max() < 1e-3


def positions(grid: Grid) -> np.ndarray:
    """R, A and S of every voxel centre, (3, i, j, k) float32."""
    index = np.stack(np.indices(grid.shape), axis=-1)
    return np.moveaxis(grid.affine.apply(index), -1, 0).astype(np.float32)


@torch.inference_mode()
def test_a_fresh_network_is_linear_interpolation():
    scan = image(5, 6, 4)
    stages = ICONet(TINY)(scan, conditions(), [SLICES, ALL])
    assert torch.equal(stages[0].clean, scan)
    grid = Grid((5, 6, 4), Affine.from_parts((1, 1, 4)))
    for stage in stages:
        volume = Volume(stage.clean[0, 0].numpy(), grid.affine)
        grid = grid.with_spacing(grid.spacing * stage.clean.shape[2:] / stage.fine.shape[2:])
        assert np.abs(stage.fine[0, 0].numpy() - interpolate(volume, grid)).max() < 1e-6


@pytest.mark.parametrize("axis", range(3))
@torch.inference_mode()
def test_features_are_doubled_in_place(axis):
    doubling = Doubling(2, axis)
    doubling.start_as_interpolation()
    ramp = torch.arange(5.0).movedim(0, -1).reshape([5 if a == axis else 1 for a in range(3)])
    features = torch.stack((ramp, 3 - 2 * ramp))[None].expand(1, 2, *(5,) * 3)
    found = doubling(features).movedim(2 + axis, -1)[0, :, 2, 2]
    inner = torch.arange(10.0)[1:-1] / 2 - 0.25
    assert torch.allclose(found[0, 1:-1], inner)
    assert torch.allclose(found[1, 1:-1], 3 - 2 * inner)


@pytest.mark.parametrize("axis", range(3))
def test_halves_come_in_order(axis):
    doubling = Doubling(1, axis)
    torch.nn.init.zeros_(doubling.halves.weight)
    with torch.no_grad():
        doubling.halves.bias.copy_(torch.tensor((1.0, 2.0)))
        found = doubling(torch.zeros(1, 1, 3, 3, 3)).movedim(2 + axis, -1)
    assert torch.equal(found, torch.tensor((1.0, 2.0) * 3).expand(1, 1, 3, 3, 6))


# --- cost and reach ---------------------------------------------------------------------------


def multiply_adds(network: ICONet, shape: tuple[int, ...], axes) -> float:
    """Of one stage, counted without computing anything."""
    with FlopCounterMode(display=False) as count:
        network(torch.empty(1, 1, *shape, device="meta"), torch.empty(1, 6, device="meta"), [axes])
    return count.get_total_flops() / 2


@ANY_AXES
def test_the_default_is_light(axes):
    with torch.device("meta"):
        network = ICONet()
    voxels = math.prod(16 * (1 + doubled) for doubled in axes)
    assert 5e4 < multiply_adds(network, (16, 16, 16), axes) / voxels < 5e5
    assert sum(p.numel() for p in network.parameters()) * 2 < 2e6  # bytes as float16


def test_cost_is_linear_in_voxels():
    """Ever larger volumes cost the same a voxel: positions are related without pairing them up."""
    with torch.device("meta"):
        network = ICONet()
    once = multiply_adds(network, (8, 8, 8), SLICES)
    conditioning = 2 * sum(p.numel() for p in network.condition.parameters())
    for factor in (2, 4, 16):
        found = multiply_adds(network, (8 * factor, 8 * factor, 8), SLICES)
        assert found == pytest.approx(factor**2 * once, abs=factor**2 * conditioning)


@pytest.mark.parametrize("axes", [SLICES, ALL, NONE, (True, False, False)])
@pytest.mark.parametrize(
    "config",
    [ICONetConfig(features=4, blocks=1, reach=3), ICONetConfig(features=4, blocks=2, reach=1)],
    ids=["far", "deep"],
)
@torch.inference_mode()
def test_the_radius_is_true(config, axes):
    """Nothing beyond it matters, to the last bit; along every axis something just inside does."""
    network = trained(config).double()
    radius = network.radius
    size = 2 * radius + 5
    middle = size // 2
    scan, told = image(size, size, size).double(), conditions()

    def at_the_middle(changed: Tensor) -> tuple[Tensor, Tensor]:
        stage = network.stage(changed, told, axes)
        fine = stage.fine
        for axis, doubled in enumerate(axes):
            fine = fine.narrow(2 + axis, middle * (1 + doubled), 1 + doubled)
        return stage.clean[..., middle, middle, middle], fine

    before = at_the_middle(scan)
    beyond = torch.full_like(scan, 50.0)
    inside = slice(middle - radius, middle + radius + 1)
    beyond[..., inside, inside, inside] = scan[..., inside, inside, inside]
    after = at_the_middle(beyond)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    for axis in range(3):
        for step in (1 - radius, radius - 1):
            changed = scan.clone()
            changed.select(2 + axis, middle + step).add_(5.0)
            assert not torch.equal(at_the_middle(changed)[1], before[1])


def test_the_local_mean_by_hand():
    x = torch.zeros(1, 1, 7, 7, 7)
    x[0, 0, 3, 3, 3] = 27.0
    mean = local_mean(x, 1)[0, 0]
    assert torch.allclose(mean[2:5, 2:5, 2:5], torch.ones(3, 3, 3))
    assert mean.sum() == pytest.approx(27.0)
    rim = local_mean(torch.ones(1, 2, 1, 4, 6), 2)  # fewer slices than the cube is wide, too
    assert torch.allclose(rim, torch.ones_like(rim))


@torch.inference_mode()
def test_a_block_is_residual():
    torch.manual_seed(1)
    block, x = RSCFL(4, 2), torch.rand(1, 4, 6, 6, 6)
    assert not torch.allclose(block(x), x)
    torch.nn.init.zeros_(block.out.weight)
    torch.nn.init.zeros_(block.out.bias)
    assert torch.equal(block(x), x)
    assert block.radius == 3


@pytest.mark.parametrize("branch", ["position", "channel"])
@torch.inference_mode()
def test_either_branch_matters_where_it_is_chosen(branch):
    """With the choice nailed to one branch, the other's gate has no say."""
    torch.manual_seed(1)
    block, x = RSCFL(4, 2), torch.rand(1, 4, 6, 6, 6)
    torch.nn.init.zeros_(block.choose.weight)
    torch.nn.init.constant_(block.choose.bias, 100.0 if branch == "position" else -100.0)
    before = block(x)
    other = {"position": block.channel, "channel": block.position}[branch]
    torch.nn.init.constant_(other.expand.bias, 3.0)
    assert torch.allclose(block(x), before)
    torch.nn.init.constant_(getattr(block, branch).expand.bias, 3.0)
    assert not torch.allclose(block(x), before)


# --- plans ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spacing", "target", "plan"),
    [
        ((1, 1, 4), (1, 1, 1), [SLICES, SLICES]),
        ((1.02, 1, 4.08), (1, 1, 1), [SLICES, SLICES]),
        ((1, 1, 1), (1, 1, 1), []),
        ((0.7, 0.7, 1.02), (1, 1, 1), []),
        ((1, 1, 1.2), (1, 1, 1), [SLICES]),
        ((1, 1, 5), (1, 1, 1), [SLICES] * 3),
        ((1, 1, 1), (0.5, 0.5, 0.5), [ALL]),
        ((1, 1, 4), (0.5, 0.5, 0.5), [SLICES, SLICES, ALL]),
        ((0.9, 3, 0.9), (0.9, 0.9, 0.9), [(False, True, False)] * 2),
        ((2, 1, 4), (1, 1, 2), [(True, False, True)]),
        ((4, 1, 2), (1, 1, 1), [(True, False, False), (True, False, True)]),
    ],
)
def test_plans_by_hand(spacing, target, plan):
    assert stage_plan(spacing, target) == plan


LENGTHS = st.tuples(*[st.floats(0.2, 10)] * 3)


@given(spacing=LENGTHS, target=LENGTHS)
def test_a_plan_reaches_the_target_and_no_further(spacing, target):
    plan = stage_plan(spacing, target)
    for axis in range(3):
        marks = [axes[axis] for axes in plan]
        assert marks == sorted(marks)  # as late as it can be
        reached = spacing[axis] / 2 ** sum(marks)
        limit = target[axis] * (1 + CLOSE_ENOUGH) * (1 + 1e-9)
        assert reached <= limit
        assert not any(marks) or 2 * reached > limit * (1 - 1e-8)
    assert all(any(axes) for axes in plan)
    assert not plan or any(all(axes[axis] for axes in plan) for axis in range(3))  # the fewest


@pytest.mark.parametrize("wrong", [0.0, -1.0, math.nan, math.inf])
def test_spacings_that_are_none(wrong):
    with pytest.raises(ValueError, match="spacings are positive"):
        stage_plan((1, 1, wrong), (1, 1, 1))
    with pytest.raises(ValueError, match="spacings are positive"):
        stage_plan((1, 1, 4), (1, wrong, 1))


# --- conditions -------------------------------------------------------------------------------


def test_after_a_stage_the_slices_are_half_as_far_apart_and_touch():
    """5 mm apart and 3 mm thick: what comes out stands for 2.5 mm slices without gaps."""
    told = conditions((0.9, 1.1, 5.0), (0.9, 1.1, 3.0))
    after = conditions_after(told, SLICES)
    assert torch.allclose(after, conditions((0.9, 1.1, 2.5), (0.9, 1.1, 2.5)))
    assert torch.equal(conditions_after(told, NONE), told)
    both = conditions_after(torch.cat((told, conditions())), ALL)
    assert torch.allclose(both[1:], conditions((0.5, 0.5, 2.0), (0.5, 0.5, 2.0)))


@torch.inference_mode()
def test_what_the_network_is_told_matters():
    network, scan = trained(), image(6, 6, 6)
    thick, thin = conditions(), conditions(thickness=(1.0, 1.0, 2.0))
    a, b = (network(scan, told, [SLICES])[0] for told in (thick, thin))
    assert (a.fine - b.fine).abs().max() > 1e-4
    assert (a.clean - b.clean).abs().max() > 1e-4
    both = network(scan.repeat(2, 1, 1, 1, 1), torch.cat((thick, thin)), [SLICES])[0]
    assert torch.allclose(both.fine, torch.cat((a.fine, b.fine)), atol=1e-5)


# --- weights ----------------------------------------------------------------------------------


@torch.inference_mode()
def test_weights_make_the_journey(tmp_path, monkeypatch):
    monkeypatch.setenv("NEXUSINR_HOME", str(tmp_path / "home"))
    network = trained()
    card = {"name": "mine", "architecture": "ICONet", "version": "1", "config": TINY.to_dict()}
    weights.import_weights(weights.save(network, tmp_path, card))
    loaded, found = weights.load("mine")
    assert isinstance(loaded, ICONet)
    assert (loaded.config, found.architecture) == (TINY, "ICONet")
    one, other = (n(image(5, 5, 5), conditions(), [ALL])[0].fine for n in (network, loaded))
    assert (one - other).abs().max() < 1e-3


def test_a_configuration_of_another_version():
    with pytest.raises(InputError, match="does not fit this version"):
        weights.build("ICONet", {"feathers": 3})
    with pytest.raises(InputError, match="'UNet': this version knows NexusINR and ICONet"):
        weights.build("UNet", {})
