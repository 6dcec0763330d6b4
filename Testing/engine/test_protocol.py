"""Protocols and studies on small pairs on disk, from files to tables and pictures."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from nexusinr.errors import InputError
from nexusinr.evaluation import pictures, subjects
from nexusinr.evaluation.metrics import Similarity, similarity
from nexusinr.evaluation.protocol import PROTOCOLS, find, parse
from nexusinr.evaluation.report import markdown
from nexusinr.evaluation.restorations import HIGH, LOW, Restorations
from nexusinr.evaluation.scores import BOTH, NO_LPIPS, Score, Trial
from nexusinr.evaluation.study import Findings, Study, evaluate
from nexusinr.evaluation.subjects import Truth, aligned, read_tissues, read_truths, unusable
from nexusinr.geometry import Affine
from nexusinr.labels import LESION
from nexusinr.resample import covered, interpolate
from nexusinr.training.phantom import Phantom, default_grid
from nexusinr.volume import Volume, read_volume, write_volume

LAS = Affine.from_parts((1, 1, 1), np.diag((-1.0, 1.0, 1.0)), (16, -20, -12))
OURS = ("T1w.nii.gz", "T2w.nii.gz")


def brain(seed: int, affine: Affine = LAS, shape=(32, 38, 25)) -> Volume:
    i, j, k = np.ogrid[tuple(slice(n) for n in shape)]
    middle, half = (np.array(shape) - 1) / 2, np.array(shape) * 0.42
    axes = zip((i, j, k), middle, half, strict=True)
    inside = sum(((x - m) / h) ** 2 for x, m, h in axes) < 1
    texture = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 1.0)
    return Volume(np.where(inside, 500 + 1000 * texture.clip(-0.4, 0.4), 0), affine)


def truths(t1w: Volume, t2w: Volume, sharp=(0, 1, 2)) -> tuple[Truth, Truth]:
    return Truth("T1w", t1w, sharp), Truth("T2w", t2w, sharp)


def write_pair(folder: Path, names: tuple[str, str], t1w: Volume, t2w: Volume) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, volume in zip(names, (t1w, t2w), strict=True):
        write_volume(folder / name, volume.data, volume.affine)


@pytest.fixture
def data(tmp_path) -> Path:
    """Two test subjects, one whose scans share no lattice; one that is thick; one that trains."""
    thick = Affine.from_parts((1, 1, 3))
    moved = Affine(LAS.matrix + np.array([[0, 0, 0, 0.3]] + 3 * [[0, 0, 0, 0]]))
    for subject, t1w, t2w in (
        ("child01", brain(1), brain(2)),
        ("grown7", brain(3), brain(4, moved)),
        ("thick02", brain(5, thick), brain(6, thick)),
        ("child02", brain(7), brain(8)),
    ):
        write_pair(tmp_path / "pairs" / subject, OURS, t1w, t2w)
    (tmp_path / "split.csv").write_text(
        "subject,split\nchild01,test\ngrown7,test\nthick02,test\nchild02,train\n"
    )
    return tmp_path


def study(folder: Path, protocols: str = "brats", only: str | None = None, **models: str) -> Study:
    return Study(subjects.subjects(folder), parse([protocols]), models, only)


class TestSubjects:
    @pytest.mark.parametrize("inside", ["", "pairs"])
    def test_they_follow_the_split(self, data, inside):
        found = subjects.subjects(data / inside)
        assert [p.subject for p in found] == ["child01", "grown7", "thick02"]
        assert [p.subject for p in subjects.subjects(data / inside, "train")] == ["child02"]
        assert len(subjects.subjects(data / inside, None)) == 4

    def test_a_number_or_a_list_chooses(self, data, tmp_path):
        listed = tmp_path / "mine.txt"
        listed.write_text("thick02\n\nchild01\n")
        assert [p.subject for p in subjects.subjects(data, chosen="1")] == ["child01"]
        found = subjects.subjects(data, chosen=str(listed))
        assert [p.subject for p in found] == ["thick02", "child01"]
        listed.write_text("child02\n")  # is not of the split
        with pytest.raises(InputError, match="'child02', which is not there"):
            subjects.subjects(data, chosen=str(listed))
        with pytest.raises(InputError, match="'0' chooses no subjects"):
            subjects.subjects(data, chosen="0")

    @pytest.mark.parametrize(
        ("folder", "names"),
        [
            ("{id}", ("{id}_t1.nii.gz", "{id}_t2.nii.gz", "{id}_seg.nii.gz")),
            ("MICCAI_BraTS2020_TrainingData/{id}", ("{id}_t1.nii", "{id}_t2.nii", "{id}_seg.nii")),
            ("{id}", ("{id}-t1n.nii.gz", "{id}-t2w.nii.gz", "{id}-seg.nii.gz")),
        ],
    )
    def test_the_layouts_of_brats(self, tmp_path, folder, names):
        for subject in ("BraTS20_002", "BraTS20_001"):
            where = tmp_path / folder.format(id=subject)
            t1w, t2w, seg = (name.format(id=subject) for name in names)
            write_pair(where, (t1w, t2w), brain(1), brain(2))
            write_volume(where / seg, 4 * (brain(1).data > 600).astype(np.uint8), LAS)
        (tmp_path / "unrelated").mkdir()
        found = subjects.subjects(tmp_path)
        assert [p.subject for p in found] == ["BraTS20_001", "BraTS20_002"]
        assert [p.t2w.name for p in found] == [names[1].format(id=p.subject) for p in found]
        tumour = read_tissues(found[0], brain(1).grid)
        assert np.array_equal(tumour == LESION, brain(1).data > 600)
        assert [p.subject for p in subjects.others(tmp_path, found[:1])] == ["BraTS20_002"]
        with pytest.raises(InputError, match="no subject to train a segmenter on"):
            subjects.others(tmp_path, found)

    def test_folders_without_pairs_are_refused(self, tmp_path, data):
        with pytest.raises(InputError, match="has no pair: each subject"):
            subjects.subjects(data / "pairs" / "child01")
        with pytest.raises(InputError, match="split 'tset'"):
            subjects.subjects(data, "tset")
        with pytest.raises(InputError, match="is no folder"):
            subjects.subjects(tmp_path / "missing")
        (data / "split.csv").write_text("id,set\nchild01,test\n")
        with pytest.raises(InputError, match="columns subject and split"):
            subjects.subjects(data)

    def test_thick_scans_are_no_reference(self):
        thick = brain(1, Affine.from_parts((1, 1, 3)))
        assert "its T2w has voxels of 1.00 x 1.00 x 3.00 mm" in unusable(brain(1), thick)
        assert unusable(brain(1), brain(2)) is None

    def test_tissues_are_freesurfers_on_the_lattice_of_t1w(self, data):
        labels = np.where(brain(1).data > 500, 2, 3).astype(np.uint8)
        write_volume(data / "pairs/child01/seg.nii.gz", labels, LAS)
        pair = subjects.subjects(data)[0]
        tissues = read_tissues(pair, brain(1).grid)
        assert np.array_equal(tissues, np.where(labels == 2, 3, 2))
        with pytest.raises(InputError, match="share a lattice"):
            read_tissues(pair, brain(1, shape=(20, 20, 20)).grid)
        write_volume(data / "pairs/child01/seg.nii.gz", (labels == 2).astype(np.uint8), LAS)
        assert read_tissues(pair, brain(1).grid) is None  # a mask of lesions

    def test_headers_that_disagree_are_put_right(self, thick_pair):
        t1w, t2w = thick_pair
        shift = np.eye(4)
        shift[:3, 3] = (4, -3, 3)
        wrong = t2w.replace(affine=t2w.affine.transformed(shift))
        _, found = aligned(truths(t1w, wrong))
        left = found.scan.affine.apply((13, 6, 12)) - t2w.affine.apply((13, 6, 12))
        assert np.linalg.norm(left) < 1.5
        assert np.array_equal(found.scan.data, t2w.data)


class TestProtocols:
    def test_brats_averages_along_the_anatomical_axes(self):
        # Array axes: superior to inferior, left to right, anterior to posterior.
        direction = [[0, 1, 0], [0, 0, -1], [-1, 0, 0]]
        affine = Affine.from_parts((1, 1, 1), direction)
        t1w, t2w = brain(1, affine), brain(2, affine)
        low1, low2 = PROTOCOLS["brats"].degrade(truths(t1w, t2w))
        assert low1.data.shape == (16, 38, 25)
        assert low1.data[3, 5, 6] == pytest.approx(t1w.data[6:8, 5, 6].mean())
        assert low2.data.shape == (32, 38, 6)
        assert low2.data[10, 15, 3] == pytest.approx(t2w.data[10, 15, 12:16].mean())
        assert np.allclose(low2.grid.corner, t2w.grid.corner)
        assert covered(low2.grid, t2w.grid).sum() == 32 * 38 * 24  # the 25th slice fills no block

    @pytest.mark.parametrize(
        ("name", "thick_axes", "spacing"),
        [
            ("through-plane-4", (2, 2), 4),
            ("orthogonal-3", (2, 1), 3),
            ("through-plane-2.5", (2, 2), 2.5),
            ("ratio-2.5", (2, 1), 2.5),
        ],
    )
    def test_thick_slices_lie_across_the_named_axes(self, name, thick_axes, spacing):
        pair = truths(brain(1), brain(2))
        for low, axis in zip(find(name).degrade(pair), thick_axes, strict=True):
            assert low.slice_axis == axis
            assert low.affine.spacing[axis] == pytest.approx(spacing)
        assert find(name).axes(pair) == thick_axes

    def test_ratio_1_leaves_nothing_to_restore(self):
        pair = truths(brain(1), brain(2))
        for low, truth in zip(find("ratio-1").degrade(pair), pair, strict=True):
            assert low.grid.same_as(truth.scan.grid)
            assert np.allclose(low.data, truth.scan.data, atol=1e-3)

    def test_in_plane_degrades_sharp_axes_of_thick_scans_alone(self):
        thick = Affine.from_parts((1, 1, 3))
        pair = truths(brain(1, thick), brain(2, thick), sharp=(0, 1))
        protocol = find("in-plane-2")
        assert protocol.refuses(pair) is None
        assert "no thick slices" in protocol.refuses(truths(brain(1), brain(2)))
        first, second = protocol.degrade(pair)
        assert np.allclose(first.affine.spacing, (2, 1, 3))
        assert np.allclose(second.affine.spacing, (1, 2, 3))
        # A box, as in-plane sampling has it.
        assert first.data[7, 20, 12] == pytest.approx(pair[0].scan.data[14:16, 20, 12].mean())

    def test_the_reference_of_a_sagittal_scan_is_sharp_along_a_and_s(self):
        sagittal = Affine.from_parts((3, 1, 1))
        pair = truths(brain(1, sagittal), brain(2, sagittal), sharp=(1, 2))
        assert find("in-plane-3").axes(pair) == (1, 2)

    def test_slices_thinner_than_the_voxels_are_refused(self):
        coarse = Affine.from_parts((4, 4, 4))
        with pytest.raises(InputError, match="through-plane-3: slices of 3 mm cannot be made"):
            find("through-plane-3").degrade(truths(brain(1, coarse), brain(2, coarse)))

    def test_names(self):
        assert [p.name for p in parse(["brats,ratio-3", "brats"])] == ["brats", "ratio-3"]
        assert [p.name for p in parse(["all"])] == list(PROTOCOLS)
        with pytest.raises(InputError, match="no protocol 'brat': choose from brats"):
            parse(["brat"])
        with pytest.raises(InputError, match="no protocol 'through-plane-x'"):
            find("through-plane-x")
        with pytest.raises(InputError, match=r"ratio-0\.5: give 1 to 20"):
            find("ratio-0.5")
        with pytest.raises(InputError, match="no protocol is named"):
            parse([","])


class TestRestorations:
    def test_a_scan_counts_only_along_axes_where_it_is_sharp(self, tmp_path):
        write_pair(tmp_path / "ms01", OURS, brain(1), brain(2))
        ours = read_truths(subjects.subjects(tmp_path)[0])
        assert ours[0].sharp == (0, 1)  # by its name
        (tmp_path / "split.csv").write_text("subject,split,sharp\nms01,test,RAS\n")
        assert read_truths(subjects.subjects(tmp_path)[0])[0].sharp == (0, 1, 2)
        (tmp_path / "split.csv").write_text("subject,split,sharp\nms01,test,ras\n")
        with pytest.raises(InputError, match="ms01 is sharp along 'ras'"):
            subjects.subjects(tmp_path)
        assert Restorations(ours, find("brats"), None, None).scored == [1]
        assert Restorations(ours, find("through-plane-3"), None, None).scored == []
        assert Restorations(ours, find("in-plane-2"), None, None).scored == [0, 1]
        assert Restorations(ours, find("in-plane-2"), "T1w", None).scored == [0]

    def test_images_for_the_segmenter_lie_on_the_lattice_of_t1w(self):
        moved = Affine(LAS.matrix + np.array([[0, 0, 0, 0.3]] + 3 * [[0, 0, 0, 0]]))
        pair = truths(brain(1), brain(2, moved))
        images = Restorations(pair, find("brats"), None, None)
        _, second = images.on_t1w_lattice(HIGH)
        scale = pair[1].reference.scale
        expected = interpolate(pair[1].scan, pair[0].scan.grid, "cubic") / scale
        assert np.allclose(second, expected.clip(0, 1), atol=1e-6)
        low = images.image(LOW, 1)
        assert np.array_equal(low[:, 0], low[:, 3])  # four voxels in one
        assert not np.array_equal(low[:, 3], low[:, 4])


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


class TestStudy:
    def test_from_files_to_tables_and_pictures(self, data, tmp_path):
        said, calls = [], []

        def restore(t1w, t2w, grid, model):
            calls.append((model, grid))
            return interpolate(t1w, grid, "nearest"), interpolate(t2w, grid, "nearest")

        out = tmp_path / "out"
        scores, _ = evaluate(study(data, nearest="w1"), out, restore, log=said.append)

        assert any(line.startswith("thick02, brats: left out, its T1w has") for line in said)
        rows = read_rows(out / "scores.csv")
        assert list(rows[0])[:8] == [
            "protocol", "given", "subject", "modality", "method", "psnr", "ssim", "lpips",
        ]  # fmt: skip
        assert len(rows) == len(scores) == 2 * 2 * 3
        assert {r["method"] for r in rows} == {"trilinear", "cubic", "nearest"}
        assert {r["subject"] for r in rows} == {"child01", "grown7"}
        # Once for the pair on one lattice, twice for the one on two; always on an original lattice.
        assert [model for model, _ in calls] == ["nearest"] * 3
        assert calls[2][1].same_as(read_volume(data / "pairs/grown7/T2w.nii.gz").grid)

        table = (out / "scores.md").read_text()
        assert "### all (2 subjects)" in table
        assert "### child (1 subject)" in table
        assert "- thick02, brats: its T1w has" in table
        assert NO_LPIPS in table or rows[0]["lpips"] != NO_LPIPS
        for name in ("pictures/brats/child01.png", "pictures/brats/grown7.png", "summary.png"):
            assert (out / name).read_bytes().startswith(b"\x89PNG")
        assert not list(out.rglob("*.partial*"))

        truth = read_volume(data / "pairs/child01/T1w.nii.gz")
        low, _ = PROTOCOLS["brats"].degrade(truths(truth, truth))
        by_hand = similarity(
            interpolate(low, truth.grid), truth.data, truth.affine, covered(low.grid, truth.grid)
        )
        row = next(r for r in rows if (r["subject"], r["modality"]) == ("child01", "T1w"))
        assert row["method"] == "trilinear"
        assert float(row["psnr"]) == pytest.approx(by_hand.psnr, abs=1e-3)
        assert float(row["ssim"]) == pytest.approx(by_hand.ssim, abs=1e-4)

    def test_a_run_is_continued(self, data, tmp_path):
        (data / "split.csv").write_text("subject,split\nchild01,test\n")
        out, calls, said = tmp_path / "out", [], []

        def restore(t1w, t2w, grid, model):
            calls.append(model)
            return interpolate(t1w, grid, "nearest"), interpolate(t2w, grid, "nearest")

        def run(**models: str) -> list[str]:
            calls.clear()
            scores, _ = evaluate(study(data, **models), out, restore, log=said.append)
            assert {s.method for s in scores} == {"trilinear", "cubic", *models}
            return list(calls)

        assert run(first="w1") == ["first"]
        assert run(first="w1") == []
        assert said[-1] == "child01, brats: measured before"
        assert run(first="w1", second="w1") == ["second"]
        panels = pictures.read_panels(out / "pictures/brats/child01.npz")
        assert list(panels["T2w"].restored) == ["trilinear", "cubic", "first", "second"]
        before = Findings.read(out)
        same, other = study(data, first="w1"), study(data, first="w2")
        pair, brats = same.pairs[0], same.protocols[0]
        assert before.has_score(same.trial(pair, brats, "first"))
        assert before.has_score(other.trial(pair, brats, "cubic"))
        assert not before.has_score(other.trial(pair, brats, "first"))  # other weights
        write_pair(data / "pairs/child01", OURS, brain(1), brain(9))  # other scans
        assert run(first="w2", second="w1") == ["first", "second"]
        rows = read_rows(out / "scores.csv")
        assert len(rows) == 2 * 4
        assert {row["weights"] for row in rows if row["method"] == "first"} == {"w2"}
        assert len({row["data"] for row in rows}) == 1

    def test_one_scan_alone(self, data, tmp_path):
        (data / "split.csv").write_text("subject,split\nchild01,test\n")
        given = []

        def restore(t1w, t2w, grid, model):
            given.append((t1w, t2w))
            return None, interpolate(t2w, grid, "nearest")

        out = tmp_path / "out"
        scores, _ = evaluate(study(data, only="T2w", ours="w"), out, restore, log=lambda _: None)
        assert [(t1w is None, t2w is None) for t1w, t2w in given] == [(True, False)]
        assert {(s.modality, s.trial.given) for s in scores} == {("T2w", "T2w")}
        assert "## brats, T2w alone: " in (out / "scores.md").read_text()
        assert (out / "pictures/brats-T2w/child01.png").is_file()

    def test_a_perfect_model_beats_the_baselines(self, data, tmp_path):
        originals = [read_volume(data / f"pairs/child01/{m}.nii.gz").data for m in ("T1w", "T2w")]
        (data / "split.csv").write_text("subject,split\nchild01,test\n")
        ours = study(data, "orthogonal-3", oracle="w")
        scores, _ = evaluate(ours, tmp_path, lambda *_: tuple(originals), log=lambda _: None)
        best = {(s.modality, s.method): s.value.psnr for s in scores}
        for modality in ("T1w", "T2w"):
            assert best[modality, "oracle"] == np.inf
            assert best[modality, "cubic"] > best[modality, "trilinear"]

    def test_a_phantom_in_the_layout_of_brats_with_its_tumour(self, tmp_path):
        class Bright:
            """The brightest of T2w is lesion."""

            digest = "bright"

            def __call__(self, t1w, t2w):
                return np.where((t2w > 0.6) & (t1w > 0), LESION, 0).astype(np.uint8)

        grid, subject = default_grid(4.0, (36, 44, 36)), "BraTS20_Training_001"
        phantom = Phantom(seed=1, head=False, tumour=True)
        folder = tmp_path / "MICCAI_BraTS2020_TrainingData" / subject
        names = (f"{subject}_t1.nii.gz", f"{subject}_t2.nii.gz")
        write_pair(folder, names, *phantom.images(grid, ["T1w", "T2w"])[0])
        tumour = (phantom.tissues(grid) == LESION).astype(np.uint8)
        write_volume(folder / f"{subject}_seg.nii.gz", 4 * tumour, grid.affine)

        out = tmp_path / "out"
        _, overlaps = evaluate(study(tmp_path), out, None, Bright(), log=lambda _: None)
        assert [o.trial.method for o in overlaps] == [LOW, "trilinear", "cubic", HIGH]
        assert {o.tissue for o in overlaps} == {"lesion"}
        assert all(0 < o.dice < 1 for o in overlaps)
        rows = read_rows(out / "segmentation.csv")
        assert float(rows[-1]["dice"]) == pytest.approx(overlaps[-1].dice, abs=1e-5)
        assert "### BraTS (1 subject)" in (out / "scores.md").read_text()

    def test_thick_scans_in_their_plane(self, thick_pair, tmp_path):
        write_pair(tmp_path / "clinic1", OURS, *thick_pair)
        scores, _ = evaluate(study(tmp_path, "in-plane-2"), tmp_path / "out", log=lambda _: None)
        assert {(s.modality, s.method) for s in scores} == {
            (modality, method) for modality in ("T1w", "T2w") for method in ("trilinear", "cubic")
        }

    def test_a_scan_that_is_not_sharp_is_named_each_time(self, tmp_path):
        write_pair(tmp_path / "ms01", OURS, brain(1), brain(2))
        for said in ("T2w trilinear", "measured before"):
            lines: list[str] = []
            scores, _ = evaluate(study(tmp_path), tmp_path / "out", log=lines.append)
            assert {s.modality for s in scores} == {"T2w"}
            assert said in lines[0]
            note = "ms01, brats: its T1w is not sharp along the degraded axis"
            assert note in (tmp_path / "out" / "scores.md").read_text()

    def test_what_cannot_be_evaluated_is_said(self, data, tmp_path):
        with pytest.raises(ValueError, match="nothing was given that runs them"):
            evaluate(study(data, ours="w"), tmp_path / "out")
        (data / "pairs/child01/T1w.nii.gz").write_bytes(b"no image")
        (data / "split.csv").write_text("subject,split\nthick02,test\nchild01,test\n")
        said = []
        with pytest.raises(InputError, match="no subject can be used with the protocol brats"):
            evaluate(study(data), tmp_path / "out", log=said.append)
        assert said[0].startswith("child01, brats: left out, T1w.nii.gz: ")


def score(subject: str, method: str, psnr: float) -> Score:
    return Score(Trial("brats", BOTH, subject, method), "T1w", Similarity(psnr, 0.9, None))


class TestReport:
    def test_gains_are_means_over_subjects(self):
        scores = [
            score("ms26", "trilinear", 30),
            score("ms26", "ours", 33),
            score("infant16", "trilinear", 28),
            score("infant16", "ours", 33),
            score("infant-19", "trilinear", 28),
            score("infant-19", "ours", 33),
        ]
        assert [s.trial.group for s in scores] == ["ms"] * 2 + ["infant"] * 4
        table = markdown(scores)
        assert "| T1w | ours | 33.00 [33.00, 33.00] | +4.33 [+3.00, +5.00] |  | 0.9000" in table
        assert "| T1w | ours | 33.00 | +3.00 |  | 0.9000 |" in table
        assert "LPIPS: weights not on disk." in table
        assert "fewer than 5 subjects" in table

    def test_models_are_compared_subject_by_subject(self):
        scores = [
            score(subject, method, psnr)
            for subject, values in (("a1", (30, 32, 33)), ("a2", (20, 24, 23)))
            for method, psnr in zip(("cubic", "first", "second"), values, strict=True)
        ]
        table = markdown(scores)
        expected = "| T1w | first | second | +0.00 [-1.00, +1.00] | +0.0000 [+0.0000, +0.0000] |"
        assert f"{expected} 1 of 2 |" in table
        assert "| T1w | first | 28.00 [24.00, 32.00] |  | +3.00 [+2.00, +4.00] |" in table

    def test_an_exact_method_has_no_gain(self):
        scores = [score("a1", "trilinear", np.inf), score("a1", "ours", 50)]
        assert "| T1w | ours | 50.00 |  |  | 0.9000" in markdown(scores)
