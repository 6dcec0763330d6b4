"""The viewer as its users have it: the command, a real browser, files sent, pictures looked at."""

from __future__ import annotations

import json
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
import psutil
import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytest.importorskip("trame_slicer", reason="the web extra is not installed")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium")

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


@pytest.fixture(scope="module")
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


@pytest.fixture(scope="module")
def viewer(model, tmp_path_factory) -> Iterator[Viewer]:
    viewer = Viewer(tmp_path_factory.mktemp("viewer") / "tmp")
    yield viewer
    if viewer.process.poll() is None:
        viewer.end(signal.SIGTERM)


@pytest.fixture(scope="module")
def shots(tmp_path_factory) -> Path:
    """Where pictures of each state are kept."""
    named = os.environ.get("NEXUSINR_ARTEFACTS")
    folder = Path(named) if named else tmp_path_factory.mktemp("shots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium without a network."""
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


def differ(a: np.ndarray, b: np.ndarray) -> float:
    """Mean difference, of 255."""
    return float(np.abs(a - b).mean())


def colour(pixels: np.ndarray) -> float:
    """How far from grey, of 255."""
    return float(np.ptp(pixels, axis=-1).mean())


def test_scans_are_listed_with_their_modality_and_lattice(opened):
    cards = opened.page.locator(".nx-card")
    for at, (role, spacing) in enumerate((("T1w", "2.00 × 2.00 × 4.00"), ("T2w", "2.00 × 5.00"))):
        assert spacing in cards.nth(at).inner_text()
        assert cards.nth(at).locator(".v-btn--active").inner_text() == role
    assert opened.page.url.partition("?")[2] == ""


def test_restored_views_differ_from_the_originals(restored):
    for plane in ("axial", "sagittal", "coronal"):
        original, fine = (restored.pixels(f"T1w {row} {plane}") for row in ("original", "restored"))
        assert differ(original, fine) > 1
        assert np.corrcoef(original.ravel(), fine.ravel())[0, 1] > 0.7


def test_views_scroll_together(restored):
    views = ["T1w original axial", "T1w restored axial"]
    places = [restored.place(name) for name in views]
    images = [restored.pixels(name) for name in views]
    assert places[0] == places[1]
    restored.view(views[0]).hover()
    for _ in range(3):
        restored.page.keyboard.press("ArrowUp")
    wait_for(lambda: restored.place(views[1]) != places[1])
    moved = [restored.pixels(name) for name in views]
    assert restored.place(views[0]) == restored.place(views[1]) != places[0]
    assert all(differ(a, b) > 1 for a, b in zip(images, moved, strict=True))
    restored.shot("5-scrolled")


def test_keys_are_for_the_view_under_the_mouse(restored):
    axial, sagittal = "T1w original axial", "T1w original sagittal"
    places = {name: restored.place(name) for name in (axial, sagittal)}
    restored.view(sagittal).hover()
    restored.page.keyboard.press("ArrowUp")
    wait_for(lambda: restored.place(sagittal) != places[sagittal], seconds=20)
    assert restored.place(axial) == places[axial]


def test_tissues_are_laid_over_and_taken_away(restored):
    name = "T1w restored axial"
    plain = restored.pixels(name)
    assert colour(plain) < 3
    restored.page.keyboard.press("s")
    wait_for(lambda: colour(restored.glance(name)) > 10)
    overlaid = restored.pixels(name)
    restored.shot("6-tissues")
    restored.page.keyboard.press("s")
    wait_for(lambda: colour(restored.glance(name)) < 3)
    assert differ(restored.pixels(name), plain) < 1
    under = np.ptp(overlaid, axis=-1) > 20
    grey = overlaid.mean(axis=-1)[under], plain.mean(axis=-1)[under]
    assert np.corrcoef(*grey)[0, 1] > 0.5  # the scan is seen through them


def wait_for(condition: Callable[[], bool], seconds: float = PATIENCE) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_the_report_is_there_to_take(restored):
    restored.open_tab("Take")
    restored.shot("7-take")
    with restored.page.expect_download() as download:
        restored.page.get_by_text("Report", exact=True).click()
    report = json.loads(Path(download.value.path()).read_text())
    assert report["model"]["name"] == "seeing"
    assert download.value.suggested_filename == "report.json"


def test_reloading_keeps_the_session(restored):
    place = restored.place("T1w original axial")
    restored.page.reload()
    restored.view("T1w restored axial").wait_for()
    assert restored.pixels("T1w restored axial").std() > 5
    assert restored.place("T1w original axial") == place
    assert restored.page.locator(".nx-card").count() == 2
    restored.shot("8-reloaded")


def test_two_tabs_show_one_session(restored, shots):
    second = Tab(restored.page.context.new_page(), shots)
    second.page.goto(restored.page.url)
    second.view("T1w restored axial").wait_for()
    assert colour(second.pixels("T1w restored axial")) < 3
    restored.page.keyboard.press("s")
    wait_for(lambda: colour(second.glance("T1w restored axial")) > 10)
    wait_for(lambda: colour(restored.glance("T1w restored axial")) > 10)
    second.shot("9-second-tab")
    second.page.keyboard.press("s")
    wait_for(lambda: colour(restored.glance("T1w restored axial")) < 3)
    second.page.close()
    assert not second.complaints


def test_a_run_is_cancelled_and_the_page_stays_alive(restored):
    restored.ask("0.3")
    restored.page.get_by_role("button", name="Restore").click()
    restored.page.locator(".nx-progress").wait_for()
    restored.shot("10-running")
    restored.page.get_by_role("button", name="Cancel").click()
    restored.page.get_by_text("Cancelled; nothing was written.").wait_for()
    restored.shot("11-cancelled")
    restored.page.get_by_role("button", name="Restore").wait_for()


def test_another_run_without_any_tissue_is_shown(restored, tiny_model):
    restored.ask("3", model=tiny_model)
    restored.page.get_by_text("voxels of 3.00").wait_for()
    restored.page.get_by_role("button", name="Restore").click()
    done = restored.page.locator(".nx-panel .v-alert", has_text="Restored in")
    failed = restored.page.locator(".nx-panel .v-alert.text-error")
    done.or_(failed).first.wait_for(state="attached")
    assert done.count() == 1, failed.all_inner_texts()
    assert restored.pixels("T1w restored axial").std() > 5


def test_a_file_that_is_no_scan_gets_a_sentence(restored, tmp_path):
    bad = tmp_path / "notes.nii"
    bad.write_text("no scan at all")
    restored.open_tab("Open")
    restored.send(bad)
    alert = restored.page.locator(".nx-panel .v-alert:visible")
    alert.wait_for()
    restored.shot("12-bad-file")
    assert alert.inner_text().strip().startswith("notes.nii: it is not a NIfTI image")
    assert restored.page.locator(".nx-card").count() == 2
    assert restored.view("T1w restored axial").is_visible()  # nothing of the run is lost


def test_without_the_secret_there_is_no_page(first, browser, shots):
    address = first.page.url.partition("index.html")[0]
    stranger = browser.new_context().new_page()
    for query in ("", "?secret=wrong", "index.html", "upload", "nexusinr/reading-room.js"):
        response = stranger.goto(address + query)
        assert response.status == 403
        assert stranger.locator("body").inner_text().startswith("Refused: ")
    stranger.screenshot(path=shots / "13-refused.png")
    opened = stranger.evaluate(
        "address => new Promise(done => { const socket = new WebSocket(address);"
        "socket.onopen = () => done(true); socket.onerror = () => done(false); })",
        address.replace("http", "ws") + "ws",
    )
    assert opened is False
    stranger.context.close()


def test_ctrl_c_leaves_nothing(viewer, restored):
    children = psutil.Process(viewer.process.pid).children(recursive=True)
    assert children
    private = [path for path in viewer.folder.iterdir() if path.name.startswith("nexusinr-")]
    assert [path.stat().st_mode & 0o777 for path in private] == [0o700]
    restored.page.goto("about:blank")
    assert viewer.end(signal.SIGINT) == 0
    assert list(viewer.folder.iterdir()) == []
    psutil.wait_procs(children, timeout=5)
    assert not any(child.is_running() for child in children)
    assert "Traceback" not in viewer.says()
    assert "secret=" not in viewer.says()


def test_a_signal_while_it_starts_leaves_nothing(tmp_path):
    viewer = Viewer(tmp_path / "tmp")
    wait_for(lambda: any(path.name.startswith("nexusinr-") for path in viewer.folder.iterdir()))
    assert viewer.end(signal.SIGTERM) in (0, 128 + signal.SIGTERM)
    assert list(viewer.folder.iterdir()) == []


def test_what_cannot_be_served_is_said_in_a_sentence(command, tmp_path):
    for arguments, reason in (
        (["--host", "0.0.0.0"], "choose a secret"),
        (["--secret", "short"], "--secret"),
        ([tmp_path / "missing.nii"], "does not exist"),
    ):
        status, out, err = command("view", "--no-browser", *arguments)
        assert (status, out) == (2, "")
        assert reason in err
        assert err.count("\n") == 1
