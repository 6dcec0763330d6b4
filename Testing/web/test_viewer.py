"""The viewer as its users have it: the command, a real browser, files sent, pictures looked at."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil

#: For a machine that is busy: seconds after which a test gives up.
PATIENCE = 120


def differ(a: np.ndarray, b: np.ndarray) -> float:
    """Mean difference, of 255."""
    return float(np.abs(a - b).mean())


def is_nearer(picture: np.ndarray, one: np.ndarray, other: np.ndarray) -> bool:
    """Whether it shows the one and not the other, however it was compressed."""
    return differ(picture, one) < 0.5 * differ(picture, other)


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


def zoom_in(tab, name: str) -> None:
    """Drags the right button downwards over a view, as slowly as a hand."""
    box = tab.view(name).bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    tab.page.mouse.move(x, y)
    tab.page.mouse.down(button="right")
    for step in range(1, 6):
        tab.page.mouse.move(x, y + 20 * step)
        tab.page.wait_for_timeout(100)
    tab.page.mouse.up(button="right")


def test_a_live_slice_is_decoded_as_the_view_shows_it(restored):
    name = "T1w restored axial"
    live = restored.view(name).locator(".nx-live")
    whole = restored.pixels(name)
    zoom_in(restored, name)
    wait_for(lambda: differ(restored.glance(name), whole) > 1)
    plain = restored.pixels(name)
    restored.page.keyboard.press("v")
    wait_for(lambda: differ(restored.glance(name), plain) > 1)
    live.wait_for()
    decoded = restored.pixels(name)
    assert np.corrcoef(plain.ravel(), decoded.ravel())[0, 1] > 0.7
    assert restored.view("T1w original axial").locator(".nx-live").count() == 0
    restored.shot("6b-live")
    for key in ("ArrowUp", "ArrowDown"):  # what is decoded for one slice is not shown in another
        restored.page.keyboard.press(key)
        live.wait_for(state="detached")
        live.wait_for()
    assert differ(restored.pixels(name), decoded) < 1
    restored.page.keyboard.press("v")
    live.wait_for(state="detached")
    wait_for(lambda: differ(restored.glance(name), plain) < 0.5)
    restored.page.keyboard.press("f")
    wait_for(lambda: differ(restored.glance(name), plain) > 1)
    restored.pixels(name)


def test_blinking_changes_the_original_and_nothing_else(restored):
    original, fine = (restored.pixels(f"T1w {row} coronal") for row in ("original", "restored"))
    assert differ(original, fine) > 1  # slices across those of the scan, wherever one scrolled to
    restored.page.keyboard.press("b")
    name = "T1w original coronal"
    for _ in range(2):
        wait_for(lambda: is_nearer(restored.glance(name), fine, original))
        wait_for(lambda: is_nearer(restored.glance(name), original, fine))
    assert is_nearer(restored.glance("T1w restored coronal"), fine, original)
    restored.page.keyboard.press("b")
    assert differ(restored.pixels("T1w original coronal"), original) < 1


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
    second = type(restored)(restored.page.context.new_page(), shots)
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


def test_a_live_slice_that_cannot_be_says_why(restored, tiny_model):
    restored.ask("2.5", model=tiny_model)
    restored.page.get_by_text("voxels of 2.50").wait_for()  # the worker has changed the model
    restored.page.get_by_label("Live slice (V)").click()
    restored.page.get_by_text("The worker no longer holds these scans").wait_for()
    assert restored.page.locator(".nx-live").count() == 0
    restored.shot("11b-not-live")


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


def test_a_signal_while_it_starts_leaves_nothing(start_viewer, tmp_path):
    viewer = start_viewer(tmp_path / "tmp")
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
