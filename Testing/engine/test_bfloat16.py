"""Perceptrons with bfloat16 factors: how exact they are, and where they are used."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from nexusinr.geometry import Affine, Grid
from nexusinr.inference import device
from nexusinr.inference.pipeline import upsample
from nexusinr.inference.session import Session
from nexusinr.models import bfloat16, trial
from nexusinr.models.nexus_inr import T1W, NexusINR, NexusINRConfig, scan_conditions
from nexusinr.models.sampling import LatticeMap

SCAN = Grid((6, 5, 4), Affine.from_parts((1, 1, 3)))
TARGET = Grid((6, 5, 9), Affine.from_parts((1, 1, 1.3)))


@pytest.fixture
def tried_anew() -> Iterator[None]:
    bfloat16.is_quicker.cache_clear()
    yield
    bfloat16.is_quicker.cache_clear()


def network_with(decoder: str) -> NexusINR:
    torch.manual_seed(0)
    network = NexusINR(NexusINRConfig(features=8, growth=4, blocks=1, layers=1, decoder=decoder))
    for parameter in network.parameters():  # a fresh network predicts nothing
        parameter.data += 0.05 * torch.randn_like(parameter)
    return network


@torch.inference_mode()
def decoded(network: NexusINR) -> tuple[torch.Tensor, torch.Tensor]:
    """Intensity, and what was added to the interpolation, of a scan by itself."""
    conditions = scan_conditions(torch.tensor([[1.0, 1, 3]]), torch.tensor([[1.0, 1, 3]]))
    image = torch.rand(1, 1, *SCAN.shape, generator=torch.Generator().manual_seed(1))
    encoding = network.encode(image, conditions, T1W)
    found = network.decode(T1W, network.sample(encoding, LatticeMap([SCAN], [TARGET.pad(1)])))
    return found.intensity, found.intensity - found.interpolated


def test_only_what_is_added_to_the_interpolation_is_rounded():
    network = network_with("mlp")
    right, added = decoded(network)
    bfloat16.use(network, True)
    found, _ = decoded(network)
    assert found.dtype == torch.float32
    off = (found - right).abs().max() / added.abs().max()
    assert 1e-5 < off < 0.03
    bfloat16.use(network, False)
    assert torch.equal(decoded(network)[0], right)


def test_sines_keep_all_digits():
    """Their angles are large: what enters them may be rounded, they themselves may not."""
    network = network_with("siren")
    bfloat16.use(network, True)
    assert decoded(network)[0].dtype == torch.float32
    siren = network.decoder[T1W]
    points = torch.rand(1, 3, 3, 3, siren.layers[0].in_features)
    outside = siren(points)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(siren(points), outside)
        assert siren(points).dtype == torch.float32


def test_what_is_around_a_network_holds():
    """Training with mixed precision decides for itself."""
    network = network_with("mlp")
    with torch.autocast("cpu", torch.bfloat16), bfloat16.factors(network):
        assert torch.is_autocast_enabled("cpu")
    with bfloat16.factors(network):
        assert not torch.is_autocast_enabled("cpu")


def test_a_session_restores_the_same(thick_pair, monkeypatch):
    monkeypatch.setattr(bfloat16, "is_quicker", lambda: True)
    session = Session("nexus-inr", "cpu")
    assert "bfloat16 perceptrons" in session.device.description
    options = {"spacing": 2, "consistency": 0, "register": "none", "session": session}
    session.move(dataclasses.replace(session.device, eight_bit=False))
    short = upsample(*thick_pair, **options)
    session.move(session.device.in_float32())
    assert "bfloat16" not in session.device.description
    full = upsample(*thick_pair, **options)
    for one, other in ((short.t1w, full.t1w), (short.t2w, full.t2w)):
        difference = (one.data - other.data) / np.percentile(other.data, 99.5)
        # 60 dB: restoring is off by some 35 dB, to which this adds a hundredth of a dB at most.
        assert 0 < np.square(difference).mean() < 1e-6
    assert (short.segmentation == full.segmentation).mean() > 0.999


def test_not_where_they_are_slower(monkeypatch, tried_anew):
    monkeypatch.setattr(trial, "is_quicker", lambda new, old, gain: False)
    assert not bfloat16.is_quicker()
    assert not device.choose("cpu").bfloat16


def test_not_where_they_compute_wrongly(monkeypatch, tried_anew):
    linear = torch.nn.functional.linear

    def wrong(points, weight):
        return linear(points, weight) * (0.9 if torch.is_autocast_enabled("cpu") else 1)

    monkeypatch.setattr(bfloat16.functional, "linear", wrong)
    assert not bfloat16.is_quicker()
