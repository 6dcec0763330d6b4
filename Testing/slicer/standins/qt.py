"""Slicer's ``qt``: every class of QtCore, QtGui, QtWidgets and QtUiTools under one roof."""

# ruff: noqa: N802 (names of Slicer and Qt)

from __future__ import annotations

from typing import Any

from PySide6 import QtCore, QtGui, QtWidgets
from slicerapp.loader import UiLoader
from slicerapp.pythonqt import pythonic

#: PySide's own, which PythonQt has not or has differently.
ABSENT = ("Signal", "Slot", "Property", "SIGNAL", "SLOT")


class _QFileDialog(QtWidgets.QFileDialog):
    """Answers with the path alone; PySide adds the chosen filter."""

    @staticmethod
    def getSaveFileName(*arguments: Any) -> str:
        """The chosen path, or an empty text."""
        return QtWidgets.QFileDialog.getSaveFileName(*arguments)[0]

    @staticmethod
    def getOpenFileName(*arguments: Any) -> str:
        """The chosen path, or an empty text."""
        return QtWidgets.QFileDialog.getOpenFileName(*arguments)[0]


#: What is not PySide's own class with manners.
OWN = {"QUiLoader": UiLoader, "QFileDialog": pythonic(_QFileDialog)}


def __getattr__(name: str) -> Any:
    if name in OWN:
        return OWN[name]
    for library in (QtCore, QtGui, QtWidgets):
        found = getattr(library, name, None)
        if found is not None and name not in ABSENT:
            is_object = isinstance(found, type) and issubclass(found, QtCore.QObject)
            return pythonic(found) if is_object else found
    raise AttributeError(f"module 'qt' has no attribute {name!r}")
