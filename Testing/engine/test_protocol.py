"""Protocols on small pairs on disk, from files to tables."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from nexusinr.errors import InputError
from nexusinr.evaluation.metrics import Similarity, similarity
from nexusinr.evaluation.protocol import PROTOCOLS, evaluate, subjects, unusable
from nexusinr.evaluation.report import NO_LPIPS, Score, markdown
from nexusinr.geometry import Affine
from nexusinr.resample import covered, interpolate
from nexusinr.volume import Volume, read_volume, write_volume

LAS = Affine.from_parts((1, 1, 1), np.diag((-1.0, 1.0, 1.0)), (16, -20, -12))


def brain(seed: int, affine: Affine = LAS, shape=(32, 38, 25)) -> Volume:
    i, j, k = np.ogrid[tuple(slice(n) for n in shape)]
    middle, half = (np.array(shape) - 1) / 2, np.array(shape) * 0.42
    axes = zip((i, j, k), middle, half, strict=True)
    inside = sum(((x - m) / h) ** 2 for x, m, h in axes) < 1
    texture = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 1.0)
    return Volume(np.where(inside, 500 + 1000 * texture.clip(-0.4, 0.4), 0), affine)


def write_pair(folder: Path, names: tuple[str, str], t1w: Volume, t2w: Volume) -> None:
    folder.mkdir(parents=True)
    for name, volume in zip(names, (t1w, t2w), strict=True):
        write_volume(folder / name, volume.data, volume.affine)


@pytest.fixture
def data(tmp_path) -> Path:
    """Two test subjects, one whose scans share no lattice; one that is thick; one that trains."""
    thick = Affine.from_parts((1, 1, 3))
    moved = Affine(LAS.matrix + np.array([[0, 0, 0, 0.3]] + 3 * [[0, 0, 0, 0]]))
    names = ("T1w.nii.gz", "T2w.nii.gz")
    for subject, t1w, t2w in (
        ("child01", brain(1), brain(2)),
        ("grown7", brain(3), brain(4, moved)),
        ("thick02", brain(5, thick), brain(6, thick)),
        ("child02", brain(7), brain(8)),
    ):
        write_pair(tmp_path / "pairs" / subject, names, t1w, t2w)
    (tmp_path / "split.csv").write_text(
        "subject,split\nchild01,test\ngrown7,test\nthick02,test\nchild02,train\n"
    )
    return tmp_path


@pytest.mark.parametrize("inside", ["", "pairs"])
def test_subjects_follow_the_split(data, inside):
    assert [p.subject for p in subjects(data / inside)] == ["child01", "grown7", "thick02"]
    assert [p.subject for p in subjects(data / inside, "train")] == ["child02"]
    assert len(subjects(data / inside, None)) == 4


def test_the_layout_of_brats_without_a_split(tmp_path):
    for subject in ("BraTS20_002", "BraTS20_001"):
        names = (f"{subject}_t1.nii.gz", f"{subject}_t2.nii.gz")
        write_pair(tmp_path / subject, names, brain(1), brain(2))
    (tmp_path / "unrelated").mkdir()
    found = subjects(tmp_path)
    assert [p.subject for p in found] == ["BraTS20_001", "BraTS20_002"]
    assert found[0].t2w.name == "BraTS20_001_t2.nii.gz"


def test_folders_without_pairs_are_refused(tmp_path, data):
    with pytest.raises(InputError, match="has no pair: each subject"):
        subjects(data / "pairs" / "child01")
    with pytest.raises(InputError, match="split 'tset'"):
        subjects(data, "tset")
    with pytest.raises(InputError, match="is no folder"):
        subjects(tmp_path / "missing")
    (data / "split.csv").write_text("id,set\nchild01,test\n")
    with pytest.raises(InputError, match="columns subject and split"):
        subjects(data)


def test_brats_averages_along_the_anatomical_axes():
    # Array axes: superior to inferior, left to right, anterior to posterior.
    direction = [[0, 1, 0], [0, 0, -1], [-1, 0, 0]]
    affine = Affine.from_parts((1, 1, 1), direction)
    t1w, t2w = brain(1, affine), brain(2, affine)
    low1, low2 = PROTOCOLS["brats"].degrade(t1w, t2w)
    assert low1.data.shape == (16, 38, 25)
    assert low1.data[3, 5, 6] == pytest.approx(t1w.data[6:8, 5, 6].mean())
    assert low2.data.shape == (32, 38, 6)
    assert low2.data[10, 15, 3] == pytest.approx(t2w.data[10, 15, 12:16].mean())
    assert np.allclose(low2.grid.corner, t2w.grid.corner)
    assert covered(low2.grid, t2w.grid).sum() == 32 * 38 * 24  # the 25th slice fills no block


@pytest.mark.parametrize(
    ("name", "thick_axes"), [("through-plane-4", (2, 2)), ("orthogonal-3", (2, 1))]
)
def test_thick_slices_lie_across_the_named_axes(name, thick_axes):
    for low, axis in zip(PROTOCOLS[name].degrade(brain(1), brain(2)), thick_axes, strict=True):
        assert low.slice_axis == axis
        assert low.affine.spacing[axis] == pytest.approx(float(name[-1]))


def test_thick_scans_are_no_reference():
    thick = brain(1, Affine.from_parts((1, 1, 3)))
    assert "its T2w has voxels of 1.00 x 1.00 x 3.00 mm" in unusable(brain(1), thick)
    assert unusable(brain(1), brain(2)) is None


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_a_whole_evaluation(data, tmp_path):
    said, calls = [], []

    def restore(t1w, t2w, grid, model):
        calls.append((model, grid))
        return interpolate(t1w, grid, "nearest"), interpolate(t2w, grid, "nearest")

    out = tmp_path / "out"
    scores = evaluate(data, "brats", ["nearest"], out, restore, log=said.append)

    assert any("thick02: left out" in line for line in said)
    rows = read_rows(out / "scores.csv")
    assert list(rows[0]) == ["subject", "modality", "method", "psnr", "ssim", "lpips"]
    assert len(rows) == len(scores) == 2 * 2 * 3
    assert {r["method"] for r in rows} == {"trilinear", "cubic", "nearest"}
    assert {r["subject"] for r in rows} == {"child01", "grown7"}
    # Once for the pair on one lattice, twice for the one on two; always on an original lattice.
    assert [model for model, _ in calls] == ["nearest"] * 3
    assert calls[2][1].same_as(read_volume(data / "pairs/grown7/T2w.nii.gz").grid)

    table = (out / "scores.md").read_text()
    assert "## all (2 subjects)" in table
    assert "## child (1 subject)" in table
    assert NO_LPIPS in table or rows[0]["lpips"] != NO_LPIPS
    for subject in ("child01", "grown7"):
        assert (out / f"{subject}.png").read_bytes().startswith(b"\x89PNG")

    truth = read_volume(data / "pairs/child01/T1w.nii.gz")
    low, _ = PROTOCOLS["brats"].degrade(truth, truth)
    by_hand = similarity(
        interpolate(low, truth.grid), truth.data, truth.affine, covered(low.grid, truth.grid)
    )
    row = next(r for r in rows if (r["subject"], r["modality"]) == ("child01", "T1w"))
    assert row["method"] == "trilinear"
    assert float(row["psnr"]) == pytest.approx(by_hand.psnr, abs=1e-3)


def test_a_perfect_model_beats_the_baselines(data, tmp_path):
    truths = [read_volume(data / f"pairs/child01/{m}.nii.gz").data for m in ("T1w", "T2w")]
    (data / "split.csv").write_text("subject,split\nchild01,test\n")
    scores = evaluate(
        data, "brats", ["oracle"], tmp_path / "out", lambda *_: tuple(truths), log=lambda _: None
    )
    best = {(s.modality, s.method): s.value.psnr for s in scores}
    for modality in ("T1w", "T2w"):
        assert best[modality, "oracle"] == np.inf
        assert best[modality, "cubic"] > best[modality, "trilinear"]


def test_baselines_alone_need_no_model(data, tmp_path):
    scores = evaluate(data, "orthogonal-3", [], tmp_path / "out", log=lambda _: None)
    assert {s.method for s in scores} == {"trilinear", "cubic"}


def test_what_cannot_be_evaluated_is_said(data, tmp_path):
    with pytest.raises(InputError, match="no protocol 'brat': choose from brats"):
        evaluate(data, "brat", [], tmp_path / "out")
    with pytest.raises(ValueError, match="nothing was given that runs them"):
        evaluate(data, "brats", ["nexus-inr"], tmp_path / "out")
    (data / "split.csv").write_text("subject,split\nthick02,test\n")
    with pytest.raises(InputError, match="can be used with the protocol"):
        evaluate(data, "brats", [], tmp_path / "out", log=lambda _: None)


def score(subject: str, method: str, psnr: float) -> Score:
    return Score(subject, "T1w", method, Similarity(psnr, 0.9, None))


def test_gains_are_means_over_subjects():
    scores = [
        score("ms26", "trilinear", 30),
        score("ms26", "ours", 33),
        score("infant16", "trilinear", 28),
        score("infant16", "ours", 33),
        score("infant-19", "trilinear", 28),
        score("infant-19", "ours", 33),
    ]
    assert [s.group for s in scores] == ["ms"] * 2 + ["infant"] * 4
    table = markdown(scores, "title")
    assert "| T1w | ours | 33.00 [33.00, 33.00] | +4.33 [+3.00, +5.00] | 0.9000" in table
    assert "| T1w | ours | 33.00 | +3.00 | 0.9000 | weights not on disk |" in table
