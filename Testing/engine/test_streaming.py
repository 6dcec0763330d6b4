"""Encoders and stages fed plane by plane."""

from __future__ import annotations

import pytest
import torch

from nexusinr.models.encoders import CONDITIONS, build_encoder, he_initialise
from nexusinr.models.iconet import ICONet, ICONetConfig, interpolate_doubled
from nexusinr.models.nexus_inr import RESIDUAL_SCALE
from nexusinr.models.stage_streaming import StreamedStage
from nexusinr.models.streaming import Queue, streamed

KINDS = pytest.mark.parametrize("kind", ["rdn", "rescnn", "srresnet"])


def encoder_of(kind: str) -> torch.nn.Module:
    """One in which every part has its say."""
    torch.manual_seed(0)
    encoder = build_encoder(kind, features=6, growth=4, blocks=3, layers=2).apply(he_initialise)
    torch.nn.init.normal_(encoder.condition.net[-1].weight, std=0.3)
    for parameter in encoder.parameters():
        if parameter.ndim == 1:
            torch.nn.init.normal_(parameter, std=0.1)
    return encoder.eval()


def fed(encoder: torch.nn.Module, image: torch.Tensor, conditions: torch.Tensor, step: int):
    """Features (i, j, k, C) of an image (i, j, k, 1) that is fed `step` planes at a time."""
    stream = streamed(encoder, conditions)
    found = []
    for first in range(0, len(image), step):
        found.append(stream(image[first : first + step], first + step >= len(image)).clone())
    return torch.cat(found)


@KINDS
@pytest.mark.parametrize(("planes", "step"), [(19, 1), (19, 2), (19, 8), (19, 19), (3, 1), (1, 1)])
@torch.inference_mode()
def test_features_are_those_of_the_whole(kind, planes, step):
    encoder = encoder_of(kind)
    image, conditions = torch.rand(1, 1, planes, 5, 7), torch.randn(1, CONDITIONS)
    whole = encoder(image, conditions)[0].permute(1, 2, 3, 0)
    found = fed(encoder, image[0].permute(1, 2, 3, 0), conditions, step)
    assert found.shape == whole.shape
    torch.testing.assert_close(found, whole, atol=1e-5, rtol=1e-4)


@KINDS
@torch.inference_mode()
def test_an_encoder_can_be_streamed_again(kind):
    encoder, conditions = encoder_of(kind), torch.randn(1, CONDITIONS)
    first, second = torch.rand(9, 4, 3, 1), torch.rand(9, 4, 3, 1)
    alone = fed(encoder, second, conditions, 4)
    fed(encoder, first, conditions, 2)
    torch.testing.assert_close(fed(encoder, second, conditions, 4), alone)


@KINDS
@torch.inference_mode()
def test_weights_and_image_stay_as_they_are(kind):
    encoder, conditions = encoder_of(kind), torch.randn(1, CONDITIONS)
    image = torch.rand(8, 4, 3, 1)
    before = [image.clone(), *(p.clone() for p in encoder.parameters())]
    fed(encoder, image, conditions, 3)
    for now, then in zip([image, *encoder.parameters()], before, strict=True):
        assert torch.equal(now, then)


def test_a_queue_keeps_its_order():
    queue, planes = Queue(), torch.arange(10.0)[:, None, None, None]
    taken = []
    for count in (3, 0, 5, 2):
        queue.put(planes[:count])
        planes = planes[count:]
        want = {3: 1, 0: 0, 5: 6, 2: 3}[count]
        taken.append(queue.join(torch.zeros(want, 1, 1, 1)))
    torch.testing.assert_close(torch.cat(taken).ravel(), torch.arange(10.0))


@pytest.mark.parametrize("axes", [(False, False, True), (True, True, True), (True, False, False)])
@pytest.mark.parametrize("reach", [0, 1, 3])
@pytest.mark.parametrize(("planes", "step"), [(17, 1), (17, 4), (17, 17), (2, 1), (1, 1)])
@torch.inference_mode()
def test_a_stage_is_that_of_the_whole(axes, reach, planes, step):
    torch.manual_seed(1)
    network = ICONet(ICONetConfig(features=8, blocks=2, reach=reach)).apply(he_initialise)
    for parameter in network.parameters():
        if parameter.ndim == 1:
            torch.nn.init.normal_(parameter, std=0.1)
    image, conditions = torch.rand(1, 1, planes, 5, 6), torch.randn(1, CONDITIONS)
    whole = network.stage(image, conditions, axes)
    stream = StreamedStage(network, conditions, axes, (planes, 5, 6))
    fed = image[0].permute(1, 2, 3, 0).split(step)
    found = [stream(part, n == len(fed) - 1) for n, part in enumerate(fed)]
    for_clean, for_fine = (torch.cat(parts)[..., 0] for parts in zip(*found, strict=True))
    clean = (whole.clean - image)[0, 0] / RESIDUAL_SCALE
    torch.testing.assert_close(for_clean, clean, atol=1e-4, rtol=1e-3)
    fine = (whole.fine - interpolate_doubled(whole.clean, axes))[0, 0] / RESIDUAL_SCALE
    torch.testing.assert_close(for_fine, fine, atol=1e-4, rtol=1e-3)
