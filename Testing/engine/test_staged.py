"""ICONet in the main job: pieces, places, what is kept, what is left out and said."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.spatial.transform import Rotation

from nexusinr.errors import Cancelled, InputError, OutOfMemory
from nexusinr.geometry import Affine, Grid
from nexusinr.inference import staged
from nexusinr.inference.fine_scan import FineScan
from nexusinr.inference.pipeline import upsample
from nexusinr.inference.progress import Progress
from nexusinr.inference.request import check_memory, estimate, read_scans, target
from nexusinr.inference.session import Session
from nexusinr.inference.staged import Staged, plan_between
from nexusinr.models import streaming, weights
from nexusinr.models.encoders import CONDITIONS
from nexusinr.models.iconet import ICONet, ICONetConfig
from nexusinr.models.stage_streaming import StreamedStage
from nexusinr.resample import covered, interpolate
from nexusinr.volume import Volume

#: What the heads of these tests span, from dark to bright.
RANGE = 600.0

CONFIG = ICONetConfig(features=8, blocks=1, reach=2)
SLICES = (False, False, True)
ALL = (True, True, True)
TURN = Rotation.from_euler("xyz", (20, -15, 30), degrees=True).as_matrix()


def installed(name: str, network: ICONet, folder) -> str:
    """The weights as a user's own, imported from a file."""
    card = {"name": name, "architecture": "ICONet", "version": "0", "config": CONFIG.to_dict()}
    return weights.import_weights(weights.save(network, folder, card)).name


@pytest.fixture(scope="module")
def tiny_iconet(tiny_model, tmp_path_factory):
    """Small random weights beside those of `tiny_model`, whose home they share."""
    torch.manual_seed(0)
    network = ICONet(CONFIG)
    for head in (network.clean_head, network.fine_head):
        torch.nn.init.normal_(head.weight, std=0.03)
    yield installed("tiny-iconet", network, tmp_path_factory.mktemp("tiny"))
    weights.remove("tiny-iconet")


@pytest.fixture(scope="module")
def plain_iconet(tiny_model, tmp_path_factory):
    """Fresh weights: linear interpolation."""
    yield installed("plain-iconet", ICONet(CONFIG), tmp_path_factory.mktemp("plain"))
    weights.remove("plain-iconet")


@pytest.fixture(scope="module")
def session(tiny_iconet) -> Session:
    return Session(tiny_iconet, "cpu")


@pytest.fixture(scope="module")
def network(session) -> ICONet:
    assert isinstance(session.network, ICONet)
    return session.network


def inside_of(part: Grid, whole: Grid) -> tuple[slice, ...]:
    first = np.rint(whole.affine.to_index(part.affine.origin)).astype(int)
    assert whole.crop(first, first + part.shape).same_as(part)
    return tuple(slice(a, a + n) for a, n in zip(first, part.shape, strict=True))


# --- the whole job ----------------------------------------------------------------------------


def test_both_scans_each_for_itself(session, thick_pair, tmp_path):
    (tmp_path / "segmentation.nii.gz").write_bytes(b"of an earlier run")
    result = upsample(*thick_pair, spacing=2, register="none", session=session, out=tmp_path)
    wanted = {"t1w_sr.nii.gz", "t2w_sr.nii.gz", "comparison.png", "report.json"}
    assert {p.name for p in tmp_path.iterdir()} == wanted == set(result.files)
    assert result.segmentation is None
    assert result.report["tissue_volumes_ml"] == {}
    assert (
        "the model tiny-iconet gives no tissues: there is no segmentation"
        in (json.loads((tmp_path / "report.json").read_text())["warnings"])
    )
    for name, scan, found in zip(("T1w", "T2w"), thick_pair, (result.t1w, result.t2w), strict=True):
        kept = result.report["consistency"][name]
        assert kept["after"] < 0.05 * kept["before"]
        alone = upsample(
            **{name.lower(): scan}, like=result.grid, segmentation=False, session=session
        )
        assert alone.report["warnings"] == []
        assert getattr(alone, name.lower()).grid.same_as(result.grid)
        assert np.abs(getattr(alone, name.lower()).data - found.data).max() < 1e-4 * RANGE


def test_on_the_command_line(command, tiny_iconet, thick_files, tmp_path):
    status, out, err = command(
        "upsample", "--t1w", thick_files[0], "--model", tiny_iconet, "--out", tmp_path / "out"
    )
    assert (status, err) == (0, "")
    assert "Warning: the model tiny-iconet gives no tissues" in out
    status, out, err = command("models", "list")
    assert "tiny-iconet  0  ICONet  imported" in out.splitlines()
    status, out, err = command(
        "upsample", "--t1w", thick_files[0], "--model", "iconet-of-mine", "--out", tmp_path / "out"
    )
    assert (status, err.count("\n")) == (2, 1)
    assert "unknown model 'iconet-of-mine': choose one of" in err


def test_an_oblique_lattice_is_taken_over_exactly(session, thick_pair):
    like = Grid((17, 15, 16), Affine.from_parts((1.5, 2.5, 1.7), TURN, (-14, -22, -9)))
    result = upsample(*thick_pair, like=like, register="none", session=session)
    assert result.grid == like
    for found, scan in zip((result.t1w, result.t2w), thick_pair, strict=True):
        plain = interpolate(scan, like)[covered(scan.grid, like)]
        assert np.corrcoef(found.data[covered(scan.grid, like)], plain)[0, 1] > 0.95


def test_steps_and_progress(session, thick_pair):
    session._encoded.clear()
    told: list[tuple[float, str, float | None]] = []
    upsample(
        *thick_pair, register="none", session=session, progress=lambda *what: told.append(what)
    )
    fractions = [fraction for fraction, _, _ in told]
    assert fractions == sorted(fractions)
    assert told[-1] == (1.0, "done", 0.0)
    steps = list(dict.fromkeys(step for _, step, _ in told))
    assert steps[3:6] == ["restoring T1w", "restoring T2w", "resampling"]


def test_a_cancel_is_noticed_anywhere(session, thick_pair, tmp_path):
    questions = itertools.count()
    session._encoded.clear()

    def never() -> bool:
        next(questions)
        return False

    options = {"t1w": thick_pair[0], "session": session, "out": tmp_path / "out"}
    upsample(**options, cancelled=never)
    total = next(questions)
    assert total > 12  # before every pair of blocks
    before = {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()}
    for moment in (total // 4, total // 2, total - 1):
        session._encoded.clear()
        left = iter(range(moment, -1, -1))
        with pytest.raises(Cancelled):
            upsample(**options, cancelled=lambda left=left: next(left) == 0)
        assert {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()} == before


# --- pieces -----------------------------------------------------------------------------------


@pytest.fixture
def stages(monkeypatch):
    """Shapes of the images that stages are computed of, and planes of each pass."""
    shapes, passes = [], []

    class Watched(StreamedStage):
        def __init__(self, network, conditions, axes, shape, check):
            shapes.append(shape)
            super().__init__(network, conditions, axes, shape, check)

        def __call__(self, planes, last):
            passes.append(len(planes))
            return super().__call__(planes, last)

    monkeypatch.setattr(staged, "StreamedStage", Watched)
    return shapes, passes


@torch.inference_mode()
def test_passes_change_nothing(session, thick_pair, stages, monkeypatch):
    monkeypatch.setattr(streaming, "LEAST_FOR_ONEDNN", 0)
    _, passes = stages
    for scan in thick_pair:
        prepared, lattice = session.prepare(scan), scan.grid.with_spacing(1.3)
        assert len(plan_between(prepared.grid, lattice)) == 2
        passes.clear()
        one = session.engine.encode(0, prepared, lattice, Progress(), 10**9)
        assert len(passes) == 2
        for piece_voxels in (1, 4_000):
            pieces = session.engine.encode(0, prepared, lattice, Progress(), piece_voxels)
            assert pieces.grid == one.grid
            assert np.abs(pieces.image - one.image).max() < 1e-5
        assert len(passes) > 12


@torch.inference_mode()
def test_planes_give_what_the_network_gives(session, network):
    image, conditions = torch.rand(13, 9, 7), torch.randn(1, CONDITIONS)
    for axes in itertools.product((False, True), repeat=3):
        whole = network.stage(image[None, None], conditions, axes).fine[0, 0]
        for piece_voxels in (1, 5 * 9 * 7, 10**9):
            found = staged.restored(network, image, conditions, axes, Progress(), piece_voxels)
            torch.testing.assert_close(found, whole, atol=1e-5, rtol=1e-5)


def test_without_consistency_a_region_is_exactly_a_part(session, thick_pair):
    options = {"spacing": 1, "consistency": 0, "register": "none", "session": session}
    whole = upsample(*thick_pair, **options)
    session._encoded.clear()
    part = upsample(*thick_pair, **options, roi=(-3.0, 5.0, 1.0, 12.0, 10.0, 8.0))
    inside = inside_of(part.grid, whole.grid)
    for one, other in ((part.t1w, whole.t1w), (part.t2w, whole.t2w)):
        assert np.abs(one.data - other.data[inside]).max() < 1e-3 * RANGE


def test_a_region_is_computed_by_itself(session, thick_pair):
    """A box of 8 mm costs neither the time nor the memory of the head around it."""
    prepared = session.prepare(thick_pair[0])
    lattice = thick_pair[0].grid.with_spacing(0.5)
    middle = np.array(lattice.shape) // 2
    box = lattice.crop(middle - 8, middle + 8)
    start, stop = (np.array(v) for v in ((0, 0, 0), prepared.grid.shape))
    plan = plan_between(prepared.grid, lattice)
    whole = staged.windows(prepared.grid.shape, start, stop, plan, 6)[2]
    part = staged.windows(
        prepared.grid.shape, *staged.indices_around(prepared.grid, box, 1), plan, 6
    )[2]
    assert part[-1].voxels < 0.05 * whole[-1].voxels
    assert [w.scale.tolist() for w in part] == [[1, 1, 1], [1, 1, 2], [2, 2, 4]]
    memory = session.engine.memory
    assert memory([thick_pair[0].grid], box, 10**6) < memory([thick_pair[0].grid], lattice, 10**6)


@torch.inference_mode()
def test_air_is_not_computed(session, thick_pair):
    scan = session.prepare(thick_pair[0])
    lattice = thick_pair[0].grid.with_spacing(2)
    fine = session.engine.encode(0, scan, lattice, Progress(), 4_000)
    assert fine.plan == [SLICES]
    plain = interpolate(Volume(scan.image, scan.grid.affine), fine.grid)
    near = ndimage.maximum_filter(scan.mask, 3).repeat(2, axis=2)
    assert np.abs(fine.image - plain)[~near].max() < 1e-6
    assert np.abs(fine.image - plain)[near].mean() > 1e-3


@torch.inference_mode()
def test_far_from_the_head_nothing_is_computed(session, stages):
    data = np.zeros((12, 90, 10), np.float32)
    data[3:9, 3:9, 2:8] = np.random.default_rng(6).uniform(1, 2, (6, 6, 6))
    scan = session.prepare(Volume(data, Affine.from_parts((2, 2, 4))))
    session.engine.encode(0, scan, scan.grid.with_spacing(2), Progress(), 12_000)
    assert [math.prod(shape) < 0.3 * data.size for shape in stages[0]] == [True]


# --- places -----------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_without_weights_it_is_linear_interpolation(order, plain_iconet, thick_pair):
    """On lattices that agree, permuted and flipped ones too, to a hair: no shift is that small."""
    turned = thick_pair[0].grid.permuted(order)
    scan = Volume(thick_pair[0].data.transpose(order)[::-1].copy(), flipped(turned))
    lattice = scan.grid.with_spacing(2)
    result = upsample(t1w=scan, like=lattice, consistency=0, model=plain_iconet, device="cpu")
    assert np.abs(result.t1w.data - interpolate(scan, lattice)).max() < 1e-5 * RANGE


def flipped(grid: Grid) -> Affine:
    matrix = grid.affine.matrix.copy()
    matrix[:3, 3] = grid.affine.apply((grid.shape[0] - 1, 0, 0))
    matrix[:3, 0] *= -1
    return Affine(matrix)


@pytest.mark.parametrize("direction", [np.eye(3), TURN], ids=["parallel", "oblique"])
def test_resampling_keeps_places(direction):
    """A ramp in patient space, read off at any lattice: 0.01 mm would be seen."""
    fine = Grid((30, 28, 26), Affine.from_parts((0.9, 1.0, 1.1), TURN, TURN @ (-13, -14, -14)))
    index = np.stack(np.indices(fine.shape), axis=-1)
    lattice = Grid((9, 8, 7), Affine.from_parts((1.3, 1.1, 0.7), direction, (-3, -3, -2)))
    where = lattice.affine.apply(np.stack(np.indices(lattice.shape), axis=-1))
    for axis in range(3):
        ramp = fine.affine.apply(index)[..., axis].astype(np.float32)
        scan = FineScan(ramp, fine, [], np.zeros(3, int), np.array(fine.shape))
        assert np.abs(scan.sampler(lattice)(lattice) - where[..., axis]).max() < 2e-3


@torch.inference_mode()
def test_on_its_own_lattice_the_last_stage_is_taken_as_it_is(session, thick_pair):
    for scan in thick_pair:
        lattice = scan.grid.with_spacing(scan.grid.spacing / (2, 2, 2))
        prepared = session.prepare(scan)
        fine = session.encode(0, prepared, lattice, Progress())
        found = session.decode({0: prepared}, lattice, Progress(), with_tissues=False)
        index = lattice.affine.to_index(fine.grid.affine.apply(np.argwhere(fine.image > -9)))
        i, j, k = np.rint(index).astype(int).T
        head = interpolate(prepared.head, lattice)[i, j, k] > 0
        same = found.intensity[0][i, j, k] == fine.image.reshape(-1)
        assert head.any()
        assert same[head].all()


def test_one_spline_serves_every_lattice():
    """Inside the scan, at its rim and beyond, as an interpolation of its own for each would."""
    grid = Grid((24, 20, 18), Affine.from_parts((0.9, 1.0, 1.1)))
    noise = np.random.default_rng(0).uniform(size=grid.shape).astype(np.float32)
    scan = FineScan(noise, grid, [], np.zeros(3, int), np.array(grid.shape))
    inner = grid.crop((2, 3, 4), (20, 11, 12))
    assert np.array_equal(scan.sampler(inner)(inner), noise[2:20, 3:11, 4:12])
    rounded = inner.affine.matrix.copy()
    rounded[:3, 3] += 1e-4  # as headers are, which have single precision
    lattice = Grid(inner.shape, Affine(rounded))
    assert np.array_equal(scan.sampler(lattice)(lattice), noise[2:20, 3:11, 4:12])
    assert "spline" not in vars(scan)  # nothing had to be interpolated
    for turn in (np.eye(3), TURN):
        plane = Grid((40, 40, 1), Affine.from_parts((0.7, 0.7, 1), turn, (-3.2, -2.1, 5.3)))
        right = interpolate(Volume(noise, grid.affine), plane, "cubic")
        assert np.abs(scan.sampler(plane)(plane) - right).max() < 1e-3
    assert scan.spline is scan.spline


def test_cubic_resampling_keeps_detail():
    """Half a voxel away, where trilinear interpolation would halve a fine pattern."""
    x = np.arange(40)
    wave = np.cos(2 * np.pi * x / 4).astype(np.float32)
    data = np.broadcast_to(wave[:, None, None], (40, 12, 12)).copy()
    grid = Grid(data.shape, Affine(np.eye(4)))
    shift = np.eye(4)
    shift[0, 3] = 0.5
    moved = Grid(grid.shape, Affine(shift)).crop((10, 3, 3), (30, 9, 9))
    found = FineScan(data, grid, [], np.zeros(3, int), np.array(grid.shape)).sampler(moved)(moved)
    truth = np.cos(2 * np.pi * (x[10:30] + 0.5) / 4)
    assert np.abs(found[:, 3, 3] - truth).max() < 0.06


@pytest.mark.parametrize(
    ("spacing", "lattice", "plan"),
    [
        ((1, 1, 4), Affine.from_parts((1, 1, 1)), [SLICES, SLICES]),
        ((1, 1, 4), Affine.from_parts((1, 1, 1), TURN), [SLICES, SLICES]),
        ((1, 1, 4), Affine.from_parts((4, 1, 1), np.eye(3)[:, [2, 0, 1]]), []),
        ((1, 1, 4), Affine.from_parts((0.5, 0.5, 0.5), -np.eye(3)), [SLICES, SLICES, ALL]),
        ((2, 2, 2), Affine.from_parts((3, 3, 3), TURN), []),
        # Turned by 45 degrees about i, 1 mm along one axis: 1.4 mm along both of the scan.
        (
            (1, 2.8, 2.8),
            Affine.from_parts((1, 1, 50), Rotation.from_rotvec((np.pi / 4, 0, 0)).as_matrix()),
            [(False, True, True)],
        ),
    ],
)
def test_plans_between_lattices(spacing, lattice, plan):
    scan = Grid((9, 9, 9), Affine.from_parts(spacing))
    assert plan_between(scan, Grid((9, 9, 9), lattice)) == plan


# --- what was measured ------------------------------------------------------------------------


@pytest.mark.parametrize("consistency", [0, 1])
def test_a_scan_that_is_fine_enough_is_not_changed(consistency, session, thick_pair):
    for scan, name in zip(thick_pair, ("t1w", "t2w"), strict=True):
        result = upsample(
            *thick_pair, like=scan.grid, consistency=consistency, register="none", session=session
        )
        assert np.abs(getattr(result, name).data - scan.data).max() < 1e-4 * RANGE


def test_thin_slices_on_a_coarser_lattice(session, thick_pair):
    """No stage is needed, and none is run."""
    passes = []
    count = session.network.first.register_forward_hook(lambda *_: passes.append(1))
    try:
        result = upsample(t1w=thick_pair[0], spacing=(3, 3, 5), session=session)
    finally:
        count.remove()
    assert passes == []
    assert result.grid.spacing == pytest.approx((3, 3, 5))
    assert result.t1w.data.max() > 0.5 * thick_pair[0].data.max()


# --- one session, many questions --------------------------------------------------------------


def test_the_same_stages_are_not_run_twice(tiny_iconet, thick_pair, stages):
    session = Session(tiny_iconet, "cpu")
    passes = stages[0]
    options = {"t1w": thick_pair[0], "session": session}
    upsample(**options, spacing=2)
    once = len(passes)
    assert once > 0
    upsample(**options, like=Grid((9, 9, 9), Affine.from_parts((2, 2, 2), TURN)))
    upsample(**options, spacing=2, roi=(0, 0, 0, 12, 12, 12))
    assert len(passes) == once
    upsample(**options, spacing=1)
    assert len(passes) > once
    finer = len(passes)
    plane = Grid((20, 20, 1), Affine.from_parts((0.3, 0.3, 1), TURN, TURN @ (-3, -3, 0)))
    prepared = {0: session.prepare(thick_pair[0])}
    lattice = thick_pair[0].grid.with_spacing(1)
    session.decode(prepared, plane, Progress(), encoded_for=lattice)
    assert len(passes) == finer


# --- memory -----------------------------------------------------------------------------------


class SmallMachine(Staged):
    """ICONet where there is room for passes of so many voxels."""

    def __init__(self, network: ICONet, room: int) -> None:
        super().__init__(network)
        self.room, self.asked = room, []

    def encode(self, modality, scan, target, progress, piece_voxels):
        self.asked.append(piece_voxels)
        if piece_voxels > self.room:
            raise torch.OutOfMemoryError(f"no room for {piece_voxels} voxels")
        return super().encode(modality, scan, target, progress, piece_voxels)


def test_smaller_pieces_where_memory_is_short(tiny_iconet, session, network, thick_pair):
    options = {"spacing": 1, "consistency": 0}
    right = upsample(t1w=thick_pair[0], session=session, **options)
    short = Session(tiny_iconet, "cpu")
    short.engine = SmallMachine(short.network, staged.PIECE_VOXELS // 4)
    result = upsample(t1w=thick_pair[0], session=short, **options)
    assert short.engine.asked == [staged.PIECE_VOXELS // n for n in (1, 2, 4)]
    notes = [w for w in result.report["warnings"] if "out of memory while restoring T1w" in w]
    assert len(notes) == 2
    assert np.abs(result.t1w.data - right.t1w.data).max() < 1e-3 * RANGE
    none = Session(tiny_iconet, "cpu")
    none.engine = SmallMachine(none.network, 0)
    with pytest.raises(OutOfMemory, match="in the smallest pieces too"):
        upsample(t1w=thick_pair[0], session=none, **options)


def test_memory_is_foreseen(session, thick_files):
    """It grows with the stages, and a spacing that is proposed fits."""
    scans = read_scans(*thick_files)
    needed = [
        estimate(scans, target(scans, s, None, None).work, session).memory for s in (4, 2, 1, 0.4)
    ]
    assert needed == sorted(needed)
    fine = target(scans, 0.4, None, None).work
    stages = 2 * 16 * 8 * min(v.grid.voxels for v in scans.volumes.values())
    assert needed[-1] - needed[0] > 60 * fine.voxels + 4 * stages
    for spacing in (0.1, (0.1, 0.3, 0.5)):
        with pytest.raises(InputError, match="would fit") as caught:
            check_memory(scans, target(scans, spacing, None, None).work, session, 1.0)
        fitting = float(str(caught.value).split("a spacing of ")[1].split(" mm")[0])
        check_memory(scans, target(scans, fitting, None, None).work, session, 1.0)
    with pytest.raises(InputError, match="these scans need"):
        check_memory(scans, target(scans, 4, None, None).work, session, 0.3)
