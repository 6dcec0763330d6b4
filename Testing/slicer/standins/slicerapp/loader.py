"""Panels out of ``.ui`` files, made of classes with manners and of those of CTK and Slicer."""

# ruff: noqa: N802 (names of Slicer and Qt)

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from typing import Any

from PySide6 import QtCore, QtUiTools, QtWidgets

from slicerapp.pythonqt import pythonic


def widget_class(name: str) -> Any:
    """The class that a ``.ui`` file calls so. Raises RuntimeError for one that Slicer has not."""
    import ctk
    import slicer

    if name == "Line":  # Designer's own name
        return pythonic(QtWidgets.QFrame)
    for library in (QtWidgets, ctk, slicer):
        found = getattr(library, name, None)
        if found is not None:
            return pythonic(found) if library is QtWidgets else found
    raise RuntimeError(f"the panel has a {name}, which is not known here")


class UiLoader(QtUiTools.QUiLoader):
    """Slicer's loader. Connections are made here: MRML's signals exist in Python only."""

    def load(self, file: QtCore.QIODevice, parent: QtWidgets.QWidget | None = None) -> Any:
        """The top widget of an open file. Raises RuntimeError for what Slicer could not load."""
        root = ElementTree.fromstring(bytes(file.readAll().data()))
        for widget in root.iter("widget"):
            widget_class(widget.get("class", ""))
        connections = root.find("connections")
        wanted = [] if connections is None else list(connections)
        if connections is not None:
            root.remove(connections)
        buffer = QtCore.QBuffer()
        buffer.setData(ElementTree.tostring(root))
        buffer.open(QtCore.QIODevice.OpenModeFlag.ReadOnly)
        top = super().load(buffer, parent)
        for connection in wanted:
            _connect(top, connection)
        return top

    def createWidget(
        self, kind: str, parent: QtWidgets.QWidget | None = None, name: str = ""
    ) -> QtWidgets.QWidget:
        """One widget; Qt calls it for each."""
        widget = widget_class(kind)(parent)
        widget.setObjectName(name)
        if kind == "Line":
            widget.setFrameShape(QtWidgets.QFrame.Shape.HLine)
            widget.setFrameShadow(QtWidgets.QFrame.Shadow.Sunken)
        return widget


def _connect(top: QtWidgets.QWidget, connection: ElementTree.Element) -> None:
    said = {part.tag: part.text or "" for part in connection}

    def find(name: str) -> Any:
        if top.property("objectName") == name:
            return top
        found = top.findChildren(QtWidgets.QWidget, name)
        if len(found) != 1:
            raise RuntimeError(f"a connection names {name!r}, of which there are {len(found)}")
        return found[0]

    sender, receiver = find(said["sender"]), find(said["receiver"])
    sender.connect(said["signal"], getattr(receiver, said["slot"].partition("(")[0]))
