"""What cannot be used ends with status 2, one line that says so, and nothing left behind."""

from __future__ import annotations

import gzip
import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from safetensors.numpy import save_file

from nexusinr.errors import InputError
from nexusinr.geometry import Affine, Grid
from nexusinr.inference import protocol
from nexusinr.inference.pipeline import upsample
from nexusinr.inference.request import check_memory, read_scans, target
from nexusinr.inference.session import Session
from nexusinr.models import weights
from nexusinr.training import phantom
from nexusinr.training.config import read_yaml
from nexusinr.volume import Volume, read_volume, write_volume

SHAPE = (24, 22, 12)


def noise(shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return np.random.default_rng(0).uniform(10, 900, shape).astype(np.float32)


def nifti(path: Path, data: np.ndarray, affine: np.ndarray | None = None) -> nib.Nifti1Image:
    image = nib.Nifti1Image(data, np.diag((2.0, 2.0, 4.0, 1.0)) if affine is None else affine)
    nib.save(image, path)
    return image


def with_header(path: Path, change: Callable[[np.ndarray], None]) -> None:
    """A good NIfTI-1 file whose header is changed afterwards, as bytes."""
    nifti(path, noise())
    content = bytearray(path.read_bytes())
    header = np.frombuffer(content, nib.nifti1.header_dtype, count=1)
    change(header)
    path.write_bytes(content)


def pixdim(*values: float) -> Callable[[np.ndarray], None]:
    def change(header: np.ndarray) -> None:
        header["pixdim"][0, 1:4] = values

    return change


def singular(header: np.ndarray) -> None:
    header["qform_code"], header["sform_code"] = 0, 1
    header["srow_y"] = header["srow_x"]


def truncated(path: Path) -> None:
    nifti(path, noise())
    path.write_bytes(path.read_bytes()[:-2000])


def truncated_gz(path: Path) -> None:
    nifti(path, noise())
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def colours(path: Path) -> None:
    kind = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
    nifti(path, noise((*SHAPE, 3)).astype(np.uint8).view(kind).reshape(SHAPE))


def not_finite(path: Path) -> None:
    data = noise()
    data[:, :, :2] = np.nan
    data[:, :, 2] = np.inf
    nifti(path, data)


#: Name of the file, how it is made (nothing: it is missing), and words of the line about it.
FILES = {
    "missing": ("t1w.nii.gz", None, "there is no such file"),
    "empty": ("t1w.nii.gz", lambda path: path.touch(), "empty (0 bytes)"),
    "truncated": ("t1w.nii", truncated, "t1w.nii"),
    "truncated gz": ("t1w.nii.gz", truncated_gz, "truncated"),
    "no image": ("t1w.nii.gz", lambda path: path.write_text("hello " * 99), "damaged"),
    "no image by name": ("t1w.txt", lambda path: path.write_text("hello"), "does not end in"),
    "a folder without scans": ("t1w", lambda path: path.mkdir(), "t1w"),
    "2D": ("t1w.nii", lambda path: nifti(path, noise((30, 30, 1))), "it is 2D"),
    "4D": ("t1w.nii", lambda path: nifti(path, noise((*SHAPE, 3))), "holds 3 images"),
    "colours": ("t1w.nii", colours, "colours"),
    "complex": ("t1w.nii", lambda path: nifti(path, noise().astype(np.complex64)), "complex"),
    "not finite": ("t1w.nii", not_finite, "1584 of its 6336 voxels"),
    "constant": ("t1w.nii", lambda path: nifti(path, noise() * 0 + 7), "every voxel has the value"),
    "zero spacing": ("t1w.nii", lambda path: with_header(path, pixdim(2, 0, 4)), "2 x 0 x 4 mm"),
    "negative spacing": ("t1w.nii", lambda path: with_header(path, pixdim(2, -2, 4)), "-2"),
    "100 mm spacing": ("t1w.nii", lambda path: with_header(path, pixdim(2, 2, 100)), "100 mm"),
    "singular affine": ("t1w.nii", lambda path: with_header(path, singular), "singular"),
}


@pytest.fixture
def refused(command, tiny_model, tmp_path):
    """Runs `upsample` with T1w scan and options, and checks all but the words of the line."""

    def run(t1w: Path, *options: object) -> str:
        before = sorted(p.name for p in tmp_path.rglob("*"))
        out = tmp_path / "new" / "out"
        fixed = ("--model", tiny_model, "--device", "cpu", "--out", out)
        status, stdout, err = command("upsample", "--t1w", t1w, *fixed, *options)
        assert (status, stdout) == (2, ""), err
        assert err.count("\n") == 1, err
        assert sorted(p.name for p in tmp_path.rglob("*")) == before
        return err

    return run


@pytest.mark.parametrize("case", FILES)
def test_a_file_that_is_no_scan(case, refused, tmp_path):
    name, make, problem = FILES[case]
    path = tmp_path / name
    if make is not None:
        make(path)
    err = refused(path)
    assert f"nexusinr: {name}: " in err
    assert problem in err


@pytest.mark.parametrize("option", ["--t2w", "--like"])
def test_the_other_files_are_looked_at_too(option, refused, thick_files, tmp_path):
    truncated_gz(tmp_path / "other.nii.gz")
    assert "other.nii.gz: " in refused(thick_files[0], option, tmp_path / "other.nii.gz")


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (("--spacing", "0"), "a spacing of 0 mm"),
        (("--spacing", "-1"), "a spacing of -1 mm"),
        (("--spacing", "100"), "a spacing of 100 mm"),
        (("--spacing", "nan"), "a spacing of nan mm"),
        (("--spacing", "1", "2"), "a spacing of 1 2 mm"),
        (("--spacing", "1", "1", "0"), "a spacing of 1 1 0 mm"),
        (("--roi", "400", "0", "0", "9", "9", "9"), "region 400 0 0 9 9 9"),
        (("--roi", "0", "0", "0", "9", "0", "9"), "0 0 0 9 0 9"),
        (("--consistency", "7"), "weight of 7"),
        (("--register", "affine"), "'affine'"),
        (("--device", "tpu"), "'tpu'"),
        (("--device", "cuda:x"), "'cuda:x'"),
        (("--device", "cuda:99"), "'cuda:99'"),
        (("--model", "nexus"), "unknown model 'nexus'"),
    ],
)
def test_options_that_cannot_be_used(options, problem, refused, thick_files):
    assert problem in refused(thick_files[0], *options)


def test_spacing_and_lattice_at_once(refused, thick_files):
    err = refused(thick_files[0], "--like", thick_files[1], "--spacing", "2")
    assert "choose one" in err


def test_scans_that_do_not_overlap(refused, thick_pair, thick_files, tmp_path):
    scan = thick_pair[1]
    away = scan.affine.matrix.copy()
    away[:3, 3] += (0, 0, 300)
    write_volume(tmp_path / "away.nii.gz", scan.data, Affine(away))
    err = refused(thick_files[0], "--t2w", tmp_path / "away.nii.gz")
    assert "do not overlap" in err
    assert "300 mm apart" in err


def test_heads_that_do_not_overlap(refused, thick_pair, tmp_path):
    """One lattice lies within the other, but not where that one's head is."""
    scan = thick_pair[0]
    wide = np.zeros((3 * scan.data.shape[0], *scan.data.shape[1:]), np.float32)
    wide[: scan.data.shape[0]] = scan.data
    write_volume(tmp_path / "wide.nii.gz", wide, scan.affine)
    away = scan.affine.matrix.copy()
    away[0, 3] += scan.grid.extent[0] * 2
    write_volume(tmp_path / "away.nii.gz", scan.data, Affine(away))
    err = refused(tmp_path / "wide.nii.gz", "--t2w", tmp_path / "away.nii.gz")
    assert "do not overlap" in err


# --- what is odd, but can be used -------------------------------------------------------------


def test_a_few_voxels_that_are_not_finite(command, tiny_model, thick_pair, tmp_path):
    data = thick_pair[0].data.copy()
    data[5:8, 12, 6] = np.nan
    data[13, 14, 6] = np.inf
    write_volume(tmp_path / "t1w.nii.gz", data, thick_pair[0].affine)
    status, out, _ = command(
        "upsample", "--t1w", tmp_path / "t1w.nii.gz", "--out", tmp_path / "out",
        "--model", tiny_model,
    )  # fmt: skip
    assert status == 0
    assert "Warning: T1w: 4 of 9360 voxels were not finite" in out
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert "4 of 9360 voxels were not finite" in report["warnings"][0]
    image = nib.load(tmp_path / "out" / "t1w_sr.nii.gz").get_fdata()
    assert np.isfinite(image).all()


def test_scans_that_changed_places(command, tiny_model, tmp_path):
    t1w, t2w, _ = phantom.pair(spacing=4.0, head=False)
    for name, scan in (("t1w", t1w), ("t2w", t2w)):
        write_volume(tmp_path / f"{name}.nii.gz", scan.data, scan.affine)
    status, out, _ = command(
        "upsample", "--t1w", tmp_path / "t2w.nii.gz", "--t2w", tmp_path / "t1w.nii.gz",
        "--out", tmp_path / "out", "--model", tiny_model, "--spacing", "8", "--register", "none",
    )  # fmt: skip
    assert status == 0
    assert "look swapped" in out
    warnings = json.loads((tmp_path / "out" / "report.json").read_text())["warnings"]
    assert any("look swapped" in warning for warning in warnings)


# --- memory and disk --------------------------------------------------------------------------


def test_more_memory_than_there_is(refused, command, tiny_model, thick_files, tmp_path):
    err = refused(thick_files[0], "--spacing", "0.1", "--max-memory", "2")
    assert "voxels needs" in err
    assert "GB of memory and there are 2.0 GB" in err
    fitting = err.split("a spacing of ")[1].split(" mm would fit")[0]
    assert 0.1 < float(fitting) < 1
    assert "these scans need" in refused(thick_files[0], "--max-memory", "0.2")


def test_the_spacing_that_is_proposed_fits(tiny_model, thick_files):
    session, scans = Session(tiny_model, "cpu"), read_scans(*thick_files)
    for spacing in (0.1, 0.2, (0.1, 0.3, 0.5)):
        with pytest.raises(InputError) as caught:
            check_memory(scans, target(scans, spacing, None, None).work, session, 0.9)
        fitting = float(str(caught.value).split("a spacing of ")[1].split(" mm")[0])
        check_memory(scans, target(scans, fitting, None, None).work, session, 0.9)


def test_without_a_limit_the_free_memory_counts(tiny_model, thick_files):
    session, scans = Session(tiny_model, "cpu"), read_scans(*thick_files)
    huge = Grid((9000, 9000, 9000), Affine.from_parts((0.02, 0.02, 0.02)))
    with pytest.raises(InputError, match=r"9000 x 9000 x 9000 voxels needs .* would fit"):
        check_memory(scans, huge, session, None)


@pytest.mark.parametrize("place", ["below a file", "a file", "in /proc"])
def test_output_that_cannot_be_made(place, command, tiny_model, thick_files, tmp_path):
    (tmp_path / "file").write_text("mine")
    out = {
        "below a file": tmp_path / "file" / "out",
        "a file": tmp_path / "file",
        "in /proc": Path("/proc/x"),
    }[place]
    status, _, err = command(
        "upsample", "--t1w", thick_files[0], "--out", out, "--model", tiny_model
    )
    assert (status, err.count("\n")) == (2, 1)
    assert f"nexusinr: {out}: cannot write there" in err
    assert [p.read_text() for p in tmp_path.iterdir()] == ["mine"]


def test_a_file_system_that_is_full(command, tiny_model, thick_files, tmp_path):
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("only root can make a small file system")
    full = tmp_path / "full"
    full.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", str(full)]
    if subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("this system makes no small file system")
    try:
        status, _, err = command(
            "upsample", "--t1w", thick_files[0], "--out", full / "out", "--model", tiny_model,
            "--spacing", "1.5",
        )  # fmt: skip
        assert (status, err.count("\n")) == (2, 1)
        assert "no space left on device" in err.lower()
        assert list(full.iterdir()) == []
    finally:
        subprocess.run(["umount", str(full)], check=True)


def test_files_that_may_not_grow(tiny_model, thick_files, tmp_path):
    """A limit on the size of files fails in the middle of writing, as a full disk does."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))

    done = subprocess.run(
        [
            *(sys.executable, "-m", "nexusinr.cli", "upsample", "--t1w", thick_files[0]),
            *("--out", tmp_path / "out", "--model", tiny_model, "--spacing", "1.5"),
        ],
        capture_output=True,
        text=True,
        preexec_fn=limit,
    )
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "t1w_sr.nii.gz" in done.stderr
    assert list(tmp_path.iterdir()) == []


# --- weights ----------------------------------------------------------------------------------


def test_damaged_weights(refused, tiny_model, thick_files):
    network, card = weights.load(tiny_model)
    copy = {"name": "damaged", "architecture": "NexusINR", "version": "1", "config": card.config}
    file = weights.save(network, weights.user_folder(), copy)
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    try:
        err = refused(thick_files[0], "--model", "damaged")
        assert "damaged.safetensors: the weights are damaged or were changed" in err
        file.unlink()
        assert "are missing" in refused(thick_files[0], "--model", "damaged")
    finally:
        file.with_suffix(".json").unlink()


def test_a_volume_is_not_asked_for_its_file(tiny_model):
    """Scans given from Python meet the same checks as files."""
    constant = Volume(np.full(SHAPE, 5, np.float32), Affine.from_parts((2, 2, 4)))
    with pytest.raises(InputError, match="T1w: every voxel"):
        upsample(t1w=constant, model=tiny_model)
    broken = constant.replace(data=np.full(SHAPE, np.nan, np.float32))
    with pytest.raises(InputError, match="T2w: the scan has 6336 voxels that are not finite"):
        upsample(t2w=broken, model=tiny_model)
    good = constant.replace(data=noise())
    with pytest.raises(InputError, match="the scan has 6336 voxels that are not finite"):
        upsample(t1w=good, t2w=broken, model=tiny_model)


# --- what damage of every kind has found (Testing/Benchmarks/fuzz.py) -----------------------------


def test_data_that_unpacks_without_end(tmp_path):
    path = tmp_path / "t1w.nii.gz"
    nifti(path, noise())
    path.write_bytes(path.read_bytes() + gzip.compress(bytes(1 << 24)) * 200)  # 3.4 GB
    with pytest.raises(InputError, match=r"^t1w\.nii\.gz: .* more than 200 times its size"):
        read_volume(path)


@pytest.mark.parametrize(
    ("field", "words"),
    [
        ("kinds: " + "domain " * 400, "'kinds' in"),
        ("KINDS: domain domain domain domain", "'kinds' as 'domain domain domain domain'"),
        ("space: " + "- " * 3000, "'space' in"),
        ("dimension: 3", "'dimension' twice"),
        ("space orig" + "x" * 70_000, "without a field's name"),
    ],
)
def test_nrrd_headers_that_itk_reads_beyond_its_buffers(field, words, tmp_path):
    path = tmp_path / "t1w.nrrd"
    write_volume(path, noise(), Affine.from_parts((2, 2, 4)))
    header, _, rest = path.read_bytes().partition(b"\n\n")
    name = field.partition(":")[0].lower()
    lines = [line for line in header.decode().split("\n") if not line.startswith(f"{name}:")]
    if name == "dimension":
        lines = header.decode().split("\n")
    path.write_bytes("\n".join([*lines, field]).encode() + b"\n\n" + rest)
    with pytest.raises(InputError, match=words):
        read_volume(path)


def test_a_place_of_the_voxels_that_is_no_number(tmp_path):
    def endless(header: np.ndarray) -> None:
        header["vox_offset"] = np.inf

    with_header(tmp_path / "t1w.nii", endless)
    with pytest.raises(InputError, match=r"^t1w\.nii: "):
        read_volume(tmp_path / "t1w.nii")


@pytest.mark.parametrize(
    "line",
    [
        b'{"id": 1, "op": "estimate", "t1w": "\\ud800"}',
        b'{"id": 1, "op": "status", "x": "' + b"x" * protocol.MAX_LINE + b'"}',
    ],
)
def test_messages_that_no_program_sends(line):
    with pytest.raises(protocol.RequestError):
        protocol.parse(line)


def test_events_that_are_nested_without_end():
    with pytest.raises(ValueError, match="nested"):
        protocol.EventReader().feed(b"[" * 100_000 + b"\n")


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"name": ["a"]}, "cannot be the name of a model"),
        ({"name": "x" * 300}, "cannot be the name of a model"),
        ({"version": 7}, "version is 7, not a text"),
        ({"architecture": "x" * 70_000}, "unknown architecture"),
        ({"config": {"features": 10**9}}, "'features' is 1000000000, not a whole number"),
        ({"config": {"features": 1024, "growth": 1024, "blocks": 60}}, "do not fit the network"),
    ],
)
def test_cards_that_ask_for_the_impossible(changes, problem, tmp_path, monkeypatch):
    monkeypatch.setenv("NEXUSINR_HOME", str(tmp_path / "home"))
    card = {"name": "a", "architecture": "NexusINR", "version": "1", "config": {}, **changes}
    file = tmp_path / "given.safetensors"
    save_file({"x": np.zeros(3)}, file, {"card": json.dumps(card)})
    with pytest.raises(InputError, match=problem) as caught:
        weights.import_weights(file)
    assert len(str(caught.value)) < 500
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: &a [1, 2]\nsteps: *a\n", "refers to its own parts"),
        ("model: " + "[" * 3000, "brackets at most"),
        ("name: " + "x" * 40_000, "characters"),
        ("- " * 3000, "nested too deeply"),
        ("data: [1]\n", r"data is \[1\], not a path"),
        (f"base: {'x' * 300}\n", "not the name of a file"),
    ],
)
def test_configurations_that_take_all_time_and_memory(text, problem, tmp_path):
    pytest.importorskip("yaml")
    (tmp_path / "run.yaml").write_text(text)
    with pytest.raises(ValueError, match=problem):
        read_yaml(tmp_path / "run.yaml")
