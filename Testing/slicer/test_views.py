"""After a run: the comparison views, the report, and what is saved with the scene.

The views that are made here stay and follow the scene, which slows down tests that come later.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("slicer", reason="slicer-core is not installed: pip install 'nexusinr[web]'")

from nexusinr.mrml.results import results_of
from nexusinr.mrml.volumes import array_of, grid_of


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    """Where the scene with the results is kept once they are there."""
    return tmp_path_factory.mktemp("results") / "scene.mrb"


@pytest.fixture
def results(request, widget, ui, saved, wait) -> Any:
    """Those of a run on the pair: computed once, then loaded with their scene."""
    import slicer

    if not saved.exists():
        request.getfixturevalue("chosen")
        made = request.getfixturevalue("run")()
        assert slicer.util.saveScene(str(saved))
        return made
    slicer.util.loadScene(str(saved))
    ui.resultSelector.setCurrentNode(report_in_scene())
    wait(lambda: ui.compareButton.enabled)
    return results_of(report_in_scene())


def report_in_scene() -> Any:
    """The text node with the run's record."""
    import slicer

    nodes = slicer.util.getNodesByClass("vtkMRMLTextNode")
    (found,) = [node for node in nodes if "report" in node.GetName()]
    return found


@pytest.fixture
def window(slicer_app) -> Iterator[Any]:
    """The main window, on a screen that nobody sees, in the user's own layout."""
    import slicer

    window = slicer.util.mainWindow()
    slicer_app.layoutManager().setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutOneUpRedSliceView)
    window.resize(480, 320)
    window.show()
    slicer_app.processEvents()
    yield window
    window.hide()


def picture(slicer_app) -> np.ndarray:
    """What the views show, (rows, columns, 3)."""
    import ctk

    slicer_app.processEvents()
    image = ctk.ctkWidgetsUtils.grabWidget(slicer_app.layoutManager().viewport())
    image = image.convertToFormat(image.Format.Format_RGB888)
    flat = np.frombuffer(bytes(image.constBits()), np.uint8)
    rows = flat.reshape(image.height(), image.bytesPerLine())[:, : 3 * image.width()]
    return rows.reshape(image.height(), image.width(), 3).astype(int)


def halves(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The row of originals and the row of restored scans."""
    height = (image.shape[0] - 2) // 2  # with two pixels between the rows
    return image[:height], image[-height:]


def test_compare_and_back_to_the_users_own_layout(ui, results, window, slicer_app):
    from slicerapp.layout import shown_views

    manager = slicer_app.layoutManager()
    before = manager.layout
    assert ui.shownComboBox.count == 3
    assert not ui.blinkButton.enabled
    ui.compareButton.click()
    assert manager.layout != before
    views = shown_views(manager)
    assert len(views) == 12
    bars = [view.sliceController() for view in views]
    assert all(bar.sliceOffsetSlider().isHidden() for bar in bars)  # else they need two screens
    assert ui.blinkButton.enabled
    ui.shownComboBox.currentText = "T1w"
    assert len(shown_views(manager)) == 6
    original, restored = halves(picture(slicer_app))
    assert (original > 60).mean() > 0.1
    assert np.abs(original - restored).mean() > 1
    ui.compareButton.click()
    assert manager.layout == before
    assert not ui.compareButton.checked
    assert not ui.curtainSlider.enabled


def test_blink_curtain_and_map_change_the_views(ui, results, window, slicer_app, wait):
    ui.shownComboBox.currentText = "T1w"
    ui.compareButton.click()
    plain, restored = halves(picture(slicer_app))
    ui.blinkButton.click()
    for scan in (restored, plain, restored):  # by itself
        wait(lambda scan=scan: np.abs(halves(picture(slicer_app))[0] - scan).mean() < 0.1)
    ui.blinkButton.click()
    ui.curtainCheckBox.checked = True
    half = halves(picture(slicer_app))[0]
    assert 0.1 < np.abs(half - plain).mean() < np.abs(restored - plain).mean()
    ui.curtainCheckBox.checked = False
    ui.inventedSlider.value = 80
    upper, lower = halves(picture(slicer_app))
    assert np.ptp(lower, axis=-1).max() > 60  # colours
    assert np.abs(upper - plain).mean() < 1
    ui.inventedSlider.value = 0
    assert np.abs(halves(picture(slicer_app))[1] - restored).mean() < 1
    ui.compareButton.click()


def test_a_screenshot_shows_the_views(
    ui, results, window, slicer_app, widget, tmp_path, monkeypatch
):
    import qt

    ui.compareButton.click()
    monkeypatch.setattr(widget.panel.compare, "_ask", lambda *_: str(tmp_path / "views"))
    ui.screenshotButton.click()
    saved = qt.QImage(str(tmp_path / "views.png"))
    assert saved.width() > 200
    assert saved.pixelColor(saved.width() // 12, saved.height() // 4).value() > 40
    ui.compareButton.click()


def test_closing_the_scene_leaves_the_comparison(ui, results, window, slicer_app, scene):
    before = slicer_app.layoutManager().layout
    ui.compareButton.click()
    ui.blinkButton.click()
    scene.Clear(0)
    slicer_app.processEvents()
    assert slicer_app.layoutManager().layout == before
    assert not ui.compareButton.enabled
    assert "No result" in ui.reportLabel.text
    ui.blinkButton.click()  # its timer has nothing to do


def test_removing_a_result_leaves_the_comparison(ui, results, window, slicer_app, scene, wait):
    ui.compareButton.click()
    scene.RemoveNode(results.restored["T1w"])
    wait(lambda: not ui.compareButton.checked)
    wait(lambda: ui.shownComboBox.count == 1)
    assert ui.shownComboBox.currentText == "T2w"


# --- the report ---------------------------------------------------------------------------------


def test_the_report_goes_into_the_scene_and_into_a_file(
    ui, results, widget, scene, tmp_path, monkeypatch
):
    import slicer

    ui.tableButton.click()
    (table,) = slicer.util.getNodesByClass("vtkMRMLTableNode")
    rows = [
        [table.GetCellText(row, column) for column in range(3)]
        for row in range(table.GetNumberOfRows())
    ]
    assert "T1w residual" in [row[0] for row in rows]
    monkeypatch.setattr(widget.panel.report, "_ask", lambda *_: str(tmp_path / "report"))
    ui.csvButton.click()
    with (tmp_path / "report.csv").open(newline="", encoding="utf-8") as file:
        written = list(csv.reader(file))
    assert written[0] == ["quantity", "value", "unit"]
    assert [row[0] for row in written[1:]] == [row[0] for row in rows]
    assert all(np.isfinite(float(row[1])) for row in written[1:])


def test_a_file_that_cannot_be_written_is_one_message(
    ui, results, widget, monkeypatch, dialogs, errors
):
    errors.expected = "nowhere|No such file"
    monkeypatch.setattr(widget.panel.report, "_ask", lambda *_: "/nowhere/report.csv")
    ui.csvButton.click()
    (message,) = dialogs.seen
    assert "could not be saved" in message


# --- saved and loaded ---------------------------------------------------------------------------


def test_results_survive_a_saved_scene(ui, results, scene, tmp_path):
    import slicer

    before = {m: (grid_of(n), array_of(n).copy()) for m, n in results.restored.items()}
    record = results.record
    assert "path" not in json.dumps(record["inputs"])
    assert slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    scene.Clear(0)
    assert not ui.compareButton.enabled
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    text = report_in_scene()
    again = results_of(text)
    assert again.record == record
    for modality, (grid, values) in before.items():
        node = again.restored[modality]
        assert np.abs(grid_of(node).corner - grid.corner).max() < 0.01
        assert np.array_equal(array_of(node), values)
        assert again.originals[modality].GetName() == modality
        assert node.GetAttribute("NexusINR.Notice")
    assert again.segmentation is not None
    assert ui.resultSelector.currentNode() is text
    assert ui.compareButton.enabled
    assert "residual" in ui.reportLabel.text
