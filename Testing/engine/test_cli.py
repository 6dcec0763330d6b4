"""The command line: exit statuses, JSON lines, and every command once."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import nexusinr
from nexusinr.geometry import Affine
from nexusinr.models import weights
from nexusinr.volume import read_volume, write_volume

RUN = (sys.executable, "-m", "nexusinr.cli")

COMMANDS = (
    "upsample", "degrade", "evaluate", "train", "models", "demo", "view", "batch", "benchmark",
)  # fmt: skip

#: What report.json promises.
REPORT_FIELDS = {
    "inputs",
    "lattice",
    "model",
    "device",
    "registration",
    "consistency",
    "tissue_volumes_ml",
    "seconds",
    "peak_memory_gb",
    "warnings",
}


def events(stdout: str) -> list[dict]:
    return [json.loads(line) for line in stdout.splitlines()]


# --- help and usage ---------------------------------------------------------------------------


def test_help_is_there_at_once():
    """0.3 s of processor time, the best of three: what else runs on the machine does not count."""
    took = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run([*RUN, "--help"], capture_output=True, text=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        took.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(took) < 0.3
    for name in COMMANDS:
        assert name in done.stdout


def test_it_tells_its_version(command):
    assert command("--version") == (0, f"nexusinr {nexusinr.__version__}\n", "")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name, command):
    status, out, err = command(name, "--help")
    assert (status, err) == (0, "")
    assert f"nexusinr {name}" in out


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ((), "Missing command"),
        (("upsmaple",), "upsmaple"),
        (("upsample", "--t1w", "a.nii.gz"), "'--out'"),
        (("upsample", "--out", "o", "--sharpen"), "--sharpen"),
        (("upsample", "--out", "o", "--t1w", "a.nii.gz", "--spacing"), "--spacing"),
        (("upsample", "--out", "o", "--t1w", "a.nii.gz", "--spacing", "fine"), "'fine'"),
        (("upsample", "--out", "o", "--t1w", "a.nii.gz", "--spacing", "1", "1", "1", "1"), "1"),
        (("upsample", "--out", "o", "--t1w", "a.nii.gz", "--roi", "0", "0", "0"), "--roi"),
        (("upsample", "--out", "o", "--t1w", "a.nii.gz", "--threads", "0"), "--threads"),
        (("upsample", "--out", "o", "--t1w", "a.nii.gz", "--max-memory", "0"), "--max-memory"),
        (("upsample", "--out", "o"), "no scan given"),
        (("degrade", "a.nii.gz", "--thickness", "3", "--axis", "w", "--out", "o.nii.gz"), "'w'"),
        (("models", "import"), "'file'"),
        (("models", "rename"), "rename"),
    ],
)
def test_usage_errors_are_one_line(arguments, problem, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, out, err = command(*arguments)
    assert (status, out) == (2, "")
    assert err.count("\n") == 1
    assert problem in err
    assert list(tmp_path.iterdir()) == []


# --- upsample ---------------------------------------------------------------------------------


def test_a_whole_run_in_a_process_of_its_own(tiny_model, thick_files, tmp_path):
    t1w, t2w = thick_files
    options = ("--model", tiny_model, "--spacing", "2", "2", "2.5", "--threads", "1", "--json")
    done = subprocess.run(
        [*RUN, "upsample", "--t1w", t1w, "--t2w", t2w, "--out", tmp_path / "out", *options],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    *progress, result = events(done.stdout)
    assert all(set(e) == {"event", "fraction", "step", "eta_s"} for e in progress)
    assert {e["event"] for e in progress} == {"progress"}
    fractions = [e["fraction"] for e in progress]
    assert fractions == sorted(fractions)
    assert (fractions[0], fractions[-1]) == (0, 1)
    assert result["event"] == "result"
    assert set(result["report"]) >= REPORT_FIELDS
    assert result["report"]["lattice"]["spacing_mm"] == [2, 2, 2.5]
    assert result["report"]["device"]["description"].startswith("CPU, 1 thread")
    for name, path in result["files"].items():
        assert Path(path) == tmp_path / "out" / name
    assert {p.name for p in (tmp_path / "out").iterdir()} == set(result["files"])
    assert json.loads((tmp_path / "out" / "report.json").read_text()) == result["report"]


def test_the_report_says_what_the_contract_promises(command, tiny_model, thick_files, tmp_path):
    t1w, t2w = thick_files
    status, out, err = command(
        "upsample", "--t1w", t1w, "--t2w", t2w, "--out", tmp_path / "out", "--model", tiny_model,
        "--register", "none", "--consistency", "0.5", "--device", "cpu",
    )  # fmt: skip
    assert (status, err) == (0, "")
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert set(report) >= REPORT_FIELDS
    first = report["inputs"][0]
    assert (first["modality"], first["path"]) == ("T1w", str(t1w))
    assert first["sha256"] == weights.sha256(t1w)
    assert (first["spacing_mm"], first["orientation"]) == ([2, 2, 4], "RAS")
    card = weights.find(tiny_model)
    assert report["model"] == {"name": "tiny", "version": "0", "sha256": card.sha256}
    assert report["device"]["name"] == "cpu"
    assert report["registration"]["mode"] == "none"
    for modality in ("T1w", "T2w"):
        kept = report["consistency"][modality]
        assert 0 < kept["after"] < kept["before"]
    assert report["consistency"]["weight"] == 0.5
    assert set(report["tissue_volumes_ml"]) == {
        "cerebrospinal fluid", "grey matter", "white matter", "deep grey matter", "lesion",
    }  # fmt: skip
    assert sum(report["seconds"].values()) > 0
    assert 0.05 < report["peak_memory_gb"] < 50
    for name in ("t1w_sr.nii.gz", "t2w_sr.nii.gz", "segmentation.nii.gz", "comparison.png"):
        assert str(tmp_path / "out" / name) in out
    assert "Tissues: cerebrospinal fluid" in out
    assert "not for primary diagnosis" in out


def test_what_is_not_wanted_is_left_out(command, tiny_model, thick_files, tmp_path):
    status, _, _ = command(
        "upsample", "--t2w", thick_files[1], "--out", tmp_path, "--model", tiny_model,
        "--no-segmentation", "--roi", "0", "-2", "1", "16", "16", "16",
    )  # fmt: skip
    assert status == 0
    names = {p.name for p in tmp_path.iterdir()}
    assert names == {"t2w_sr.nii.gz", "comparison.png", "report.json"}
    extent = read_volume(tmp_path / "t2w_sr.nii.gz").grid.extent
    assert (np.abs(extent - 16) <= 2.5).all()


def test_errors_are_events_too(command, tiny_model, tmp_path):
    status, out, err = command(
        "upsample", "--t1w", tmp_path / "gone.nii.gz", "--out", tmp_path / "out", "--json"
    )
    assert status == 2
    assert err.count("\n") == 1
    last = events(out)[-1]
    assert (last["event"], last["code"]) == ("error", 2)
    assert "gone.nii.gz" in last["message"]
    status, out, _ = command("upsample", "--json")
    assert status == 2
    assert "--out" in events(out)[-1]["message"]


def test_out_of_memory_is_status_3(tiny_model, thick_files, tmp_path):
    """With the check before the run talked out of it, and an address space that is too small."""
    code = (
        "import resource, sys\n"
        "import nexusinr.inference.pipeline\n"
        "from nexusinr.cli import main\n"
        "size = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (size + 150_000_000,) * 2)\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    if not Path("/proc/self/statm").exists():
        pytest.skip("this system does not say how large the process is")
    done = subprocess.run(
        [
            *(sys.executable, "-c", code, "upsample", "--t1w", thick_files[0]),
            *("--out", tmp_path / "out", "--model", tiny_model, "--spacing", "0.15"),
            *("--max-memory", "1000", "--threads", "1", "--json"),
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 3, done.stderr
    assert done.stderr.count("\n") == 1
    assert "out of memory" in done.stderr
    assert events(done.stdout)[-1]["code"] == 3
    assert not (tmp_path / "out").exists()


# --- the other commands -----------------------------------------------------------------------


@pytest.mark.parametrize(("axis", "thick"), [("x", 2), ("y", 0), ("z", 1)])
def test_degrade_takes_the_patient_axis(axis, thick, command, tmp_path):
    direction = np.array([[0, 0, -1], [1, 0, 0], [0, 1, 0]])  # array axes: A, S, L
    data = np.random.default_rng(0).uniform(10, 90, (24, 22, 20)).astype(np.float32)
    write_volume(tmp_path / "fine.nii.gz", data, Affine.from_parts((1, 1, 1), direction))
    status, out, err = command(
        "degrade", tmp_path / "fine.nii.gz", "--thickness", "3", "--axis", axis, "--gap", "1",
        "--out", tmp_path / "thick.nrrd",
    )  # fmt: skip
    assert (status, err) == (0, "")
    spacing = read_volume(tmp_path / "thick.nrrd").affine.spacing
    assert spacing[thick] == pytest.approx(4)
    assert sorted(spacing) == pytest.approx([1, 1, 4])
    assert "slices 3.00 mm thick" in out


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (("--thickness", "0.5", "--axis", "z"), "0.5 mm cannot be made"),
        (("--thickness", "nan", "--axis", "z"), "nan"),
        (("--thickness", "3", "--axis", "z", "--gap", "-1"), "-1"),
        (("--thickness", "300", "--axis", "x"), "no slice of 300 mm"),
    ],
)
def test_degrade_refuses(options, problem, command, tmp_path):
    data = np.random.default_rng(0).uniform(10, 90, (12, 12, 12)).astype(np.float32)
    write_volume(tmp_path / "fine.nii.gz", data, Affine(np.eye(4)))
    status, _, err = command(
        "degrade", tmp_path / "fine.nii.gz", *options, "--out", tmp_path / "thick.nii.gz"
    )
    assert status == 2
    assert err.count("\n") == 1
    assert problem in err
    assert "fine.nii.gz" in err
    assert not (tmp_path / "thick.nii.gz").exists()


def test_models_from_list_to_remove(command, tiny_model, tmp_path):
    status, out, _ = command("models")
    assert status == 0
    assert "tiny" in out
    assert command("models", "list")[1] == out
    status, out, _ = command("models", "verify", tiny_model)
    assert status == 0
    assert weights.find(tiny_model).sha256 in out

    network, card = weights.load(tiny_model)
    names = {"name": "mine", "architecture": "NexusINR", "version": "7", "config": card.config}
    file = weights.save(network, tmp_path, names)
    status, out, _ = command("models", "import", file)
    assert (status, "--model mine" in out) == (0, True)
    assert "mine" in command("models")[1]
    assert command("models", "remove", "mine")[0] == 0
    assert "mine" not in command("models")[1]
    status, _, err = command("models", "remove", "mine")
    assert (status, err.count("\n"), "'mine'" in err) == (2, 1, True)


def test_evaluate_writes_its_tables(command, tiny_model, thick_pair, tmp_path):
    scan = thick_pair[0]
    fine = Affine.from_parts((2, 2, 2), origin=(-25, -29, -23))
    folder = tmp_path / "pairs" / "child01"
    folder.mkdir(parents=True)
    for seed, name in enumerate(("T1w", "T2w")):
        data = np.repeat(scan.data, 2, axis=2)
        data += np.random.default_rng(seed).normal(0, 20, data.shape) * (data > 0)
        write_volume(folder / f"{name}.nii.gz", data.astype(np.float32), fine)
    status, out, err = command(
        "evaluate", tmp_path / "pairs", "--models", tiny_model, "--out", tmp_path / "table",
        "--device", "cpu",
    )  # fmt: skip
    assert (status, err) == (0, "")
    for method in ("trilinear", "cubic", tiny_model):
        assert f"| T1w | {method} |" in out
    rows = (tmp_path / "table" / "scores.csv").read_text()
    assert rows.count(f",{tiny_model},") == 2
    status, _, err = command(
        "evaluate", tmp_path / "pairs", "--models", "other", "--out", tmp_path / "no"
    )
    assert (status, "'other'" in err, (tmp_path / "no").exists()) == (2, True, False)
    safety = ("evaluate", tmp_path / "pairs", "--protocol", "safety", "--out", tmp_path / "no")
    status, _, err = command(*safety, "--models", tiny_model, "--table", "1")
    assert (status, "stands alone" in err, (tmp_path / "no").exists()) == (2, True, False)
    status, out, _ = command(*safety, "--models", tiny_model)
    page = (tmp_path / "no" / "safety.md").read_text()
    assert (status, page.strip() in out, tiny_model in page) == (0, True, True)


TRAINING = """
name: {name}
data: {data}
out: {out}
device: cpu
steps: STEPS
batch: 1
patch: 8
warmup: 1
model: {{features: 4, growth: 4, blocks: 1, layers: 1, decoder_width: 8, attention_width: 4}}
"""


@pytest.fixture
def training(tmp_path, thick_pair) -> str:
    """A configuration over one training pair, its `steps` left open."""
    data = tmp_path / "data"
    folder = data / "pairs" / "infant99"
    folder.mkdir(parents=True)
    (data / "split.csv").write_text("subject,split\ninfant99,train\n")
    fine = Affine.from_parts((1, 1, 1))
    for seed, name in enumerate(("T1w", "T2w")):
        image = np.random.default_rng(seed).uniform(20, 200, (40, 40, 40)).astype(np.float32)
        write_volume(folder / f"{name}.nii.gz", image, fine)
    return TRAINING.format(name="small", data=data, out=tmp_path / "run")


def test_train_stops_goes_on_and_gives_weights(command, training, tmp_path, tiny_model):
    config = tmp_path / "small.yaml"
    config.write_text(training.replace("STEPS", "1"))
    status, out, err = command("train", config)
    assert (status, err) == (0, "")
    file = tmp_path / "run" / "small.safetensors"
    assert str(file) in out
    assert json.loads(file.with_suffix(".json").read_text())["version"] == "1 steps"
    config.write_text(training.replace("STEPS", "2"))
    status, _, err = command("train", config)
    assert (status, "--resume" in err, err.count("\n")) == (2, True, 1)
    assert command("train", config, "--resume")[0] == 0
    assert json.loads(file.with_suffix(".json").read_text())["version"] == "2 steps"
    assert command("models", "import", file)[0] == 0
    assert command("models", "remove", "small")[0] == 0


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("steps: 5\nlearning_rte: 0.1", "learning_rte"),
        ("steps: 5\nlearning_rate: 1e-3", "learning_rate is '1e-3', not a number"),
        ("steps: 5.5", "steps is 5.5, not a whole number"),
        ("model: {fetures: 4}", "fetures"),
        ("steps: [", "YAML"),
        ("- steps", "no keys and values"),
        ("steps: 5", "no training data"),
        ("data: /nowhere", "/nowhere"),
    ],
)
def test_train_refuses(text, problem, command, tmp_path, monkeypatch):
    monkeypatch.delenv("NEXUSINR_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.yaml").write_text(text)
    status, _, err = command("train", "bad.yaml")
    assert (status, err.count("\n")) == (2, 1)
    assert problem in err
    assert [p.name for p in tmp_path.iterdir()] == ["bad.yaml"]


def test_the_configurations_that_ship(monkeypatch, tmp_path, command):
    from nexusinr.cli.train import read_config
    from nexusinr.models.nexus_inr import NexusINRConfig

    monkeypatch.setenv("NEXUSINR_DATA", str(tmp_path))
    small, paper = read_config(Path("nexus-inr")), read_config(Path("nexus-inr-paper"))
    assert small.config.model == NexusINRConfig()
    assert paper.config.model == NexusINRConfig.paper()
    assert small.name == "nexus-inr"
    assert small.data == tmp_path
    status, _, err = command("train", "nexus-inr-large")
    assert (status, "nexus-inr, nexus-inr-paper" in err) == (2, True)


def test_the_demo_tells_gains_over_interpolation(command, tiny_model, tmp_path, monkeypatch):
    from nexusinr.cli import demo

    monkeypatch.setattr(demo, "SPACING", 3.0)
    monkeypatch.setenv("VIEW", "0")
    status, out, err = command("demo", "--out", tmp_path, "--model", tiny_model, "--device", "cpu")
    assert (status, err) == (0, "")
    lines = out.splitlines()
    header = next(n for n, line in enumerate(lines) if line.startswith("PSNR"))
    for line, name in zip(lines[header + 1 : header + 3], ("T1w", "T2w"), strict=True):
        first, *numbers = line.split()
        assert first == name
        assert all(float(number) > 10 for number in numbers)
        assert len(numbers) == 3
    assert lines[-1] == f"The picture: {tmp_path / 'comparison.png'}"
    assert {"t1w.nii.gz", "t2w.nii.gz", "comparison.png"} <= {p.name for p in tmp_path.iterdir()}
