"""Training from a folder to a checkpoint: what is read, what is learnt, and resuming to the bit."""

from __future__ import annotations

import csv
import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from scipy.ndimage import gaussian_filter

from nexusinr.geometry import Affine, Grid
from nexusinr.labels import CSF, GREY, WHITE
from nexusinr.models.nexus_inr import NexusINR, NexusINRConfig
from nexusinr.training import checkpoint
from nexusinr.training.dataset import TrainingData, load, read_pair
from nexusinr.training.losses import UNKNOWN, LossWeights, total
from nexusinr.training.patches import Example, PatchSource, Protocol
from nexusinr.training.trainer import TrainConfig, Trainer, decode_example

SHAPE = (24, 22, 26)
AFFINE = np.array([[-0.9, 0, 0, 10], [0, 0.9, 0, -12], [0, 0, 0.9, 7], [0, 0, 0, 1]])
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


def write(path: Path, data: np.ndarray, affine: np.ndarray = AFFINE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.Nifti1Image(data, affine).to_filename(path)


def smooth(seed: int) -> np.ndarray:
    """A head of smooth random intensities, int16, air around it."""
    noise = gaussian_filter(np.random.default_rng(seed).normal(size=SHAPE), 1.2)
    head = (500 + 1500 * noise).clip(50)
    head[:3] = head[-3:] = head[:, :3] = head[:, -3:] = 0
    return head.astype(np.int16)


def write_subject(folder: Path, seed: int, segmented: bool = True) -> None:
    t1w = smooth(seed)
    write(folder / "T1w.nii.gz", t1w)
    write(folder / "T2w.nii.gz", np.where(t1w > 0, 1200 - t1w // 2, 0).astype(np.int16))
    if segmented:
        ids = np.select([t1w > 650, t1w > 500, t1w > 400], [2, 3, 4], 0)
        write(folder / "seg.nii.gz", ids.astype(np.uint8))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two to train on, one to validate, a single scan, a label map, a test subject that breaks."""
    root = tmp_path_factory.mktemp("data")
    for seed, name in enumerate(("infant01", "infant02", "infant03")):
        write_subject(root / "pairs" / name, seed)
    (root / "pairs" / "infant99").mkdir()
    for name in ("T1w.nii.gz", "T2w.nii.gz"):
        (root / "pairs" / "infant99" / name).write_bytes(b"not an image")
    write(root / "singles" / "adult_T2w.nii.gz", smooth(7))
    ids = np.select([smooth(8) > 600, smooth(8) > 450, smooth(8) > 0], [1, 2, 30], 0)
    write(root / "labels" / "labels_01.nii.gz", ids.astype(np.uint8))
    with (root / "labels" / "labels.csv").open("w", newline="") as lines:
        rows = csv.writer(lines)
        rows.writerow(("id", "name", "freesurfer_ids"))
        rows.writerows(
            [(0, "air", "0"), (1, "white", "2;41"), (2, "grey", "3;42"), (30, "fat", "-1")]
        )
    names = ("infant01,train", "infant02,train", "infant03,train", "infant99,test")
    (root / "split.csv").write_text("\n".join(("subject,split", *names)) + "\n")
    return root


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Small tensors gain nothing from more, and sums then have one order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


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


class TestData:
    def test_what_is_read(self, folder):
        data = load(folder, leave_out=("infant03",))
        assert [s.name for s in data.subjects] == ["infant01", "infant02", "adult_T2w.nii.gz"]
        first, _, single = data.subjects
        t1w, grid = first.images[0], first.grids[0]
        assert t1w.dtype == torch.float16
        assert np.percentile(t1w[t1w > 0].float(), 99.9) == pytest.approx(1, abs=0.01)
        assert grid.same_as(Grid(SHAPE, Affine(AFFINE)), 1e-5)
        assert single.images[0] is None
        assert single.images[1].shape == SHAPE
        (label_map,) = data.label_maps
        assert label_map.tissue_of[[0, 1, 2, 30]].tolist() == [0, WHITE, GREY, 0]

    def test_tissues_of_what_is_labelled_and_unknown_elsewhere_in_the_head(self, folder):
        subject, t1w = read_pair(folder / "pairs" / "infant01"), smooth(0)
        assert (subject.tissues[torch.from_numpy(t1w > 650)] == WHITE).all()
        assert (subject.tissues[torch.from_numpy((t1w > 500) & (t1w <= 650))] == GREY).all()
        assert (subject.tissues[torch.from_numpy((t1w > 400) & (t1w <= 500))] == CSF).all()
        assert (subject.tissues[torch.from_numpy((t1w > 0) & (t1w <= 400))] == UNKNOWN).all()
        assert (subject.tissues[torch.from_numpy(t1w == 0)] == 0).all()

    def test_a_lesion_mask_is_no_tissue_map(self, tmp_path):
        write_subject(tmp_path, 0, segmented=False)
        assert read_pair(tmp_path).tissues is None
        write(tmp_path / "seg.nii.gz", (smooth(0) > 600).astype(np.uint8))
        assert read_pair(tmp_path).tissues is None

    @pytest.mark.parametrize(
        ("name", "spacing", "sharp"),
        [
            ("infant05", (1, 1, 1), (0, 1, 2)),
            ("clinical", (0.9, 0.9, 4), (0, 1)),
            ("sagittal", (4, 0.9, 0.9), (1, 2)),
            ("ms19", (1, 1, 1), (0, 1)),  # resampled from thick slices by its authors
        ],
    )
    def test_which_axes_are_a_true_reference(self, tmp_path, name, spacing, sharp):
        for modality in ("T1w", "T2w"):
            write(tmp_path / name / f"{modality}.nii.gz", smooth(0), np.diag((*spacing, 1)))
        assert read_pair(tmp_path / name).sharp == sharp

    def test_a_test_subject_cannot_validate(self, folder, tmp_path):
        config = dataclasses.replace(TINY, validation=("infant99",))
        with pytest.raises(ValueError, match="'infant99' is not marked train"):
            Trainer(config, folder, tmp_path)

    def test_a_folder_without_a_split_or_without_subjects(self, tmp_path):
        with pytest.raises(ValueError, match="says who trains and who tests"):
            load(tmp_path)
        (tmp_path / "split.csv").write_text("subject,split\ninfant01,test\n")
        with pytest.raises(ValueError, match="nothing to train on"):
            load(tmp_path)


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
        assert loss() < 0.9 * before

    def test_an_example_seen_again_and_again_is_learnt(self, folder, tmp_path):
        plain = LossWeights(distillation=0, mean_alignment=0, segmentation=0, discrimination=0)
        config = dataclasses.replace(
            TINY, losses=plain, warmup=1, label_share=0, brats_share=1, patch=14
        )
        trainer = Trainer(config, folder, tmp_path)
        trainer.source.reseed((config.seed, 0))
        trainer.validation = [trainer.source.draw()]
        assert trainer.validate() == {"gain_t1w": 0, "gain_t2w": 0}  # at first: interpolation
        history = []
        for _ in range(30):
            trainer.step = 0  # which names the example
            history.append(trainer.train_step()["total"])
        assert min(history) < 0.8 * history[0]
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
            *vars(LossWeights()),
            "total",
            "gradient_norm",
        }


class TestValidation:
    def test_gain_by_hand(self, folder, trainer):
        trainer.validation = examples(folder)
        with torch.no_grad():
            trainer.average["decoder.0.head.bias"].fill_(0.02)
            trainer.average["decoder.1.head.bias"].fill_(-0.03)
        before, after = np.zeros(2), np.zeros(2)
        for example in trainer.validation:
            decoded = decode_example(trainer.averaged(), example, trainer.device)
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
