"""How Slicer loads a scripted module, shows its panel and reloads it."""

# ruff: noqa: N801, N802, N815 (names of Slicer and Qt)

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import slicer
from PySide6 import QtCore, QtWidgets

from slicerapp.pythonqt import pythonic
from slicerapp.widgets import _qSlicerWidget

#: What a scripted module says of itself; anything else cannot be set.
SAID = (
    "title", "categories", "dependencies", "contributors", "helpText", "acknowledgementText",
    "icon", "hidden", "index", "associatedNodeTypes", "extensions",
    "widgetRepresentationCreationEnabled",
)  # fmt: skip


class LogicHolder:
    """One of Slicer's own modules: its logic."""

    def __init__(self, name: str, logic: Any) -> None:
        self.name, self._logic = name, logic

    def logic(self) -> Any:
        return self._logic


class _qSlicerScriptedLoadableModuleWidget(_qSlicerWidget):
    """The panel of a scripted module."""

    def __init__(self, path: str) -> None:
        super().__init__()
        QtWidgets.QVBoxLayout(self)
        self.__dict__.update(_path=path, _self=None, _entered=False)

    isEntered = QtCore.Property(bool, lambda s: s._entered)

    def self(self) -> Any:
        return self._self

    def setup(self) -> None:
        self._self.setup()

    def enter(self) -> None:
        self.__dict__["_entered"] = True
        if hasattr(self._self, "enter"):
            self._self.enter()

    def exit(self) -> None:
        self.__dict__["_entered"] = False
        if hasattr(self._self, "exit"):
            self._self.exit()

    def reload(self) -> None:
        _instantiate(self)
        self.setup()


PanelWidget = pythonic(_qSlicerScriptedLoadableModuleWidget)


class qSlicerScriptedLoadableModule:
    """A module as Slicer's factory makes it, and what it hands to the script as ``parent``."""

    __slots__ = (*SAID, "_panel", "name", "path")

    def __init__(self, path: Path) -> None:
        self.path, self.name = str(path), path.stem
        self.hidden, self._panel = False, None

    def widgetRepresentation(self) -> Any:
        if self._panel is None:
            self._panel = PanelWidget(self.path)
            self._panel.setMRMLScene(slicer.mrmlScene)
            _instantiate(self._panel)
            self._panel.setup()
        return self._panel


def _instantiate(panel: Any) -> None:
    name = Path(panel._path).stem
    made = getattr(sys.modules[name], f"{name}Widget")(panel)
    panel.__dict__["_self"] = made
    setattr(slicer.modules, f"{name}Widget", made)


def make_modules(core: Any) -> None:
    """``slicer.modules`` and ``slicer.moduleNames``, with the modules that bring logics."""
    slicer.modules, slicer.moduleNames = ModuleType("modules"), ModuleType("moduleNames")
    slicer.qSlicerScriptedLoadableModule = qSlicerScriptedLoadableModule
    slicer.qSlicerScriptedLoadableModuleWidget = PanelWidget
    for name, logic in (
        ("Segmentations", core.segmentations_logic),
        ("SubjectHierarchy", core.subject_hierarchy_logic),
        ("Terminologies", core.terminologies_logic),
        ("Volumes", core.volumes_logic),
        ("Colors", core.color_logic),
    ):
        setattr(slicer.modules, name.lower(), LogicHolder(name, logic))
        setattr(slicer.moduleNames, name, name)


def load_module(path: Path) -> qSlicerScriptedLoadableModule:
    """Loads a scripted module from its file, as at start-up."""
    name = path.stem
    sys.path.insert(0, str(path.parent))  # as Slicer does
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    sys.modules[name] = script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    module = qSlicerScriptedLoadableModule(path)
    setattr(slicer.modules, f"{name}Instance", getattr(script, name)(module))
    setattr(slicer.modules, name.lower(), module)
    setattr(slicer.moduleNames, name, name)
    slicer.app.moduleManager()._modules[name] = module
    return module


def leave(module: qSlicerScriptedLoadableModule) -> None:
    """What happens to a panel when the application ends."""
    slicer.app.moduleManager().moduleAboutToBeUnloaded.emit(module.name)
    QtCore.QCoreApplication.processEvents()
