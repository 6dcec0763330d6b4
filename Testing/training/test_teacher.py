"""A large model teaches a light one: its restorations are learned beside the truth."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from nexusinr.models import weights
from nexusinr.training.card import describe
from nexusinr.training.config import TrainConfig
from nexusinr.training.trainer import Trainer

LIGHT = {
    "NexusINR": {"features": 8, "growth": 8, "blocks": 1, "layers": 1, "decoder_width": 16},
    "ICONet": {"features": 8, "blocks": 1, "reach": 1},
}
TEACHERS = {"NexusINR": "nexus-inr", "ICONet": "iconet"}


def config(architecture: str, **changes: object) -> TrainConfig:
    values = {
        "architecture": architecture,
        "model": LIGHT[architecture],
        "patch": 16,
        "steps": 30,
        "warmup": 2,
        "learning_rate": 5e-3,
        "teacher": TEACHERS[architecture],
    }
    return TrainConfig.from_dict(values | changes)


@pytest.mark.parametrize("architecture", LIGHT)
def test_how_far_the_pupil_is_from_its_teacher(folder, tmp_path, architecture):
    trainer = Trainer(config(architecture), folder, tmp_path)
    example = trainer.task.draw(0)
    terms = trainer.losses(example)
    teacher, _ = weights.load(TEACHERS[architecture])
    with torch.no_grad():
        own, right = (trainer.task.restore(n, example) for n in (trainer.network, teacher))
    far = sum((own[m].restored - right[m].restored).abs().mean().item() for m in own)
    assert terms["teacher"].item() == pytest.approx(far, rel=1e-4)
    assert far > 0
    alone = Trainer(config(architecture, teacher=""), folder, tmp_path / "alone")
    assert alone.losses(example).keys() == terms.keys() - {"teacher"}


def test_from_the_teacher_alone(folder, tmp_path):
    """Nothing but the teacher's images is asked for: the pupil comes closer to them."""
    asked = {name: 0.0 for name in vars(config("ICONet").losses)} | {"teacher": 1.0}
    trainer = Trainer(config("ICONet", losses=asked), folder, tmp_path)
    example = trainer.task.draw(0)
    trainer.task.draw = lambda number: example
    before = trainer.losses(example)["teacher"].item()
    for _ in range(20):
        trainer.train_step()
    assert trainer.losses(example)["teacher"].item() < 0.9 * before


def test_the_teacher_stays_as_it_is_and_out_of_the_checkpoint(folder, tmp_path):
    trainer = Trainer(config("ICONet"), folder, tmp_path)
    (teacher,) = trainer.task._teacher
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    trainer.train_step()
    trainer.save()
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert not teacher.training
    assert len(list(trainer.task.parameters())) == len(list(trainer.network.parameters()))
    assert describe(trainer, "light")["training"]["teacher"] == "iconet"


def test_a_teacher_of_another_kind(folder: Path, tmp_path: Path):
    wrong = dataclasses.replace(config("ICONet"), teacher="nexus-inr")
    with pytest.raises(ValueError, match="'nexus-inr' is a NexusINR, and this run's model a ICO"):
        Trainer(wrong, folder, tmp_path)
