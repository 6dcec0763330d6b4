"""The self-ensemble: mirrored copies of the scans, each in its place, restored and averaged."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from nexusinr.errors import InputError
from nexusinr.evaluation import variants
from nexusinr.geometry import Affine, Grid
from nexusinr.inference import protocol
from nexusinr.inference.adaptation.tuning import Schedule
from nexusinr.inference.pipeline import upsample
from nexusinr.inference.prepared import PreparedScan
from nexusinr.inference.session import MEMBERS, Session
from nexusinr.volume import Volume, write_volume

#: What the heads of these tests span, from dark to bright.
RANGE = 600.0


@pytest.fixture(scope="module")
def session(tiny_model) -> Session:
    return Session(tiny_model, "cpu")


@pytest.fixture(scope="module")
def options(session) -> dict:
    return {"register": "none", "session": session, "consistency": 0}


def mirrored(scan: Volume, axis: int) -> Volume:
    """The same scan in the same place, read in the other direction."""
    affine = scan.affine.matrix.copy()
    affine[:3, 3] += affine[:3, axis] * (scan.data.shape[axis] - 1)
    affine[:3, axis] *= -1
    data = np.ascontiguousarray(np.flip(scan.data, axis))
    return scan.replace(data=data, affine=Affine(affine))


@pytest.mark.parametrize("axes", MEMBERS)
def test_a_mirrored_scan_stays_in_its_place(axes, oblique_volume):
    scan = PreparedScan(oblique_volume)
    other = scan.mirrored(axes)
    index = np.stack(np.indices(scan.grid.shape), axis=-1)
    there = np.rint(scan.grid.affine.to_index(other.grid.affine.apply(index))).astype(int)
    assert np.abs(other.grid.corners().mean(axis=0) - scan.grid.centre).max() < 1e-9
    assert np.array_equal(other.image, scan.image[tuple(np.moveaxis(there, -1, 0))])
    assert np.array_equal(other.mask, scan.mask[tuple(np.moveaxis(there, -1, 0))])


def test_eight_members_do_not_know_how_a_scan_was_read(options, thick_pair):
    """The eight are each other's mirror images, whichever is given: the mean is one and the same.

    One restoration by itself is another where its scans are read the other way round.
    """
    t1w, t2w = thick_pair
    # Points midway between two voxels go to the even one, whichever way a scan is read: not here.
    grid = Grid((8, 9, 7), Affine.from_parts((2.9, 3.1, 3.3), origin=(-10.3, -12.1, -9.7)))
    turned = mirrored(t1w, 2), mirrored(t2w, 1)  # both across their slices
    whole = [upsample(*pair, **options, like=grid, ensemble=8) for pair in (thick_pair, turned)]
    single = [upsample(*pair, **options, like=grid) for pair in (thick_pair, turned)]
    for name in ("t1w", "t2w"):
        same, other = (
            np.abs(getattr(first, name).data - getattr(second, name).data).max() / RANGE
            for first, second in (whole, single)
        )
        assert same < 1e-5
        assert other > 1e-3
    assert whole[0].report["ensemble"] == 8
    assert np.array_equal(whole[0].segmentation, single[0].segmentation)


def test_two_members_are_the_mean_of_two(options, thick_pair):
    t1w = thick_pair[0]
    grid = t1w.grid.with_spacing(3)
    both = upsample(t1w, **options, like=grid, ensemble=2).t1w.data
    one, other = (upsample(s, **options, like=grid).t1w.data for s in (t1w, mirrored(t1w, 2)))
    assert np.abs(both - (one + other) / 2).max() / RANGE < 1e-5
    assert np.abs(one - other).max() / RANGE > 1e-3


def test_progress_goes_up_through_all_members(options, thick_pair):
    told: list[tuple[float, str, float | None]] = []
    upsample(*thick_pair, **options, spacing=3, ensemble=3, progress=lambda *w: told.append(w))
    fractions = [fraction for fraction, _, _ in told]
    assert fractions == sorted(fractions)
    assert "decoding 3 times" in {step for _, step, _ in told}
    assert told[-1] == (1.0, "done", 0.0)


@pytest.mark.parametrize("members", [0, 9, -1])
def test_ensembles_that_cannot_be(members, options, thick_pair):
    with pytest.raises(InputError, match=f"ensemble of {members} cannot be made: give 1"):
        upsample(*thick_pair, **options, ensemble=members)


@pytest.mark.parametrize(
    ("given", "words"),
    [({"ensemble": 9}, "from 1 to 8, not 9"), ({"ensemble": True}, "not true"),
     ({"adapt": 1}, "adapt is true or false, not 1")],
)  # fmt: skip
def test_the_worker_checks_both_options(given, words):
    ask = {"t1w": "a.nii", "out": "b", "adapt": True, "ensemble": 8}
    assert protocol.parse(protocol.request(1, "upsample", **ask)).options == ask
    with pytest.raises(protocol.RequestError, match=words):
        protocol.parse(protocol.request(1, "upsample", **{**ask, **given}))


# --- measured -------------------------------------------------------------------------------


def test_methods_are_named_after_what_they_add(tiny_model):
    def told(method: str) -> tuple[str, float | None, int]:
        variant = variants.find(method)
        seconds = None if variant.adapt is None else variant.adapt.seconds
        return variant.card.name, seconds, variant.ensemble

    assert told("tiny") == ("tiny", None, 1)
    assert told("tiny+adapt") == ("tiny", Schedule().seconds, 1)
    assert told("tiny+adapt-30") == ("tiny", 30, 1)
    assert told("tiny+ensemble") == ("tiny", None, 4)
    assert told("tiny+adapt-30+ensemble-8") == ("tiny", 30, 8)
    assert [variants.find(name).float32 for name in ("tiny", "tiny+float32")] == [False, True]
    for method, words in (
        ("other+adapt", "unknown model 'other'"),
        ("tiny+more", "no method 'tiny\\+more': \\+adapt"),
        ("tiny+adapt+adapt-3", "no method"),
        ("tiny+adapt-0", "no method"),
        ("tiny+float32-2", "no method"),
    ):
        with pytest.raises(InputError, match=words):
            variants.find(method)


def test_evaluate_takes_them(command, tiny_model, thick_pair, tmp_path):
    scan = thick_pair[0]
    fine = Affine.from_parts((2, 2, 2), origin=(-25, -29, -23))
    for name in ("T1w", "T2w"):
        folder = tmp_path / "pairs" / "child01"
        folder.mkdir(parents=True, exist_ok=True)
        write_volume(folder / f"{name}.nii.gz", np.repeat(scan.data, 2, axis=2), fine)
    methods = (tiny_model, f"{tiny_model}+ensemble-2", f"{tiny_model}+adapt-1")
    status, out, err = command(
        "evaluate", tmp_path / "pairs", "--models", ",".join(methods), "--out", tmp_path / "table",
        "--device", "cpu", "--only", "t1w",
    )  # fmt: skip
    assert (status, err) == (0, "")
    for method in methods:
        assert f"| T1w | {method} |" in out
    with (tmp_path / "table" / "scores.csv").open(newline="") as stream:
        psnr = {row["method"]: row["psnr"] for row in csv.DictReader(stream)}
    alone, averaged, adapted = (psnr[method] for method in methods)
    assert averaged != alone
    assert adapted == alone  # too small to be adapted to


def test_the_command_line_averages(command, tiny_model, thick_files, tmp_path):
    status, _, err = command(
        "upsample", "--t1w", thick_files[0], "--out", tmp_path, "--model", tiny_model,
        "--device", "cpu", "--spacing", "3", "--ensemble", "2",
    )  # fmt: skip
    assert (status, err) == (0, "")
    assert json.loads((tmp_path / "report.json").read_text())["ensemble"] == 2
