"""The stand-ins themselves: they refuse what Slicer refuses."""

from typing import Annotated

import pytest


@pytest.fixture
def button(slicer_app):
    import qt

    return qt.QPushButton("Apply")


def test_properties_are_attributes_and_setters_stay(button):
    assert (button.text, button.enabled) == ("Apply", True)
    button.enabled = False
    assert not button.isEnabled()
    button.setText("Go")
    assert button.text == "Go"


@pytest.mark.parametrize(
    ("name", "value"), [("caption", "x"), ("text", 3), ("enabled", "yes"), ("click", None)]
)
def test_what_is_no_property_or_of_another_type_is_refused(name, value, button):
    with pytest.raises(AttributeError):
        setattr(button, name, value)


def test_signals_by_name_and_by_signature(button):
    heard = []
    button.clicked.connect(lambda: heard.append("a"))
    button.connect("clicked(bool)", lambda on: heard.append(on))
    button.click()
    assert heard == ["a", False]
    with pytest.raises(ValueError, match="no signal"):
        button.connect("pushed()", print)


def test_a_class_of_its_own_may_have_attributes(slicer_app):
    import qt

    class Counter(qt.QObject):
        count = 0

    counter = Counter()
    counter.count = 3
    assert counter.count == 3
    assert isinstance(qt.QPushButton(), qt.QWidget)
    assert not isinstance(counter, qt.QWidget)


def test_a_selector_is_no_combo_box_and_shows_the_real_scene(scene):
    import slicer

    selector = slicer.qMRMLNodeComboBox()
    selector.nodeTypes = ["vtkMRMLTextNode"]
    selector.noneEnabled = True
    assert not selector.enabled
    selector.setMRMLScene(scene)
    node = scene.AddNewNodeByClass("vtkMRMLTextNode", "note")
    assert (selector.nodeCount(), selector.currentNodeID) == (1, "")
    selector.setCurrentNode(node)
    assert selector.currentNode() is node
    scene.RemoveNode(node)
    assert selector.currentNode() is None
    for wrong in ("currentIndex", "nodes", "currentText"):
        assert not hasattr(selector, wrong)
    with pytest.raises(TypeError):
        selector.setMRMLScene(selector)


def test_a_parameter_node_keeps_types_and_ranges(scene):
    import qt
    import slicer
    from slicer.parameterNodeWrapper import WithinRange, parameterNodeWrapper

    @parameterNodeWrapper
    class Parameters:
        scan: slicer.vtkMRMLScalarVolumeNode
        keep: Annotated[float, WithinRange(0, 1)] = 0.5
        wanted: bool = True

    node = scene.AddNewNodeByClass("vtkMRMLScriptedModuleNode")
    parameters = Parameters(node)
    spin = qt.QDoubleSpinBox()
    parameters.connectParametersToGui({"keep": spin})
    assert (spin.value, spin.maximum) == (0.5, 1)
    spin.value = 0.25
    assert (parameters.keep, Parameters(node).keep) == (0.25, 0.25)
    parameters.keep = 0.75
    assert spin.value == 0.75
    for name, value, kind in (
        ("keep", 2.0, ValueError), ("wanted", 1, TypeError), ("scan", node, TypeError),
    ):  # fmt: skip
        with pytest.raises(kind):
            setattr(parameters, name, value)


def test_a_panel_of_unknown_widgets_is_refused(slicer_app, tmp_path):
    import slicer

    panel = tmp_path / "panel.ui"
    panel.write_text('<ui version="4.0"><widget class="qMRMLMagicBox" name="x"/></ui>')
    with pytest.raises(RuntimeError, match="qMRMLMagicBox"):
        slicer.util.loadUI(str(panel))
