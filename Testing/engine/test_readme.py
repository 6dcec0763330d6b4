"""What README tells its readers to type works: commands and snippets are run, the rest is checked.

The user's scans are a box cut from the computed head that comes with the Slicer module; the weights
are small and random, under the names of those that ship.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import torch
import typer
import yaml
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid
from typer.main import get_command

from nexusinr.cli import app, main
from nexusinr.geometry import Grid
from nexusinr.models import weights
from nexusinr.models.iconet import ICONet, ICONetConfig
from nexusinr.models.nexus_inr import NexusINR, NexusINRConfig
from nexusinr.volume import Volume, read_volume, write_volume

ROOT = Path(__file__).resolve().parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "Resources" / "Docs").glob("*.md")))
SAMPLES = ROOT / "NexusINR" / "Resources" / "SampleData"

#: Extras, dependencies and addresses of the package.
PROJECT = metadata("nexusinr")

#: Middle and size of the box that is cut from the head, RAS, mm: brain, skull and air.
MIDDLE, SIZE = (10.0, 55.0, 25.0), 40.0

#: What stands in README and is run elsewhere, on smaller data, or nowhere: it needs a cluster.
ELSEWHERE = {
    "nexusinr batch BIDS derivatives": "Testing/cohort runs it",
    "nexusinr batch BIDS derivatives --slurm slurm.yaml": "it needs a cluster",
    "nexusinr view t1w.nii.gz t2w.nii.gz": "Testing/web runs it",
    ".venv/bin/nexusinr --help": "it is another installation",
}


# --- what stands there --------------------------------------------------------------------------


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: Path
    language: str
    text: str


def blocks_of(*languages: str, pages: tuple[Path, ...] = PAGES) -> list[Block]:
    """All blocks in these languages; what other commands generate is left out."""
    found = []
    for page in pages:
        text = re.sub(
            r"<!-- results:begin.*?results:end -->", "", page.read_text("utf-8"), flags=re.S
        )
        for indent, language, body in re.findall(r"^( *)```(\w+)\n(.*?)^ *```$", text, re.M | re.S):
            if language in languages:
                found.append(Block(page, language, re.sub(rf"^{indent}", "", body, flags=re.M)))
    return found


def commands_in(block: Block) -> list[str]:
    """Its commands, one a line, comments left out."""
    lines = block.text.replace("\\\n", " ").splitlines()
    return [line for line in (re.sub(r"(^|\s)#.*", "", line).strip() for line in lines) if line]


COMMANDS = [(b.page, c) for b in blocks_of("sh") for c in commands_in(b)]
INLINE = [
    (page, " ".join(code.split()))
    for page in PAGES
    for code in re.findall(
        r"(?<!`)`((?:nexusinr|make|python|pip|PythonSlicer) [^`…]*)`", page.read_text("utf-8")
    )
]
RUN = [c for page, c in COMMANDS if page == PAGES[0] and c.startswith("nexusinr ")]


def title(value: Any) -> str:
    return f"{value[0].name}: {value[1]}" if isinstance(value, tuple) else str(value)


# --- the user's folder --------------------------------------------------------------------------


def cut(scan: Volume) -> Volume:
    """The box of a scan."""
    index = scan.affine.to_index(np.array(MIDDLE) + np.array([[-1], [1]]) * SIZE / 2)
    start = np.maximum(np.sort(index, axis=0)[0].round().astype(int), 0)
    stop = np.minimum(np.sort(index, axis=0)[1].round().astype(int), scan.data.shape)
    i, j, k = (slice(a, b) for a, b in zip(start, stop, strict=True))
    return Volume(scan.data[i, j, k], scan.grid.crop(start, stop).affine)


def write_dicom(folder: Path, scan: Volume, number: int) -> None:
    """A scan as an MR series, one file a slice."""
    folder.mkdir(parents=True)
    flip = np.diag((-1.0, -1.0, 1.0))
    axis = int(np.argmax(scan.affine.spacing))
    first, second = (a for a in range(3) if a != axis)
    direction = scan.affine.direction
    for k in range(scan.data.shape[axis]):
        index = np.zeros(3)
        index[axis] = k
        ds = Dataset()
        ds.SOPClassUID, ds.SOPInstanceUID = MRImageStorage, generate_uid()
        ds.StudyInstanceUID, ds.FrameOfReferenceUID = "1.2.3", "1.2.5"
        ds.SeriesInstanceUID, ds.SeriesNumber = f"1.2.4.{number}", number
        ds.Modality, ds.PatientID, ds.PatientName, ds.InstanceNumber = "MR", "1", "Doe", k + 1
        ds.ImagePositionPatient = (flip @ scan.affine.apply(index)).round(6).tolist()
        directions = (flip @ direction[:, [first, second]]).T.ravel()
        ds.ImageOrientationPatient = directions.round(9).tolist()
        ds.PixelSpacing = scan.affine.spacing[[second, first]].round(6).tolist()
        ds.SliceThickness = round(float(scan.affine.spacing[axis]), 6)
        ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
        ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 0
        plane = np.take(scan.data, k, axis).T
        ds.Rows, ds.Columns = plane.shape
        ds.PixelData = np.rint(plane).astype("<u2").tobytes()
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        pydicom.dcmwrite(folder / f"{k}.dcm", ds, enforce_file_format=True)


def write_training(folder: Path, t1w: Volume, t2w: Volume) -> None:
    """README's configuration, on two small people, for a step of a small network."""
    for person in ("sub-06", "sub-07"):
        (folder / "study" / person / "anat").mkdir(parents=True)
        for scan, name in ((t1w, "T1w"), (t2w, "T2w")):
            path = folder / "study" / person / "anat" / f"{person}_{name}.nii.gz"
            write_volume(path, scan.data, scan.affine)
    [block] = blocks_of("yaml", pages=PAGES[:1])[1:]
    model = {"features": 8, "growth": 8, "blocks": 1, "layers": 2, "decoder_width": 32}
    small = {"data": str(folder / "study"), "steps": 2, "patch": 16, "batch": 1, "device": "cpu"}
    values = {**yaml.safe_load(block.text), **small, "model": model}
    (folder / "mine.yaml").write_text(yaml.safe_dump(values))


def write_weights(folder: Path) -> None:
    """Small networks under the names of those that ship."""
    torch.manual_seed(0)
    nexus = NexusINR(NexusINRConfig(features=8, growth=8, blocks=1, layers=2, decoder_width=32))
    iconet = ICONet(ICONetConfig(features=8, blocks=1, reach=1))
    for name, network in (("nexus-inr", nexus), ("iconet", iconet)):
        config = network.config.to_dict()
        card = {"name": name, "architecture": type(network).__name__, "version": "0"}
        weights.save(network, folder, {**card, "config": config})


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with everything that README's examples name."""
    from nexusinr.training import phantom

    folder = tmp_path_factory.mktemp("user")
    scans = [cut(read_volume(SAMPLES / f"phantom_{m}.nii.gz")) for m in ("T1w", "T2w")]
    box = Grid.from_corner((40, 40, 40), (1, 1, 1), np.eye(3), np.array(MIDDLE) - SIZE / 2)
    fine = phantom.Phantom().images(box, ("T1w", "T2w"))[0]
    for names, pair in (
        (("t1w.nii.gz", "t2w.nii.gz"), scans),
        (("fine.nii.gz", "atlas.nii.gz"), fine),
        (("FOLDER/one/T1w.nii.gz", "FOLDER/one/T2w.nii.gz"), fine),
        (("BIDS/sub-01/anat/sub-01_T1w.nii.gz", "BIDS/sub-01/anat/sub-01_T2w.nii.gz"), scans),
    ):
        for name, scan in zip(names, pair, strict=True):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            write_volume(folder / name, scan.data, scan.affine)
    for number, scan in enumerate(scans, start=1):
        write_dicom(folder / "dicom" / f"t{number}", scan, number)
    description = '{"Name": "one head", "BIDSVersion": "1.10.0"}'
    (folder / "BIDS" / "dataset_description.json").write_text(description)
    (folder / "pairs.csv").write_text(blocks_of("csv")[0].text)
    (folder / "slurm.yaml").write_text(blocks_of("yaml")[0].text)
    write_training(folder, *fine)
    write_weights(folder / "weights")
    return folder


@pytest.fixture
def here(place, monkeypatch) -> Path:
    """The same as working folder, with models of its own."""
    monkeypatch.chdir(place)
    monkeypatch.setattr(weights, "BUNDLED", place / "weights")
    monkeypatch.setenv("NEXUSINR_HOME", str(place / "home"))
    return place


# --- what is run --------------------------------------------------------------------------------


@pytest.mark.parametrize("line", [c for c in RUN if c not in ELSEWHERE])
def test_the_command_runs(line: str, here: Path, capfd) -> None:
    """In the order in which they stand there: some need what others leave."""
    for package in ("bids", "highdicom", "torchmetrics"):
        pytest.importorskip(package, reason="README's commands need all extras")
    arguments = shlex.split(line)[1:]
    assert main(arguments) == 0, capfd.readouterr().err
    if arguments[0] in ("upsample", "evaluate"):
        assert any((here / arguments[arguments.index("--out") + 1]).iterdir())


def test_nothing_is_left_out_for_no_reason() -> None:
    assert set(ELSEWHERE) <= {command for _, command in COMMANDS}
    assert len(RUN) > 12


PYTHON = blocks_of("python", pages=PAGES[:1])


@pytest.mark.parametrize("block", [b for b in PYTHON if "slicer" not in b.text.lower()])
def test_the_snippet_runs(block: Block, here: Path) -> None:
    with contextlib.redirect_stdout(io.StringIO()) as said:
        exec(compile(block.text, block.page.name, "exec"), {"__name__": "__main__"})
    assert said.getvalue().strip()


#: Slicer's Python console on its stand-ins: two volumes are loaded, then each snippet is run.
CONSOLE = """
import sys, time
from pathlib import Path
root, folder, *snippets = sys.argv[1:]
sys.path[:0] = [f"{root}/Testing/slicer/standins", f"{root}/NexusINR"]
import slicerapp
app = slicerapp.start(Path(folder) / "slicer")
import slicer
from slicerapp import modules
modules.load_module(Path(root, "NexusINR", "NexusINR.py"))
for text in snippets:
    for name in ("t1w", "t2w"):
        slicer.util.loadVolume(f"{folder}/{name}.nii.gz", {"name": name[:2].upper()})
    names = {"slicer": slicer, "__name__": "__main__"}
    exec(text, names)
    while "run" in names and not names["run"].finished:
        app.processEvents()
        time.sleep(0.01)
    if "run" in names:
        assert names["run"].error is None, names["run"].error
        print("restored", *names["run"].results.restored)
    slicer.mrmlScene.Clear(0)
"""


def test_the_snippets_for_slicer_run(place: Path, tmp_path: Path, tiny_model: str) -> None:
    for package in ("PySide6", "trame_slicer"):
        pytest.importorskip(package, reason=f"{package} is not installed: see pyproject.toml")
    for name in ("t1w", "t2w"):
        shutil.copy(place / f"{name}.nii.gz", tmp_path)
    (tmp_path / "slicer").mkdir()
    case = tmp_path / "data" / "case"
    case.mkdir(parents=True)
    for name in ("T1w", "T2w"):
        shutil.copy(place / f"{name.lower()}.nii.gz", case / f"{name}.nii.gz")
    snippets = [b.text for b in PYTHON if "slicer" in b.text.lower()]
    assert len(snippets) == 3
    snippets = [text.replace("/data", str(tmp_path / "data")) for text in snippets]
    quick = f"spacing=2.0, model='{tiny_model}'"
    snippets = [re.sub(r"spacing=(\([^)]*\)|[\d.]+)", quick, text) for text in snippets]
    command = [sys.executable, "-c", CONSOLE, str(ROOT), str(tmp_path), *snippets]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "grey matter" in done.stdout
    assert "restored T1w T2w" in done.stdout
    assert {path.name for path in case.glob("*_restored*")} == {
        "T1w_restored.nii.gz",
        "T2w_restored.nii.gz",
    }


def test_the_options_for_a_cluster_are_taken(here: Path) -> None:
    cluster = pytest.importorskip("nexusinr.cohort.cluster", reason="the cohort extra is missing")
    jobqueue = pytest.importorskip("dask_jobqueue.slurm", reason="dask-jobqueue is not installed")
    options = cluster.read_slurm(Path("slurm.yaml"))
    script = jobqueue.SLURMJob(scheduler="tcp://127.0.0.1:1", name="one", **options).job_script()
    assert "--mem=15G" in script
    assert "-t 02:00:00" in script


#: Imports what the commands of a plain `pip install .` need, where no extra is installed.
PLAIN = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in sys.argv[1:]:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
from nexusinr import acquisition, upsample
from nexusinr.cli import main
from nexusinr.evaluation.metrics import psnr
from nexusinr.training.phantom import pair
from nexusinr.evaluation.benchmark import measure
from nexusinr.models import check_case
sys.exit(main(["evaluate", ".", "--out", "nowhere"]))
"""


def test_a_plain_installation_has_what_its_commands_import(here: Path) -> None:
    """And what it has not is said in one sentence."""
    wanted = [need for need in PROJECT.get_all("Requires-Dist") if "extra ==" in need]
    names = {re.split(r"[^\w-]", need)[0].replace("-", "_").lower() for need in wanted}
    imported_as = {"pyyaml": "yaml", "pybids": "bids", "pillow": "PIL", "trame_slicer": "slicer"}
    absent = {*names, *(imported_as[name] for name in names & imported_as.keys())} - {
        "PIL",
        "nexusinr",
    }
    command = [sys.executable, "-c", PLAIN, *absent]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert "nexusinr: this command needs monai, which is not installed" in done.stderr


# --- what is checked ----------------------------------------------------------------------------


def check_nexusinr(words: list[str]) -> None:
    """The command exists, and takes these arguments: they are parsed, nothing is run."""
    command, arguments = get_command(app), words
    while hasattr(command, "commands") and arguments and not arguments[0].startswith("-"):
        assert arguments[0] in command.commands, f"there is no command {arguments[0]!r}"
        command, arguments = command.commands[arguments[0]], arguments[1:]
    if "--help" not in arguments and arguments:
        from nexusinr.cli import _joined

        command.make_context("nexusinr", _joined(arguments))


def check_make(words: list[str]) -> None:
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.M)
    assert {word for word in words if "=" not in word} <= set(targets), words


def check_pip(words: list[str]) -> None:
    """Extras, files of requirements and constraints exist."""
    assert words[0] in ("install", "wheel", "download")
    for flag, value in itertools.pairwise(words):
        if flag in ("-r", "-c"):
            assert any((ROOT / at / value).is_file() for at in ("", "NexusINR/Resources")), value
    for word in words:
        if named := re.fullmatch(r"(?:\.|nexusinr)\[(.*)\]", word):
            assert set(named[1].split(",")) <= set(PROJECT.get_all("Provides-Extra")), word
        elif word.startswith("torch>"):
            wanted = {
                frozenset(re.split(",|(?<=torch)", n)) for n in PROJECT.get_all("Requires-Dist")
            }
            assert frozenset(re.split(",|(?<=torch)", word)) in wanted, word


def check_python(words: list[str]) -> None:
    """The script exists and can be compiled."""
    if words[0] != "-m":
        compile((ROOT / words[0]).read_text("utf-8"), words[0], "exec")


def check_container(words: list[str]) -> None:
    """The recipe exists; what the container is given is a command of ours."""
    if words[0] == "build":
        recipe = words[words.index("-f") + 1] if "-f" in words else words[-1]
        assert (ROOT / recipe).is_file(), recipe
    else:
        image = next(n for n, word in enumerate(words) if word in ("nexusinr", "nexusinr.sif"))
        check_nexusinr(words[image + 1 :])


def check_apt(words: list[str]) -> None:
    """The packages that continuous integration installs."""
    [packages] = re.findall(r'system_packages="(.*?)"', (ROOT / ".ci" / "run").read_text(), re.S)
    assert words[1:] == packages.split()


def check_git(words: list[str]) -> None:
    [homepage] = [url for url in PROJECT.get_all("Project-URL") if url.startswith("Homepage, ")]
    assert words == ["clone", homepage.removeprefix("Homepage, ") + ".git"]


CHECKS: dict[str, Callable[[list[str]], None]] = {
    "nexusinr": check_nexusinr,
    ".venv/bin/nexusinr": check_nexusinr,
    "make": check_make,
    "pip": check_pip,
    "python": check_python,
    "PythonSlicer": lambda words: check_pip(words[2:]),
    "docker": check_container,
    "apptainer": check_container,
    "apt": check_apt,
    "git": check_git,
    "cd": lambda words: None,
    "ssh": lambda words: check_nexusinr(words[words.index("nexusinr") + 1 :]),
}


@pytest.mark.parametrize("said", [*COMMANDS, *INLINE], ids=title)
def test_the_command_exists_with_these_options(said: tuple[Path, str], here: Path) -> None:
    words = shlex.split(said[1])
    CHECKS[words[0]](words[1:])


@pytest.mark.parametrize(
    "line",
    [
        "nexusinr upsample --t1w a.nii.gz --out x --spacings 1",
        "nexusinr restore a.nii.gz",
        "make everything",
        'pip install ".[dicoms]"',
        "python Testing/no_such_script.py",
        "docker build -f Resources/Containers/Dockerfiles .",
        "apt install make",
    ],
)
def test_the_checks_see_what_is_wrong(line: str) -> None:
    words = shlex.split(line)
    with pytest.raises((AssertionError, OSError, typer.TyperException)):
        CHECKS[words[0]](words[1:])


@pytest.mark.parametrize(
    "block", blocks_of("python"), ids=lambda b: f"{b.page.name}: {b.text[:40]}"
)
def test_the_snippet_can_be_parsed(block: Block) -> None:
    compile(block.text, block.page.name, "exec")
