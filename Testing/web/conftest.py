"""The viewer as its users have it: the command, a real browser, files sent, pictures looked at."""

from __future__ import annotations

import io
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

PATIENT = "Doe^Jane"

#: For a machine that is busy: seconds after which a test gives up.
PATIENCE = 120

#: What a view shows, small: 48 x 48 pixels, red, green, blue.
PIXELS = """image => {
    const canvas = document.createElement('canvas');
    canvas.width = canvas.height = 48;
    const context = canvas.getContext('2d');
    context.drawImage(image, 0, 0, 48, 48);
    return [...context.getImageData(0, 0, 48, 48).data];
}"""


class Viewer:
    """`nexusinr view` as a process, with a folder for what it keeps while it runs."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.folder = folder
        folder.mkdir()
        environment = {**os.environ, "TMPDIR": str(folder), "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "nexusinr.cli", "view", "--no-browser", *arguments],
            stdout=subprocess.PIPE,
            stderr=(folder.parent / "stderr").open("wb"),
            env=environment,
        )

    def address(self) -> str:
        assert self.process.stdout is not None
        assert select.select([self.process.stdout], [], [], PATIENCE)[0], "no address"
        return self.process.stdout.readline().decode().strip()

    def end(self, how: signal.Signals) -> int:
        self.process.send_signal(how)
        return self.process.wait(PATIENCE)

    def says(self) -> str:
        return (self.folder.parent / "stderr").read_text()


class Tab:
    """A page of the viewer."""

    def __init__(self, page: Any, shots: Path) -> None:
        self.page, self._shots = page, shots
        self.complaints: list[str] = []
        page.set_default_timeout(1000 * PATIENCE)
        page.on("console", self._on_console)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", self._on_request)

    def _on_console(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(f"{message.text} {message.location}")

    def _on_request(self, request: Any) -> None:
        if urlsplit(request.url.removeprefix("blob:")).hostname not in ("127.0.0.1", None):
            self.complaints.append(f"it asked for {request.url}")

    def shot(self, name: str) -> None:
        self.page.screenshot(path=self._shots / f"{name}.png")

    def open_tab(self, title: str) -> None:
        self.page.locator(".nx-tabs").get_by_text(title, exact=True).click()

    def send(self, *files: Path) -> None:
        with self.page.expect_file_chooser() as chooser:
            self.page.locator(".nx-panel").get_by_text("Files", exact=True).click()
        chooser.value.set_files(files)

    def view(self, name: str) -> Any:
        caption = self.page.locator(".nx-caption", has_text=name)
        return self.page.locator(".layout-grid-item").filter(has=caption)

    def place(self, name: str) -> str:
        return self.view(name).locator(".nx-place").inner_text()

    def pixels(self, name: str) -> np.ndarray:
        """What a view shows once it has come to rest, (48, 48, 3), 0 to 255."""
        before, deadline = None, time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            now = self.glance(name)
            if before is not None and np.array_equal(now, before) and now.std() > 5:
                return now
            before = now
            self.page.wait_for_timeout(400)
        raise AssertionError(f"{name} does not come to rest")

    def glance(self, name: str) -> np.ndarray:
        values = self.view(name).locator("img").first.evaluate(PIXELS)
        return np.reshape(values, (48, 48, 4))[..., :3].astype(float)

    def ask(self, spacing: str, model: str = "seeing") -> None:
        """Fills in the form of a run by a small model."""
        self.open_tab("Run")
        self.page.evaluate("name => window.trame.state.set('RunState__model', name)", model)
        self.page.locator(".nx-free input").fill(spacing)


@pytest.fixture(scope="session")
def model(tiny_model) -> str:
    """The name of small random weights that see tissues everywhere."""
    import torch

    from nexusinr.models import weights
    from nexusinr.models.nexus_inr import NexusINR

    network, card = weights.load(tiny_model)
    assert isinstance(network, NexusINR)
    for mlp in network.segment:
        torch.nn.init.normal_(mlp[-1].weight)
    seeing = {"name": "seeing", "architecture": "NexusINR", "version": "0", "config": card.config}
    weights.save(network, weights.user_folder(), seeing)
    return "seeing"


@pytest.fixture(scope="session")
def start_viewer() -> type[Viewer]:
    """Starts a viewer that keeps its files in a folder, with arguments of the command."""
    pytest.importorskip("trame_slicer", reason="the web extra is not installed")
    return Viewer


@pytest.fixture(scope="module")
def viewer(start_viewer, model, tmp_path_factory) -> Iterator[Viewer]:
    viewer = start_viewer(tmp_path_factory.mktemp("viewer") / "tmp")
    yield viewer
    if viewer.process.poll() is None:
        viewer.end(signal.SIGTERM)


@pytest.fixture(scope="session")
def shots(tmp_path_factory) -> Path:
    """Where pictures of each state are kept."""
    named = os.environ.get("NEXUSINR_ARTEFACTS")
    folder = Path(named) if named else tmp_path_factory.mktemp("shots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium without a network; for one module, as others have event loops of their own."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("there is no chromium")
    with sync_api.sync_playwright() as playwright:
        yield playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"],
        )


@pytest.fixture(scope="module")
def first(viewer, browser, shots) -> Tab:
    """The page, with nothing in it yet."""
    tab = Tab(browser.new_context(viewport={"width": 1280, "height": 800}).new_page(), shots)
    tab.page.goto(viewer.address())
    tab.page.locator(".nx-welcome").wait_for()
    tab.shot("1-welcome")
    return tab


@pytest.fixture(scope="module")
def opened(first, thick_files) -> Tab:
    """A T1w and a T2w scan, sent to it."""
    first.send(*thick_files)
    first.page.locator(".nx-card").nth(1).wait_for()
    first.pixels("T1w original axial")
    first.shot("2-opened")
    return first


@pytest.fixture(scope="module")
def restored(opened) -> Tab:
    """The same after a run."""
    opened.ask("2")
    opened.page.get_by_text("voxels of 2.00").wait_for()
    opened.shot("3-estimated")
    opened.page.get_by_role("button", name="Restore").click()
    opened.view("T1w restored axial").wait_for()
    opened.pixels("T1w restored axial")
    opened.shot("4-restored")
    return opened


@pytest.fixture(autouse=True)
def no_complaints(request) -> Iterator[None]:
    """No test leaves an error on the console, or has the page ask for something elsewhere."""
    yield
    if "first" in request.fixturenames:
        tab = request.getfixturevalue("first")
        complaints, tab.complaints = tab.complaints, []
        assert not complaints


@pytest.fixture(scope="session")
def slices() -> Callable[..., dict[str, bytes]]:
    """Makes the files of a small MR series, by path."""
    return write_slices


def write_slices(
    series: str, description: str, count: int = 5, number: int = 7
) -> dict[str, bytes]:
    """The files of a small MR series."""
    files = {}
    for k in range(count):
        ds = Dataset()
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = MRImageStorage
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        ds.SeriesInstanceUID, ds.SeriesNumber, ds.Modality = series, number, "MR"
        ds.PatientName, ds.SeriesDescription = PATIENT, description
        ds.Rows, ds.Columns, ds.SamplesPerPixel = 6, 8, 1
        ds.PhotometricInterpretation, ds.PixelRepresentation = "MONOCHROME2", 0
        ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, 16, 15
        ds.ImagePositionPatient, ds.ImageOrientationPatient = [0, 0, 3 * k], [1, 0, 0, 0, 1, 0]
        ds.PixelSpacing, ds.SliceThickness = [1, 1], 3
        ds.PixelData = np.arange(48, dtype=np.uint16).tobytes()
        stream = io.BytesIO()
        ds.save_as(stream, enforce_file_format=True)
        files[f"{PATIENT}/{series}/IM{k}"] = stream.getvalue()
    return files
