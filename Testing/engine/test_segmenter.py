"""The yardstick of table 5: a tiny U-Net that learns two tissues, and what it is kept in."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from nexusinr.errors import Cancelled, InputError
from nexusinr.evaluation import segmenter
from nexusinr.evaluation.overlap import dice
from nexusinr.evaluation.segmenter import UNKNOWN, Example, SegmenterConfig
from nexusinr.evaluation.subjects import Pair
from nexusinr.geometry import Affine
from nexusinr.volume import write_volume

TINY = SegmenterConfig(channels=(4, 8), classes=3, window=16)


def toy(seed: int) -> Example:
    """A block of tissue 1 (dark on the first image) beside one of tissue 2 (bright)."""
    random = np.random.default_rng(seed)
    tissues = np.zeros((20, 18, 16), np.uint8)
    edge = int(random.integers(7, 13))
    tissues[2:edge, 3:15, 2:14], tissues[edge:18, 3:15, 2:14] = 1, 2
    first = np.array([0, 0.3, 0.8])[tissues] + random.normal(0, 0.02, tissues.shape)
    second = np.array([0, 0.7, 0.4])[tissues] + random.normal(0, 0.02, tissues.shape)
    images = np.stack([first, second]).clip(0, 1).astype(np.float32)
    return Example(torch.from_numpy(images), torch.from_numpy(tissues))


@pytest.fixture(scope="module")
def trained() -> segmenter.Segmenter:
    examples = [toy(seed) for seed in range(3)]
    return segmenter.train(examples, 10, TINY, most_steps=60, log=lambda _: None)


def test_it_learns_two_tissues(trained):
    unseen = toy(9)
    found = trained(*unseen.images.numpy())
    overlap = dice(found, unseen.tissues.numpy(), classes=(1, 2))
    assert min(overlap.values()) > 0.9


def test_it_survives_its_file(trained, tmp_path):
    path = tmp_path / "new" / "segmenter.safetensors"
    trained.save(path)
    loaded = segmenter.load(path)
    images = toy(4).images.numpy()
    assert loaded.digest == trained.digest
    assert np.array_equal(loaded(*images), trained(*images))
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "other.safetensors"
    with pytest.raises(InputError, match="no such segmenter; train one with --train-segmenter"):
        segmenter.load(path)
    path.write_bytes(b"pickle?")
    with pytest.raises(InputError, match=r"other\.safetensors: not a segmenter"):
        segmenter.load(path)
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(InputError, match="not a segmenter"):
        segmenter.load(path)
    about = {"segmenter": json.dumps({"channels": [4, 8], "classes": 3})}
    save_file({"a": torch.zeros(1)}, path, about)
    with pytest.raises(InputError, match="not a segmenter"):
        segmenter.load(path)


def test_what_is_unknown_does_not_count():
    tissues = toy(0).tissues[None].clone()
    scores = torch.randn(1, 3, *tissues.shape[1:], generator=torch.manual_seed(0))
    before = segmenter.loss(scores, tissues)
    tissues[:, :10] = UNKNOWN
    other = scores.clone()
    other[:, :, :10] = 5
    assert segmenter.loss(scores, tissues) == pytest.approx(float(segmenter.loss(other, tissues)))
    assert segmenter.loss(scores, tissues) != pytest.approx(float(before))


def test_patches_of_small_images_are_filled_up():
    random = np.random.default_rng(0)
    drawn = segmenter.draw(toy(0), 24, random)
    assert drawn.images.shape == (2, 24, 24, 24)
    assert drawn.tissues.shape == (24, 24, 24)
    # Every labelled voxel is still there, and images and tissues were flipped together.
    assert (drawn.tissues > 0).sum() == (toy(0).tissues > 0).sum()
    bright = drawn.images[0][drawn.tissues == 2].mean()
    assert bright > drawn.images[0][drawn.tissues == 1].mean() + 0.2


def test_training_can_be_stopped():
    with pytest.raises(Cancelled):
        segmenter.train([toy(0)], 10, TINY, cancelled=lambda: True)


def test_examples_are_originals_with_their_tissues(tmp_path):
    affine, other = Affine.from_parts((1, 1, 1)), Affine.from_parts((1, 1, 1), origin=(0.5, 0, 0))
    labels = np.zeros((20, 20, 20), np.uint8)
    labels[4:10, 4:16, 4:16], labels[10:15, 4:16, 4:16] = 2, 3
    data = np.where(labels > 0, 100.0 * labels, 0).astype(np.float32)
    data[15, 4:16, 4:16] = 250  # in the brain, but not labelled
    write_volume(tmp_path / "t1.nii.gz", data, affine)
    write_volume(tmp_path / "t2.nii.gz", data, other)
    write_volume(tmp_path / "seg.nii.gz", labels, affine)
    pair = Pair("one", tmp_path / "t1.nii.gz", tmp_path / "t2.nii.gz", tmp_path / "seg.nii.gz")
    (example,) = segmenter.read_examples([pair])
    assert example.images.shape == (2, 12, 12, 12)  # cropped to the head
    assert example.tissues[[0, 6, 11], 5, 5].tolist() == [3, 2, UNKNOWN]
    # T2w was put on the lattice of T1w: half a voxel, so the edge between both is in between.
    assert 200 / 300 < float(example.images[1, 6, 5, 5]) < 0.9
    with pytest.raises(InputError, match="no training subject"):
        segmenter.read_examples([Pair("none", pair.t1w, pair.t2w)])
