"""The benchmark: its files keep their contract, its counts are those of a hand."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from importlib import metadata

import numpy as np
import pytest
import torch
from matplotlib.image import imread

from nexusinr.cli import benchmark as command_line
from nexusinr.errors import Cancelled, InputError
from nexusinr.evaluation.benchmark import (
    Plan,
    cold,
    heads,
    measure,
    paths,
    peak,
    start,
    warm,
    write,
)
from nexusinr.evaluation.benchmark.counting import Work, counted
from nexusinr.geometry import Affine, Grid
from nexusinr.inference.implicit import EncodedScan, decode_block
from nexusinr.inference.output import OutputFolder
from nexusinr.models.nexus_inr import NexusINR, NexusINRConfig, scan_conditions
from nexusinr.models.position import position_size
from nexusinr.models.sampling import LatticeMap
from nexusinr.training import phantom
from nexusinr.volume import Volume

#: What benchmark.json promises.
FIELDS = {
    "machine", "device", "peak_conv_gflops", "whole_head", "new_spacing_seconds",
    "plane_256_seconds", "plane_512_seconds", "baselines", "scaling",
}  # fmt: skip
HEAD_FIELDS = {"seconds", "gflop", "share_of_peak", "peak_memory_gb", "steps"}

SPACING = 5.0


@pytest.fixture(scope="module", autouse=True)
def _briefly() -> Iterator[None]:
    """Everything is timed once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(peak, "RUNS", 1)
        patch.setattr(warm, "PLANES", 1)
        yield


@pytest.fixture(scope="module")
def fine() -> tuple[Volume, Volume]:
    """The built-in phantom in coarse voxels, 24 x 28 x 20."""
    return phantom.pair(SPACING, shape=(24, 28, 20))[:2]


@pytest.fixture(scope="module")
def outcome(fine, tiny_model, tmp_path_factory):
    """What a small benchmark gives, and its folder."""
    plan = Plan(spacings=(2 * SPACING,), sizes=("half",), conv_lattice=(8, 8, 8), matrix=64)
    told = []
    values = measure(fine, plan, tiny_model, "cpu", 1, told.append)
    path = tmp_path_factory.mktemp("benchmark") / "out"
    with OutputFolder(path) as folder:
        page = write(values, folder)
    assert len(told) == 9
    return values, path, page


def test_the_files_are_those_of_the_contract(outcome):
    values, path, page = outcome
    assert {p.name for p in path.iterdir()} == {"benchmark.json", "benchmark.md", "scaling.png"}
    assert json.loads((path / "benchmark.json").read_text()) == values
    assert values.keys() >= FIELDS
    assert values["whole_head"].keys() >= HEAD_FIELDS
    assert all(row.keys() >= {"seconds", "ratio_to_ours"} for row in values["baselines"].values())
    assert (path / "benchmark.md").read_text() == page
    assert values["machine"] in page
    assert values["device"].startswith("CPU, ")
    picture = imread(path / "scaling.png")
    assert picture.shape[1] > 900
    assert picture.std() > 0.05


def test_how_soon_a_process_is_ready(outcome):
    values, _, page = outcome
    begun = values["start"]
    assert 0 < begun["help_seconds"] < begun["ready_seconds"]
    assert f"{begun['ready_seconds']:.2f} s" in page
    files = [file.locate() for file in metadata.files("torch")]
    torch_alone = sum(file.stat().st_size for file in files if file.is_file()) / 1e9
    assert torch_alone < begun["installed_gb"] < torch_alone + 2


def test_a_cancel_between_two_starts():
    with pytest.raises(Cancelled):
        start.help_seconds(lambda: True)


def test_the_whole_is_the_sum_of_its_steps(outcome):
    values, _, _ = outcome
    head = values["whole_head"]
    assert head["lattice"] == [24, 28, 20]
    names = {"starting and writing", "encoding T1w", "encoding T2w", "decoding"}
    assert head["steps"].keys() > names
    for name in ("seconds", "gflop", "gbytes"):
        parts = sum(step[name] for step in head["steps"].values())
        assert parts == pytest.approx(head[name], abs=0.01)
    for costs in (head, *head["steps"].values()):
        if costs["seconds"] > 0.1:
            share = costs["gflop"] / costs["seconds"] / values["peak_conv_gflops"]
            assert costs["share_of_peak"] == pytest.approx(share, rel=0.06, abs=1e-4)
    assert head["steps"]["encoding T1w"]["gflop"] > head["steps"]["encoding T2w"]["gflop"] > 0
    assert head["steps"]["reading"]["gflop"] == 0
    assert head["warm_seconds"] > 0
    assert head["peak_memory_gb"] > 0.1


def test_ratios_are_those_of_the_seconds(outcome, tiny_model):
    rows = outcome[0]["baselines"]
    own = rows[tiny_model]["seconds"]
    assert len(rows) == 5
    assert rows[tiny_model]["ratio_to_ours"] == 1
    for row in rows.values():
        assert row["ratio_to_ours"] == pytest.approx(row["seconds"] / own, rel=0.02, abs=0.01)
    once, anew = rows["ArSSR, encoded once"], rows["ArSSR, each slab encoded anew"]
    assert anew["seconds"] > 5 * once["seconds"]
    assert rows["dense path of the paper"]["seconds"] > once["seconds"]
    assert rows["SimpleITK B-spline"]["measured_share"] == 1


def test_growth_is_told_of_each_lattice(outcome):
    rows = outcome[0]["scaling"]
    known = [(row["head"], row["spacing_mm"], row["lattice"]) for row in rows]
    assert known == [
        ("whole", SPACING, [24, 28, 20]),
        ("whole", 2 * SPACING, [12, 14, 10]),
        ("half", SPACING, [24, 28, 10]),
    ]
    for row in rows:
        assert row["voxels"] == np.prod(row["lattice"])
        assert row["seconds"] >= row["encoding_seconds"] + row["decoding_seconds"] - 0.01
        assert min(row["encoding_seconds"], row["decoding_seconds"]) > 0


# --- counting ---------------------------------------------------------------------------------

TINY = NexusINRConfig(
    features=4, growth=2, blocks=1, layers=2, decoder_width=8, decoder_depth=2, attention_width=3
)


@pytest.fixture
def network() -> NexusINR:
    """Random weights that show in what they predict."""
    torch.manual_seed(0)
    network = NexusINR(TINY).eval()
    for decoder in network.decoder:
        torch.nn.init.normal_(decoder.head.weight)
    return network


@pytest.fixture
def encoded(network) -> dict[int, EncodedScan]:
    """Noise, encoded: a T1w scan of 6 x 5 x 4 voxels, a T2w scan turned away from it."""
    turned = Grid((5, 6, 4), Affine.from_parts((1, 1, 2), [[1, 0, 0], [0, 0, 1], [0, 1, 0]]))
    grids = {0: Grid((6, 5, 4), Affine.from_parts((1, 1, 2))), 1: turned}
    sizes = torch.tensor([[1.0, 1.0, 2.0]])
    with torch.inference_mode():
        return {
            m: EncodedScan(
                network.encode(torch.rand(1, 1, *grid.shape), scan_conditions(sizes, sizes), m),
                grid,
            )
            for m, grid in grids.items()
        }


def test_encoding_is_counted_as_by_hand(network):
    image, conditions = torch.rand(1, 1, 6, 5, 4), torch.zeros(1, 6)
    found = counted(lambda: network.encode(image, conditions, 0)).flop
    cubes = 27 * (1 * 4 + 4 * 4 + 4 * 2 + 6 * 2 + 4 * 4)  # first, second, two dense layers, last
    points = (4 + 2 * 2) * 4 + 4 * 4  # the fusions of the block and of the network
    film = 6 * 32 + 32 * 8
    assert found == 2 * 2 * (120 * (cubes + points) + film)


def test_decoding_is_counted_as_by_hand(network, encoded):
    grid = Grid((3, 4, 2), Affine.from_parts((1, 1, 1), origin=(1, 1, 1)))
    sampled = {
        m: network.sample(scan.encoding, LatticeMap([scan.grid], [grid.pad(1)]))
        for m, scan in encoded.items()
    }
    found = counted(lambda: network.decode(0, sampled[0], sampled[1])).flop
    query_out = 4 * 3 + 3 * 4
    project = 8 * 4 + 4 * 4
    segment = 4 * 6 + 6 * 6
    fuse = 10 * 5 + 5 * 4
    decoder = 4 * 8 + 8 * 8 + 8
    key_value = 5 * 6 * 4 * 4 * 6  # one voxel more on every side
    lines = 2 * (3 + 4 + 2) * position_size(network.config.frequencies) * 8  # of both scans
    points = 24 * (query_out + project + segment + fuse + decoder)
    assert found == 2 * (points + key_value + lines)


def test_traffic_is_what_operators_take_and_give():
    a, b = torch.rand(10, 30), torch.rand(10, 30)
    with torch.inference_mode():
        assert counted(lambda: a + b) == Work(0, 3 * 4 * 300)
        assert counted(lambda: a.T[2:].reshape(280)) == Work(0, 2 * 4 * 280)
        assert counted(lambda: a.view(30, 10)[1:].permute(1, 0)) == Work()
        assert counted(lambda: a @ b.T) == Work(2 * 10 * 10 * 30, 4 * (300 + 300 + 100))


# --- the ways that are compared ---------------------------------------------------------------


@torch.inference_mode()
def test_the_dense_path_gives_the_same_image(network, encoded):
    grid = Grid((5, 4, 6), Affine.from_parts((0.7, 0.8, 0.6), origin=(0.4, 0.7, 0.9)))
    ours, _ = decode_block(network, encoded, grid)
    dense = paths.decode_dense(paths.dense_form(network), encoded, grid)
    for modality, coming in ours.items():
        values = coming.wait().numpy()
        assert np.abs(values - dense[modality][0].numpy()).max() < 1e-4 * np.ptp(values)


def test_the_arssr_form_keeps_the_sizes_alone(network):
    plain = paths.arssr_form(network)
    off = dict.fromkeys(("multi_modal_fusion", "cross_attention", "segmentation_enhanced"), False)
    assert plain.config == replace(network.config, **off)
    assert not plain.training


# --- heads and planes -------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "slices"), [("quarter", 4), ("half", 10), ("whole", 20)])
def test_a_part_of_a_head_is_about_its_middle(fine, size, slices):
    head = heads.acquire(fine, size)
    t1w, t2w = head.scans
    assert head.grid.shape == (24, 28, slices)
    assert (t1w.data.shape, t2w.data.shape) == ((24, 28, slices // 2), (24, 7, slices))
    assert np.allclose(head.grid.centre, fine[0].grid.centre, atol=SPACING)
    assert np.allclose(t1w.grid.corner, head.grid.corner)
    assert np.allclose(t1w.affine.spacing, np.array((1, 1, 2)) * SPACING)
    assert np.allclose(t2w.affine.spacing, np.array((1, 4, 1)) * SPACING)


def test_a_double_head_is_two_in_a_row(fine):
    t1w = heads.acquire(fine, "double").scans[0]
    assert t1w.data.shape == (24, 28, 20)
    assert np.array_equal(t1w.data[..., :10], t1w.data[..., 10:])


@pytest.mark.parametrize("pixels", warm.PLANES)
def test_the_plane_is_oblique_and_about_the_middle(fine, pixels):
    plane = warm.plane_through(fine[0].grid, pixels)
    assert plane.shape == (pixels, pixels, 1)
    assert np.allclose(plane.centre, fine[0].grid.centre)
    assert np.allclose(plane.spacing[:2] * pixels, 256)
    assert plane.axes_in(fine[0].grid) is None


# --- the command ------------------------------------------------------------------------------


def test_a_quick_run(command, tiny_model, tmp_path, monkeypatch):
    monkeypatch.setattr(command_line, "SHAPE", (24, 24, 64))
    out = tmp_path / "out"
    status, page, told = command(
        "benchmark", "--quick", "--model", tiny_model, "--device", "cpu", "--out", out
    )
    assert status == 0, told
    assert {p.name for p in out.iterdir()} == {"benchmark.json", "benchmark.md"}
    values = json.loads((out / "benchmark.json").read_text())
    assert (values["whole_head"]["head"], values["scaling"]) == ("quarter", [])
    assert values["whole_head"]["lattice"] == [24, 24, 16]
    assert (out / "benchmark.md").read_text() in page


def test_what_cannot_be_measured_is_said(command, tiny_model, fine, tmp_path, monkeypatch):
    monkeypatch.setattr(command_line, "SHAPE", (8, 8, 8))
    status, out, err = command("benchmark", "--model", "none-such", "--out", tmp_path / "out")
    assert (status, out) == (2, "")
    assert "'none-such'" in err.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InputError, match=r"ended with 2: .*--threads"):
        cold.run(heads.acquire(fine, "half"), tiny_model, "cpu", 0, lambda: False)


def test_a_cancel_ends_the_process_of_the_main_job(tiny_model, fine):
    begun = time.monotonic()
    with pytest.raises(Cancelled):
        cold.run(heads.acquire(fine, "quarter"), tiny_model, "cpu", 1, lambda: True)
    assert time.monotonic() - begun < 20
