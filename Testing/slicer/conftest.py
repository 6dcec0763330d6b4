"""Slicer for tests (see standins/slicerapp), the module in it, and a small head to try it on."""

from __future__ import annotations

import logging
import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
MODULE = HERE.parents[1] / "NexusINR" / "NexusINR.py"

#: For a machine that is busy: seconds after which a test gives up.
PATIENCE = 120


@pytest.fixture(scope="session")
def slicer_app(tiny_model, tmp_path_factory) -> Any:
    """``slicer.app``; from here on ``import slicer, qt, ctk`` work as in Slicer."""
    for package in ("PySide6", "trame_slicer"):
        pytest.importorskip(package, reason=f"{package} is not installed: see pyproject.toml")
    sys.path.insert(0, str(HERE / "standins"))
    import slicerapp

    return slicerapp.start(tmp_path_factory.mktemp("slicer"))


@pytest.fixture(scope="session")
def module(slicer_app) -> Any:
    """The module as Slicer loads it at its start."""
    from slicerapp import modules

    found = modules.load_module(MODULE)
    slicer_app.startupCompleted.emit()
    yield found
    modules.leave(found)


@pytest.fixture(scope="session")
def wait(slicer_app) -> Callable[..., None]:
    """Lets the event loop run until something is the case."""

    def until(condition: Callable[[], Any], seconds: float = PATIENCE) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, "it has not happened"
            slicer_app.processEvents()
            time.sleep(0.005)

    return until


class Errors:
    """What went wrong where nobody could catch it: in slots, callbacks and the log.

    Attributes:
        found: the messages.
        expected: a regular expression of what a test wants to see there.
    """

    def __init__(self) -> None:
        self.found: list[str] = []
        self.expected: str | None = None

    def check(self) -> None:
        seen = [bool(self.expected and re.search(self.expected, text)) for text in self.found]
        assert all(seen), [text for text, known in zip(self.found, seen, strict=True) if not known]
        assert self.expected is None or seen, f"no error says {self.expected!r}"


@pytest.fixture(autouse=True)
def errors(monkeypatch, caplog) -> Iterator[Errors]:
    """Errors that Qt and VTK only print fail the test, unless it expects them."""
    made = Errors()
    monkeypatch.setattr(sys, "excepthook", lambda kind, error, _: made.found.append(repr(error)))
    yield made
    logged = caplog.get_records("call")
    made.found += [r.getMessage() for r in logged if r.levelno >= logging.ERROR]
    made.check()


class Dialogs:
    """Presses the buttons of message boxes, as a user would.

    Attributes:
        seen: the texts.
        answer: the button that is pressed where there is one of that name.
    """

    def __init__(self) -> None:
        from PySide6 import QtCore

        self.seen: list[str] = []
        self.answer = "Ok"
        self._timer = QtCore.QTimer()
        self._timer.setInterval(10)
        self._timer.timeout.connect(self._look)
        self._timer.start()

    def _look(self) -> None:
        from PySide6 import QtWidgets

        box = QtWidgets.QApplication.activeModalWidget()
        if isinstance(box, QtWidgets.QMessageBox):
            self.seen.append(QtWidgets.QMessageBox.text(box))
            wanted = getattr(QtWidgets.QMessageBox.StandardButton, self.answer)
            button = box.button(wanted) or box.buttons()[0]
            QtWidgets.QAbstractButton.click(button)

    def stop(self) -> None:
        self._timer.stop()


@pytest.fixture
def dialogs(slicer_app) -> Iterator[Dialogs]:
    """Message boxes are read and answered."""
    made = Dialogs()
    yield made
    made.stop()


# --- the module, opened -------------------------------------------------------------------------


@pytest.fixture
def scene(module, dialogs) -> Iterator[Any]:
    """The scene, empty at first and closed afterwards."""
    import slicer

    slicer.mrmlScene.Clear(0)
    yield slicer.mrmlScene
    slicer.mrmlScene.Clear(0)


@pytest.fixture
def widget(module, scene) -> Iterator[Any]:
    """The panel, as it is while the user works with it."""
    shown = module.widgetRepresentation()
    shown.enter()
    yield shown.self()
    shown.exit()


@pytest.fixture
def ui(widget) -> Any:
    """The panel's controls by name."""
    return widget.ui


@pytest.fixture(scope="session")
def plain() -> Callable[[Any], str]:
    """What a label says, with plain spaces."""
    return lambda label: label.text.replace("\N{NO-BREAK SPACE}", " ")


@pytest.fixture
def logic(module, scene) -> Any:
    """The module's logic, as scripts use it."""
    from NexusINR import NexusINRLogic

    return NexusINRLogic()


@pytest.fixture
def pair(scene, thick_pair) -> tuple[Any, Any]:
    """A T1w and a T2w scan of a small head, loaded."""
    from nexusinr.mrml.volumes import add_volume

    return tuple(
        add_volume(scene, scan.data, scan.affine, name)
        for scan, name in zip(thick_pair, ("T1w", "T2w"), strict=True)
    )


@pytest.fixture
def chosen(widget, pair, wait) -> Any:
    """The parameters of a run of a second, on the pair."""
    wait(lambda: widget.ui.applyButton.enabled)
    parameters = widget.logic.getParameterNode()
    parameters.model = "tiny"
    parameters.device = type(parameters.device)("cpu")
    return parameters


@pytest.fixture
def run(widget, ui, wait) -> Callable[[], Any]:
    """Presses Apply and waits for the results."""

    def press() -> Any:
        from nexusinr.mrml.results import results_of

        before = ui.resultSelector.currentNode()
        ui.applyButton.click()
        wait(lambda: not ui.cancelButton.enabled)
        node = ui.resultSelector.currentNode()
        assert node is not before, ui.statusLabel.text
        return results_of(node)

    return press


@pytest.fixture
def left_on_disk(slicer_app) -> Callable[[], list[str]]:
    """Names of the folders that runs have left."""

    def look() -> list[str]:
        return sorted(path.name for path in Path(slicer_app.temporaryPath).glob("nexusinr-*"))

    return look
