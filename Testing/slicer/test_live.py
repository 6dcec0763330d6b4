"""The live slice, with the real worker: the very plane that a view shows, decoded anew."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import psutil
import pytest
from scipy.ndimage import map_coordinates

pytest.importorskip("slicer", reason="slicer-core is not installed: pip install 'nexusinr[web]'")

from nexusinr.mrml.placement import from_vtk, to_vtk
from nexusinr.mrml.volumes import affine_of, array_of

OFF = "live slice is off"


@pytest.fixture
def window(slicer_app) -> Iterator[Any]:
    """The main window, on a screen that nobody sees."""
    import slicer

    window = slicer.util.mainWindow()
    window.resize(480, 320)
    window.show()
    yield window
    window.hide()


@pytest.fixture
def results(ui, chosen, run, window) -> Iterator[Any]:
    """A run that has just ended, its T1w scan in the comparison views."""
    chosen.spacing = type(chosen.spacing).MM_2_0
    chosen.segmentation = False
    made = run()
    ui.shownComboBox.currentText = "T1w"
    ui.compareButton.click()
    yield made
    ui.liveCheckBox.checked = False
    ui.compareButton.checked = False


class Views:
    """The three views of the restored scan, and what is laid into them."""

    def __init__(self, manager: Any) -> None:
        from slicer import vtkMRMLSliceCompositeNode as Composite
        from slicerapp.layout import shown_views

        self._layer = Composite.Layer_Last
        views = shown_views(manager)
        self.all = [v for v in views if "Restored" in v.mrmlSliceNode().GetName()]
        self.axial = next(view for view in self.all if "Axial" in view.mrmlSliceNode().GetName())

    def plane(self, view: Any) -> Any:
        """The volume node of the live slice in a view; None where there is none."""
        composite = view.mrmlSliceCompositeNode()
        return composite.GetScene().GetNodeByID(composite.GetNthLayerVolumeID(self._layer) or "")

    def follows(self, view: Any) -> bool:
        """Whether the plane has the pixels of the screen, where the view is."""
        node, slice_node = self.plane(view), view.mrmlSliceNode()
        if node is None:
            return False
        shown, wanted = affine_of(node).matrix, from_vtk(slice_node.GetXYToRAS())
        return np.allclose(shown[:3, :2], wanted[:3, :2], atol=1e-6)

    def zoom(self, view: Any, factor: float) -> None:
        node = view.mrmlSliceNode()
        node.SetFieldOfView(*(v * factor for v in node.GetFieldOfView()[:2]), 1)

    def tilt(self, view: Any, degrees: float) -> None:
        node, turn = view.mrmlSliceNode(), np.eye(4)
        cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
        turn[1:3, 1:3] = [[cos, -sin], [sin, cos]]
        node.GetSliceToRAS().DeepCopy(to_vtk(turn @ from_vtk(node.GetSliceToRAS())))
        node.UpdateMatrices()


@pytest.fixture
def views(results, slicer_app) -> Views:
    return Views(slicer_app.layoutManager())


@pytest.fixture
def live(ui, views, wait) -> Views:
    """The live slice is on and has come to rest."""
    ui.liveCheckBox.click()
    assert "still" in ui.liveLabel.text
    wait(lambda: all(map(views.follows, views.all)))
    return views


def at_the_same_place(node: Any, restored: Any) -> tuple[np.ndarray, np.ndarray]:
    """Values of a plane, and of the restored volume where its pixels are, in its inside."""
    values = array_of(node)[:, :, 0]
    index = np.stack(np.meshgrid(*map(np.arange, (*values.shape, 1)), indexing="ij"), -1)
    places = affine_of(restored).to_index(affine_of(node).apply(index)[:, :, 0])
    inside = ((places > 1) & (places < np.array(array_of(restored).shape) - 2)).all(axis=-1)
    expected = map_coordinates(array_of(restored), places[inside].T, order=1)
    return values[inside], expected


@pytest.fixture
def asked(widget, monkeypatch) -> list[str]:
    """What the worker is asked for from here on."""
    seen: list[str] = []
    request = widget.logic.worker.request

    def listen(op: str, *callbacks: Any, **options: Any) -> int:
        seen.append(op)
        return request(op, *callbacks, **options)

    monkeypatch.setattr(widget.logic.worker, "request", listen)
    return seen


def check_plane(live: Views, restored: Any) -> None:
    """Pixels of the screen, in the plane of the view, alike what was restored there."""
    node = live.plane(live.axial)
    assert max(node.GetSpacing()[:2]) < 0.7  # of a scan with 2 mm
    normal = affine_of(node).direction[:, 2]
    seen = from_vtk(live.axial.mrmlSliceNode().GetSliceToRAS())[:3, 2]
    assert np.allclose(np.abs(normal @ seen), 1)
    values, expected = at_the_same_place(node, restored)
    assert len(values) > 2000
    assert np.corrcoef(values, expected)[0, 1] > 0.9
    assert np.abs(values - expected).max() > 1  # and yet not the same


def test_every_plane_that_is_looked_at_is_decoded(
    live, results, ui, scene, asked, slicer_app, wait
):
    for move in (lambda: live.zoom(live.axial, 0.4), lambda: live.tilt(live.axial, 25)):
        move()
        assert not live.follows(live.axial)
        wait(lambda: live.follows(live.axial))
        check_plane(live, results.restored["T1w"])

    asked.clear()
    for _ in range(20):
        live.zoom(live.axial, 0.97)
    wait(lambda: all(map(live.follows, live.all)))
    assert set(asked) == {"plane"}
    assert len(asked) <= 4  # once the hand stops, not twenty times

    count = scene.GetNumberOfNodes()
    ui.liveCheckBox.click()  # the plain views come back
    assert [live.plane(view) for view in live.all] == [None] * 3
    assert scene.GetNumberOfNodes() == count - 6  # three planes and their displays
    assert ui.liveLabel.isHidden()
    live.zoom(live.axial, 0.5)
    assert live.plane(live.axial) is None

    ui.liveCheckBox.click()
    ui.shownComboBox.currentText = "T2w"  # it stays on
    other = Views(slicer_app.layoutManager())
    wait(lambda: all(map(other.follows, other.all)))
    ui.compareButton.click()
    assert [other.plane(view) for view in other.all] == [None] * 3
    assert not ui.liveCheckBox.enabled


def test_another_run_in_between_is_told(live, ui, logic, pair, wait, asked):
    logic.upsample(pair[1], spacing=4, model="tiny", device="cpu", segmentation=False)
    live.zoom(live.axial, 0.5)
    wait(lambda: not ui.liveCheckBox.checked)
    assert OFF in ui.liveLabel.text
    asked.clear()
    ui.liveCheckBox.click()  # in vain
    assert not ui.liveCheckBox.checked
    assert OFF in ui.liveLabel.text
    assert asked == []


def test_another_model_in_memory_is_told(live, ui, chosen, wait):
    chosen.model = "iconet"
    wait(lambda: "GB of memory" in ui.estimateLabel.text)
    live.zoom(live.axial, 0.5)
    wait(lambda: not ui.liveCheckBox.checked)
    assert OFF in ui.liveLabel.text


def test_a_worker_that_is_gone_is_told_in_a_sentence(live, ui, widget, wait, errors):
    widget.panel._estimator.stop()  # or its question, if it comes late, starts another worker
    errors.expected = "SIGKILL"
    psutil.Process(widget.logic.worker._process.processId()).kill()
    wait(lambda: not widget.logic.worker.running)
    live.zoom(live.axial, 0.5)
    wait(lambda: not ui.liveCheckBox.checked)
    assert OFF in ui.liveLabel.text
    assert "Press Apply" in ui.liveLabel.text
    assert not widget.logic.worker.running  # nothing is started for it
    assert live.plane(live.axial) is None
