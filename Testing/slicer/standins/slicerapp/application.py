"""``slicer.app``: one real QApplication over one real scene with its logics."""

# ruff: noqa: N801, N802, N815 (names of Slicer and Qt)

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import slicer
from PySide6 import QtCore, QtWidgets
from trame_slicer.core import SlicerApp

from slicerapp.files import IOManager
from slicerapp.layout import _qSlicerLayoutManager
from slicerapp.pythonqt import pythonic

Property, Signal = QtCore.Property, QtCore.Signal


class _qSlicerModuleManager(QtCore.QObject):
    """Knows the modules by name."""

    moduleAboutToBeUnloaded = Signal(str)

    def __init__(self) -> None:
        super().__init__()
        self.__dict__["_modules"] = {}

    def module(self, name: str) -> Any:
        return self._modules.get(name)

    def modulesNames(self) -> list[str]:
        return list(self._modules)


class ModuleSelector:
    """Opens modules, one at a time; Slicer's own have no panel here.

    As in Slicer, the module that was chosen last cannot be chosen again, though there is none now.
    """

    def __init__(self) -> None:
        self.selectedModule: str | None = None
        self._last = ""

    def selectModule(self, name: str) -> None:
        if name == self._last:
            return
        for panel in self._panels():
            panel.exit()
        self.selectedModule, self._last = name or None, name or self._last
        for panel in self._panels():
            panel.enter()

    def _panels(self) -> list[Any]:
        module = self.selectedModule and slicer.app.moduleManager().module(self.selectedModule)
        return [module.widgetRepresentation()] if module else []


class _qSlicerMainWindow(QtWidgets.QMainWindow):
    """The window; no module is open at first."""

    def __init__(self) -> None:
        super().__init__()
        self.__dict__["_selector"] = ModuleSelector()

    def moduleSelector(self) -> ModuleSelector:
        return self._selector


class CommandOptions:
    """``slicer.app.commandOptions()``."""

    def __init__(self, testing: bool) -> None:
        self.testingEnabled = testing
        self.noMainWindow = False


class _qSlicerApplication(QtWidgets.QApplication):
    """The application, with what scripts ask it for.

    Args:
        home: the folder of the application; ``bin/PythonSlicer`` is below it.
        scratch: a folder for temporary files and settings.
    """

    startupCompleted = Signal()
    mrmlSceneChanged = Signal(object)

    def __init__(self, home: Path, scratch: Path) -> None:
        super().__init__(["Slicer"])
        self.setApplicationName("Slicer")
        self.setOrganizationName("NA-MIC")
        core = SlicerApp()
        settings = QtCore.QSettings(str(scratch / "Slicer.ini"), QtCore.QSettings.Format.IniFormat)
        self.__dict__.update(
            _core=core, _home=str(home), _scratch=str(scratch), _testing=False,
            _settings=settings, _manager=pythonic(_qSlicerModuleManager)(),
            _layout=pythonic(_qSlicerLayoutManager)(core),
            _window=pythonic(_qSlicerMainWindow)(),
        )  # fmt: skip
        self._window.setObjectName("qSlicerMainWindow")
        self._window.setCentralWidget(self._layout.viewport())

    # --- what Python sees in Slicer -----------------------------------------------------------

    def mrmlScene(self) -> Any:
        return self._core.scene

    def applicationLogic(self) -> Any:
        return self._core.app_logic

    def moduleLogic(self, name: str) -> Any:
        return self._core.app_logic.GetModuleLogic(name)

    def coreIOManager(self) -> IOManager:
        return IOManager(self._core)

    def moduleManager(self) -> Any:
        return self._manager

    def layoutManager(self) -> Any:
        return self._layout

    def testingEnabled(self) -> bool:
        return self._testing

    def commandOptions(self) -> CommandOptions:
        return CommandOptions(self._testing)

    def settings(self) -> QtCore.QSettings:
        return self._settings

    def userSettings(self) -> QtCore.QSettings:
        return self._settings

    def startupEnvironment(self) -> QtCore.QProcessEnvironment:
        return QtCore.QProcessEnvironment.systemEnvironment()

    environment = startupEnvironment

    def translate(self, context: str, text: str) -> str:
        return QtCore.QCoreApplication.translate(context, text)

    def pauseRender(self) -> None:
        pass

    def resumeRender(self) -> None:
        pass

    def setRenderPaused(self, paused: bool) -> None:
        pass

    slicerHome = Property(str, lambda s: s._home, constant=True)
    temporaryPath = Property(str, lambda s: s._scratch, lambda s, v: s.__dict__.update(_scratch=v))
    cachePath = Property(str, lambda s: s._scratch, constant=True)
    majorVersion = Property(int, lambda _: 5, constant=True)
    minorVersion = Property(int, lambda _: 12, constant=True)
    documentationBaseUrl = Property(
        str, lambda _: "https://slicer.readthedocs.io/en/latest/", constant=True
    )


def python_slicer(home: Path, python: str) -> None:
    """Puts a PythonSlicer below the application's folder, and in the search path."""
    folder = home / "bin"
    folder.mkdir(parents=True)
    (folder / "PythonSlicer").write_text(f'#!/bin/sh\nexec "{python}" "$@"\n')
    (folder / "PythonSlicer").chmod(0o755)
    os.environ["PATH"] = os.pathsep.join([str(folder), os.environ.get("PATH", "")])


def make_application(home: Path, scratch: Path) -> Any:
    """The one application of this process, also as ``slicer.app``."""
    app = pythonic(_qSlicerApplication)(home, scratch)
    slicer.app = app
    slicer.mrmlScene = app.mrmlScene()
    return app
