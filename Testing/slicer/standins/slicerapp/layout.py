"""The layout manager: Slicer's views, rendered offscreen by trame-slicer, on one widget."""

# ruff: noqa: N801, N802, N815 (names of Slicer and Qt)

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from typing import Any

import slicer
from PySide6 import QtCore, QtGui, QtWidgets
from trame_slicer.views import DirectRendering, SliceView
from vtkmodules.util.numpy_support import vtk_to_numpy
from vtkmodules.vtkCommonCore import vtkCollection, vtkCommand
from vtkmodules.vtkRenderingCore import vtkWindowToImageFilter

from slicerapp.pythonqt import pythonic

#: The nodes that have views here.
SLICE = "vtkMRMLSliceNode"


class _View(SliceView):
    """A view of a node that is in the scene already."""

    def set_scene(self, scene: Any) -> None:
        super(SliceView, self).set_scene(scene)
        self._logic.SetMRMLScene(scene)
        self._logic.SetSliceNode(scene.GetSingletonNode(self.name, SLICE))
        self.set_view_node(self._logic.GetSliceNode())


class _qMRMLSliceControllerWidget(QtWidgets.QWidget):
    """The bar above a view, with its slider."""

    def __init__(self) -> None:
        super().__init__()
        self.__dict__["_slider"] = SliceOffsetSlider(self)

    def sliceOffsetSlider(self) -> Any:
        return self._slider


SliceOffsetSlider = pythonic(QtWidgets.QWidget)
SliceController = pythonic(_qMRMLSliceControllerWidget)


class _qMRMLSliceWidget(QtWidgets.QWidget):
    """One view. It is rendered when it is painted, or asked to."""

    def __init__(self, core: Any, tag: str) -> None:
        super().__init__()
        view = _View(core.scene, core.app_logic, tag, scheduled_render_strategy=DirectRendering())
        view.render_window().SetOffScreenRendering(True)
        view.set_render_blocked(True)
        self.__dict__.update(_core=core, _view=view, _controller=SliceController())

    def sliceController(self) -> Any:
        return self._controller

    def mrmlSliceNode(self) -> Any:
        return self._view.get_view_node()

    def mrmlSliceCompositeNode(self) -> Any:
        return self.sliceLogic().GetSliceCompositeNode()

    def sliceLogic(self) -> Any:
        return self._core.app_logic.GetSliceLogic(self._view.get_view_node())

    def fitSliceToBackground(self) -> None:
        self.sliceLogic().FitSliceToBackground()

    def resizeEvent(self, event: QtGui.QResizeEvent) -> None:
        width, height = event.size().width(), event.size().height()
        self._view.interactor().UpdateSize(width, height)
        self.sliceLogic().ResizeSliceNode(width, height)

    def paintEvent(self, _event: QtGui.QPaintEvent) -> None:
        window = self._view.render_window()
        window.Render()
        grab = vtkWindowToImageFilter()
        grab.SetInput(window)
        grab.ReadFrontBufferOff()
        grab.ShouldRerenderOff()
        grab.Update()
        image = grab.GetOutput()
        width, height, _ = image.GetDimensions()
        values = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(height, width, -1)
        upright = values[::-1, :, :3].copy()
        form = QtGui.QImage.Format.Format_RGB888
        picture = QtGui.QImage(upright.data, width, height, 3 * width, form)
        QtGui.QPainter(self).drawImage(QtCore.QPoint(0, 0), picture)


SliceWidget = pythonic(_qMRMLSliceWidget)


class _qSlicerLayoutManager(QtCore.QObject):
    """Follows the layout node. Views are made when the viewport is looked at or they are asked for.

    Args:
        core: the scene with its logics.
    """

    layoutChanged = QtCore.Signal(int)

    def __init__(self, core: Any) -> None:
        super().__init__()
        logic = slicer.vtkMRMLLayoutLogic()
        logic.SetMRMLScene(core.scene)
        self.__dict__.update(
            _core=core,
            _logic=logic,
            _views={},
            _names=[],
            _viewport=_Viewport(self._arrange),
            _shown=None,
        )
        self._node().AddObserver(vtkCommand.ModifiedEvent, lambda *_: self._follow())
        self._node().SetViewArrangement(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView)

    # --- what Python sees in Slicer -----------------------------------------------------------

    def layoutLogic(self) -> Any:
        return self._logic

    def mrmlScene(self) -> Any:
        return self._core.scene

    def viewport(self) -> QtWidgets.QWidget:
        return self._viewport

    def setLayout(self, number: int) -> None:
        self._node().SetViewArrangement(number)

    def sliceViewNames(self) -> list[str]:
        """Those of former layouts as well: a view that was made stays."""
        return list(self._names)

    def sliceWidget(self, name: str) -> Any:
        return self._widget(name) if name in self._names else None

    def mrmlSliceLogics(self) -> Any:
        logics = vtkCollection()
        for name in self.sliceViewNames():
            logics.AddItem(self.sliceWidget(name).sliceLogic())
        return logics

    def resetSliceViews(self) -> None:
        for name in self.sliceViewNames():
            self.sliceWidget(name).fitSliceToBackground()

    def resetThreeDViews(self) -> None:
        pass

    def setRenderPaused(self, paused: bool) -> None:
        pass

    layout = QtCore.Property(
        int, lambda s: s._node().GetViewArrangement(), setLayout, notify=layoutChanged
    )
    threeDViewCount = QtCore.Property(int, lambda s: len(s._elements("vtkMRMLViewNode")))

    # --- views --------------------------------------------------------------------------------

    def _node(self) -> Any:
        return self._logic.GetLayoutNode()

    def _follow(self) -> None:
        described = self._node().GetViewArrangement(), self._node().GetCurrentLayoutDescription()
        if described != self._shown:
            self.__dict__["_shown"] = described
            tags = [element.get("singletontag") for element in self._elements(SLICE)]
            self._names.extend(tag for tag in tags if tag not in self._names)
            self._viewport.forget()
            self.layoutChanged.emit(described[0])

    def _root(self) -> ElementTree.Element:
        described = self._node().GetCurrentLayoutDescription()  # none while a scene closes
        return ElementTree.fromstring(described or "<layout/>")

    def _elements(self, kind: str) -> list[ElementTree.Element]:
        return [view for view in self._root().iter("view") if view.get("class") == kind]

    def _widget(self, tag: str) -> Any:
        if tag not in self._views:
            self._views[tag] = SliceWidget(self._core, tag)
        return self._views[tag]

    def _arrange(self) -> QtWidgets.QWidget:
        for widget in self._views.values():
            widget.setParent(None)
        return self._box(self._root())

    def _box(self, element: ElementTree.Element) -> QtWidgets.QWidget:
        if element.tag == "view":
            known = element.get("class") == SLICE
            return self._widget(element.attrib["singletontag"]) if known else QtWidgets.QWidget()
        if element.tag == "item":
            return self._box(element[0])
        box = QtWidgets.QWidget()
        is_row = element.get("type") == "horizontal"
        line = QtWidgets.QHBoxLayout(box) if is_row else QtWidgets.QVBoxLayout(box)
        line.setContentsMargins(0, 0, 0, 0)
        line.setSpacing(2)
        for part in element:
            child = self._box(part)
            line.addWidget(child, 1)
            child.show()
        return box


def shown_views(manager: Any) -> list[Any]:
    """Slice widgets of the layout; the manager knows those of former ones, too."""
    layout = manager.layoutLogic().GetLayoutNode().GetCurrentLayoutDescription()
    names = [name for name in manager.sliceViewNames() if f'singletontag="{name}"' in layout]
    return [manager.sliceWidget(name) for name in names]


class _Viewport(QtWidgets.QWidget):
    """Where the views are. They are put there when it is shown: most tests look at none."""

    def __init__(self, arrange: Any) -> None:
        super().__init__()
        self._arrange, self._content = arrange, None
        QtWidgets.QVBoxLayout(self).setContentsMargins(0, 0, 0, 0)
        self.setMinimumSize(320, 240)

    def forget(self) -> None:
        if self._content is not None:
            self._content.hide()
            self._content = None
            if self.isVisible():
                self._fill()

    def showEvent(self, event: QtGui.QShowEvent) -> None:
        super().showEvent(event)
        if self._content is None:
            self._fill()

    def _fill(self) -> None:
        self._content = self._arrange()
        self.layout().addWidget(self._content)
        self._content.show()
