"""Convolutions with 8-bit factors: how exact they are, and where they are used."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from nexusinr.evaluation.benchmark.counting import counted
from nexusinr.inference import device
from nexusinr.inference.pipeline import upsample
from nexusinr.inference.session import Session
from nexusinr.models import eight_bit
from nexusinr.models.eight_bit import EightBitConv
from nexusinr.models.encoders import CONDITIONS, build_encoder, conv3, he_initialise
from nexusinr.models.streaming import convolved, streamed

pytestmark = pytest.mark.skipif(
    not torch.cpu._is_vnni_supported(), reason="this processor has no products of 8-bit factors"
)


def test_such_a_processor_is_quicker():
    assert eight_bit.is_quicker()


@pytest.fixture
def layer() -> torch.nn.Conv3d:
    torch.manual_seed(0)
    return conv3(32, 16).requires_grad_(False)


def off(found: torch.Tensor, right: torch.Tensor) -> float:
    """Error as a share of what is right, root mean squares."""
    return float((found - right).square().mean().sqrt() / right.square().mean().sqrt())


@torch.inference_mode()
def test_only_factors_are_rounded(layer):
    window = torch.randn(5, 9, 8, 32)
    right = convolved(window, layer)
    assert 1e-4 < off(EightBitConv(layer)(window), right) < 0.02
    # What 8 bits can hold comes out as it is: integers of the full range, in either sign.
    layer.weight.copy_(torch.randint(-127, 128, layer.weight.shape))
    layer.weight[:, 0, 0, 0, 0] = 127
    window = torch.randint(-127, 128, window.shape).float()
    window[0, 0, 0, 0] = -127
    assert off(EightBitConv(layer)(window), convolved(window, layer)) < 1e-6


@torch.inference_mode()
def test_planes_of_nothing_stay_so(layer):
    found = EightBitConv(layer)(torch.zeros(4, 5, 6, 32))
    torch.testing.assert_close(found, layer.bias.expand(2, 5, 6, 16))


@torch.inference_mode()
def test_wide_layers_alone_and_no_longer_than_wanted():
    wide = build_encoder("rdn", features=32, growth=16, blocks=1, layers=1).apply(he_initialise)
    narrow = build_encoder("rdn", features=8, growth=4, blocks=1, layers=1)
    image, conditions = torch.rand(6, 20, 20, 1), torch.zeros(1, CONDITIONS)
    right = streamed(wide, conditions)(image, True)
    for network in (wide, narrow):
        eight_bit.use(network, True)
    assert eight_bit.of(wide.first) is None  # one channel
    assert eight_bit.of(wide.second) is not None
    assert all(eight_bit.of(m) is None for m in narrow.modules() if isinstance(m, torch.nn.Conv3d))
    assert 1e-5 < off(streamed(wide, conditions)(image, True), right) < 0.03
    eight_bit.use(wide, False)
    assert torch.equal(streamed(wide, conditions)(image, True), right)


@torch.inference_mode()
def test_the_work_counts_the_same(layer):
    window = torch.rand(4, 8, 8, 32)
    short = EightBitConv(layer)
    plain = counted(lambda: torch.nn.functional.conv3d(window.permute(3, 0, 1, 2), layer.weight))
    inner = counted(lambda: short(window)).flop
    assert inner == 2 * 27 * 32 * 16 * 2 * 8 * 8
    assert plain.flop == inner * 6 * 6 // (8 * 8)


def test_a_session_says_so_and_restores_the_same(thick_pair):
    session = Session("nexus-inr", "cpu")
    assert session.device.eight_bit
    assert "8-bit convolutions" in session.device.description
    options = {"spacing": 2, "consistency": 0, "register": "none", "session": session}
    short = upsample(*thick_pair, **options)
    session.move(session.device.in_float32())
    assert session.device == dataclasses.replace(
        device.choose("cpu"), eight_bit=False, bfloat16=False
    )
    assert "8-bit" not in session.device.description
    full = upsample(*thick_pair, **options)
    for one, other in ((short.t1w, full.t1w), (short.t2w, full.t2w)):
        scale = np.percentile(other.data, 99.5)
        difference = (one.data - other.data) / scale
        # 50 dB: restoring is off by some 35 dB, to which this adds less than 0.05 dB.
        assert 0 < np.square(difference).mean() < 1e-5


@pytest.fixture
def tried_anew() -> Iterator[None]:
    eight_bit.is_quicker.cache_clear()
    yield
    eight_bit.is_quicker.cache_clear()


def test_not_without_the_kernels(monkeypatch, tried_anew):
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert not eight_bit.is_quicker()
    assert not device.choose("cpu").eight_bit


def test_kernels_that_fail_are_told_of(monkeypatch, tried_anew, caplog):
    def fail(self, window):
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(EightBitConv, "__call__", fail)
    assert not eight_bit.is_quicker()
    assert "8-bit convolutions are not used: no such kernel" in caplog.text


def test_other_processors_are_no_news(monkeypatch, tried_anew, caplog):
    def fail(self, window):
        raise NotImplementedError("for other processors alone")

    monkeypatch.setattr(EightBitConv, "__call__", fail)
    assert not eight_bit.is_quicker()
    assert not caplog.text


def test_not_where_they_compute_wrongly(monkeypatch, tried_anew):
    right = EightBitConv.__call__
    monkeypatch.setattr(EightBitConv, "__call__", lambda self, w: 0.999 * right(self, w))
    assert not eight_bit.is_quicker()
