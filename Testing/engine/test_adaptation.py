"""Weights adapted to one case: what it teaches, that it helps, and that it does no harm."""

from __future__ import annotations

import copy
import itertools
import json
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from nexusinr.errors import Cancelled
from nexusinr.geometry import Affine, Grid
from nexusinr.inference import pipeline
from nexusinr.inference.adaptation import learning, tuning
from nexusinr.inference.adaptation.lessons import Case, Part, Patches, case_of, places
from nexusinr.inference.adaptation.thickening import (
    CONTEXT,
    MARGIN,
    PROFILES,
    Protocol,
    doubled_only,
    lesson,
)
from nexusinr.inference.adaptation.tuning import Adaptation, Schedule, adapt_to
from nexusinr.inference.pipeline import upsample
from nexusinr.inference.prepared import PreparedScan
from nexusinr.inference.progress import Progress
from nexusinr.inference.protocol import unpacked
from nexusinr.inference.service import Service
from nexusinr.inference.session import Session, engine_for
from nexusinr.inference.tiles import cancellable
from nexusinr.models import weights
from nexusinr.models.iconet import ICONet, ICONetConfig
from nexusinr.models.nexus_inr import MODALITIES, T1W, T2W, NexusINR, NexusINRConfig
from nexusinr.volume import Volume, read_volume

SHORT = Schedule(seconds=600, steps=14, learning_rate=5e-2, edge=24)

FEW = replace(SHORT, steps=2)

TINY = NexusINRConfig(features=4, growth=4, blocks=1, layers=1, decoder_width=8, attention_width=4)


def head_at(points: np.ndarray, contrast: int) -> np.ndarray:
    """Intensities (...) of a "head" with detail of 4 mm at points (..., 3), mm."""
    x, y, z = np.moveaxis(points, -1, 0)
    depth = 1 - (x / 23.5) ** 2 - (y / 23) ** 2 - (z / 23.5) ** 2
    detail = np.sin(x / 1.3 + z / 4) + np.sin(y / 1.4 - x / 5) + np.sin(z / 1.3 + y / 4)
    value = 400 + (60, -80)[contrast] * detail + (80, 60)[contrast] * np.cos(y / 9)
    return np.where(depth > 0, value, 0).astype(np.float32)


def head(
    spacing: tuple[float, float, float], contrast: int, turn: np.ndarray | None = None
) -> Volume:
    """It on a lattice of 48 mm in every direction."""
    direction = np.eye(3) if turn is None else turn
    shape = tuple(int(n) for n in np.ceil(48 / np.array(spacing)))
    affine = Grid.from_corner(shape, spacing, direction, direction @ (-24, -24, -24)).affine
    points = affine.apply(np.stack(np.indices(shape), axis=-1))
    return Volume(head_at(points, contrast), affine)


@pytest.fixture(scope="module")
def session(tiny_model) -> Session:
    """Linear interpolation that makes everything brighter: it does not know this contrast."""
    torch.manual_seed(0)
    network = NexusINR(TINY).eval()
    for decoder in network.decoder:
        torch.nn.init.constant_(decoder.head.bias, 0.5)
    session = Session(tiny_model, "cpu")
    session.card = replace(session.card, config=TINY.to_dict())
    session.engine = engine_for(network)
    return session


@pytest.fixture(scope="module")
def options(session) -> dict:
    """Of runs of a second, if nothing is adapted."""
    return {"register": "none", "session": session, "consistency": 0, "spacing": 2}


@pytest.fixture(scope="module")
def pair() -> tuple[Volume, Volume]:
    """A T1w scan with axial slices and a T2w scan with coronal ones, their contrasts exchanged."""
    return head((1, 1, 3), 1), head((1, 4, 1), 0)


@pytest.fixture(scope="module")
def scans(pair) -> dict[int, PreparedScan]:
    return {m: PreparedScan(scan) for m, scan in enumerate(pair)}


@pytest.fixture(scope="module")
def adapted(options, pair):
    return upsample(*pair, **options, adapt=SHORT)


@pytest.fixture(scope="module")
def plain(options, pair):
    return upsample(*pair, **options)


# --- what a case teaches ----------------------------------------------------------------------


def test_each_scan_teaches_along_its_slices(scans):
    case = case_of(scans)
    assert case.grid.spacing == pytest.approx((1, 1, 1))
    t1w, t2w = case.parts[T1W], case.parts[T2W]
    assert (t1w.step, t1w.thickness, t1w.in_plane) == pytest.approx((3, 3, 1))
    assert (t2w.step, t2w.thickness, t2w.in_plane) == pytest.approx((4, 4, 1))
    assert t1w.across != t2w.across
    for part in (t1w, t2w):
        assert set(part.sharp) == {0, 1, 2} - {part.across}
    choices = case.choices()
    assert len(choices) == 3
    for way in choices:
        assert way[T1W] in t1w.sharp
        assert way[T2W] in t2w.sharp
        assert way[T1W] != way[T2W]


def test_slices_in_one_direction_stay_so():
    both = {m: PreparedScan(head((1, 1, 4), m)) for m in (T1W, T2W)}
    assert case_of(both).choices() == [{T1W: 0, T2W: 0}, {T1W: 1, T2W: 1}]


def test_a_fine_scan_guides_and_is_not_restored():
    case = case_of({T1W: PreparedScan(head((1, 1, 1), 0)), T2W: PreparedScan(head((1, 1, 5), 1))})
    assert case.pupils == (T2W,)
    assert (case.parts[T1W].step, case.parts[T1W].sharp) == (1, (0, 1, 2))


def test_an_oblique_scan_teaches_along_what_it_resolves():
    turn = Rotation.from_euler("x", 45, degrees=True).as_matrix()
    case = case_of(
        {T1W: PreparedScan(head((1, 1, 3), 0)), T2W: PreparedScan(head((1, 1, 4), 1, turn))}
    )
    assert case.parts[T1W].sharp == (0, 1)
    assert case.parts[T2W].sharp == (0,)


def test_very_thick_slices_are_taught_on_a_coarser_lattice():
    case = case_of({T1W: PreparedScan(head((1, 1, 12), 0))})
    assert case.grid.spacing == pytest.approx((2, 2, 2))
    assert case.parts[T1W].step == pytest.approx(6)


def test_patches_are_apart_and_in_the_head(scans):
    case = case_of(scans)
    found = places(case, scans, 16, 99, seed=0)
    assert len(found) >= 6
    for first, second in itertools.combinations(found, 2):
        assert np.abs(first - second).max() >= 16
    for start in found:
        lattice = case.grid.crop(start, start + 16)
        points = lattice.affine.apply(np.stack(np.indices(lattice.shape), axis=-1))
        assert (head_at(points, 0) > 0).mean() > 0.3
    order = [tuple(start) for start in places(case, scans, 16, 99, seed=1)]
    assert order != [tuple(start) for start in found]
    assert sorted(order) == sorted(tuple(start) for start in found)


# --- scanned once more ------------------------------------------------------------------------

EDGE = 32


def ramps() -> Patches:
    """Three patches, each rising along an axis of its own: T1w up, T2w down."""
    index = torch.stack(torch.meshgrid(*[torch.arange(EDGE)] * 3, indexing="ij"))
    rising = index.float() / EDGE
    return Patches({T1W: rising, T2W: 1 - rising})


def crossed_case() -> Case:
    grid = Grid((64,) * 3, Affine.from_parts((1, 1, 1)))
    return Case(grid, {T1W: Part(2, (0, 1), 1, 3, 2.5), T2W: Part(1, (0, 2), 1, 4, 4)})


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("axes", [{T1W: 0, T2W: 2}, {T1W: 1, T2W: 0}, {T1W: 1, T2W: 2}])
def test_thick_scans_lie_where_their_patches_lie(axes, profile):
    made = lesson(ramps(), crossed_case(), Protocol(axes, profile))
    for modality, scan in made.scans.items():
        assert scan.order[2] == axes[modality]
        where = scan.grid.affine.apply(np.stack(np.indices(scan.grid.shape), axis=-1))
        for n in range(3):
            expected = where[..., n] / EDGE
            expected = 1 - expected if modality == T2W else expected
            assert np.abs(scan.image[n, 0].numpy() - expected).max() < 1e-3
    cut = slice(MARGIN + CONTEXT, -MARGIN - CONTEXT)
    assert torch.equal(made.truths[T1W], ramps().images[T1W][:, cut, cut, cut])
    assert made.grid.affine.origin == pytest.approx((MARGIN + CONTEXT,) * 3)
    told = made.scans[T2W].conditions.exp()[0].tolist()
    assert told == pytest.approx([1, 1, 4, 1, 1, 1])


@pytest.mark.parametrize("axes", [{T1W: 0, T2W: 2}, {T1W: 1, T2W: 0}])
@pytest.mark.parametrize(
    "network", [NexusINR(TINY), ICONet(ICONetConfig(4, 1, 1))], ids=["implicit", "staged"]
)
def test_an_untrained_network_takes_a_ramp_back(network, axes):
    """It is linear interpolation: whatever is moved, turned or mirrored would show."""
    case = crossed_case()
    case = doubled_only(case) if isinstance(network, ICONet) else case
    made = lesson(ramps(), case, Protocol(axes, "box", flips=(0, 2)))
    with torch.no_grad():
        found = learning.answers(network, made, case.pupils)
    for modality, answer in found.items():
        size = answer.shape[-1]
        inner = (slice(None), *(slice(2, size - 2),) * 3)  # beyond the last slice nothing rises
        error = (answer - made.truths[modality])[inner].abs().max()
        assert float(error) < 1e-3


def test_every_scan_has_to_gain(session):
    """A mean would hide that one of them is restored worse."""
    found = Adaptation(True, "", SHORT, before={0: 30.0, 1: 25.0}, after={0: 31.0, 1: 24.9})
    judged = tuning._judged(found, session.network)
    assert (judged.applied, judged.gain) == (False, pytest.approx(-0.1))
    better = replace(found, after={0: 31.0, 1: 25.1})
    assert tuning._judged(better, session.network).applied


@pytest.mark.parametrize(("along", "seen"), [(2, 0.0), (0, 0.1)])
def test_what_a_slice_cannot_show_is_no_error(along, seen):
    """Stripes of two voxels across T1w slices of two voxels cancel out; within them they count."""
    case = Case(crossed_case().grid, {T1W: Part(2, (0, 1), 1, 2, 2)})
    patches = Patches({T1W: ramps().images[T1W]})
    made = lesson(patches, case, Protocol({T1W: 0}))
    stripes = torch.tensor([0.1, -0.1]).repeat(made.grid.shape[0] // 2)
    stripes = stripes.reshape([-1 if axis == along else 1 for axis in range(3)])
    answer = made.truths[T1W] + stripes
    found = learning.errors(made, answer, T1W).abs()
    assert float(found.max()) == pytest.approx(seen, abs=1e-6)


# --- learning ---------------------------------------------------------------------------------


def test_held_out_patches_get_better(adapted, session):
    told = adapted.report["adaptation"]
    assert told["applied"]
    assert told["steps"] == SHORT.steps
    for modality in MODALITIES:
        found = told["held_out_psnr_db"][modality]
        assert found["after"] > found["before"] + 0.25
    assert told["gain_db"] > 0.25
    assert "gain" in told["reason"]
    assert adapted.report["model"]["adapted_sha256"] == told["adapted_sha256"]
    assert adapted.report["model"]["sha256"] == session.card.sha256
    json.dumps(adapted.report)


def test_the_adapted_weights_are_what_restores(adapted, plain):
    assert np.abs(adapted.t1w.data - plain.t1w.data).max() > 1
    assert "adaptation" in plain.report
    assert plain.report["adaptation"] is None
    assert "adapted_sha256" not in plain.report["model"]


def test_the_case_itself_gets_better(adapted, plain):
    """Not only what it was taught by."""
    points = plain.grid.affine.apply(np.stack(np.indices(plain.grid.shape), axis=-1))
    inside = np.linalg.norm(points / 18, axis=-1) < 1
    for contrast, image in ((1, "t1w"), (0, "t2w")):
        truth = head_at(points, contrast)[inside]
        before, after = (
            np.square(getattr(found, image).data[inside] - truth).mean()
            for found in (plain, adapted)
        )
        assert after < before


def test_the_same_steps_give_the_same_weights_and_leave_the_others(session, scans):
    before = copy.deepcopy(session.network.state_dict())
    told = adapt_to(session, scans, FEW, Progress())[1]
    assert told.steps == 2
    assert adapt_to(session, scans, FEW, Progress())[1].sha256 == told.sha256
    assert adapt_to(session, scans, replace(FEW, seed=1), Progress())[1].sha256 != told.sha256
    for name, value in session.network.state_dict().items():
        assert torch.equal(value, before[name])
    assert session.adapted_sha256 is None


def test_features_stay_what_they_were(session, scans, monkeypatch):
    """Only what makes intensities of them learns."""
    monkeypatch.setattr(tuning, "LEAST_GAIN", -np.inf)
    other, told = adapt_to(session, scans, FEW, Progress())
    assert told.applied
    known, changed = session.network.state_dict(), set()
    for name, value in other.network.state_dict().items():
        if not torch.equal(value, known[name]):
            changed.add(name.split(".")[0])
    assert changed == {"decoder"}


def test_time_ends_it_too(session, scans):
    _, found = adapt_to(session, scans, replace(SHORT, seconds=0.3, steps=10**6), Progress())
    assert 1 <= found.steps < 10**5
    assert 0.3 <= found.seconds < 10


def test_weights_that_got_worse_are_not_used(options, pair, plain):
    found = upsample(*pair, **options, adapt=replace(FEW, learning_rate=3.0))
    told = found.report["adaptation"]
    assert not told["applied"]
    assert told["gain_db"] < 0
    assert "in one of the scans" in told["reason"]
    assert f"not adapted: {told['reason']}" in found.report["warnings"]
    assert "adapted_sha256" not in found.report["model"]
    assert np.array_equal(found.t1w.data, plain.t1w.data)


@pytest.mark.parametrize(
    ("scan", "edge", "words"),
    [
        (head((2, 2, 2), 0), 24, "as fine across their slices as within them"),
        (head((2, 2, 4), 0), 40, "too small"),
    ],
)
def test_what_teaches_nothing_is_said(scan, edge, words, session):
    found = upsample(scan, session=session, adapt=Schedule(edge=edge), spacing=4)
    told = found.report["adaptation"]
    assert (told["applied"], told["steps"], words in told["reason"]) == (False, 0, True)
    assert any(words in warning for warning in found.report["warnings"])


@pytest.mark.parametrize("edge", [16, 28])
def test_patches_that_cannot_be(edge):
    with pytest.raises(ValueError, match=f"a patch of {edge} voxels: give a multiple of 8"):
        Schedule(edge=edge)


# --- on the way -------------------------------------------------------------------------------


def test_progress_tells_of_it_and_of_the_time_to_go(options, pair):
    told: list[tuple[float, str, float | None]] = []
    upsample(*pair, **options, adapt=FEW, progress=lambda *what: told.append(what))
    fractions = [fraction for fraction, _, _ in told]
    assert fractions == sorted(fractions)
    assert told[-1] == (1.0, "done", 0.0)
    steps = [step for step, _ in itertools.groupby(step for _, step, _ in told)]
    assert steps[2:5] == ["registering", "adapting", "encoding T1w"]
    during = [eta for _, step, eta in told if step == "adapting"]
    assert during[-1] > 0


def test_a_cancel_is_noticed_between_layers():
    """Forwards and backwards: each takes seconds on a CPU."""
    network, asked, stop_at = NexusINR(TINY), 0, 0

    def cancelled() -> bool:
        nonlocal asked
        asked += 1
        return asked == stop_at

    made = lesson(ramps(), crossed_case(), Protocol({T1W: 0, T2W: 2}))
    with cancellable(network, Progress(cancelled=cancelled)):
        value = learning.loss(network, made, (T1W, T2W))
        forwards = asked
        value.backward()
        assert asked >= 2 * forwards - 2  # before every convolution and behind it
        for moment in (1, forwards):
            asked, stop_at = 0, moment
            with pytest.raises(Cancelled):
                learning.loss(network, made, (T1W, T2W))
        asked, stop_at = 0, forwards + 1
        value = learning.loss(network, made, (T1W, T2W))
        with pytest.raises(Cancelled):
            value.backward()


def test_a_cancel_while_adapting_leaves_nothing(options, pair, tmp_path):
    adapting: list[float] = []

    def listen(fraction: float, step: str, eta: float | None) -> None:
        if step == "adapting" and fraction > 0.3:  # the patches are there
            adapting.append(time.monotonic())

    with pytest.raises(Cancelled):
        upsample(
            *pair, **options, adapt=replace(SHORT, seconds=5), out=tmp_path / "out",
            progress=listen, cancelled=lambda: bool(adapting),
        )  # fmt: skip
    assert time.monotonic() - adapting[0] < 1
    assert not (tmp_path / "out").exists()


# --- the other doors --------------------------------------------------------------------------


def test_the_command_line_and_the_worker_take_it(command, tiny_model, thick_files, tmp_path):
    t1w, t2w = thick_files
    status, out, err = command(
        "upsample", "--t1w", t1w, "--t2w", t2w, "--out", tmp_path, "--model", tiny_model,
        "--register", "none", "--device", "cpu", "--spacing", "3", "--adapt",
    )  # fmt: skip
    assert (status, err) == (0, "")
    assert "not adapted: the scans are too small" in out
    told = json.loads((tmp_path / "report.json").read_text())["adaptation"]
    assert (told["applied"], told["most_seconds"]) == (False, 120)


def test_a_plane_after_an_adapted_run_is_cut_by_it(tiny_model, pair, tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "Schedule", lambda: replace(FEW, learning_rate=1e-3))
    monkeypatch.setattr(tuning, "LEAST_GAIN", -np.inf)
    service, silent = Service(), (lambda *what: None, lambda: False)
    run = {
        "t1w": pair[0], "t2w": pair[1], "model": tiny_model, "device": "cpu", "register": "none",
        "consistency": 0, "spacing": 3, "out": tmp_path,
    }  # fmt: skip
    found = service.upsample({**run, "adapt": True}, *silent)
    lattice = found["report"]["lattice"]
    assert found["report"]["adaptation"]["applied"]
    affine = np.array(lattice["affine"])
    affine[:3, 3] += 8 * affine[:3, 2]
    plane = {"affine": affine.tolist(), "size": lattice["shape"][:2]}

    def cut() -> np.ndarray:
        return unpacked(service.plane(plane, *silent)["images"]["T1w"])[:, :, 0]

    whole = read_volume(tmp_path / "t1w_sr.nii.gz").data[:, :, 8]
    off = np.abs(cut() - whole).max()
    assert off < 0.2
    service.upsample(run, *silent)
    assert np.abs(cut() - whole).max() > 5 * off


def test_stages_learn_too(tmp_path, monkeypatch):
    torch.manual_seed(0)
    network = ICONet(ICONetConfig(features=4, blocks=1, reach=1))
    torch.nn.init.normal_(network.fine_head.weight, std=0.1)
    card = {"name": "staged", "architecture": "ICONet", "version": "0"}
    monkeypatch.setenv("NEXUSINR_HOME", str(tmp_path))
    weights.save(network, weights.user_folder(), {**card, "config": network.config.to_dict()})
    scan = head((1, 1, 4), 0)
    schedule = replace(SHORT, steps=10, learning_rate=3e-3)
    found = upsample(scan, model="staged", device="cpu", adapt=schedule, spacing=2)
    told = found.report["adaptation"]
    assert (told["applied"], told["gain_db"] > 0.1) == (True, True)
    assert list(told["held_out_psnr_db"]) == ["T1w"]
