"""The panel before a run: what is chosen by itself, what is enabled, what it says."""

from __future__ import annotations

import re
import stat
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nexusinr.geometry import Affine
from nexusinr.volume import Volume

NEXUS = Path(__file__).parents[2] / "NexusINR"
UI = NEXUS / "Resources" / "UI" / "NexusINR.ui"


def add(scene, scan, name, affine=None):
    from nexusinr.mrml.volumes import add_volume

    return add_volume(scene, scan.data, affine or scan.affine, name)


# --- the choice ---------------------------------------------------------------------------------


def test_without_a_volume_nothing_can_be_done(ui):
    assert not ui.applyButton.enabled
    assert not ui.cancelButton.enabled
    assert not ui.compareButton.enabled
    assert not ui.tableButton.enabled
    assert "Choose a T1w volume" in ui.warningsLabel.text
    assert ui.applyButton.toolTip == ui.warningsLabel.text


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_two_volumes_loaded_means_apply_works(order, ui, scene, thick_pair, wait, plain):
    nodes = [add(scene, thick_pair[i], ("sub-01_T1w", "sub-01_T2w")[i]) for i in order]
    wait(lambda: ui.applyButton.enabled)
    assert ui.t1wSelector.currentNode() is nodes[order.index(0)]
    assert ui.t2wSelector.currentNode() is nodes[order.index(1)]
    assert ui.warningsLabel.text == ""
    assert ui.warningsIcon.isHidden()
    assert "2 × 2 × 4 mm, axial slices" in plain(ui.inputsLabel)
    assert "2 × 5 × 2 mm, coronal slices, oblique by 8°" in plain(ui.inputsLabel)
    assert re.search(r"Overlap: \d\d", ui.inputsLabel.text)
    wait(lambda: "GB of memory" in ui.estimateLabel.text)
    assert "26 × 30 × 24" in plain(ui.estimateLabel)
    assert "CPU" in ui.deviceReasonLabel.text


def test_volumes_that_were_there_first_are_chosen_when_the_module_opens(module, scene, thick_pair):
    node = add(scene, thick_pair[1], "T2_TSE")
    shown = module.widgetRepresentation()
    shown.enter()
    ui = shown.self().ui
    assert (ui.t1wSelector.currentNode(), ui.t2wSelector.currentNode()) == (None, node)
    assert ui.applyButton.enabled
    shown.exit()


def test_what_is_no_scan_is_not_offered(ui, scene, thick_pair, wait):
    from nexusinr.mrml.volumes import add_labelmap

    add(scene, thick_pair[1], "T2w").SetHideFromEditors(True)
    add_labelmap(scene, np.zeros((12, 12, 12), dtype=np.uint8), thick_pair[0].affine, "labels")
    add(scene, thick_pair[0], "T1w")
    wait(lambda: ui.applyButton.enabled)
    assert ui.t1wSelector.nodeCount() == 1
    assert ui.t2wSelector.currentNode() is None


def test_a_choice_of_the_user_stays(ui, scene, thick_pair, wait, slicer_app):
    first = add(scene, thick_pair[0], "T1w")
    wait(lambda: ui.applyButton.enabled)
    ui.t1wSelector.setCurrentNode(None)
    ui.t2wSelector.setCurrentNode(first)
    add(scene, thick_pair[0], "T1w again")
    wait(lambda: "look" in ui.warningsLabel.text or ui.applyButton.enabled)
    for _ in range(80):  # longer than it takes the panel to look at a new volume
        slicer_app.processEvents()
        slicer_app.thread().msleep(5)
    assert (ui.t1wSelector.currentNode(), ui.t2wSelector.currentNode()) == (None, first)


def test_swap_puts_each_in_the_place_of_the_other(ui, pair, wait):
    wait(lambda: ui.applyButton.enabled)
    ui.swapButton.click()
    assert (ui.t1wSelector.currentNode(), ui.t2wSelector.currentNode()) == pair[::-1]


# --- warnings -----------------------------------------------------------------------------------


def head_with_fluid(brightness: float) -> Volume:
    """A ball of 70 mm of tissue with fluid in the middle."""
    affine = Affine.from_parts((4, 4, 4), origin=(-78, -78, -78))
    index = np.stack(np.meshgrid(*[np.arange(40)] * 3, indexing="ij"), axis=-1)
    radius = np.linalg.norm(affine.apply(index), axis=-1)
    noise = np.random.default_rng(0).normal(0, 20, radius.shape)
    data = np.where(radius < 70, 400 + noise, 0) + np.where(radius < 25, brightness, 0)
    return Volume(data.astype(np.float32), affine)


def test_swapped_modalities_are_told_from_the_images(ui, scene):
    dark, bright = (add(scene, head_with_fluid(b), name) for b, name in ((-300, "a"), (500, "b")))
    ui.t1wSelector.setCurrentNode(bright)
    ui.t2wSelector.setCurrentNode(dark)
    assert "swapped" in ui.warningsLabel.text
    assert ui.applyButton.enabled  # the user decides
    ui.swapButton.click()
    assert ui.warningsLabel.text == ""


def test_volumes_that_do_not_overlap_are_refused(ui, scene, thick_pair):
    far = thick_pair[1].affine.transformed(Affine.from_parts((1, 1, 1), origin=(300, 0, 0)).matrix)
    ui.t1wSelector.setCurrentNode(add(scene, thick_pair[0], "T1w"))
    ui.t2wSelector.setCurrentNode(add(scene, thick_pair[1], "T2w", far))
    assert re.search(r"do not overlap .*3\d\d mm", ui.warningsLabel.text)
    assert not ui.applyButton.enabled


def test_the_same_volume_twice_is_refused(ui, scene, thick_pair):
    node = add(scene, thick_pair[0], "T1w")
    ui.t1wSelector.setCurrentNode(node)
    ui.t2wSelector.setCurrentNode(node)
    assert "same volume" in ui.warningsLabel.text
    assert not ui.applyButton.enabled


@pytest.mark.parametrize(
    ("affine", "words"),
    [
        (Affine.from_parts((1, 1, 4)), "left and right may be swapped"),
        (Affine.from_parts((40, 40, 40), origin=(-9, -9, -9)), "voxel size"),
        (Affine(np.array([[2, 0, 0.4, 9], [0, 2, 0, 9], [0, 0, 4, 9], [0, 0, 0, 1.0]])), "sheared"),
    ],
)
def test_odd_headers_are_told(affine, words, ui, scene, thick_pair):
    ui.t1wSelector.setCurrentNode(add(scene, thick_pair[0], "T1w", affine))
    assert words in ui.warningsLabel.text
    assert ui.applyButton.enabled


def test_a_transform_that_bends_space_is_refused_and_a_linear_one_is_followed(
    ui, scene, thick_pair, wait
):
    import vtk

    node = add(scene, thick_pair[0], "T1w")
    ui.t1wSelector.setCurrentNode(node)
    wait(lambda: ui.applyButton.enabled)
    bent = scene.AddNewNodeByClass("vtkMRMLTransformNode")
    spline = vtk.vtkThinPlateSplineTransform()
    points = [vtk.vtkPoints(), vtk.vtkPoints()]
    for x, y, z in np.random.default_rng(0).uniform(-20, 20, (8, 3)):
        points[0].InsertNextPoint(x, y, z)
        points[1].InsertNextPoint(x + 0.02 * y * y, y, z)
    spline.SetSourceLandmarks(points[0])
    spline.SetTargetLandmarks(points[1])
    spline.SetBasisToR()
    bent.SetAndObserveTransformToParent(spline)
    node.SetAndObserveTransformNodeID(bent.GetID())
    wait(lambda: not ui.applyButton.enabled)
    assert "not linear" in ui.warningsLabel.text
    assert "harden" in ui.warningsLabel.text
    straight = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    node.SetAndObserveTransformNodeID(straight.GetID())
    wait(lambda: ui.applyButton.enabled)
    assert ui.warningsLabel.text == ""


# --- output -------------------------------------------------------------------------------------


def test_spacing_free_and_like_are_there_where_they_count(ui, widget, chosen, pair, wait, plain):
    Spacing = type(chosen.spacing)
    assert ui.spacingXSpinBox.isHidden()
    assert ui.freeSpacingLabel.isHidden()
    assert ui.likeSelector.isHidden()
    chosen.spacing = Spacing.FREE
    ui.spacingXSpinBox.value, ui.spacingYSpinBox.value, ui.spacingZSpinBox.value = 4.0, 3.0, 2.4
    assert not ui.spacingXSpinBox.isHidden()
    assert "13 × 20 × 20" in plain(ui.estimateLabel)
    ui.spacingComboBox.currentText = Spacing.LIKE.label()
    assert chosen.spacing is Spacing.LIKE
    assert not ui.likeSelector.isHidden()
    assert ui.spacingXSpinBox.isHidden()
    assert not ui.applyButton.enabled
    ui.likeSelector.setCurrentNode(pair[1])
    assert ui.applyButton.enabled
    assert "27 × 13 × 24" in plain(ui.estimateLabel)


def test_a_region_that_was_placed_stays(ui, chosen, scene):
    placed = scene.AddNewNodeByClass("vtkMRMLMarkupsROINode")
    placed.SetXYZ(1, 2, 3)
    placed.SetRadiusXYZ(4, 5, 6)
    ui.roiSelector.setCurrentNode(placed)
    assert chosen.roi is placed
    assert placed.GetSize() == (8, 10, 12)


def test_a_new_region_is_the_middle_of_the_scan(ui, chosen, pair, wait, plain):
    from nexusinr.mrml.volumes import grid_of

    region = ui.roiSelector.addNode("vtkMRMLMarkupsROINode")
    assert chosen.roi is region
    bounds = np.zeros(6)
    region.GetRASBounds(bounds)
    corners = grid_of(pair[0]).corners()
    low, high = corners.min(axis=0), corners.max(axis=0)
    assert np.allclose(bounds[::2], low + (high - low) / 4)
    assert np.allclose(bounds[1::2], high - (high - low) / 4)
    assert "Result: the region" in ui.estimateLabel.text
    wait(lambda: "GB of memory" in ui.estimateLabel.text)
    sizes = [int(n) for n in re.findall(r"\d+", plain(ui.estimateLabel))[:3]]
    assert all(a <= b <= a + 2 for a, b in zip((13, 15, 12), sizes, strict=True)), sizes


# --- the estimate -------------------------------------------------------------------------------


@pytest.fixture
def asked(widget, monkeypatch) -> list[dict[str, Any]]:
    """The options of every estimate that is asked for from here on."""
    seen: list[dict[str, Any]] = []
    request = widget.logic.worker.request

    def listen(op: str, *callbacks: Any, **options: Any) -> int:
        if op == "estimate":
            mode = stat.S_IMODE(options["t1w"].parent.stat().st_mode)
            seen.append({**options, "exists": options["t1w"].is_file(), "mode": mode})
        return request(op, *callbacks, **options)

    monkeypatch.setattr(widget.logic.worker, "request", listen)
    return seen


def test_scans_are_on_the_disk_only_while_the_worker_looks_at_them(
    ui, asked, chosen, wait, left_on_disk
):
    wait(lambda: "GB of memory" in ui.estimateLabel.text)
    assert (asked[-1]["exists"], asked[-1]["mode"]) == (True, 0o700)
    assert left_on_disk() == []


def test_leaving_the_module_takes_the_scans_off_the_disk_at_once(
    module, ui, asked, chosen, wait, left_on_disk
):
    wait(lambda: asked)
    module.widgetRepresentation().exit()
    assert left_on_disk() == []
    before = len(asked)
    module.widgetRepresentation().enter()
    wait(lambda: len(asked) > before)  # it is asked again, as no answer came
    wait(lambda: "GB of memory" in ui.estimateLabel.text)


@pytest.mark.parametrize("width", [380, 460, 700])
def test_labels_have_the_room_that_their_text_takes(width, module, ui, scene, thick_pair, wait):
    """No words cut off, no empty bands: as tall as the text at this width."""
    from PySide6 import QtWidgets

    panel = module.widgetRepresentation()
    far = thick_pair[1].affine.transformed(Affine.from_parts((1, 1, 1), origin=(30, 0, 0)).matrix)
    ui.t1wSelector.setCurrentNode(add(scene, thick_pair[0], "T1w"))
    ui.t2wSelector.setCurrentNode(add(scene, thick_pair[1], "T2w", far))
    ui.cardButton.checked = True
    wait(lambda: "GB of memory" in ui.estimateLabel.text)
    for _ in range(2):  # the width decides on the height
        panel.resize(width, panel.heightForWidth(width))
        panel.show()
        QtWidgets.QApplication.processEvents()
    shown = [label for label in panel.findChildren(QtWidgets.QLabel) if label.isVisible()]
    wrapped = [label for label in shown if label.property("wordWrap")]
    assert {"inputsLabel", "warningsLabel", "modelCardLabel", "estimateLabel"} <= {
        label.property("objectName") for label in wrapped
    }
    for label in wrapped:
        size = QtWidgets.QWidget.size(label)
        wanted = QtWidgets.QLabel.heightForWidth(label, size.width())
        assert wanted - 1 <= size.height() <= wanted + 8, label.property("objectName")
    ui.cardButton.checked = False
    panel.hide()


def test_the_tab_key_goes_down_the_panel_as_one_reads(module, ui, chosen):
    from PySide6 import QtCore, QtWidgets

    chosen.spacing = type(chosen.spacing).FREE
    panel = module.widgetRepresentation()
    panel.resize(460, panel.heightForWidth(460))
    panel.show()
    QtWidgets.QApplication.processEvents()
    order = [stop.text for stop in ElementTree.parse(UI).getroot().iter("tabstop")]
    order = [name for name in order if getattr(ui, name).isVisible()]
    assert len(order) > 25
    places = [w.mapTo(panel, QtCore.QPoint(0, 0)) for w in (getattr(ui, name) for name in order)]
    for name, before, place in zip(order[1:], places, places[1:], strict=False):
        below = place.y() - before.y()  # in one row, tops differ by some pixels
        assert below >= 12 or (below > -12 and place.x() > before.x()), name
    panel.hide()


def test_every_sentence_of_the_panel_is_translated(module, scene, thick_pair, monkeypatch, wait):
    """In a language that puts everything between brackets."""
    import slicer.i18n

    monkeypatch.setattr(slicer.i18n, "translate", lambda context, text: f"[{text}]")
    shown = module.widgetRepresentation()
    shown.enter()
    shown.self().panel.report.show(None)
    ui = shown.self().ui
    ui.t1wSelector.setCurrentNode(add(scene, thick_pair[0], "T1w", Affine.from_parts((1, 1, 4))))
    ui.t2wSelector.setCurrentNode(add(scene, thick_pair[1], "T2w"))
    wait(lambda: "GB of memory" in ui.estimateLabel.text)
    labels = ui.inputsLabel, ui.warningsLabel, ui.modelCardLabel, ui.estimateLabel, ui.reportLabel
    for text in (*(label.text for label in labels), ui.applyButton.toolTip):
        assert "[" in text, text
    shown.exit()


def test_a_model_comes_with_its_card(ui, chosen):
    ui.modelComboBox.currentText = "nexus-inr"
    assert chosen.model == "nexus-inr"
    assert "nexus-inr: network NexusINR, version " in ui.modelCardLabel.text
    assert "not for primary diagnosis" in ui.modelCardLabel.text
    assert "can be wrong" not in ui.modelCardLabel.text
    ui.cardButton.click()
    assert "can be wrong" in ui.modelCardLabel.text
    assert re.search(r"SHA-256( [0-9a-f]{16}){4}$", ui.modelCardLabel.text)
    ui.cardButton.click()
    ui.modelComboBox.currentText = "iconet"
    assert chosen.model == "iconet"


def test_what_is_chosen_stays_in_the_scene(ui, widget, chosen, scene, slicer_app, tmp_path):
    import slicer

    ui.keepSlider.value = 0.25
    ui.segmentationCheckBox.checked = False
    assert not ui.surfacesCheckBox.enabled
    assert slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    scene.Clear(0)
    assert ui.keepSlider.value == 1
    assert ui.t1wSelector.currentNode() is None
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    assert (ui.keepSlider.value, ui.segmentationCheckBox.checked) == (0.25, False)
    assert ui.t1wSelector.currentNode().GetName() == "T1w"
    assert ui.applyButton.enabled


# --- sample data --------------------------------------------------------------------------------


def test_sample_data_come_with_the_module(module):
    import SampleData
    import slicer

    from nexusinr.volume import read_volume

    assert slicer.modules.sampleDataSourceCategories["NexusINR"]["title"]
    *sources, person = slicer.modules.sampleDataSources["NexusINR"]
    assert [s.nodeNames[0][-3:] for s in sources] == ["T1w", "T2w"]
    for source in sources:
        assert Path(source.thumbnailFileName).is_file()
        assert max(read_volume(SampleData.file_of(source)).affine.spacing) >= 3
    for source in (*sources, person):  # segmentations may have such files, too
        assert set(source.loadFileTypes) == {"VolumeFile"}


def test_the_scans_of_a_person_are_checked_by_their_digest_and_known_by_name(module):
    import slicer

    from nexusinr.modality import guess

    person = slicer.modules.sampleDataSources["NexusINR"][-1]
    assert [guess(name) for name in person.nodeNames] == ["T1w", "T2w"]
    for uri, checksum in zip(person.uris, person.checksums, strict=True):
        assert uri.startswith("https://github.com/Slicer/SlicerTestingData/releases/download/")
        assert checksum == f"SHA256:{uri.rpartition('/')[2]}"


# --- the panel itself ---------------------------------------------------------------------------


def test_every_property_in_the_panel_is_one_of_its_widget(module):
    from slicerapp.loader import widget_class

    for element in ElementTree.parse(UI).getroot().iter("widget"):
        meta = widget_class(element.get("class")).staticMetaObject
        for told in element.findall("property"):
            if told.get("stdset") != "0" and told.get("name") != "buddy":  # which Qt sets itself
                assert meta.indexOfProperty(told.get("name")) >= 0, (element.attrib, told.attrib)


def test_every_parameter_in_the_panel_is_one_of_the_node(module, widget):
    named = re.findall(r"SlicerParameterName.*?<string[^>]*>(\w+)", UI.read_text(), flags=re.S)
    assert len(named) > 8
    assert set(named) <= set(widget.logic.getParameterNode().allParameters)


def test_the_keyboard_reaches_everything_and_no_key_means_two_things(ui):
    root = ElementTree.parse(UI).getroot()
    keys = [
        key.lower()
        for text in root.iter("string")
        for key in re.findall(r"&(\w)", (text.text or "").replace("&&", ""))
    ]
    assert len(keys) == len(set(keys)), sorted(keys)
    order = [stop.text for stop in root.iter("tabstop")]
    pressed = ("Button", "ComboBox", "CheckBox", "SpinBox", "Slider", "Selector")
    assert {n for n in vars(ui) if n.endswith(pressed) and not n.startswith("qt_")} == set(order)
    for name, widget in vars(ui).items():
        if name.endswith(pressed):
            assert widget.toolTip or name.endswith("CollapsibleButton"), name


def test_every_text_of_the_panel_can_be_translated():
    for element in ElementTree.parse(UI).getroot().iter("property"):
        if element.get("name") in ("text", "toolTip", "noneDisplay"):
            text = element.find("string")
            assert text is not None
            assert text.get("notr") != "true" or not (text.text or "").strip(), text.text


def test_no_other_script_beside_the_module_is_taken_for_one():
    assert [path.name for path in NEXUS.glob("*.py")] == ["NexusINR.py"]


WITHOUT_TORCH = """
import sys
from pathlib import Path
sys.path[:0] = sys.argv[1:3]
import slicerapp
app = slicerapp.start(Path(sys.argv[3]))
from slicerapp import modules
module = modules.load_module(Path(sys.argv[2], "NexusINR.py"))
heavy = {"torch", "nibabel", "SimpleITK", "scipy"}
print("loaded:", sorted(heavy & set(sys.modules)))
module.widgetRepresentation().enter()
print("opened:", sorted({"torch"} & set(sys.modules)))
modules.leave(module)
"""


def test_slicer_itself_never_loads_torch(slicer_app, tmp_path):
    paths = [Path(__file__).parent / "standins", NEXUS, tmp_path]
    told = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, *map(str, paths)], capture_output=True, text=True
    )
    assert told.stdout.splitlines() == ["loaded: []", "opened: []"], told.stderr[-2000:]
