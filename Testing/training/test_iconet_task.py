"""ICONet trained: every term of the supervision, learning, validation, resuming, export."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from nexusinr.models import weights
from nexusinr.training import iconet_task
from nexusinr.training.card import describe
from nexusinr.training.config import TrainConfig
from nexusinr.training.losses import StageWeights, total
from nexusinr.training.trainer import Trainer

TINY = TrainConfig.from_dict(
    {
        "architecture": "ICONet",
        "model": {"features": 8, "blocks": 1, "reach": 1},
        "patch": 16,
        "steps": 30,
        "warmup": 2,
        "learning_rate": 5e-3,
    }
)


@pytest.fixture
def trainer(folder, tmp_path) -> Trainer:
    return Trainer(TINY, folder, tmp_path / "run")


def test_terms_by_hand(trainer):
    trainer.source.brats_share = 1.0
    t1w, t2w = (trainer.task.draw(number) for number in (0, 1))
    assert trainer.losses(t1w).keys() == {"t1w", "squared", "gradient", "clean"}
    found = trainer.losses(t2w)
    first, second = trainer.task.run(trainer.network, t2w)

    def error(image: torch.Tensor, level: int, border: tuple[int, int, int], power=1) -> float:
        i, j, k = (slice(n, -n) for n in border)
        return (image - t2w.clean[level])[..., i, j, k].abs().pow(power).mean().item()

    def edges(image: torch.Tensor) -> float:
        wrong = (image - t2w.clean[2])[..., 4:-4, 4:-4, 4:-4]
        return torch.cat([wrong.diff(dim=d).flatten() for d in (2, 3, 4)]).abs().mean().item()

    expected = {
        "t2w": error(second.fine, 2, (4, 4, 4)),
        "squared": error(second.fine, 2, (4, 4, 4), power=2),
        "gradient": edges(second.fine),
        "between": error(first.fine, 1, (4, 4, 2)),
        "clean": (error(first.clean, 0, (4, 4, 1)) + error(second.clean, 1, (4, 4, 2))) / 2,
    }
    assert {name: value.item() for name, value in found.items()} == pytest.approx(expected)
    weighted = sum(getattr(StageWeights(), name) * value for name, value in expected.items())
    assert total(found, TINY.losses).item() == pytest.approx(weighted)


def test_an_example_seen_again_and_again_is_learnt(folder, tmp_path):
    config = dataclasses.replace(TINY, warmup=1, label_share=0, brats_share=1)
    trainer = Trainer(config, folder, tmp_path)
    trainer.source.reseed((config.seed, 0, 0))
    trainer.validation = [trainer.task.draw(0)]
    assert trainer.validate()["gain_t1w"] == pytest.approx(0, abs=0.01)  # interpolation at first
    history = []
    for _ in range(20):
        trainer.step = 0  # which names the example
        history.append(trainer.train_step()["total"])
    assert min(history) < 0.9 * history[0]
    assert trainer.validate()["gain_t1w"] > 0.1


def test_interrupted_and_resumed_is_as_never_interrupted(folder, tmp_path):
    whole = Trainer(TINY, folder, tmp_path / "whole")
    first = Trainer(TINY, folder, tmp_path / "parts")
    curve = [whole.train_step()["total"] for _ in range(4)]
    assert [first.train_step()["total"] for _ in range(2)] == curve[:2]
    first.save()
    second = Trainer(TINY, folder, tmp_path / "parts")
    assert [second.train_step()["total"] for _ in range(2)] == curve[2:]


def test_validates_each_contrast_on_its_own(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(iconet_task, "VALIDATION_SIZE", 16)
    config = dataclasses.replace(TINY, validation=("infant03",))
    trainer = Trainer(config, folder, tmp_path)
    assert [example.modality for example in trainer.validation] == [0, 1, 0, 1]
    found = trainer.validate()
    assert found.keys() == {"gain_t1w", "gain_t2w"}
    assert found["gain_t1w"] == pytest.approx(0, abs=0.01)  # as yet it interpolates
    assert abs(found["gain_t2w"]) < 1  # in two steps of 2 instead of one of 4


def test_weights_and_card_are_a_model(trainer, tmp_path, monkeypatch):
    monkeypatch.setenv("NEXUSINR_HOME", str(tmp_path / "home"))
    trainer.train_step()
    file = weights.save(trainer.averaged(), tmp_path, describe(trainer, "mine"))
    card = json.loads(file.with_suffix(".json").read_text())
    assert (card["architecture"], card["config"]) == ("ICONet", TINY.model.to_dict())
    weights.import_weights(file)
    network, _ = weights.load("mine")
    for name, value in network.state_dict().items():
        torch.testing.assert_close(
            value, trainer.averaged().state_dict()[name], atol=1e-3, rtol=1e-3
        )
