"""The viewer as its users have it: the command, a real browser, files sent, pictures looked at."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from nexusinr.geometry import Grid
from nexusinr.nifti import read_nifti

#: For a machine that is busy: seconds after which a test gives up.
PATIENCE = 120

#: Counts the pictures that views get from now on, by the view's tag.
COUNT = """() => {
    window.drawn = {};
    for (const item of document.querySelectorAll('.layout-grid-item')) {
        const tag = item.querySelector('[data-view]').dataset.view;
        const count = () => { window.drawn[tag] = (window.drawn[tag] ?? 0) + 1; };
        for (const image of item.querySelectorAll('img')) image.addEventListener('load', count);
    }
}"""


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


def test_a_step_draws_views_of_its_plane_alone(restored):
    restored.view("T1w original axial").hover()
    for plane in ("axial", "sagittal", "coronal"):
        restored.pixels(f"T1w restored {plane}")
    restored.page.evaluate(COUNT)
    restored.page.keyboard.press("ArrowDown")
    wait_for(lambda: len(restored.page.evaluate("window.drawn")) > 1)
    restored.page.wait_for_timeout(1500)
    assert sorted(restored.page.evaluate("Object.keys(window.drawn)")) == [
        f"NexusINRT1w{row}Axial" for row in ("Original", "Restored")
    ]


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


def drag(tab, name: str, button: str) -> None:
    """Drags downwards over a view, as slowly as a hand."""
    box = tab.view(name).bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    tab.page.mouse.move(x, y)
    tab.page.mouse.down(button=button)
    for step in range(1, 6):
        tab.page.mouse.move(x, y + 20 * step)
        tab.page.wait_for_timeout(100)
    tab.page.mouse.up(button=button)


def window(tab) -> list[str]:
    """Window and level as the panel shows them."""
    return tab.page.locator(".nx-panel .nx-value:visible").all_inner_texts()[:2]


def test_window_and_level_are_shared_by_both_rows(restored):
    names = ["T1w original axial", "T1w restored axial"]
    restored.open_tab("Look")
    before, values = [restored.pixels(name) for name in names], window(restored)
    drag(restored, names[0], "left")
    for name, picture in zip(names, before, strict=True):
        wait_for(lambda name=name, picture=picture: differ(restored.glance(name), picture) > 1)
    wait_for(lambda: window(restored) != values)
    restored.page.keyboard.press("w")
    wait_for(lambda: window(restored) == values)
    for name, picture in zip(names, before, strict=True):
        wait_for(lambda name=name, picture=picture: differ(restored.glance(name), picture) < 1)


def test_another_modality_has_its_own_window(restored):
    values = window(restored)
    restored.page.locator(".nx-panel").hover()
    restored.page.keyboard.press("2")
    restored.view("T2w restored axial").wait_for()
    wait_for(lambda: window(restored) != values)
    restored.page.keyboard.press("1")
    restored.view("T1w restored axial").wait_for()
    wait_for(lambda: window(restored) == values)


def test_the_map_is_as_strong_as_asked_for(restored):
    names = ["T1w restored axial", "T1w original axial"]
    plain = [restored.pixels(name) for name in names]
    restored.page.keyboard.press("m")
    wait_for(lambda: colour(restored.glance(names[0])) > 10)
    strong = colour(restored.pixels(names[0]))
    restored.shot("6c-map")
    restored.page.evaluate("window.trame.state.set('LookState__invented_opacity', 0.2)")
    wait_for(lambda: colour(restored.glance(names[0])) < 0.5 * strong)
    assert differ(restored.pixels(names[1]), plain[1]) < 1
    restored.page.keyboard.press("m")
    wait_for(lambda: differ(restored.glance(names[0]), plain[0]) < 1)


def test_a_curtain_shows_the_restored_scan_on_one_side(restored):
    original, fine = "T1w original coronal", "T1w restored coronal"
    plain, other = restored.pixels(original), restored.pixels(fine)
    restored.page.keyboard.press("c")
    left, right = np.s_[:, :20], np.s_[:, 28:]
    wait_for(lambda: differ(restored.glance(original)[right], plain[right]) > 0.5)
    drawn = restored.pixels(original)
    restored.shot("6d-curtain")
    assert differ(drawn[left], plain[left]) < 0.5
    assert is_nearer(drawn[right], other[right], plain[right])
    assert differ(restored.pixels(fine), other) < 1
    restored.page.keyboard.press("c")
    wait_for(lambda: differ(restored.glance(original)[right], plain[right]) < 0.5)


def test_tissues_are_seen_in_3d(restored):
    restored.page.keyboard.press("4")
    restored.view("Tissues").locator("img").first.wait_for()
    wait_for(lambda: colour(restored.glance("Tissues")) > 3)
    restored.pixels("T1w restored axial")
    restored.shot("6e-3d")
    restored.page.keyboard.press("4")
    restored.view("T1w original axial").wait_for()


def test_a_live_slice_is_decoded_as_the_view_shows_it(restored):
    name = "T1w restored axial"
    live = restored.view(name).locator(".nx-live")
    whole = restored.pixels(name)
    drag(restored, name, "right")
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


def take(tab, title: str, folder: Path) -> Path:
    """Clicks a download; where it lies, under the name that it suggests."""
    with tab.page.expect_download() as download:
        tab.page.locator(".nx-file", has=tab.page.get_by_text(title, exact=True)).click()
    path = folder / download.value.suggested_filename
    download.value.save_as(path)
    return path


@pytest.fixture(scope="module")
def taken(restored, tmp_path_factory) -> dict[str, Path]:
    """Everything that the page offers, by its title there."""
    restored.open_tab("Take")
    restored.shot("7-take")
    folder = tmp_path_factory.mktemp("taken")
    titles = restored.page.locator(".nx-file .nx-title").all_inner_texts()
    files = {title: take(restored, title, folder) for title in titles}
    restored.page.locator(".nx-note", has_text="Writing the scene").wait_for(state="detached")
    return files


def test_every_file_of_a_run_is_there_to_take(taken):
    assert {title: path.name for title, path in taken.items()} == {
        "Restored T1w": "t1w_sr.nii.gz",
        "Restored T2w": "t2w_sr.nii.gz",
        "Tissues": "segmentation.nii.gz",
        "Report": "report.json",
        "Comparison": "comparison.png",
        "Screenshot": "screenshot.png",
        "Scene": "nexusinr.mrb",
    }
    report = json.loads(taken["Report"].read_text())
    assert report["model"]["name"] == "seeing"
    for title in ("Restored T1w", "Restored T2w", "Tissues"):
        assert list(read_nifti(taken[title]).data.shape) == report["lattice"]["shape"]
    screen = np.asarray(Image.open(taken["Screenshot"]).convert("L"))
    assert min(screen.shape) > 400
    assert screen.std() > 10
    assert np.asarray(Image.open(taken["Comparison"]).convert("L")).std() > 10


def test_the_scene_opens_again_with_all_that_was_made(taken, thick_pair):
    from slicer import vtkMRMLColorLegendDisplayNode
    from trame_slicer.core import SlicerApp

    from nexusinr.mrml import segmentation, volumes
    from nexusinr.mrml.results import results_of

    app = SlicerApp()
    app.scene.RegisterNodeClass(vtkMRMLColorLegendDisplayNode())  # its module does so in Slicer
    assert app.io_manager.load_scene(taken["Scene"])
    results = results_of(app.scene.GetFirstNodeByName("NexusINR report"))
    assert results is not None
    for modality in ("T1w", "T2w"):
        written = read_nifti(taken[f"Restored {modality}"])
        node = results.restored[modality]
        assert volumes.grid_of(node).same_as(Grid(written.data.shape, written.affine), 0.01)
        np.testing.assert_array_equal(volumes.array_of(node), written.data)
        assert volumes.grid_of(results.invented[modality]).same_as(volumes.grid_of(node), 0.01)
        assert node.GetAttribute("NexusINR.Notice") == "derived, not for primary diagnosis"
    report = json.loads(taken["Report"].read_text())
    registration = report["registration"]
    moved = np.array(registration["matrix_ras"]) if registration["applied"] else np.eye(4)
    for scan, (modality, node) in zip(thick_pair, results.originals.items(), strict=True):
        affine = scan.affine.transformed(moved) if modality == "T2w" else scan.affine
        assert volumes.grid_of(node).same_as(Grid(scan.data.shape, affine), 0.01)
        np.testing.assert_allclose(volumes.array_of(node), scan.data, rtol=1e-6)
    labels = read_nifti(taken["Tissues"])
    grid = Grid(labels.data.shape, labels.affine)
    tissues = segmentation.tissues_of(results.segmentation, grid)
    np.testing.assert_array_equal(tissues, labels.data)
    assert results.record["model"] == report["model"]
    assert [scan["sha256"] for scan in results.record["inputs"]] == [
        scan["sha256"] for scan in report["inputs"]
    ]
    kinds = ("live slice", "curtain")  # what is only on the screen is not in the file
    names = [app.scene.GetNthNode(at).GetName() or "" for at in range(app.scene.GetNumberOfNodes())]
    assert not [name for name in names if any(kind in name for kind in kinds)]


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


def test_the_address_waits_for_none_of_slicers_libraries():
    loaded = "import sys, nexusinr.web.serve; print({'slicer', 'vtk', 'torch'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"


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
