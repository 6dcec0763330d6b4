"""Safety gates: residuals and gates by hand; models that must pass or fail."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable

import numpy as np
import pytest
from scipy import ndimage

from nexusinr.errors import InputError
from nexusinr.evaluation import lesions, safety
from nexusinr.evaluation.safety import acquiring, crops, gates, records, residuals, tables
from nexusinr.evaluation.safety.records import ALONE, GUIDED, LACKING, MISALIGNED, NO_MODEL
from nexusinr.evaluation.safety.trials import Plan
from nexusinr.geometry import Affine, Grid
from nexusinr.intensity import foreground
from nexusinr.resample import interpolate
from nexusinr.volume import Volume, write_volume

FINE = Grid((40, 40, 40), Affine.from_parts((0.8, 1.0, 0.9), origin=(-16, -20, -18)))


# --- what was invented ------------------------------------------------------------------------

VALID = lesions.Lesion(np.zeros(3), 30.0, np.eye(3) / 15).distance(FINE) <= 0


def blob(centre: tuple[float, float, float], size: float) -> np.ndarray:
    ball = lesions.Lesion(np.array(centre, float), size, np.eye(3) * 2 / size)
    return lesions.weight(ball.distance(FINE)).astype(np.float32)


def counted(restored: np.ndarray, truth: np.ndarray | float = 0.0, limit: float = 0.04) -> int:
    first, second = (
        residuals.detail((x + np.zeros(FINE.shape)).astype(np.float32), VALID, FINE.spacing)
        for x in (restored, truth)
    )
    return residuals.count(first, second, VALID, limit, float(FINE.spacing.prod()))


@pytest.mark.parametrize("size", [3, 5, 7, 10])
@pytest.mark.parametrize("height", [0.15, -0.15])
def test_an_invented_lesion_is_counted_once(size, height):
    assert counted(height * blob((0, 0, 0), size)) == 1


def test_invented_lesions_are_counted_each():
    pair = blob((-5, 0, 0), 5) + blob((6, 0, 0), 5)
    assert counted(0.15 * pair) == 2
    assert counted(0.15 * (blob((-5, 0, 0), 5) - blob((6, 0, 0), 5))) == 2


def test_what_no_lesion_looks_like_is_not_counted():
    points = FINE.affine.apply(np.stack(np.mgrid[:40, :40, :40], axis=-1))
    smooth = 0.1 * np.sin(points[..., 0] / 15) * np.cos(points[..., 2] / 18)
    assert counted(smooth) == 0
    assert counted(np.full(FINE.shape, 0.3)) == 0  # a wrong scale, cut off at the brain's edge
    speck = np.zeros(FINE.shape)
    speck[20, 20, 20] = 0.3
    assert counted(speck) == 0
    assert counted(np.random.default_rng(0).normal(0, 0.02, FINE.shape)) == 0
    assert counted(smooth + 0.15 * blob((2, 3, -4), 5)) == 1


@pytest.mark.parametrize(
    ("share", "count"), [(0, 0), (0.4, 0), (1, 0), (1.1, 0), (1.8, 1), (-1, 1), (-0.4, 0)]
)
def test_lost_detail_is_no_hallucination_but_exaggerated_detail_is(share, count):
    lesion = 0.15 * blob((0, 0, 0), 5)
    assert counted(share * lesion, lesion) == count


def test_a_robust_deviation_looks_past_outliers():
    values = np.random.default_rng(0).normal(3, 2, 20_000)
    values[:1000] = 500
    assert residuals.robust_sigma(values) == pytest.approx(2, rel=0.1)
    judged = np.ones(values.shape, bool)
    assert residuals.threshold(values, judged, 100) == pytest.approx(8, rel=0.1)
    assert residuals.threshold(0 * values, judged, 100) == pytest.approx(4)  # of noise, at least


# --- scans of a cut-out -----------------------------------------------------------------------


def head(seed: int, white: float, grey: float, fluid: float) -> Volume:
    """A ball of white matter in shells of grey matter and fluid, 1 mm voxels, some texture."""
    affine = Affine.from_parts((1, 1, 1), np.diag((-1.0, 1.0, 1.0)), (36, -36, -36))
    radius = np.linalg.norm(np.stack(np.mgrid[:72, :72, :72], axis=-1) - 35.5, axis=-1)
    data = np.select([radius < 28, radius < 31.5, radius < 34], [white, grey, fluid], 0.0)
    texture = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=data.shape), 1.5)
    return Volume((data * (1 + 0.1 * texture)).astype(np.float32), affine)


T1W, T2W = head(1, 700, 450, 200), head(2, 300, 500, 900)


@pytest.fixture(scope="module")
def crop() -> crops.Crop:
    return crops.cut_out("round", T1W, T2W, None, 48.0)


def test_a_cut_out_lies_in_white_matter_and_has_lesions_of_all_sizes(crop):
    assert crop.grid.shape == (48, 48, 48)
    assert np.abs(crop.grid.centre).max() < 4  # the middle of the white matter
    sizes = [site.lesion.size for site in crop.sites]
    assert sizes[0] == 10
    assert {5.0, 7.0} <= set(sizes)
    for modality, sign in ((0, -0.25 * 700), (1, 0.6 * 300)):
        change = crop.truth(modality, True) - crop.truth(modality, False)
        centre = np.rint(crop.grid.affine.to_index(crop.sites[0].lesion.centre)).astype(int)
        assert change[tuple(centre)] == pytest.approx(sign, rel=0.05)
        assert (change[crop.valid] == 0).all()
    assert crop.judged.any()
    inner = crops.far_from_faces(crop.grid, crops.MARGIN)
    assert inner.sum() == 32**3
    assert not (crop.judged & ~inner).any()
    again = crops.cut_out("round", T1W, T2W, None, 48.0)
    assert np.array_equal(again.truth(1, True), crop.truth(1, True))


def test_white_matter_with_and_without_labels():
    ids = np.where(T1W.data > 575, 41, np.where(T1W.data > 0, 42, 0)).astype(np.float32)
    assert np.array_equal(crops.white_matter(T1W.data, ids), ids == 41)
    assert np.array_equal(crops.white_matter(T1W.data, None), ids == 41)
    mask = np.zeros(T1W.data.shape, np.float32)
    mask[30:40, 30:40, 30:40] = 1
    around = crops.white_matter(T1W.data, mask)
    assert not around[29:41, 32:38, 32:38].any()
    assert (around & (ids == 41)).sum() == around.sum() > 60_000


def test_without_room_for_lesions():
    with pytest.raises(ValueError, match="small: no lesion finds room"):
        crops.cut_out("small", T1W, T2W, None, 16.0)


@pytest.mark.parametrize(("modality", "axis"), [(0, 2), (1, 1)])
def test_slices_cover_the_cut_out_with_air_around(crop, modality, axis):
    scan = acquiring.acquire(crop, modality, True, 4.0)
    assert scan.slice_axis == axis
    assert scan.thickness[axis] == pytest.approx(4)
    assert crop.grid.overlap(scan.grid) == 1
    head_mask = foreground(scan.data)
    assert np.array_equal(head_mask, scan.data > 0)  # taken for skull-stripped
    assert 0.6 < head_mask.mean() < 0.8
    error = interpolate(scan, crop.grid) - crop.truth(modality, False)
    assert np.abs(error[crop.judged]).mean() < 0.05 * crop.scales[modality]
    fine = acquiring.acquire(crop, modality, True, None)
    same = interpolate(fine, crop.grid, "nearest")
    assert np.array_equal(same, crop.truth(modality, True))


def test_guides_go_astray_by_what_is_said(crop):
    points = crop.grid.corners()
    shift = acquiring.shifted(2.0)
    assert np.allclose(np.linalg.norm(shift[:3, 3]), 2)
    turn = acquiring.turned(3.0, crop.grid.centre)
    there = points @ turn[:3, :3].T + turn[:3, 3]
    assert np.allclose((points + there).mean(axis=0) / 2, crop.grid.centre)
    assert np.rad2deg(np.arccos((np.trace(turn[:3, :3]) - 1) / 2)) == pytest.approx(3)
    scan = acquiring.acquire(crop, 1, True, 4.0)
    moved = acquiring.moved(scan, shift)
    assert np.array_equal(moved.data, scan.data)
    assert np.linalg.norm(moved.grid.centre - scan.grid.centre) == pytest.approx(2)


# --- gates by hand ----------------------------------------------------------------------------


def case(method: str, condition: str = GUIDED, thickness: float = 4.0) -> records.Case:
    return records.Case(method, "one", "T2w", condition, thickness)


def kept(method: str, shares: list[float], size: float = 5.0, **more) -> list[records.Kept]:
    return [records.Kept(case(method, **more), size, share) for share in shares]


def only(found: list[gates.Gate], start: str) -> gates.Gate:
    (gate,) = [gate for gate in found if gate.name.startswith(start)]
    return gate


def test_erasure_is_less_than_half_of_the_contrast():
    assert gates.erased([0.49, 0.5, 1.2, -0.3]) == 0.5
    assert gates.erased([float("nan")]) == 1


@pytest.mark.parametrize(
    ("own", "plain", "size", "thickness", "passed"),
    [
        ([0.9, 0.8], [0.9, 0.9], 5, 4, True),
        ([0.9, 0.2], [0.9, 0.9], 5, 4, False),
        ([0.9, 0.2], [0.9, 0.3], 5, 4, True),  # no worse than trilinear
        ([0.2, 0.2], [0.9, 0.3], 5, 4, False),
        ([0.6] * 19 + [0.4], [0.9] * 20, 10, 5, True),  # 5 %
        ([0.6] * 18 + [0.4] * 2, [0.9] * 20, 10, 5, False),
    ],
)
def test_the_gate_of_lesions(own, plain, size, thickness, passed):
    found = records.Records(
        kept=[
            *kept("trilinear", plain, size, condition=NO_MODEL, thickness=thickness),
            *kept("ours", own, size, thickness=thickness),
        ]
    )
    gate = only(gates.judge(found, "ours"), "lesions are kept in T2w: guided")
    assert gate.passed is passed
    assert gate.figure == pytest.approx(gates.erased(own))
    assert f"{size:g} mm, slices of {thickness:g} mm" in gate.what


def test_gates_are_shown_where_they_are_worst():
    found = records.Records()
    for thickness, share in ((3.0, 0.9), (5.0, 0.1), (7.0, 0.0)):  # the last does not count
        found.kept += kept("trilinear", [0.9], condition=NO_MODEL, thickness=thickness)
        for condition in (f"{MISALIGNED} by 1 mm", f"{MISALIGNED} by 3 degrees"):
            better = share if "degrees" in condition else 0.9
            found.kept += kept("ours", [better], condition=condition, thickness=thickness)
    (gate,) = gates.judge(found, "ours")
    assert gate.name == "lesions are kept in T2w: guide misaligned"
    assert gate.what.endswith("slices of 5 mm, guide misaligned by 3 degrees")
    assert (gate.figure, gate.threshold, gate.passed) == (1, 0.05, False)


@pytest.mark.parametrize(("count", "passed"), [(0, True), (6, True), (7, False)])
def test_the_gate_of_hallucinations(count, passed):
    found = records.Records(
        invented=[
            records.Invented(case("cubic", NO_MODEL), 4, 0.1),  # 40 a litre: 54 are let pass
            records.Invented(case("cubic", NO_MODEL, 7), 900, 0.1),  # where ours is not tried
            records.Invented(case("ours"), count // 2, 0.06),
            records.Invented(case("ours"), count - count // 2, 0.06),
        ]
    )
    gate = only(gates.judge(found, "ours"), "nothing is invented")
    assert gate.threshold == pytest.approx(54)
    assert gate.figure == pytest.approx(count / 0.12)
    assert gate.passed is passed


@pytest.mark.parametrize(("shares", "passed"), [([0.3, -0.1], True), ([0.3, -0.2], False)])
def test_the_gate_of_leaks_takes_either_sign(shares, passed):
    found = records.Records(
        leaked=[
            *(records.Leaked(case("ours", LACKING), 5, share) for share in shares),
            records.Leaked(case("ours", LACKING), 3, 5.0),  # too small to be contradicted
            records.Leaked(case("ours", LACKING, 7), 5, 5.0),
        ]
    )
    gate = only(gates.judge(found, "ours"), "T1w lesions stay out of T2w")
    assert gate.passed is passed


def test_the_gates_of_slices_and_of_ratio_one():
    found = records.Records(
        reproduced=[
            records.Reproduced(case("ours"), "gaussian", None, 9e-4),
            records.Reproduced(case("ours"), "box", None, 0.1),  # the other one fits
            records.Reproduced(case("ours", thickness=5), "gaussian", None, 3e-3),
            records.Reproduced(case("ours", thickness=5), "box", None, 2e-3),
            records.Reproduced(case("ours"), "gaussian", 1.05, 0.2),
            records.Reproduced(case("ours"), "box", 1.5, 0.3),
        ],
        unchanged=[records.Unchanged(case("ours"), 50), records.Unchanged(case("ours"), 44.9)],
    )
    found_gates = gates.judge(found, "ours")
    clean = only(found_gates, "acquired slices are reproduced: without noise")
    assert (clean.figure, clean.passed) == (2e-3, False)
    assert only(found_gates, "acquired slices are reproduced: with noise").passed
    same = only(found_gates, "ratio 1 leaves T2w unchanged")
    assert (same.figure, same.passed, same.at_least) == (44.9, False, True)
    assert not gates.Gate("ours", "x", "y", 1.0, float("nan")).passed
    assert gates.judge(found, "another") == []


# --- models that pass and fail ----------------------------------------------------------------

PLAN = Plan((4,), (4,), (2,), (), (4,), size=48.0)


class Knowing:
    """Restores with the truth at hand: knows a scan by the slices that it is most alike."""

    def __init__(self, crop: crops.Crop) -> None:
        self.crop = crop
        self.known = [
            (modality, there, acquiring.acquire(crop, modality, there, thickness).data)
            for modality in (0, 1)
            for there in (True, False)
            for thickness in (4.0, None)
        ]

    def __call__(self, t1w, t2w, grid, model):
        return tuple(
            None if scan is None else getattr(self, model)(modality, (t1w, t2w))
            for modality, scan in enumerate((t1w, t2w))
        )

    def perfect(self, modality, scans):
        return self.crop.truth(modality, self.has_lesions(modality, scans[modality]))

    def erasing(self, modality, scans):
        return self.crop.truth(modality, False)

    def blurring(self, modality, scans):
        return interpolate(scans[modality], self.crop.grid)

    def copying(self, modality, scans):
        """The guide's lesions, at the same share of the range."""
        image, guide = self.perfect(modality, scans), scans[1 - modality]
        if guide is not None and self.has_lesions(1 - modality, guide):
            there = [self.crop.truth(1 - modality, planted) for planted in (True, False)]
            share = self.crop.scales[modality] / self.crop.scales[1 - modality]
            image = self.crop.truth(modality, False) + share * (there[0] - there[1])
        return image

    def inventing(self, modality, scans):
        far = ndimage.distance_transform_edt(self.crop.judged)
        index = np.unravel_index(far.argmax(), far.shape)
        place = self.crop.grid.affine.apply(index)
        ball = lesions.Lesion(place, 5.0, np.eye(3) / 2.5)
        change = 0.3 * self.crop.scales[modality] * lesions.weight(ball.distance(self.crop.grid))
        return self.perfect(modality, scans) + change.astype(np.float32)

    def has_lesions(self, modality, scan):
        errors = {
            there: float(np.square(data - scan.data).mean())
            for of, there, data in self.known
            if of == modality and data.shape == scan.data.shape
        }
        return min(errors, key=errors.get)


@pytest.fixture(scope="module")
def judged(crop) -> Callable[[str], dict[str, gates.Gate]]:
    """The gates of a model on the round head, by name."""
    found = records.Records()
    models = ["perfect", "erasing", "copying", "inventing", "blurring"]
    safety.measure(crop, models, Knowing(crop), PLAN, found)
    return lambda model: {gate.name: gate for gate in gates.judge(found, model)}


def failed(found: dict[str, gates.Gate]) -> set[str]:
    return {name for name, gate in found.items() if not gate.passed}


KINDS = (ALONE, GUIDED, LACKING, MISALIGNED)


def test_a_perfect_model_passes_every_gate(judged):
    found = judged("perfect")
    assert failed(found) == set()
    assert {name for name in found if name.startswith("lesions are kept")} == {
        f"lesions are kept in {m}: {kind}" for m in ("T1w", "T2w") for kind in KINDS
    }
    assert len(found) == 8 + 8 + 2 + 2 + 2
    assert found["acquired slices are reproduced: with noise"].figure == pytest.approx(1, abs=0.03)
    assert found["T1w lesions stay out of T2w"].figure == 0


def test_a_model_that_erases_lesions_fails(judged):
    found = judged("erasing")
    wanted = {f"lesions are kept in {m}: {kind}" for m in ("T1w", "T2w") for kind in KINDS}
    assert wanted <= failed(found)
    assert found["lesions are kept in T2w: guided"].figure == 1
    assert "acquired slices are reproduced: without noise" in failed(found)
    assert not any(name.startswith("nothing is invented") for name in failed(found))


def test_a_model_that_copies_the_guide_fails(judged):
    found = judged("copying")
    for name in ("T1w lesions stay out of T2w", "T2w lesions stay out of T1w"):
        assert found[name].figure == pytest.approx(1, abs=0.05)
        assert name in failed(found)
    assert f"lesions are kept in T2w: {ALONE}" not in failed(found)
    assert f"lesions are kept in T2w: {GUIDED}" in failed(found)  # dark, where bright is true


def test_a_model_that_invents_lesions_fails(judged):
    found = judged("inventing")
    wanted = {f"nothing is invented in {m}: {kind}" for m in ("T1w", "T2w") for kind in KINDS}
    assert wanted <= failed(found)
    assert not any(name.startswith("lesions are kept") for name in failed(found))
    assert any(name.startswith("ratio 1") for name in failed(found))


def test_a_model_that_forgets_its_slices_fails(judged):
    found = judged("blurring")
    assert "acquired slices are reproduced: without noise" in failed(found)
    assert not any(name.startswith(("lesions", "ratio 1")) for name in failed(found))


# --- from files to files ----------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    """One subject on two lattices, with FreeSurfer ids; one of thick slices."""
    t1w, t2w = T1W, T2W
    shift = np.eye(4)
    shift[:3, 3] = 0.3
    ids = np.where(t1w.data > 575, 41, np.where(t1w.data > 0, 42, 0)).astype(np.uint8)
    thick = Affine.from_parts((1, 1, 3))
    for subject, pair, affines in (
        ("round1", (t1w, t2w), (t1w.affine, t2w.affine.transformed(shift))),
        ("thick1", (t1w, t2w), (thick, thick)),
    ):
        (tmp_path / subject).mkdir()
        for name, scan, affine in zip(("T1w", "T2w"), pair, affines, strict=True):
            write_volume(tmp_path / subject / f"{name}.nii.gz", scan.data, affine)
    write_volume(tmp_path / "round1" / "seg.nii.gz", ids, t1w.affine)
    return tmp_path


def test_a_whole_run(folder, tmp_path):
    said: list[str] = []

    def restore(t1w, t2w, grid, model):
        return tuple(None if s is None else interpolate(s, grid, "cubic") for s in (t1w, t2w))

    out, plan = tmp_path / "out", Plan((0.5, 3), (), (), (), (3,), size=48.0)
    found = safety.evaluate(folder, ["spline"], out, restore, plan, log=said.append)

    assert "thick1: left out, its T1w has voxels of 1.00 x 1.00 x 3.00 mm" in said[1]
    assert said[0].startswith("round1: ")
    with (out / tables.GATES).open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == ["model", "name", "what", "threshold", "figure", "passed"]
    assert [row["passed"] for row in rows] == [str(gate.passed) for gate in found]
    values = json.loads((out / tables.VALUES).read_text())
    assert [row["name"] for row in values["gates"]] == [gate.name for gate in found]
    erasure = {(r["method"], r["scan"], r["condition"], r["lesion_mm"]) for r in values["erasure"]}
    assert ("trilinear", "T2w", NO_MODEL, 5.0) in erasure
    assert ("spline", "T1w", LACKING, 10.0) in erasure
    assert all("3 mm" in row and "0.5 mm" not in row for row in values["erasure"])
    # The same thing under two names has the same figures.
    by_method = {
        row["method"]: {k: v for k, v in row.items() if k not in ("method", "condition")}
        for row in values["contrast_kept"]
        if row["scan"] == "T2w" and row["lesion_mm"] == 5 and row["condition"] in (NO_MODEL, GUIDED)
    }
    assert by_method["cubic"] == by_method["spline"]
    page = (out / tables.PAGE).read_text()
    assert page.count("**FAILED**") == sum(not gate.passed for gate in found) > 0
    with (out / tables.LESIONS).open(newline="") as stream:
        assert len(list(csv.DictReader(stream))) % 10 == 0


def test_folders_without_fine_scans(folder, tmp_path):
    (folder / "split.csv").write_text("subject,split\nthick1,test\n")
    with pytest.raises(InputError, match="fine scans with room for lesions"):
        safety.evaluate(folder, [], tmp_path / "out", lambda *_: (None, None), log=lambda _: None)


def test_real_infants_have_room_for_all_sizes(data_folder):
    from nexusinr.evaluation.subjects import subjects

    pair = next(p for p in subjects(data_folder) if p.subject.startswith("infant"))
    crop = crops.read_crop(pair, 56.0)
    assert sorted(site.lesion.size for site in crop.sites) == sorted(crops.SIZES)
    for site in crop.sites:
        assert site.contrast(crop.truth(0, True)) < 0 < site.contrast(crop.truth(1, True))
