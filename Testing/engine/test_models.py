"""Nexus-INR and its parts: shapes, places, hand-checked attention, switches and gradients."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor
from torch.nn import functional

from nexusinr.geometry import Affine, Grid
from nexusinr.models.attention import CrossModalAttention
from nexusinr.models.decoders import SirenDecoder, build_decoder
from nexusinr.models.encoders import CONDITIONS, build_encoder, he_initialise
from nexusinr.models.neighbourhood import DISTANCES, OFFSETS
from nexusinr.models.nexus_inr import (
    MODALITIES,
    RESIDUAL_SCALE,
    T1W,
    T2W,
    Decoded,
    NexusINR,
    NexusINRConfig,
    Sampled,
    scan_conditions,
)
from nexusinr.models.position import Position, fourier_features, position_size
from nexusinr.models.sampling import LatticeMap
from nexusinr.resample import interpolate
from nexusinr.training.losses import LossWeights, modality_losses, total
from nexusinr.volume import Volume

SIZES = {
    "features": 4,
    "growth": 4,
    "blocks": 1,
    "layers": 2,
    "decoder_width": 8,
    "decoder_depth": 2,
    "attention_width": 4,
    "frequencies": 2,
}
TINY = NexusINRConfig(**SIZES)
ARSSR = {"multi_modal_fusion": False, "cross_attention": False, "segmentation_enhanced": False}
TURN = Rotation.from_euler("xyz", (12, -25, 33), degrees=True).as_matrix()
ENCODERS = ("rdn", "rescnn", "srresnet")
DECODERS = ("mlp", "siren")
BOTH = pytest.mark.parametrize("modality", [T1W, T2W], ids=MODALITIES)


def grid(shape, spacing, direction=None, centre=(3.0, -20.0, 41.0)) -> Grid:
    """A lattice around a point of patient space."""
    start = Grid(shape, Affine.from_parts(spacing, direction))
    return Grid(shape, Affine.from_parts(spacing, direction, np.array(centre) - start.centre))


@dataclass
class Scan:
    image: Tensor
    grid: Grid
    thickness: tuple[float, float, float]

    @property
    def volume(self) -> Volume:
        return Volume(self.image[0, 0].numpy(), self.grid.affine)

    @property
    def conditions(self) -> Tensor:
        spacing = torch.tensor(self.grid.spacing, dtype=torch.float32)[None]
        return scan_conditions(spacing, torch.tensor([self.thickness]))


def scan(shape, spacing, direction=None, seed=0) -> Scan:
    image = torch.from_numpy(np.random.default_rng(seed).random((1, 1, *shape), np.float32))
    return Scan(image, grid(shape, spacing, direction), (spacing[0], spacing[1], 0.8 * spacing[2]))


#: A pair as clinics have it, at an angle to one another.
PAIR = (scan((7, 6, 5), (1, 1, 2)), scan((6, 7, 4), (0.9, 0.9, 3), TURN, seed=1))

#: Parallel to the T1w scan, oblique to the T2w scan; no point halfway between two scan voxels.
TARGET = grid((5, 4, 6), (1.1, 1.2, 0.9), centre=(3.13, -20.08, 41.11))


def stirred(config: NexusINRConfig = TINY, seed: int = 0) -> NexusINR:
    """A network in which every part has its say."""
    network = NexusINR(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(0, 0.3, generator=generator)
    return network


def read(network: NexusINR, modality: int, one: Scan | None, target: Grid) -> Sampled | None:
    if one is None:
        return None
    encoding = network.encode(one.image, one.conditions, modality)
    return network.sample(encoding, LatticeMap([one.grid], [target.pad(1)]))


def restore(
    network: NexusINR, modality: int, scans: tuple[Scan | None, Scan | None], target: Grid
) -> Decoded:
    own, guide = (read(network, m, scans[m], target) for m in (modality, 1 - modality))
    return network.decode(modality, own, guide)


class TestEncoders:
    @pytest.mark.parametrize("kind", ENCODERS)
    def test_keep_the_lattice(self, kind):
        encoder = build_encoder(kind, features=4, growth=3, blocks=2, layers=2)
        out = encoder(torch.rand(2, 1, 5, 6, 3), torch.rand(2, CONDITIONS))
        assert out.shape == (2, 4, 5, 6, 3)

    @pytest.mark.parametrize("kind", ENCODERS)
    def test_know_nothing_of_thickness_at_first_and_can_learn_it(self, kind):
        encoder = build_encoder(kind, features=4, growth=3, blocks=2, layers=2)
        image = torch.rand(1, 1, 5, 6, 3)
        thin, thick = torch.zeros(1, CONDITIONS), torch.ones(1, CONDITIONS)
        assert torch.equal(encoder(image, thin), encoder(image, thick))
        torch.nn.init.ones_(encoder.condition.net[-1].weight)
        assert not torch.allclose(encoder(image, thin), encoder(image, thick))

    @pytest.mark.parametrize("kind", ["rescnn", "srresnet"])
    def test_depth_does_not_swell_the_features(self, kind):
        encoder = build_encoder(kind, features=8, growth=0, blocks=20, layers=0)
        encoder.apply(he_initialise)
        features = torch.randn(1, 8, 9, 9, 9)
        assert encoder.blocks(features).std() < 2 * features.std()

    def test_other_names_are_refused(self):
        with pytest.raises(ValueError, match="'unet': choose rdn, rescnn or srresnet"):
            build_encoder("unet", 4, 4, 1, 1)


class TestDecoders:
    @pytest.mark.parametrize("kind", DECODERS)
    def test_start_at_no_residual(self, kind):
        decoder = build_decoder(kind, inputs=7, width=8, depth=3)
        out = decoder(torch.rand(2, 5, 7))
        assert out.shape == (2, 5, 1)
        assert (out == 0).all()

    def test_siren_by_hand(self):
        decoder = SirenDecoder(inputs=2, width=1, depth=2, omega=3.0)
        with torch.no_grad():
            for n, parameter in enumerate(decoder.parameters()):
                parameter.fill_(0.1 * (n + 1))
            decoder.layers[0].weight.copy_(torch.tensor([[0.1, 0.3]]))
        first = math.sin(3 * (0.1 * 1 - 0.3 * 1 + 0.2))  # (9, 5) less mean, by deviation: (1, -1)
        expected = 0.5 * math.sin(3 * (0.3 * first + 0.4)) + 0.6
        assert decoder(torch.tensor([[9.0, 5.0]])).item() == pytest.approx(expected, abs=1e-5)

    def test_siren_takes_features_of_any_size(self):
        decoder = SirenDecoder(inputs=6, width=8, depth=2)
        torch.nn.init.ones_(decoder.head.weight)
        q = torch.randn(5, 6)
        assert torch.allclose(decoder(q), decoder(100 * q), atol=1e-3)
        assert not torch.allclose(decoder(q), decoder(-q), atol=1e-3)

    def test_other_names_are_refused(self):
        with pytest.raises(ValueError, match="'nerf': choose mlp or siren"):
            build_decoder("nerf", 4, 4, 1)

    def test_fourier_features_by_hand(self):
        found = fourier_features(torch.tensor([0.25, -0.125]), 2)
        half = math.sqrt(0.5)
        expected = [0.25, -0.125, 1, 0, -half, -1, 0, -1, half, 0]
        np.testing.assert_allclose(found, expected, atol=1e-6)


class TestAttention:
    def attention(self) -> CrossModalAttention:
        """Queries are 1; the guide's four features are key and value, and the answers values."""
        attention = CrossModalAttention(features=4, width=2)
        with torch.no_grad():
            attention.query.weight.zero_()
            attention.query.bias.fill_(1)
            attention.key_value.weight.copy_(torch.eye(4))
            attention.out.weight.copy_(torch.eye(4, 2))
            attention.out.bias.zero_()
        return attention

    def ask(self, key: Tensor, value: Tensor) -> Tensor:
        """Answers (B, I, J, K, 2) of a guide with keys and values (B, I+2, J+2, K+2, 2)."""
        shape = [n - 2 for n in key.shape[1:4]]
        return self.ask_of(self.attention(), torch.rand(len(key), *shape, 4), key, value)

    @staticmethod
    def ask_of(attention: CrossModalAttention, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return attention(query, torch.cat((key, value), dim=-1)).detach()[..., :2]

    def test_equal_keys_give_the_mean_of_27_neighbours(self):
        value = torch.rand(1, 6, 5, 7, 2)
        answer = self.ask(value * 0, value)
        mean = functional.avg_pool3d(value.permute(0, 4, 1, 2, 3), 3, stride=1)
        np.testing.assert_allclose(answer, mean.permute(0, 2, 3, 4, 1), atol=1e-6)

    def test_a_peaked_key_picks_that_neighbour(self):
        value, key = torch.rand(1, 7, 7, 7, 2), torch.zeros(1, 7, 7, 7, 2)
        key[0, 3, 4, 2] = 100
        answer = self.ask(key, value)
        near = torch.zeros(5, 5, 5, dtype=torch.bool)
        near[1:4, 2:5, 0:3] = True  # target n has neighbours n ... n + 2 in the grown guide
        picked = (answer[0] - value[0, 3, 4, 2]).abs().amax(-1) < 1e-6
        assert torch.equal(picked, near)

    def test_a_weight_by_hand(self):
        key, value = torch.zeros(1, 3, 3, 3, 2), torch.zeros(1, 3, 3, 3, 2)
        key[0, 0, 1, 2, 0], value[0, 0, 1, 2] = 1.5, 1
        answer = self.ask(key, value)
        score = math.exp(1.5 / math.sqrt(2))
        np.testing.assert_allclose(answer.ravel(), score / (26 + score), rtol=1e-5)

    def test_distance_classes_by_hand(self):
        assert len(OFFSETS) == 27
        assert DISTANCES[OFFSETS.index((1, 1, 1))] == 0
        assert sorted(DISTANCES) == [0] + [1] * 6 + [2] * 12 + [3] * 8
        attention, value = self.attention(), torch.rand(1, 5, 5, 5, 2)
        with torch.no_grad():
            attention.distance_bias.copy_(torch.tensor([100.0, 0, 0, 0]))
        answer = self.ask_of(attention, torch.rand(1, 3, 3, 3, 4), value * 0, value)
        np.testing.assert_allclose(answer, value[:, 1:-1, 1:-1, 1:-1], atol=1e-6)

    def test_a_batch_is_answered_one_by_one(self):
        attention = CrossModalAttention(3, 4)
        query, guide = torch.rand(2, 3, 4, 2, 3), torch.rand(2, 5, 6, 4, 3)
        both = attention(query, guide)
        for n in range(2):
            alone = attention(query[n : n + 1], guide[n : n + 1])
            torch.testing.assert_close(both[n : n + 1], alone)


class TestNetwork:
    @BOTH
    @pytest.mark.parametrize(("encoder", "decoder"), itertools.product(ENCODERS, DECODERS))
    def test_a_fresh_one_is_trilinear_interpolation(self, encoder, decoder, modality):
        network = NexusINR(NexusINRConfig(**SIZES, encoder=encoder, decoder=decoder))
        decoded = restore(network, modality, PAIR, TARGET)
        assert torch.equal(decoded.intensity, decoded.interpolated)
        expected = interpolate(PAIR[modality].volume, TARGET)
        np.testing.assert_allclose(decoded.intensity.detach()[0], expected, atol=1e-5)

    @BOTH
    def test_shapes(self, modality):
        decoded = restore(stirred(), modality, PAIR, TARGET)
        lattice = (1, *TARGET.shape)
        assert decoded.intensity.shape == decoded.interpolated.shape == lattice
        assert decoded.logits.shape == (*lattice, TINY.classes)
        for features in (decoded.fused, decoded.shared, decoded.specific, decoded.guide_shared):
            assert features.shape == (*lattice, TINY.features)
        assert not torch.allclose(decoded.intensity, decoded.interpolated, atol=1e-3)

    @BOTH
    def test_decoding_follows_the_equations(self, modality):
        network = stirred()
        own, guide = (read(network, m, PAIR[m], TARGET) for m in (modality, 1 - modality))
        found = network.decode(modality, own, guide)
        image, shared, specific = network.split(own.maps[:, 1:-1, 1:-1, 1:-1])
        _, around, _ = network.split(guide.maps)
        fused = shared + network.attention[modality](shared, around)  # 6
        features = network.project[modality](torch.cat((fused, specific), -1)) + fused  # 15, 16
        logits = network.segment[modality](features)  # 20, 21
        final = network.fuse[modality](torch.cat((features, logits), -1))  # 22, 23
        position = torch.cat((own.position.full(), guide.position.full()), -1)  # 17, 24, 25
        decoder = network.decoder[modality]
        residual = decoder.head(decoder.net(torch.cat((final, position), -1)))
        torch.testing.assert_close(found.intensity, (image + RESIDUAL_SCALE * residual)[..., 0])
        torch.testing.assert_close(found.logits, logits)
        torch.testing.assert_close(found.fused, fused)
        torch.testing.assert_close(found.guide_shared, around[:, 1:-1, 1:-1, 1:-1])
        alone = decoder.head(decoder.net(torch.cat((shared, position), -1)))  # 10, 11
        alone = (image + RESIDUAL_SCALE * alone)[..., 0]
        torch.testing.assert_close(network.decode_alone(modality, found), alone)

    @BOTH
    @pytest.mark.parametrize("turn", [None, TURN], ids=["parallel", "oblique"])
    def test_mirroring_or_turning_the_target_mirrors_or_turns_the_answer(self, modality, turn):
        target = grid(TARGET.shape, TARGET.spacing, turn, TARGET.centre)
        network = stirred()
        plain = restore(network, modality, PAIR, target)
        for order, flips in (((0, 1, 2), [0]), ((0, 1, 2), [1, 2]), ((2, 0, 1), [1])):
            signs = np.array([-1 if axis in flips else 1 for axis in range(3)])
            turned = target.permuted(order)
            direction = turned.affine.direction * signs
            turned = grid(turned.shape, turned.spacing, direction, target.centre)
            found = restore(network, modality, PAIR, turned)
            for name in ("intensity", "logits"):
                expected = getattr(plain, name)[0].detach().movedim(order, (0, 1, 2)).flip(flips)
                answer = getattr(found, name)[0].detach()
                np.testing.assert_allclose(answer, expected, atol=2e-4, rtol=2e-4)

    @BOTH
    def test_a_shift_of_both_scans_and_the_target_changes_nothing(self, modality):
        move = np.eye(4)
        move[:3, :3], move[:3, 3] = TURN, (5, -7, 30)
        scans = tuple(
            Scan(s.image, Grid(s.grid.shape, s.grid.affine.transformed(move)), s.thickness)
            for s in PAIR
        )
        network = stirred()
        target = Grid(TARGET.shape, TARGET.affine.transformed(move))
        here = restore(network, modality, PAIR, TARGET).intensity.detach()
        np.testing.assert_allclose(
            restore(network, modality, scans, target).intensity.detach(), here, atol=1e-4
        )

    @BOTH
    def test_a_tenth_of_a_millimetre_matters(self, modality):
        network = stirred()
        moved = grid(TARGET.shape, TARGET.spacing, centre=TARGET.centre + np.array((0, 0, 0.1)))
        here = restore(network, modality, PAIR, TARGET).interpolated
        there = restore(network, modality, PAIR, moved).interpolated
        expected = interpolate(PAIR[modality].volume, moved)
        np.testing.assert_allclose(there[0].detach(), expected, atol=1e-5)
        assert (here - there).abs().max() > 0.01

    @BOTH
    def test_without_a_guide(self, modality):
        alone = tuple(one if m == modality else None for m, one in enumerate(PAIR))
        network = stirred()
        decoded = restore(network, modality, alone, TARGET)
        assert torch.isfinite(decoded.intensity).all()
        assert decoded.guide_shared is None
        assert torch.equal(decoded.fused, decoded.shared)
        guided = restore(network, modality, PAIR, TARGET)
        assert not torch.allclose(decoded.intensity, guided.intensity, atol=1e-3)

    @BOTH
    def test_the_guide_is_read_where_it_lies(self, modality):
        """A guide whose header is wrong by a voxel gives another answer."""
        network, other = stirred(), PAIR[1 - modality]
        move = np.eye(4)
        move[0, 3] = 1
        wrong = Grid(other.grid.shape, other.grid.affine.transformed(move))
        scans = [PAIR[modality], PAIR[modality]]
        scans[1 - modality] = Scan(other.image, wrong, other.thickness)
        right = restore(network, modality, PAIR, TARGET).fused
        moved = restore(network, modality, (scans[0], scans[1]), TARGET).fused
        assert not torch.allclose(right, moved, atol=1e-3)

    def test_position_by_hand(self):
        network = NexusINR(TINY)
        thick = Scan(torch.rand(1, 1, 2, 2, 2), grid((2, 2, 2), (1, 1, 4)), (1, 1, 3))
        target = thick.grid.with_spacing((1, 1, 1))
        encoding = network.encode(thick.image, thick.conditions, T1W)
        sampled = network.sample(encoding, LatticeMap([thick.grid], [target.pad(1)]))
        position = sampled.position.full()[0]
        assert position.shape == (2, 2, 8, position_size(TINY.frequencies))
        # Beyond the first and the last centre the scan is read, and the offset taken, at its edge.
        along = [0, 0, 0.125, 0.375, -0.375, -0.125, 0, 0]
        np.testing.assert_allclose(position[0, 0, :, 2], along, atol=1e-6)
        np.testing.assert_allclose(position[..., :2], 0, atol=1e-6)
        known = [0, 0, math.log(1 / 4), 0, 0, math.log(3 / 4)]
        np.testing.assert_allclose(position[1, 1, 5, -6:], known, atol=1e-6)

    @pytest.mark.parametrize("turn", [None, TURN], ids=["parallel", "oblique"])
    def test_parts_of_a_mapped_position_add_up_to_it(self, turn):
        target = grid((3, 5, 4), (1.3, 0.9, 1.1), turn, centre=(0.2, -0.3, 0.4)).pad(1)
        scan = PAIR[T1W]
        position = Position(LatticeMap([scan.grid], [target]), scan.conditions, 2)
        weight = torch.rand(7, position_size(2))
        parts = position.mapped(weight)
        assert len(parts) == (2 if turn is None else 1)
        found = sum(parts)
        assert found.shape == (1, 3, 5, 4, 7)
        torch.testing.assert_close(found, position.full() @ weight.t(), atol=1e-5, rtol=1e-4)

    def test_scan_conditions_by_hand(self):
        found = scan_conditions(torch.tensor([[1.0, 2, 4]]), torch.tensor([[1.0, 2, 5]]))
        expected = [[0, math.log(2), math.log(4), 0, 0, math.log(1.25)]]
        np.testing.assert_allclose(found, expected, atol=1e-6)


def losses_of(network: NexusINR) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    truth = torch.rand((1, *TARGET.shape), generator=generator)
    tissues = torch.randint(0, TINY.classes, truth.shape, generator=generator)
    terms: dict[str, Tensor] = {}
    for modality in (T1W, T2W):
        decoded = restore(network, modality, PAIR, TARGET)
        for name, value in modality_losses(network, modality, decoded, truth, tissues).items():
            terms[name] = terms.get(name, 0) + value
    return terms


class TestLearning:
    @pytest.mark.parametrize(
        ("encoder", "decoder"), [("rdn", "mlp"), ("rescnn", "siren"), ("srresnet", "mlp")]
    )
    def test_gradients_reach_every_part(self, encoder, decoder):
        torch.manual_seed(0)
        network = NexusINR(NexusINRConfig(**SIZES, encoder=encoder, decoder=decoder))
        optimiser = torch.optim.Adam(network.parameters(), lr=1e-2)
        reached = set()
        for _ in range(4):  # what starts at zero hides what lies before it, a step long
            optimiser.zero_grad()
            total(losses_of(network), LossWeights()).backward()
            reached |= {
                name
                for name, parameter in network.named_parameters()
                if parameter.grad is not None and parameter.grad.abs().max() > 0
            }
            optimiser.step()
        assert reached == {name for name, _ in network.named_parameters()}


class TestSwitches:
    PARTS = pytest.mark.parametrize(
        ("switch", "parts", "terms"),
        [
            ("multi_modal_fusion", {"specific", "project", "classifier"}, {"discrimination"}),
            (
                "cross_attention",
                {"attention"},
                {"distillation", "mean_alignment", "self_reconstruction"},
            ),
            ("segmentation_enhanced", {"segment", "fuse"}, {"segmentation"}),
        ],
    )

    @staticmethod
    def parts(network: NexusINR) -> set[str]:
        return {name.split(".")[0] for name, _ in network.named_parameters()}

    @PARTS
    def test_each_removes_its_part_and_its_losses(self, switch, parts, terms):
        whole, without = NexusINR(TINY), NexusINR(NexusINRConfig(**SIZES, **{switch: False}))
        assert self.parts(whole) - self.parts(without) == parts
        assert losses_of(whole).keys() - losses_of(without).keys() == terms

    def test_all_off_is_arssr(self):
        network = stirred(NexusINRConfig(**SIZES, **ARSSR))
        assert self.parts(network) == {"shared", "decoder"}
        assert losses_of(network).keys() == {"t1w", "t2w", "squared", "gradient"}
        decoded = restore(network, T2W, PAIR, TARGET)
        assert decoded.logits is None
        assert decoded.specific is None
        assert torch.equal(decoded.fused, decoded.shared)

    def test_one_way_guidance(self):
        network = stirred(NexusINRConfig(**SIZES, mutual_guidance=False))
        assert {n.split(".")[1] for n, _ in network.attention.named_parameters(prefix="x")} == {"1"}
        t1w, t2w = (restore(network, m, PAIR, TARGET) for m in (T1W, T2W))
        assert torch.equal(t1w.fused, t1w.shared)
        assert not torch.allclose(t2w.fused, t2w.shared, atol=1e-3)

    def test_without_conditioning_spacing_and_thickness_are_not_told(self):
        network = stirred(NexusINRConfig(**SIZES, conditioning=False))
        image = torch.rand(1, 1, 6, 5, 4)
        thin, thick = torch.zeros(1, 6), torch.ones(1, 6)
        first, second = (network.encode(image, c, T1W) for c in (thin, thick))
        assert torch.equal(first.maps, second.maps)
        assert torch.equal(first.conditions, second.conditions)
        told = stirred(NexusINRConfig(**SIZES))
        assert not torch.equal(
            told.encode(image, thin, T1W).maps, told.encode(image, thick, T1W).maps
        )

    def test_paper_sizes(self):
        with torch.device("meta"):
            network = NexusINR(NexusINRConfig.paper())
        sizes = {name: tuple(p.shape) for name, p in network.named_parameters()}
        assert sizes["specific.1.last.weight"] == (128, 128, 3, 3, 3)
        hidden = [sizes[f"decoder.0.net.{n}.weight"] for n in (0, 2, 4, 6)]
        assert [rows for rows, _ in hidden] == [256] * 4
        assert "decoder.0.net.8.weight" not in sizes
        assert sizes["decoder.0.head.weight"] == (1, 256)
        assert not any(name.startswith("attention.0.") for name in sizes)

    def test_a_configuration_travels_as_plain_values(self):
        config = NexusINRConfig(**SIZES, encoder="srresnet", mutual_guidance=False)
        assert NexusINRConfig(**config.to_dict()) == config
