"""The main job on small heads: where things end up, what is kept, what is left behind."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from nexusinr import registration
from nexusinr.errors import Cancelled, InputError
from nexusinr.geometry import Affine, Grid
from nexusinr.inference import implicit, report, tiles
from nexusinr.inference.engine import Restored, conditions_of
from nexusinr.inference.pipeline import upsample
from nexusinr.inference.progress import Progress
from nexusinr.inference.session import Session
from nexusinr.models import streaming
from nexusinr.resample import covered, interpolate
from nexusinr.training import phantom
from nexusinr.volume import Volume, write_volume

ALL_FILES = {
    "comparison.png",
    "report.json",
    "segmentation.nii.gz",
    "t1w_sr.nii.gz",
    "t2w_sr.nii.gz",
}

#: What the heads of these tests span, from dark to bright.
RANGE = 600.0


@pytest.fixture(scope="module")
def session(tiny_model) -> Session:
    return Session(tiny_model, "cpu")


@pytest.fixture(scope="module")
def whole(session, thick_pair):
    """Both scans on 2 mm, with everything at its default but the registration."""
    return upsample(*thick_pair, spacing=2, register="none", session=session)


# --- where things end up ----------------------------------------------------------------------

TURN = Rotation.from_euler("xyz", (20, -15, 30), degrees=True).as_matrix()
LATTICES = {
    "straight": np.eye(3),
    "oblique": TURN,
    "flipped": np.diag((-1.0, -1.0, 1.0)),
    "permuted": np.eye(3)[:, [2, 0, 1]],
    "oblique, permuted and flipped": (TURN * (-1, 1, 1))[:, [1, 2, 0]],
    "sheared": np.array([[1, 0.15, 0], [0, 1, 0.1], [0, 0, 1]]) / [1, 1.0112, 1.005],
}

#: Where the marks are, mm.
MARKS = np.array([(9, 4, -6), (-8, 10, 5), (3, -12, 8)])


def marked_scan(direction: np.ndarray) -> Volume:
    """An ellipsoid with three bright blobs, on 2 x 2 x 4 mm."""
    affine = Affine.from_parts((2, 2, 4), direction)
    middle = affine.apply((13.0, 14.0, 6.0))
    matrix = affine.matrix.copy()
    matrix[:3, 3] = -middle
    affine = Affine(matrix)
    points = affine.apply(np.stack(np.indices((27, 29, 13)), axis=-1))
    data = np.where(np.linalg.norm(points / (22, 24, 20), axis=-1) < 1, 100.0, 0.0)
    for mark in MARKS:
        data += 800 * np.exp(-np.square(points - mark).sum(axis=-1) / (2 * 3.0**2))
    return Volume(data.astype(np.float32), affine)


def blob_centres(data: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Centroids, mm, of what is within 7 mm of each mark and brighter than the rest."""
    points = np.stack(np.indices(data.shape), axis=-1) @ affine[:3, :3].T + affine[:3, 3]
    centres = []
    for mark in MARKS:
        weight = np.clip(data - 250, 0, None) * (np.linalg.norm(points - mark, axis=-1) < 7)
        centres.append((points * weight[..., None]).sum(axis=(0, 1, 2)) / weight.sum())
    return np.array(centres)


@pytest.mark.parametrize("name", LATTICES)
def test_results_lie_where_the_scan_lies(name, session, tmp_path):
    scan = marked_scan(LATTICES[name])
    path = tmp_path / "scan.nii.gz"
    write_volume(path, scan.data, scan.affine)
    upsample(t1w=path, spacing=2, session=session, out=tmp_path / "out")
    for file in ("t1w_sr.nii.gz", "segmentation.nii.gz"):
        image = nib.load(tmp_path / "out" / file)
        found = Grid(image.shape, Affine(image.affine))
        assert found.spacing == pytest.approx((2, 2, 2), abs=1e-4)
        if name == "sheared":
            assert not found.affine.is_sheared
            assert covered(found, scan.grid).all()
        else:
            assert np.abs(found.corner - scan.grid.corner).max() < 0.01
            assert np.abs(found.corners() - scan.grid.corners()).max() < 0.01
    image = nib.load(tmp_path / "out" / "t1w_sr.nii.gz")
    centres = blob_centres(image.get_fdata(), image.affine)
    assert np.linalg.norm(centres - MARKS, axis=1).max() < 0.3


def test_a_lattice_to_copy_is_taken_over_exactly(session, thick_pair, tmp_path):
    like = Grid((21, 17, 19), Affine.from_parts((1.5, 2.5, 1.7), TURN, (-14, -22, -9)))
    pattern = np.arange(like.voxels, dtype=np.float32).reshape(like.shape)
    write_volume(tmp_path / "like.nii.gz", pattern, like.affine)
    result = upsample(
        *thick_pair, like=tmp_path / "like.nii.gz", register="none", session=session, out=tmp_path
    )
    assert result.grid.same_as(like, 1e-4)
    for file in ("t1w_sr.nii.gz", "t2w_sr.nii.gz", "segmentation.nii.gz"):
        image = nib.load(tmp_path / file)
        assert Grid(image.shape, Affine(image.affine)).same_as(like, 1e-4)


def test_the_default_spacing_is_the_finest_of_the_inputs(session, thick_pair):
    result = upsample(*thick_pair, register="none", session=session)
    assert result.grid.spacing == pytest.approx((2, 2, 2))
    fine = thick_pair[0].replace(affine=Affine.from_parts((0.3, 0.4, 0.9), origin=(-4, -6, -5)))
    result = upsample(t1w=fine, session=session)
    assert result.grid.spacing == pytest.approx((0.5, 0.5, 0.5))


def test_one_spacing_an_axis(session, thick_pair):
    result = upsample(t1w=thick_pair[0], spacing=(2, 3, 1.3), session=session)
    assert result.grid.spacing == pytest.approx((2, 3, 1.3))
    assert result.grid.shape == (26, 20, 37)
    assert result.grid.corner == pytest.approx(thick_pair[0].grid.corner)


@pytest.mark.parametrize("modality", [0, 1])
def test_one_scan_is_enough(modality, session, thick_pair, tmp_path):
    given = {("t1w", "t2w")[modality]: thick_pair[modality]}
    result = upsample(**given, session=session, out=tmp_path / "out")
    wanted = ALL_FILES - {("t2w_sr.nii.gz", "t1w_sr.nii.gz")[modality]}
    assert {p.name for p in (tmp_path / "out").iterdir()} == wanted == set(result.files)
    assert (result.t1w is None) == (modality == 1)
    assert (result.t2w is None) == (modality == 0)
    restored = result.t2w if modality else result.t1w
    assert restored.grid.same_as(thick_pair[modality].grid.with_spacing(2))
    assert json.loads((tmp_path / "out" / "report.json").read_text()) == result.report


def test_a_region_equals_that_part_of_the_whole(session, thick_pair, whole):
    roi = (4.0, -3.0, 2.0, 18.0, 14.0, 16.0)
    part = upsample(*thick_pair, spacing=2, roi=roi, register="none", session=session)
    assert part.grid.extent == pytest.approx((18, 14, 16), abs=4.1)
    first = np.rint(whole.grid.affine.to_index(part.grid.affine.origin)).astype(int)
    assert whole.grid.crop(first, first + part.grid.shape).same_as(part.grid)
    inside = tuple(slice(a, a + n) for a, n in zip(first, part.grid.shape, strict=True))
    assert (part.segmentation == whole.segmentation[inside]).mean() > 0.999
    for one, other in ((part.t1w, whole.t1w), (part.t2w, whole.t2w)):
        difference = np.abs(one.data - other.data[inside])
        # Not exactly: the slices of the oblique T2w scan lean on those beyond the surroundings.
        assert np.percentile(difference, 90) < 0.01 * RANGE
        assert difference.max() < 0.05 * RANGE


def test_without_consistency_a_region_is_exactly_a_part(session, thick_pair):
    options = {"spacing": 2, "consistency": 0, "register": "none", "session": session}
    whole = upsample(*thick_pair, **options)
    part = upsample(*thick_pair, **options, roi=(-3.0, 5.0, 1.0, 12.0, 10.0, 8.0))
    first = np.rint(whole.grid.affine.to_index(part.grid.affine.origin)).astype(int)
    inside = tuple(slice(a, a + n) for a, n in zip(first, part.grid.shape, strict=True))
    assert np.abs(part.t1w.data - whole.t1w.data[inside]).max() < 1e-5 * RANGE
    assert np.abs(part.t2w.data - whole.t2w.data[inside]).max() < 1e-5 * RANGE


def test_a_region_outside_of_the_scan_is_refused(session, thick_pair):
    with pytest.raises(InputError, match="region 200 0 0 10 10 10 lies outside"):
        upsample(*thick_pair, roi=(200, 0, 0, 10, 10, 10), session=session)
    with pytest.raises(InputError, match="all finite"):
        upsample(*thick_pair, roi=(0, 0, 0, 10, -1, 10), session=session)


def test_beyond_a_scan_there_is_nothing(tiny_model, thick_pair):
    """Where the head goes on beyond the scan's last slice, nothing is made up."""
    session = Session(tiny_model, "cpu")
    for mlp in session.network.segment:  # fresh ones are undecided
        torch.nn.init.normal_(mlp[-1].weight)
    whole = thick_pair[0]
    grid = whole.grid.crop((0, 0, 4), (26, 30, 9))
    scan = whole.replace(data=whole.data[:, :, 4:9], affine=grid.affine)
    result = upsample(t1w=scan, like=whole.grid.with_spacing(2), session=session)
    beyond = ~covered(scan.grid, result.grid)
    assert beyond.any()
    assert (result.t1w.data[beyond] == 0).all()
    assert (result.segmentation[beyond] == 0).all()
    assert (result.segmentation[~beyond] > 0).any()
    assert any("covers 42% of the output" in warning for warning in result.report["warnings"])


# --- pieces -----------------------------------------------------------------------------------


@pytest.mark.parametrize("piece_voxels", [1, 3000, implicit.PIECE_VOXELS])
@torch.inference_mode()
def test_pieces_change_nothing(piece_voxels, session, thick_pair, monkeypatch):
    monkeypatch.setattr(streaming, "LEAST_FOR_ONEDNN", 0)
    for modality, scan in enumerate(thick_pair):
        prepared = session.prepare(scan)
        encode = session.engine.encode
        whole = session.network.encode(
            torch.from_numpy(prepared.image)[None, None], conditions_of(prepared), modality
        )
        pieces = encode(modality, prepared, scan.grid, Progress(), piece_voxels)
        assert pieces.encoding.maps.shape == whole.maps.shape
        difference = (pieces.encoding.maps - whole.maps).abs().max()
        assert float(difference) < 1e-3 * float(whole.maps.abs().max())


@pytest.mark.parametrize("turned", [False, True])
@torch.inference_mode()
def test_tiles_change_nothing(turned, session, thick_pair):
    target = Grid((23, 26, 21), Affine.from_parts((2, 2, 2), origin=(-22, -25, -20)))
    if turned:
        target = Grid(target.shape, Affine.from_parts((2, 2, 2), TURN, TURN @ (-22, -25, -20)))
    prepared = {m: session.prepare(scan) for m, scan in enumerate(thick_pair)}
    encoded = {m: session.encode(m, scan, target, Progress()) for m, scan in prepared.items()}
    inside = np.ones(target.shape, bool)

    def decode(tile: int) -> Restored:
        start = {m: np.zeros(target.shape, np.float32) for m in prepared}
        return implicit.decode(
            session.network, encoded, start, inside, target, Progress(), tile=tile
        )

    one = decode(64)
    assert one.tissues is not None
    for size in (5, 16):
        pieces = decode(size)
        for modality, image in one.intensity.items():
            assert np.abs(pieces.intensity[modality] - image).max() < 1e-3
        assert (pieces.tissues == one.tissues).mean() > 0.999


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_plane_is_that_of_the_whole(axis, session, thick_pair):
    """Whichever of its axes is thin: every value stands at its own place."""
    target = Grid((13, 16, 11), Affine.from_parts((2, 2, 2), TURN, TURN @ (-12, -15, -10)))
    prepared = {m: session.prepare(scan) for m, scan in enumerate(thick_pair)}
    whole = session.decode(prepared, target, Progress())
    first, last = np.zeros(3, int), np.array(target.shape)
    first[axis], last[axis] = 5, 6
    plane = session.decode(prepared, target.crop(first, last), Progress())
    i, j, k = (slice(a, b) for a, b in zip(first, last, strict=True))
    for modality, image in whole.intensity.items():
        assert np.abs(plane.intensity[modality] - image[i, j, k]).max() < 1e-3
    assert (plane.tissues == whole.tissues[i, j, k]).mean() > 0.99


def test_air_is_filled_but_not_computed(session, thick_pair):
    scan = thick_pair[0]
    target = scan.grid.with_spacing(2)
    points = []
    count = session.network.decoder[0].register_forward_hook(
        lambda module, inputs, output: points.append(output.numel())
    )
    try:
        prepared = {0: session.prepare(scan)}
        restored = session.decode(prepared, target, Progress())
    finally:
        count.remove()
    plain = interpolate(prepared[0].whole, target)
    head = interpolate(prepared[0].head, target) > 0
    assert np.array_equal(restored.intensity[0][~head], plain[~head])
    assert (restored.tissues[~head] == 0).all()
    assert np.abs(restored.intensity[0] - plain)[head].max() > 1e-3
    boxes = tiles.occupied(head, tiles.block_edges(target.shape, implicit.TILE))
    assert head.sum() < sum(points) == sum(head[box].size for box in boxes) < head.size


@torch.inference_mode()
def test_blocks_without_head_are_left_out(session, thick_pair):
    target = thick_pair[0].grid.with_spacing(2)
    encoded = {0: session.encode(0, session.prepare(thick_pair[0]), target, Progress())}
    inside = np.zeros(target.shape, bool)
    inside[3, 4, 5] = True
    start = {0: np.full(target.shape, -7, np.float32)}
    told = []
    watch = Progress(lambda fraction, step, eta: told.append(fraction))
    restored = implicit.decode(session.network, encoded, start, inside, target, watch, tile=8)
    assert (restored.intensity[0] == -7).sum() == target.voxels - 1
    assert len(told) <= 1


@pytest.mark.parametrize(
    ("grey", "white", "said"),
    [(480, 420, None), (850, 116, "12% of the brain"), (100, 300, "75%"), (150, 2, None)],
)
def test_tissues_that_no_brain_has_are_doubted(grey, white, said):
    doubts = report.doubts({"grey matter": grey, "white matter": white, "lesion": 3})
    assert len(doubts) == bool(said)
    assert not said or said in doubts[0]


# --- what was measured ------------------------------------------------------------------------


def test_a_scan_on_its_own_lattice_is_not_changed(session, thick_pair):
    t1w, t2w = thick_pair
    for scan, name in ((t1w, "t1w"), (t2w, "t2w")):
        result = upsample(*thick_pair, like=scan.grid, register="none", session=session)
        found = getattr(result, name).data
        error = np.sqrt(np.mean((found - scan.data) ** 2))
        assert 20 * np.log10(RANGE / error) > 45


def test_the_residual_goes_down(session, thick_pair, whole):
    strict = whole.report["consistency"]
    left = upsample(*thick_pair, spacing=2, consistency=0, register="none", session=session).report[
        "consistency"
    ]
    for name in ("T1w", "T2w"):
        assert strict[name]["after"] < 0.05 * strict[name]["before"]
        assert left[name]["after"] == left[name]["before"] == strict[name]["before"]


def test_a_moved_scan_is_moved_back(session):
    t1w, t2w, _ = phantom.pair(spacing=4.0, head=False)
    shift = np.eye(4)
    shift[:3, 3] = (6, -4, 3)
    moved = t2w.replace(affine=t2w.affine.transformed(shift))
    result = upsample(t1w, moved, spacing=8, session=session)
    registration = result.report["registration"]
    assert registration["applied"]
    assert np.array(registration["matrix_ras"])[:3, 3] == pytest.approx((-6, 4, -3), abs=1.5)
    assert any("headers of the two scans disagree" in w for w in result.report["warnings"])
    left = upsample(t1w, moved, spacing=8, register="none", session=session)
    assert left.report["registration"] == {"mode": "none", "applied": False}


def test_scans_given_the_wrong_way_round_are_noticed(session):
    t1w, t2w, _ = phantom.pair(spacing=4.0, head=False)
    right = upsample(t1w, t2w, spacing=8, register="none", session=session)
    wrong = upsample(t2w, t1w, spacing=8, register="none", session=session)
    assert not any("swapped" in warning for warning in right.report["warnings"])
    assert any("swapped" in warning for warning in wrong.report["warnings"])


# --- one session, many questions --------------------------------------------------------------


def test_another_spacing_costs_no_encoding(tiny_model, thick_pair):
    session = Session(tiny_model, "cpu")
    passes = []
    for encoder in session.network.shared:
        encoder.condition.net.register_forward_hook(lambda *_: passes.append(1))
    first = upsample(*thick_pair, spacing=3, register="none", session=session)
    assert len(passes) == 2
    encodings = list(session._encoded.values())
    second = upsample(*thick_pair, spacing=2.5, register="none", session=session)
    upsample(*thick_pair, roi=(0, 0, 0, 9, 9, 9), register="none", session=session)
    assert len(passes) == 2
    kept = session._encoded.values()
    assert all(one is other for one, other in zip(encodings, kept, strict=True))
    assert second.grid.voxels > first.grid.voxels
    upsample(t1w=thick_pair[0].replace(data=thick_pair[0].data * 2 + 1), session=session)
    assert len(passes) == 3


def test_a_pair_is_aligned_once(tiny_model, thick_pair, monkeypatch):
    calls, rigid = [], registration.rigid
    monkeypatch.setattr(registration, "rigid", lambda *scans: calls.append(1) or rigid(*scans))
    session, (t1w, t2w) = Session(tiny_model, "cpu"), thick_pair
    first = session.align(t1w, t2w)
    assert session.align(t1w.replace(name="again"), t2w) is first
    assert len(calls) == 1
    session.align(t1w, t2w.replace(data=t2w.data + 1))
    session.align(t1w, t2w.replace(affine=t2w.affine.transformed(np.eye(4) + np.eye(4, k=3) / 9)))
    assert len(calls) == 3
    session.forget()
    session.align(t1w, t2w)
    assert len(calls) == 4


def test_every_moment_may_be_the_last(session, thick_pair, tmp_path):
    """A cancel at any of the moments at which the run asks for one leaves nothing behind."""
    session._encoded.clear()
    questions = itertools.count()

    def never() -> bool:
        next(questions)
        return False

    options = {"register": "none", "session": session}
    upsample(*thick_pair, **options, out=tmp_path / "whole", cancelled=never)
    total = next(questions)
    assert total > 15
    for moment in [0, 1, 2, total // 4, total // 2, 3 * total // 4, total - 2, total - 1]:
        session._encoded.clear()
        countdown = iter(range(moment, -1, -1))
        with pytest.raises(Cancelled):
            upsample(
                *thick_pair,
                **options,
                out=tmp_path / "deep" / "out",
                cancelled=lambda left=countdown: next(left) == 0,
            )
        assert [p.name for p in tmp_path.iterdir()] == ["whole"]


def test_a_cancel_keeps_earlier_results(session, thick_pair, tmp_path):
    options = {"register": "none", "session": session, "out": tmp_path}
    upsample(*thick_pair, **options)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    asked = itertools.count()
    with pytest.raises(Cancelled):
        upsample(*thick_pair, spacing=3, **options, cancelled=lambda: next(asked) > 10)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_files_of_an_earlier_run_do_not_stay(session, thick_pair, tmp_path):
    options = {"register": "none", "session": session, "out": tmp_path}
    upsample(*thick_pair, **options)
    (tmp_path / "notes.txt").write_text("mine")
    upsample(t1w=thick_pair[0], segmentation=False, **options)
    left = {p.name for p in tmp_path.iterdir()}
    assert left == {"t1w_sr.nii.gz", "comparison.png", "report.json", "notes.txt"}


def test_progress_goes_up_to_the_end(session, thick_pair, tmp_path):
    session._encoded.clear()
    told: list[tuple[float, str, float | None]] = []
    upsample(
        *thick_pair,
        register="none",
        session=session,
        out=tmp_path,
        progress=lambda *what: told.append(what),
    )
    fractions = [fraction for fraction, _, _ in told]
    assert fractions == sorted(fractions)
    assert fractions[0] == 0
    assert told[-1] == (1.0, "done", 0.0)
    steps = list(dict.fromkeys(step for _, step, _ in told))
    assert steps == [
        "reading",
        "loading the model",
        "registering",
        "encoding T1w",
        "encoding T2w",
        "decoding",
        "keeping what was measured",
        "writing",
        "done",
    ]


def test_the_tissues_match_their_volumes(whole):
    volumes = whole.report["tissue_volumes_ml"]
    assert sum(volumes.values()) == pytest.approx((whole.segmentation > 0).sum() * 0.008, abs=0.01)
    assert whole.segmentation.dtype == np.uint8


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"spacing": 0}, "a spacing of 0 mm"),
        ({"spacing": (1, 2)}, "a spacing of 1 2 mm"),
        ({"spacing": float("nan")}, "a spacing of nan mm"),
        ({"register": "maybe"}, "unknown registration 'maybe'"),
        ({"consistency": 1.5}, "consistency weight of 1.5"),
        ({"spacing": 2, "like": Grid((4, 4, 4), Affine(np.eye(4)))}, "choose one"),
    ],
)
def test_options_that_cannot_be_used(options, problem, session, thick_pair):
    with pytest.raises(InputError, match=problem):
        upsample(*thick_pair, session=session, **options)


def test_no_scan_at_all(session):
    with pytest.raises(InputError, match="no scan given"):
        upsample(session=session)


def test_a_real_clinical_pair(session, data_folder, tmp_path):
    pair = data_folder / "pairs" / "mslong01_s1"
    result = upsample(
        pair / "T1w.nii.gz", pair / "T2w.nii.gz", spacing=3, register="none", session=session
    )
    for name in ("T1w", "T2w"):
        kept = result.report["consistency"][name]
        assert kept["after"] <= kept["before"]
    assert Path(result.report["inputs"][0]["path"]).name == "T1w.nii.gz"
