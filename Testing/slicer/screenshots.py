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

#: How views look at a live slice: share of the head, and degrees.
ZOOM, TILT = 0.4, 20

#: Colours of a dark theme, as Qt's own dark style has them.
DARK = {
    "Window": "#353535", "WindowText": "#ffffff", "Base": "#2a2a2a", "AlternateBase": "#353535",
    "Text": "#ffffff", "Button": "#353535", "ButtonText": "#ffffff", "Highlight": "#2a82da",
    "HighlightedText": "#000000", "PlaceholderText": "#aaaaaa", "Light": "#505050",
    "Midlight": "#454545", "Mid": "#2a2a2a", "Dark": "#232323", "Shadow": "#141414",
}  # fmt: skip


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
        """A picture of the whole panel, as tall as its texts are at this width."""
        self.panel.show()
        for _ in range(2):  # the second time with what the first has shown
            self.panel.resize(PANEL, self.panel.heightForWidth(PANEL))
            self.app.processEvents()
        self._save(self.panel.grab(), name)

    def save_dark_panel(self, name: str) -> None:
        """The same in the colours of a dark theme."""
        import qt

        before, dark = qt.QPalette(self.app.palette()), qt.QPalette()
        for role, colour in DARK.items():
            dark.setColor(getattr(qt.QPalette, role), qt.QColor(colour))
        for role in ("WindowText", "ButtonText", "Text"):
            dark.setColor(qt.QPalette.Disabled, getattr(qt.QPalette, role), qt.QColor("#888888"))
        self.app.setPalette(dark)
        self.save_panel(name)
        self.app.setPalette(before)

    def save_views(self, name: str) -> None:
        """A picture of all views, each with its label as on Slicer's bar above it."""
        import qt
        from slicerapp.layout import shown_views

        manager = self.app.layoutManager()
        self.app.processEvents()
        picture = manager.viewport().grab()
        painter = qt.QPainter(picture)
        for view in shown_views(manager):
            node, place = view.mrmlSliceNode(), view.mapTo(manager.viewport(), qt.QPoint(0, 0))
            colour = qt.QColor.fromRgbF(*node.GetLayoutColor())
            painter.fillRect(place.x(), place.y(), view.width, 4, colour)
            for shade, off in ((qt.QColor("black"), 1), (colour, 0)):
                painter.setPen(shade)
                painter.drawText(place.x() + 6 + off, place.y() + 20 + off, node.GetLayoutLabel())
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
        self.save_dark_panel("panel-dark")
        ui.shownComboBox.currentText = "T1w"
        self.save_views("compare-t1w")
        self.go_live()
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

    def go_live(self) -> None:
        """Zoomed and tilted views, as the volume gives them and as they are decoded."""
        import slicer
        import vtk
        from slicerapp.layout import shown_views

        manager = self.app.layoutManager()
        views = shown_views(manager)
        for node in (view.mrmlSliceNode() for view in views):
            node.SetFieldOfView(*(ZOOM * v for v in node.GetFieldOfView()[:2]), 1)
            turn = vtk.vtkTransform()
            turn.SetMatrix(node.GetSliceToRAS())
            turn.RotateX(TILT)
            node.GetSliceToRAS().DeepCopy(turn.GetMatrix())
            node.UpdateMatrices()
        self.save_views("live-off")
        start = time.monotonic()
        self.ui.liveCheckBox.click()
        layer = slicer.vtkMRMLSliceCompositeNode.Layer_Last
        restored = [
            view.mrmlSliceCompositeNode()
            for view in views
            if "Restored" in view.mrmlSliceNode().GetName()
        ]
        self.wait(lambda: all(node.GetNthLayerVolumeID(layer) for node in restored))
        print(f"three live planes after {time.monotonic() - start:.1f} s")
        self.save_views("live")
        self.save_panel("panel-live")
        self.ui.liveCheckBox.click()
        self.ui.zoomButton.click()

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
