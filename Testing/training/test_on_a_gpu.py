"""What a GPU would refuse, or would have to be waited for: see the fixture `stand_in_gpu`."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nexusinr.models import weights
from nexusinr.training import crops
from nexusinr.training.config import TrainConfig
from nexusinr.training.dataset import LabelMap
from nexusinr.training.loading import load
from nexusinr.training.losses import total
from nexusinr.training.tasks import task_class

SMALL = {"features": 8, "growth": 8, "blocks": 1, "decoder_width": 16, "attention_width": 4}
RUNS = {
    "NexusINR": {"model": SMALL},
    "ICONet": {"architecture": "ICONet", "model": {"features": 8}},
}


class Generator(torch.Generator):
    """Says that it is on the device, as one for a GPU does."""

    device = torch.device("meta")

    def __new__(cls, device: torch.device) -> Generator:
        return super().__new__(cls, "cpu")


@pytest.mark.parametrize("architecture", RUNS)
def test_a_step(architecture, folder, stand_in_gpu, monkeypatch):
    """Patches are cut, made from label maps, degraded and learned from, all on the device."""
    config = TrainConfig.from_dict({**RUNS[architecture], "patch": 16, "batch": 2})
    data = load(folder)
    for source in (*data.subjects, *data.label_maps):  # asked for once a run, not once a step
        places = source.places
        monkeypatch.setattr(type(source), "places", places)
    for labels in data.label_maps:
        monkeypatch.setattr(LabelMap, "brain_places", labels.brain_places)
    monkeypatch.setattr(crops.torch, "Generator", Generator)

    network = weights.build(config.architecture, config.model.to_dict()).to(stand_in_gpu)
    kind = task_class(config.architecture)
    task = kind(config, network, data.to(stand_in_gpu), stand_in_gpu, None)
    for number in range(8):  # people and label maps, pairs and single scans
        task.source.reseed((number,))
        terms = task(task.draw(number))
        total(terms, config.losses).backward()
        assert {value.device for value in terms.values()} == {stand_in_gpu}
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    assert len(gradients) > 0.9 * len(list(network.parameters()))
    assert np.all([g.is_meta for g in gradients])
