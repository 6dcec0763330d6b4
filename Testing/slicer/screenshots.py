"""Pictures of the module for its documentation: the panel, and every comparison view.

Usage: python Testing/slicer/screenshots.py FOLDER [--t1w FILE] [--t2w FILE] [--spacing MM]

Without scans it takes the computed head that comes with the module. No screen is needed; what is
drawn is the real panel and the real views (see standins/slicerapp), after a real run.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
MODULE = HERE.parents[1] / "NexusINR"
SAMPLES = MODULE / "Resources" / "SampleData"

#: Width and height of the views, and width of the panel, pixels.
VIEWS, PANEL = (1200, 800), 460


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--t1w", type=Path, default=SAMPLES / "phantom_T1w.nii.gz")
    parser.add_argument("--t2w", type=Path, default=SAMPLES / "phantom_T2w.nii.gz")
    parser.add_argument("--spacing", type=float, help="mm, equal on all axes; default: the finest")
    return parser.parse_args(arguments)


class Desk:
    """The module, opened, with two scans.

    Args:
        app: ``slicer.app``.
        given: the command line.
    """

    def __init__(self, app: Any, given: argparse.Namespace) -> None:
        import slicer
        from slicerapp import modules

        self.app, self.folder = app, given.folder
        self.window = slicer.util.mainWindow()
        self.window.resize(*VIEWS)
        self.window.show()
        module = modules.load_module(MODULE / "NexusINR.py")
        self.panel = module.widgetRepresentation()
        self.panel.enter()
        self.ui = self.panel.self().ui
        for name, path in (("T1w", given.t1w), ("T2w", given.t2w)):
            slicer.util.loadVolume(str(path), {"name": name})
        self.wait(lambda: self.ui.applyButton.enabled)
        if given.spacing:
            parameters = self.panel.self().logic.getParameterNode()
            parameters.spacing = type(parameters.spacing).FREE
            for axis in "XYZ":
                getattr(self.ui, f"spacing{axis}SpinBox").value = given.spacing

    def wait(self, condition: Callable[[], bool], seconds: float = 3600) -> None:
        """Lets the event loop run until something is the case."""
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                raise TimeoutError(self.ui.statusLabel.text)
            self.app.processEvents()
            time.sleep(0.02)

    def restore(self) -> None:
        """Presses Apply, and takes a picture of the panel on the way."""
        self.wait(lambda: "GB of memory" in self.ui.estimateLabel.text)
        start = time.monotonic()
        self.ui.applyButton.click()
        self.wait(lambda: self.ui.progressBar.value > 300 or not self.ui.cancelButton.enabled)
        self.save_panel("panel-running")
        self.wait(lambda: not self.ui.cancelButton.enabled)
        print(f"{self.ui.statusLabel.text} ({time.monotonic() - start:.0f} s from Apply)")

    def save_panel(self, name: str) -> None:
        """A picture of the whole panel."""
        self.panel.resize(PANEL, max(self.panel.sizeHint.height(), 600))
        self.panel.show()
        self.app.processEvents()
        self._save(self.panel.grab(), name)

    def save_views(self, name: str) -> None:
        """A picture of all views, each with its label as on Slicer's bar above it."""
        import qt

        manager = self.app.layoutManager()
        self.app.processEvents()
        picture = manager.viewport().grab()
        painter = qt.QPainter(picture)
        for view in map(manager.sliceWidget, manager.sliceViewNames()):
            node, place = view.mrmlSliceNode(), view.mapTo(manager.viewport(), qt.QPoint(0, 0))
            colour = qt.QColor.fromRgbF(*node.GetLayoutColor())
            painter.fillRect(place.x(), place.y(), view.width, 4, colour)
            painter.setPen(colour)
            painter.drawText(place.x() + 6, place.y() + 20, node.GetLayoutLabel())
        painter.end()
        self._save(picture, name)

    def compare(self) -> None:
        """Every comparison view."""
        ui = self.ui
        start = time.monotonic()
        ui.compareButton.click()
        print(f"comparison layout after {time.monotonic() - start:.1f} s")
        self.save_views("compare-both")
        self.save_panel("panel-compared")
        ui.shownComboBox.currentText = "T1w"
        self.save_views("compare-t1w")
        ui.shownComboBox.currentText = "T2w"  # of thicker slices
        comparison = self.panel.self().panel.compare.comparison
        comparison.blink(True)
        self.save_views("blink")
        comparison.blink(False)
        ui.curtainCheckBox.checked = True
        self.save_views("curtain")
        ui.curtainCheckBox.checked = False
        ui.tissuesSlider.value = 40
        self.save_views("tissues")
        ui.tissuesSlider.value = 0
        ui.inventedSlider.value = 70
        self.save_views("invented")
        ui.compareButton.click()

    def _save(self, picture: Any, name: str) -> None:
        path = self.folder / f"{name}.png"
        if not picture.save(str(path)):
            raise OSError(f"{path} cannot be written")
        print(path)


def main(arguments: list[str]) -> None:
    """Makes all pictures."""
    given = parse(arguments)
    given.folder.mkdir(parents=True, exist_ok=True)
    sys.path[:0] = [str(HERE / "standins"), str(MODULE)]
    import slicerapp

    with tempfile.TemporaryDirectory() as scratch:
        desk = Desk(slicerapp.start(Path(scratch)), given)
        desk.save_panel("panel")
        desk.restore()
        desk.compare()
        desk.panel.exit()
        desk.panel.self().cleanup()


if __name__ == "__main__":
    main(sys.argv[1:])
