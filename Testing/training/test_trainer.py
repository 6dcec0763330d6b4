"""Training from a folder to a checkpoint: what is learnt, and resuming to the bit."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from nexusinr.models import weights
from nexusinr.models.nexus_inr import NexusINR, NexusINRConfig
from nexusinr.training import checkpoint
from nexusinr.training.config import TrainConfig
from nexusinr.training.dataset import TrainingData
from nexusinr.training.layouts import read_pair
from nexusinr.training.logbook import PLACES, Logbook
from nexusinr.training.losses import LossWeights, total
from nexusinr.training.nexus_task import decode_example
from nexusinr.training.patches import Example, PatchSource
from nexusinr.training.protocols import Protocol
from nexusinr.training.trainer import Trainer

MODEL = NexusINRConfig(
    features=8,
    growth=8,
    blocks=1,
    layers=2,
    decoder_width=16,
    decoder_depth=2,
    attention_width=4,
    frequencies=2,
)
TINY = TrainConfig(
    model=MODEL, patch=16, steps=40, warmup=4, learning_rate=5e-3, final_learning_rate=5e-4
)


@pytest.fixture
def trainer(folder: Path, tmp_path: Path) -> Trainer:
    return Trainer(TINY, folder, tmp_path / "run")


def parameters(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in trainer.network.named_parameters()}


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    assert first.keys() == second.keys()
    return all(torch.equal(first[name], second[name]) for name in first)


def examples(folder: Path, count: int = 2) -> list[Example]:
    """Fixed examples of the validation subject, smaller than the trainer's own."""
    subject = read_pair(folder / "pairs" / "infant03")
    source = PatchSource(TrainingData([subject], []), size=12, seed=5)
    protocol = Protocol(axes=(2, 1), steps=(2, 3), thickness=(2, 3))
    return [source.from_subject(subject, protocol, remap=0) for _ in range(count)]


class TestStart:
    """The weights that a run begins with."""

    @pytest.fixture
    def trained(self, tmp_path, monkeypatch) -> NexusINR:
        monkeypatch.setenv("NEXUSINR_HOME", str(tmp_path / "home"))
        network = NexusINR(MODEL)
        card = {"name": "mine", "architecture": "NexusINR", "version": "0"}
        file = weights.save(network, tmp_path, {**card, "config": MODEL.to_dict()})
        weights.import_weights(file)
        return weights.load("mine")[0]

    def test_all_or_those_of_the_parts_that_are_wanted(self, folder, tmp_path, trained):
        fewer = dataclasses.replace(MODEL, multi_modal_fusion=False, cross_attention=False)
        known = trained.state_dict()
        for model in (MODEL, fewer):
            config = dataclasses.replace(TINY, start="mine", model=model)
            own = Trainer(config, folder, tmp_path / "run").network.state_dict()
            assert all(torch.equal(value, known[key]) for key, value in own.items())
        assert len(own) < len(known)

    def test_of_another_size(self, folder, tmp_path, trained):
        for change in ({"features": 12}, {"layers": 3}):
            model = dataclasses.replace(MODEL, **change)
            config = dataclasses.replace(TINY, start="mine", model=model)
            with pytest.raises(ValueError, match="'mine' are of another size"):
                Trainer(config, folder, tmp_path / "run")


class TestSteps:
    def test_the_loss_falls(self, folder, trainer):
        """Of examples of a subject that is not trained on, all terms together."""
        unseen = examples(folder)

        @torch.no_grad()
        def loss() -> float:
            return sum(total(trainer.losses(e), LossWeights()).item() for e in unseen)

        before = loss()
        for _ in range(8):
            trainer.train_step()
        assert loss() < 0.97 * before

    def test_an_example_seen_again_and_again_is_learnt(self, folder, tmp_path):
        plain = LossWeights(distillation=0, mean_alignment=0, segmentation=0, discrimination=0)
        config = dataclasses.replace(
            TINY, losses=plain, warmup=1, label_share=0, brats_share=1, patch=14
        )
        trainer = Trainer(config, folder, tmp_path)
        trainer.source.reseed((config.seed, 0, 0))
        trainer.validation = [trainer.source.draw()]
        assert trainer.validate() == {"gain_t1w": 0, "gain_t2w": 0}  # at first: interpolation
        history = []
        for _ in range(30):
            trainer.step = 0  # which names the example
            history.append(trainer.train_step()["total"])
        assert min(history) < 0.85 * history[0]
        assert trainer.validate()["gain_t2w"] > 0.5

    def test_interrupted_and_resumed_is_as_never_interrupted(self, folder, tmp_path):
        whole = Trainer(TINY, folder, tmp_path / "whole")
        first = Trainer(TINY, folder, tmp_path / "parts")
        for step in range(5):
            whole.train_step()
            if step < 3:
                first.train_step()
        first.save()
        second = Trainer(TINY, folder, tmp_path / "parts")
        assert second.step == 3
        assert same(parameters(second), parameters(first))
        for _ in range(2):
            second.train_step()
        assert same(parameters(second), parameters(whole))
        assert same(second.average, whole.average)
        for one, other in zip(second.network.parameters(), whole.network.parameters(), strict=True):
            assert same(second.optimiser.state[one], whole.optimiser.state[other])

    def test_another_seed_is_another_run(self, folder, tmp_path, trainer):
        other = Trainer(dataclasses.replace(TINY, seed=1), folder, tmp_path / "other")
        assert not same(parameters(trainer), parameters(other))

    def test_a_loss_that_is_not_finite_leaves_everything_alone(self, trainer):
        trainer.train_step()
        subjects = trainer.source.data.subjects
        trainer.source.data.label_maps.clear()
        good = [subject.images for subject in subjects]
        for subject in subjects:
            for image in subject.images:
                if image is not None:
                    image[::2] = math.nan
        weights = parameters(trainer)
        average = {name: value.clone() for name, value in trainer.average.items()}
        moments = {
            p: {k: v.clone() for k, v in s.items()} for p, s in trainer.optimiser.state.items()
        }
        terms = trainer.train_step()
        assert math.isnan(terms["total"])
        assert trainer.step == 2
        assert same(parameters(trainer), weights)
        assert same(trainer.average, average)
        assert all(same(trainer.optimiser.state[p], s) for p, s in moments.items())
        for images in good:
            for image in images:
                if image is not None:
                    image[::2] = image[1::2]
        assert math.isfinite(trainer.train_step()["total"])
        assert not same(parameters(trainer), weights)

    def test_draws_that_are_added_up_are_one_step(self, folder, tmp_path):
        """The gradient of a step is the mean of those of its draws."""
        config = dataclasses.replace(TINY, accumulate=2, clip=1e9)
        twice = Trainer(config, folder, tmp_path / "twice")
        once = Trainer(dataclasses.replace(TINY, clip=1e9), folder, tmp_path / "once")
        reported = twice.train_step()
        gradients: list[dict[str, torch.Tensor]] = []
        losses = []
        for number in range(2):
            once.network.zero_grad()
            once.source.reseed((TINY.seed, number, 0))
            loss = total(once.losses(once.task.draw(number)), TINY.losses)
            loss.backward()
            losses.append(loss.item())
            gradients.append(
                {
                    n: p.grad.clone()
                    for n, p in once.network.named_parameters()
                    if p.grad is not None
                }
            )
        assert reported["total"] == pytest.approx(sum(losses) / 2, rel=1e-5)
        for name, parameter in twice.network.named_parameters():
            found = [g[name] for g in gradients if name in g]
            if found:
                torch.testing.assert_close(parameter.grad, sum(found) / 2, rtol=1e-3, atol=1e-6)

    def test_the_average_follows_the_weights(self, trainer):
        expected = parameters(trainer)
        for step in range(3):
            trainer.train_step()
            share = 1 - (1 + step) / (10 + step)  # fast at first, 0.002 in the end
            for name, value in parameters(trainer).items():
                expected[name] += share * (value - expected[name])
        for name, value in trainer.average.items():
            torch.testing.assert_close(value, expected[name], rtol=1e-5, atol=1e-7)
        network = trainer.averaged()
        assert not network.training
        assert same(dict(network.named_parameters()), trainer.average)

    def test_learning_rate_rises_and_falls_along_a_cosine(self, folder, tmp_path):
        config = dataclasses.replace(
            TINY, steps=110, warmup=10, learning_rate=1e-2, final_learning_rate=1e-4, patch=8
        )
        trainer = Trainer(config, folder, tmp_path)
        quarter = 1e-4 + (1e-2 - 1e-4) * (1 + math.cos(math.pi / 4)) / 2
        for step, rate in (
            (0, 1e-3),
            (9, 1e-2),
            (10, 1e-2),
            (35, quarter),
            (60, (1e-2 + 1e-4) / 2),
            (110, 1e-4),
            (200, 1e-4),
        ):
            trainer.step = step
            trainer.train_step()
            assert trainer.optimiser.param_groups[0]["lr"] == pytest.approx(rate), step

    def test_a_step_reports_every_term(self, trainer):
        trainer.source.data.subjects[:] = trainer.source.data.subjects[:1]
        trainer.source.data.label_maps.clear()
        trainer.source.chances = np.ones(1)
        trainer.source.brats_share = 1.0
        assert trainer.train_step().keys() == {
            *(vars(LossWeights()).keys() - {"teacher"}),
            "total",
            *PLACES,
        }


class TestValidation:
    def test_gain_by_hand(self, folder, trainer):
        trainer.validation = examples(folder)
        with torch.no_grad():
            trainer.average["decoder.0.head.bias"].fill_(0.02)
            trainer.average["decoder.1.head.bias"].fill_(-0.03)
        before, after = np.zeros(2), np.zeros(2)
        for example in trainer.validation:
            decoded = decode_example(trainer.averaged(), example)
            for modality, side in enumerate(example.sides):
                truth = side.truth.clamp(0, 1)
                for errors, image in (
                    (before, decoded[modality].interpolated),
                    (after, decoded[modality].intensity),
                ):
                    squared = (image.detach().clamp(0, 1) - truth).square()
                    errors[modality] += squared[side.truth > 0].sum().item()
        expected = 10 * np.log10(before / after)
        assert np.abs(expected).min() > 1e-3
        found = trainer.validate()
        assert [found["gain_t1w"], found["gain_t2w"]] == pytest.approx(expected, abs=1e-3)

    def test_subjects_are_kept_out_of_training_and_acquired_as_brats(self, folder, tmp_path):
        config = dataclasses.replace(TINY, validation=("infant03",))
        trainer = Trainer(config, folder, tmp_path)
        assert "infant03" not in [s.name for s in trainer.source.data.subjects]
        assert len(trainer.validation) == 2
        for example in trainer.validation:
            for side, factor in zip(example.sides, (2, 4), strict=True):
                assert side.truth.shape == (1, 64, 64, 64)
                np.testing.assert_allclose(side.grids[0].spacing, (1, 1, factor))
        again = Trainer(config, folder, tmp_path).validation
        assert torch.equal(again[1].sides[1].scan, trainer.validation[1].sides[1].scan)

    def test_without_subjects_there_is_nothing_to_report(self, trainer):
        assert trainer.validate() == {}


class TestRun:
    def test_runs_to_the_end_and_no_further(self, folder, tmp_path):
        config = dataclasses.replace(TINY, steps=2, patch=12, validate_every=1)
        lines: list[str] = []
        trainer = Trainer(config, folder, tmp_path)
        trainer.validation = examples(folder, count=1)
        trainer.run(log=lines.append)
        assert trainer.step == 2
        assert sum("validation gain_t2w" in line for line in lines) == 2
        resumed = Trainer(config, folder, tmp_path)
        weights = parameters(resumed)
        resumed.run(log=lines.append)
        assert resumed.step == 2
        assert same(parameters(resumed), weights)
        assert list(tmp_path.glob("tensorboard/events*"))

    def test_no_time_is_no_step_but_a_checkpoint(self, folder, tmp_path):
        trainer = Trainer(TINY, folder, tmp_path)
        trainer.run(minutes=0)
        assert trainer.step == 0
        assert trainer.checkpoint.is_file()

    def test_a_stop_ends_the_step_and_saves(self, folder, tmp_path):
        trainer = Trainer(TINY, folder, tmp_path)
        assert trainer.run(log=lambda line: None, stop=lambda: trainer.step >= 2)
        assert trainer.step == 2
        assert checkpoint.progress(trainer.checkpoint)["step"] == 2

    def test_a_checkpoint_every_few_minutes(self, folder, tmp_path):
        """Here: at every step. What stops the run comes too fast for anything to be saved."""
        config = dataclasses.replace(TINY, checkpoint_minutes=0)
        trainer = Trainer(config, folder, tmp_path)

        def breaks() -> bool:
            if trainer.step == 2:
                raise RuntimeError("the power fails")
            return False

        with pytest.raises(RuntimeError, match="power"):
            trainer.run(log=lambda line: None, stop=breaks)
        assert checkpoint.progress(trainer.checkpoint)["step"] == 2

    def test_what_changed_is_said_and_another_model_refused(self, folder, tmp_path):
        Trainer(TINY, folder, tmp_path).save()
        assert Trainer(TINY, folder, tmp_path).notes == []
        other = dataclasses.replace(TINY, steps=50, seed=3)
        (note,) = Trainer(other, folder, tmp_path).notes
        assert note == "resumed with other values than before: steps (40, now 50), seed (0, now 3)"
        larger = dataclasses.replace(TINY, model=dataclasses.replace(MODEL, features=16))
        with pytest.raises(ValueError, match=r"another model: features \(8, now 16\)"):
            Trainer(larger, folder, tmp_path)

    def test_events_hold_every_term_and_pictures(self, folder, tmp_path):
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        trainer = Trainer(dataclasses.replace(TINY, steps=60, validate_every=1), folder, tmp_path)
        trainer.validation = examples(folder, count=1)
        trainer.step = 49
        trainer.run(log=lambda line: None, stop=lambda: trainer.step == 50)
        events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
        scalars = set(events.Tags()["scalars"])
        assert set(PLACES.values()) <= scalars
        assert {"loss/total", "validation/gain_t1w", "validation/gain_t2w"} <= scalars
        assert 0 < events.Scalars("time/data_share")[0].value < 1
        assert set(events.Tags()["images"]) == {"validation/t1w", "validation/t2w"}
        assert (
            events.Images("validation/t2w")[0].width
            == 4 * events.Images("validation/t2w")[0].height
        )

    def test_a_value_that_is_not_finite_is_not_in_the_mean(self, tmp_path):
        lines: list[str] = []
        with Logbook(None, lines.append) as book:
            book.step(1, {"total": 2.0}, 0)
            book.step(2, {"total": math.nan}, 0)
            book.step(50, {"total": 2.0}, 0)
        assert "total 2.0000" in lines[0]

    def test_configuration_from_plain_values(self):
        config = TrainConfig.from_dict(
            {"model": {"features": 4}, "losses": {"t2w": 2.0}, "validation": ["a"], "steps": 3}
        )
        assert config.model == NexusINRConfig(features=4)
        assert config.losses == LossWeights(t2w=2.0)
        assert (config.validation, config.steps) == (("a",), 3)
        with pytest.raises(TypeError, match="stepps"):
            TrainConfig.from_dict({"stepps": 3})


class TestCheckpoint:
    def test_is_plain_tensors_and_words(self, trainer):
        trainer.train_step()
        trainer.save()
        assert [path.name for path in trainer.out.iterdir()] == ["checkpoint.safetensors"]
        with safe_open(trainer.checkpoint, framework="pt") as file:
            kinds = {key.partition(".")[0] for key in file.keys()}  # noqa: SIM118 - not a dict
            assert kinds == {"model", "average", "adam"}
            assert '"step": 1' in file.metadata()["progress"]

    def test_in_parts_is_the_same_and_no_part_too_large(self, trainer, folder):
        trainer.train_step()
        limit = 20_000

        def save(step: int) -> list[Path]:
            progress = {"step": step, "seconds": 0.0}
            checkpoint.save(
                trainer.checkpoint,
                trainer.network,
                trainer.average,
                trainer.optimiser,
                progress,
                limit,
            )
            return sorted(trainer.out.iterdir())

        assert len(save(1)) > 3
        files = save(2)
        assert len(files) > 3
        assert all(".2-" in file.name for file in files if file != trainer.checkpoint)
        largest = max(p.numel() * 4 for p in trainer.network.parameters())
        assert max(file.stat().st_size for file in files) < max(limit, largest) + 10_000
        again = Trainer(TINY, folder, trainer.out)
        assert again.step == 2
        assert same(parameters(again), parameters(trainer))
        assert same(again.average, trainer.average)
        (trainer.out / files[1].name).unlink()
        with pytest.raises(ValueError, match="cannot be read as a checkpoint"):
            Trainer(TINY, folder, trainer.out)

    @pytest.mark.parametrize(
        "changes", [{"features": 4}, {"blocks": 2}, {"cross_attention": False}], ids=str
    )
    def test_another_network_is_refused(self, trainer, changes):
        trainer.save()
        other = NexusINR(dataclasses.replace(MODEL, **changes))
        before = {name: p.detach().clone() for name, p in other.named_parameters()}
        average = {name: p.clone() for name, p in before.items()}
        with pytest.raises(ValueError, match=r"checkpoint\.safetensors: no checkpoint of this"):
            checkpoint.load(trainer.checkpoint, other, average)
        assert same(dict(other.named_parameters()), before)

    def test_a_foreign_file_is_refused(self, trainer, tmp_path):
        path = tmp_path / "foreign.safetensors"
        save_file({"weight": torch.zeros(2)}, path)
        with pytest.raises(ValueError, match="no checkpoint of this network"):
            checkpoint.load(path, trainer.network, trainer.average)
