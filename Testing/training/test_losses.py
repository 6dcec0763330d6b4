"""Every loss of the paper against a small case worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from nexusinr.models.nexus_inr import T1W, T2W, Decoded, NexusINR, NexusINRConfig
from nexusinr.training.losses import (
    UNKNOWN,
    LossWeights,
    discrimination,
    distillation,
    gradient_error,
    mean_alignment,
    modality_losses,
    restoration,
    segmentation,
    squared_error,
    total,
)


def tensor(values: object) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)


class TestByHand:
    def test_restoration(self):
        predicted, truth = tensor([0.0, 0.5, 1.0, 1.0]), tensor([0.5, 0.5, 0.0, 1.5])
        assert restoration(predicted, truth).item() == pytest.approx(0.5)
        weight = tensor([1.0, 3.0, 0.0, 2.0])
        assert restoration(predicted, truth, weight).item() == pytest.approx(1.5 / 6)

    def test_eq_9_distillation(self):
        student = tensor([[[1, 2], [0, 0]], [[3, 3], [1, 1]]]).requires_grad_()
        teacher = tensor([[[0, 0], [0, 1]], [[3, 1], [1, 1]]]).requires_grad_()
        loss = distillation(student, teacher)
        assert loss.item() == pytest.approx((5 + 1 + 4 + 0) / 4)
        loss.backward()
        assert teacher.grad is None  # the teacher does not come to the student
        np.testing.assert_allclose(student.grad[0, 0], (2 * 1 / 4, 2 * 2 / 4))

    def test_eq_11_self_reconstruction(self):
        loss = squared_error(tensor([0.0, 1.0, 3.0]), tensor([1.0, 1.0, 1.0]))
        assert loss.item() == pytest.approx(5 / 3)

    def test_gradient(self):
        """Two voxels beside each other, another plane below them: what differs is an edge of 2."""
        predicted, truth = torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 2)
        predicted[0, 0, 0, 1] = 2
        assert gradient_error(predicted, truth).item() == pytest.approx((2 + 2) / 4)
        assert gradient_error(predicted + 5, truth).item() == pytest.approx(1)

    def test_eq_18_mean_alignment(self):
        first, second = tensor([[1, 2], [3, 6]]), tensor([[[4, 0]], [[2, 2]]])
        assert mean_alignment(first, second).item() == pytest.approx(abs(2 - 3) + abs(4 - 1))

    @pytest.mark.parametrize("modality", [T1W, T2W])
    def test_eq_19_discrimination(self, modality):
        logits = tensor([[[math.log(3), 0]], [[0, 0]]])
        right = ((0.75, 0.5), (0.25, 0.5))[modality]
        expected = -(math.log(right[0]) + math.log(right[1])) / 2
        assert discrimination(logits, modality).item() == pytest.approx(expected)

    def test_segmentation_leaves_out_the_unknown(self):
        logits = tensor([[0, math.log(2), 0], [5, 0, 0], [0, 0, math.log(6)]]).requires_grad_()
        tissues = torch.tensor([1, UNKNOWN, 0], dtype=torch.uint8)
        loss = segmentation(logits, tissues)
        assert loss.item() == pytest.approx(-(math.log(2 / 4) + math.log(1 / 8)) / 2)
        loss.backward()
        assert (logits.grad[1] == 0).all()
        assert (logits.grad[[0, 2]] != 0).all()

    def test_segmentation_of_nothing_known_is_zero(self):
        logits = torch.rand(2, 3, 4).requires_grad_()
        loss = segmentation(logits, torch.full((2, 3), UNKNOWN))
        assert loss.item() == 0
        loss.backward()
        assert (logits.grad == 0).all()

    def test_eqs_12_and_26_the_sum(self):
        weights = LossWeights(t1w=2, t2w=3, distillation=5, segmentation=7)
        terms = {"t1w": 1.0, "t2w": 0.5, "distillation": 0.1, "segmentation": 0.01}
        found = total({name: tensor(value) for name, value in terms.items()}, weights)
        assert found.item() == pytest.approx(2 + 1.5 + 0.5 + 0.07)

    def test_what_is_not_about_restoration_may_come_in_late(self):
        weights = LossWeights(t2w=2, self_reconstruction=3, segmentation=5)
        terms = {name: tensor(1.0) for name in ("t2w", "self_reconstruction", "segmentation")}
        assert total(terms, weights, ease=0.2).item() == pytest.approx(2 + 3 + 1)

    def test_every_term_has_a_weight_of_its_own(self):
        for name, weight in vars(LossWeights()).items():
            assert total({name: tensor(1.0)}, LossWeights()).item() == pytest.approx(weight)


class TestTermsOfOneDecoding:
    CONFIG = NexusINRConfig(
        features=4, growth=4, blocks=1, layers=1, decoder_width=4, decoder_depth=1, frequencies=1
    )

    def decoded(self, guided: bool) -> tuple[NexusINR, Decoded]:
        """Features as if they came out of the network, on one line of three points."""
        torch.manual_seed(0)
        network = NexusINR(self.CONFIG)
        torch.nn.init.ones_(network.decoder[T2W].head.weight)
        features = [torch.rand(1, 3, 1, 1, 4) for _ in range(4)]
        return network, Decoded(
            intensity=torch.rand(1, 3, 1, 1),
            logits=torch.rand(1, 3, 1, 1, self.CONFIG.classes),
            fused=features[0],
            shared=features[1],
            specific=features[2],
            guide_shared=features[3] if guided else None,
            interpolated=torch.rand(1, 3, 1, 1),
            positions=(),
        )

    def test_t2w_has_them_all(self):
        network, decoded = self.decoded(guided=True)
        truth, tissues = torch.rand(1, 3, 1, 1), torch.tensor([1, 2, UNKNOWN]).reshape(1, 3, 1, 1)
        found = modality_losses(network, T2W, decoded, truth, tissues)
        alone = network.decode_alone(T2W, decoded)
        assert not torch.allclose(alone, decoded.interpolated)
        expected = {
            "t2w": restoration(decoded.intensity, truth),
            "squared": squared_error(decoded.intensity, truth),
            "gradient": gradient_error(decoded.intensity, truth),
            "segmentation": segmentation(decoded.logits, tissues),
            "discrimination": discrimination(network.classifier(decoded.specific), T2W),
            "self_reconstruction": squared_error(alone, truth),
            "distillation": distillation(decoded.fused, decoded.guide_shared),
            "mean_alignment": mean_alignment(decoded.fused, decoded.guide_shared),
        }
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            assert found[name].item() == pytest.approx(value.item()), name

    @pytest.mark.parametrize(
        ("modality", "guided", "names"),
        [
            (T1W, True, {"t1w", "discrimination"}),
            (T1W, False, {"t1w", "discrimination"}),
            (T2W, False, {"t2w", "discrimination", "self_reconstruction"}),
        ],
    )
    def test_others_have_fewer(self, modality, guided, names):
        network, decoded = self.decoded(guided)
        truth = torch.rand(1, 3, 1, 1)
        found = modality_losses(network, modality, decoded, truth, torch.zeros_like(truth).byte())
        assert found.keys() == names | {"squared", "gradient", "segmentation"}
