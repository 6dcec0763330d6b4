"""Widgets of Slicer over the real scene."""

# ruff: noqa: N801, N802, N805, N815, RUF012 (names of Slicer and Qt)

from __future__ import annotations

from typing import Any

import slicer
from PySide6 import QtCore, QtWidgets
from vtkmodules.vtkCommonCore import vtkCommand

from slicerapp.pythonqt import pythonic

Property, Signal, Slot = QtCore.Property, QtCore.Signal, QtCore.Slot


class NodeOrFlag:
    """What ``currentNodeChanged`` gives: C++ has it with a node and with a truth value.

    Which of the two Python gets is not certain, so that it must not be used.
    """

    def __bool__(self) -> bool:
        raise TypeError("currentNodeChanged has two forms: ask the selector for its current node")


class _qMRMLWidget(QtWidgets.QWidget):
    """A widget that knows the scene."""

    mrmlSceneChanged = Signal(object)

    signatures = {"mrmlSceneChanged(vtkMRMLScene*)": "mrmlSceneChanged"}

    def mrmlScene(self) -> Any:
        return self.__dict__.get("_scene")

    @Slot(object)
    def setMRMLScene(self, scene: Any) -> None:
        _check(scene, slicer.vtkMRMLScene)
        if scene is not self.mrmlScene():
            self.__dict__["_scene"] = scene
            self.mrmlSceneChanged.emit(scene)


class _qSlicerWidget(_qMRMLWidget):
    """The same under another name."""


class _qMRMLNodeComboBox(QtWidgets.QWidget):
    """Chooses one node of some classes. As in Slicer it has a combo box and is none."""

    currentNodeChanged = Signal(object)
    currentNodeIDChanged = Signal(str)
    nodeActivated = Signal(object)
    nodeAdded = Signal(object)
    nodeAddedByUser = Signal(object)
    nodeAboutToBeRemoved = Signal(object)

    signatures = {
        f"{name}(vtkMRMLNode*)": name
        for name in ("nodeActivated", "nodeAdded", "nodeAddedByUser", "nodeAboutToBeRemoved")
    }

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self.__dict__.update(
            _scene=None, _tags=[], _types=[], _none=False, _none_text="None", _flags={}, _ids=[],
            _attributes=[], _box=QtWidgets.QComboBox(), _base_name="", _hidden_too=False,
            _watched=set(),
        )  # fmt: skip
        row = QtWidgets.QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self._box)
        self.setFocusProxy(self._box)
        self._box.currentIndexChanged.connect(lambda _: self._tell())
        self._box.activated.connect(lambda _: self.nodeActivated.emit(self.currentNode()))
        self.setEnabled(False)  # until there is a scene

    # --- what Python sees in Slicer -----------------------------------------------------------

    def mrmlScene(self) -> Any:
        return self._scene

    @Slot(object)
    def setMRMLScene(self, scene: Any) -> None:
        _check(scene, slicer.vtkMRMLScene)
        if scene is self._scene:
            return
        for tag in self._tags:
            self._scene.RemoveObserver(tag)
        self.__dict__.update(_scene=scene, _tags=[])
        self.setEnabled(scene is not None)
        if scene is not None:
            for event in (scene.NodeAddedEvent, scene.NodeRemovedEvent, scene.EndBatchProcessEvent):
                self._tags.append(scene.AddObserver(event, self._update))
        self._update()

    def currentNode(self) -> Any:
        identifier = self._current()
        return self._scene.GetNodeByID(identifier) if self._scene and identifier else None

    @Slot(object)
    def setCurrentNode(self, node: Any) -> None:
        if not isinstance(node, str):
            _check(node, slicer.vtkMRMLNode)
        self._choose(node if isinstance(node, str) else node.GetID() if node else "")

    @Slot(str)
    def setCurrentNodeID(self, identifier: str) -> None:
        self._choose(identifier or "")

    @Slot(int)
    def setCurrentNodeIndex(self, index: int) -> None:
        self._choose([i for i in self._ids if i][index])

    def nodeCount(self) -> int:
        return sum(bool(identifier) for identifier in self._ids)

    def nodeFromIndex(self, index: int) -> Any:
        found = [identifier for identifier in self._ids if identifier]
        return self._scene.GetNodeByID(found[index]) if 0 <= index < len(found) else None

    def addAttribute(self, kind: str, name: str, value: Any = None) -> None:
        self._attributes.append((kind, name, value))
        self._update()

    def addNode(self, kind: str = "") -> Any:
        node = self._scene.AddNewNodeByClass(kind or self._types[0])
        self._choose(node.GetID())
        self.nodeAddedByUser.emit(node)
        return node

    @Slot()
    def removeCurrentNode(self) -> None:
        self._scene.RemoveNode(self.currentNode())

    # --- properties ---------------------------------------------------------------------------

    def _current(self) -> str:
        index = self._box.currentIndex()
        return self._ids[index] if 0 <= index < len(self._ids) else ""

    def _set_types(self, types: list[str]) -> None:
        self.__dict__["_types"] = list(types)
        self._update()

    def _set_none(self, enabled: bool) -> None:
        self.__dict__["_none"] = enabled
        self._update()

    def _set_none_text(self, text: str) -> None:
        self.__dict__["_none_text"] = text
        self._update()

    def _set_hidden(self, shown: bool) -> None:
        self.__dict__["_hidden_too"] = shown
        self._update()

    def _flag(name: str, start: bool) -> Property:
        def read(self: Any) -> bool:
            return self._flags.get(name, start)

        def write(self: Any, value: bool) -> None:
            self._flags[name] = value

        return Property(bool, read, write)

    nodeTypes = Property("QStringList", lambda s: s._types, _set_types)
    noneEnabled = Property(bool, lambda s: s._none, _set_none)
    noneDisplay = Property(str, lambda s: s._none_text, _set_none_text)
    showHidden = Property(bool, lambda s: s._hidden_too, _set_hidden)
    currentNodeID = Property(str, _current, setCurrentNodeID)
    baseName = Property(str, lambda s: s._base_name, lambda s, v: s.__dict__.update(_base_name=v))
    addEnabled = _flag("addEnabled", True)
    removeEnabled = _flag("removeEnabled", True)
    editEnabled = _flag("editEnabled", False)
    renameEnabled = _flag("renameEnabled", False)
    showChildNodeTypes = _flag("showChildNodeTypes", True)
    selectNodeUponCreation = _flag("selectNodeUponCreation", True)

    # --- the list -----------------------------------------------------------------------------

    def _nodes(self) -> list[Any]:
        found: list[Any] = []
        for kind in self._types if self._scene else ():
            nodes = self._scene.GetNodesByClass(kind)
            of_kind = [nodes.GetItemAsObject(i) for i in range(nodes.GetNumberOfItems())]
            found += [n for n in of_kind if n not in found and self._offers(n, kind)]
        return found

    def _offers(self, node: Any, kind: str) -> bool:
        if node.GetHideFromEditors() and not self._hidden_too:
            return False
        if not self._flags.get("showChildNodeTypes", True) and node.GetClassName() != kind:
            return False
        wanted = [(name, value) for k, name, value in self._attributes if k == kind]
        return all(
            node.GetAttribute(name) is not None and value in (None, node.GetAttribute(name))
            for name, value in wanted
        )

    def _update(self, *_: Any) -> None:
        before, nodes = self._current(), self._nodes()
        self._watch(nodes)
        self._box.blockSignals(True)
        self._box.clear()
        self._ids[:] = [""] * self._none + [node.GetID() for node in nodes]
        self._box.addItems([self._none_text] * self._none + [node.GetName() for node in nodes])
        kept = before in self._ids
        index = self._ids.index(before) if kept else 0 if self._none else len(self._ids) - 1
        self._box.setCurrentIndex(index)
        self._box.blockSignals(False)
        if self._current() != before:
            self._tell()

    def _watch(self, nodes: list[Any]) -> None:
        for node in nodes:
            if node.GetID() not in self._watched:
                self._watched.add(node.GetID())
                node.AddObserver(vtkCommand.ModifiedEvent, self._rename)

    def _rename(self, node: Any, _event: str) -> None:
        if node.GetID() in self._ids:
            self._box.setItemText(self._ids.index(node.GetID()), node.GetName())

    def _choose(self, identifier: str) -> None:
        self._box.setCurrentIndex(self._ids.index(identifier) if identifier in self._ids else -1)

    def _tell(self, *_: Any) -> None:
        self.currentNodeChanged.emit(NodeOrFlag())
        self.currentNodeIDChanged.emit(self._current())


def _check(thing: Any, kind: type) -> None:
    if thing is not None and not isinstance(thing, kind):
        raise TypeError(f"{kind.__name__} is wanted, not {type(thing).__name__}")


def install() -> None:
    """Puts the widgets where Slicer has them."""
    import ctk

    slicer.qMRMLWidget = pythonic(_qMRMLWidget)
    slicer.qSlicerWidget = pythonic(_qSlicerWidget)
    slicer.qMRMLNodeComboBox = pythonic(_qMRMLNodeComboBox)
    # What Slicer's own parameter node asks for.
    slicer.qMRMLSliderWidget = _named("qMRMLSliderWidget", ctk.ctkSliderWidget.plain)
    slicer.qMRMLSpinBox = _named("qMRMLSpinBox", QtWidgets.QDoubleSpinBox)
    for name in ("qMRMLRangeWidget", "qMRMLCheckableNodeComboBox", "qMRMLSubjectHierarchyComboBox"):
        setattr(slicer, name, _named(name, QtWidgets.QWidget))


def _named(name: str, base: type) -> Any:
    return pythonic(type(name, (base,), {}))
