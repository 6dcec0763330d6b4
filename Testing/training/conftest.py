"""A small folder of training data, and what makes more of it."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from nexusinr.geometry import Affine, Grid

SHAPE = (24, 22, 26)
AFFINE = np.array([[-0.9, 0, 0, 10], [0, 0.9, 0, -12], [0, 0, 0.9, 7], [0, 0, 0, 1]])


def write_image(path: Path, data: np.ndarray, affine: np.ndarray = AFFINE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.Nifti1Image(data, affine).to_filename(path)


def smooth_head(seed: int) -> np.ndarray:
    """A head of smooth random intensities, int16, air around it."""
    noise = gaussian_filter(np.random.default_rng(seed).normal(size=SHAPE), 1.2)
    head = (500 + 1500 * noise).clip(50)
    head[:3] = head[-3:] = head[:, :3] = head[:, -3:] = 0
    return head.astype(np.int16)


def write_person(folder: Path, seed: int, segmented: bool = True) -> None:
    t1w = smooth_head(seed)
    write_image(folder / "T1w.nii.gz", t1w)
    write_image(folder / "T2w.nii.gz", np.where(t1w > 0, 1200 - t1w // 2, 0).astype(np.int16))
    if segmented:
        ids = np.select([t1w > 650, t1w > 500, t1w > 400], [2, 3, 4], 0)
        write_image(folder / "seg.nii.gz", ids.astype(np.uint8))


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two to train on, one to validate, a single scan, a label map, a test subject that breaks."""
    root = tmp_path_factory.mktemp("data")
    for seed, name in enumerate(("infant01", "infant02", "infant03")):
        write_person(root / "pairs" / name, seed)
    (root / "pairs" / "infant99").mkdir()
    for name in ("T1w.nii.gz", "T2w.nii.gz"):
        (root / "pairs" / "infant99" / name).write_bytes(b"not an image")
    write_image(root / "singles" / "adult_T2w.nii.gz", smooth_head(7))
    ids = np.select([smooth_head(8) > 600, smooth_head(8) > 450, smooth_head(8) > 0], [1, 2, 30], 0)
    write_image(root / "labels" / "labels_01.nii.gz", ids.astype(np.uint8))
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
def lattice() -> Grid:
    """Of every image in the folder."""
    return Grid(SHAPE, Affine(AFFINE))


@pytest.fixture
def write() -> Callable[..., None]:
    return write_image


@pytest.fixture
def smooth() -> Callable[[int], np.ndarray]:
    return smooth_head


@pytest.fixture
def write_subject() -> Callable[..., None]:
    return write_person
