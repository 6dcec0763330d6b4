"""The controls of the comparison views, over `nexusinr.mrml.comparison`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from nexusinr.errors import InputError
from nexusinr.mrml.comparison import Comparison, Pair
from nexusinr.mrml.results import Results, with_invented
from NexusINRLib.live import Live
from NexusINRLib.worker import Worker

#: Milliseconds that each scan is shown while blinking.
BLINK = 700


def save_picture(path: str) -> None:
    """A picture of all views as they are on the screen."""
    from ScreenCapture import ScreenCaptureLogic

    ScreenCaptureLogic().captureImageFromView(None, path)


def ask_for_file(title: str, pattern: str) -> str:
    """Where to save something; empty where the user thinks better of it."""
    return qt.QFileDialog.getSaveFileName(slicer.util.mainWindow(), title, "", pattern)


class Compare:
    """Enters and leaves the comparison, and passes on what the controls say.

    Args:
        ui: the panel's widgets by name.
        layout_node: gives the layout node of the window.
        worker: who decodes live slices.
        save: writes a picture of the views to a path.
        ask: asks for a path.

    Attributes:
        comparison: what is shown; None outside of the comparison.
    """

    def __init__(
        self,
        ui: Any,
        layout_node: Callable[[], Any],
        worker: Worker,
        save: Callable[[str], None] = save_picture,
        ask: Callable[[str, str], str] = ask_for_file,
    ) -> None:
        self.comparison: Comparison | None = None
        self._ui, self._layout_node, self._save, self._ask = ui, layout_node, save, ask
        self._results: Results | None = None
        self._live = Live(ui, worker)
        self._timer = qt.QTimer()
        self._timer.interval = BLINK
        self._timer.timeout.connect(self._flip)
        ui.compareButton.toggled.connect(self._switch)
        ui.shownComboBox.currentIndexChanged.connect(self._change_scans)
        ui.linkCheckBox.toggled.connect(lambda on: self._tell(lambda shown: shown.link(on)))
        ui.liveCheckBox.toggled.connect(self._go_live)
        ui.zoomButton.clicked.connect(lambda *_: self._tell(lambda shown: shown.fit()))
        ui.blinkButton.toggled.connect(self._blink)
        ui.curtainCheckBox.toggled.connect(lambda *_: self._draw_curtain())
        ui.curtainSlider.valueChanged.connect(lambda *_: self._draw_curtain())
        ui.tissuesSlider.valueChanged.connect(lambda *_: self._show_tissues())
        ui.inventedSlider.valueChanged.connect(lambda *_: self._show_invented())
        ui.screenshotButton.clicked.connect(lambda *_: self._take_picture())
        self._enable()

    def offer(self, results: Results | None) -> None:
        """Makes results comparable; where others are being compared, shows these instead."""
        was_shown = self.comparison is not None
        self.leave()
        self._results = results
        names = [] if results is None else [pair.modality for pair in results.pairs()]
        self._ui.shownComboBox.clear()
        for choice in ([" | ".join(names)] if len(names) == 2 else []) + names:
            self._ui.shownComboBox.addItem(choice)
        self._enable()
        if was_shown and names:
            self._ui.compareButton.checked = True

    def leave(self) -> None:
        """Gives the user's own layout back."""
        self._ui.compareButton.checked = False

    def uses(self, node: Any) -> bool:
        """Whether a node belongs to what can be compared."""
        results = self._results
        if results is None:
            return False
        return any(
            node in group.values()
            for group in (results.restored, results.originals, results.invented)
        ) or node in (results.segmentation, results.report)

    # --- one control each ---------------------------------------------------------------------

    def _switch(self, on: bool) -> None:
        if on:
            self._enter()
        else:
            self._leave()
        self._enable()

    def _enter(self) -> None:
        assert self._results is not None, "the button is enabled for results only"
        scene = self._results.report.GetScene()
        self.comparison = Comparison(scene, self._chosen(), self._results.segmentation)
        try:
            self.comparison.enter(self._layout_node())
        except InputError:
            self.comparison = None
            self._ui.compareButton.checked = False
            raise
        self._make_room()
        slicer.app.processEvents()  # the views get their size
        self.comparison.fit()
        self.comparison.link(self._ui.linkCheckBox.checked)
        self._draw_curtain()
        self._show_tissues()
        self._show_invented()
        self._go_live(self._ui.liveCheckBox.checked)

    def _make_room(self) -> None:
        """Takes the sliders off the bars of the views: the mouse wheel does the same.

        With them, four views in a row are wider than most screens, and their names are cut off.
        """
        assert self.comparison is not None
        manager = slicer.app.layoutManager()
        for view in self.comparison.nodes:
            manager.sliceWidget(view.tag).sliceController().sliceOffsetSlider().hide()

    def _leave(self) -> None:
        self._ui.blinkButton.checked = False
        self._live.stop()
        if self.comparison is not None:
            self.comparison.leave()
            self.comparison = None

    def _change_scans(self, *_: Any) -> None:
        if self.comparison is not None and self._ui.shownComboBox.currentIndex >= 0:
            self._leave()
            self._enter()

    def _chosen(self) -> list[Pair]:
        assert self._results is not None
        wanted = self._ui.shownComboBox.currentText.split(" | ")
        return [pair for pair in self._results.pairs() if pair.modality in wanted]

    def _tell(self, what: Callable[[Comparison], None]) -> None:
        if self.comparison is not None:
            what(self.comparison)

    def _go_live(self, on: bool) -> None:
        if on and self.comparison is not None:
            assert self._results is not None
            self._live.start(self.comparison, self._results.record)
        else:
            self._live.stop()

    def _blink(self, on: bool) -> None:
        if on:
            self._timer.start()
            self._flip()
        else:
            self._timer.stop()
            self._tell(lambda shown: shown.blink(False))

    def _flip(self) -> None:
        self._tell(lambda shown: shown.blink(not shown.blinked))

    def _draw_curtain(self) -> None:
        at = self._ui.curtainSlider.value / 100 if self._ui.curtainCheckBox.checked else None
        self._tell(lambda shown: shown.draw_curtain(at))

    def _show_tissues(self) -> None:
        opacity = self._ui.tissuesSlider.value / 100
        self._tell(lambda shown: shown.show_segmentation(opacity))

    def _show_invented(self) -> None:
        opacity = self._ui.inventedSlider.value / 100
        if opacity > 0 and self.comparison is not None:
            self._make_maps()
        self._tell(lambda shown: shown.show_invented(opacity))

    def _make_maps(self) -> None:
        """The maps, which take a moment, are made when they are looked at for the first time."""
        assert self._results is not None
        assert self.comparison is not None
        if all(pair.invented is not None for pair in self.comparison.pairs.values()):
            return
        with slicer.util.tryWithErrorDisplay(_("The map could not be made."), waitCursor=True):
            self._results = with_invented(self.comparison.scene, self._results)
        for modality, node in self._results.invented.items():
            if modality in self.comparison.pairs:
                pair = self.comparison.pairs[modality]
                self.comparison.pairs[modality] = replace(pair, invented=node)

    def _take_picture(self) -> None:
        path = self._ask(_("Save a picture of the comparison"), _("Pictures (*.png)"))
        if path:
            path = path if path.lower().endswith(".png") else f"{path}.png"
            with slicer.util.tryWithErrorDisplay(_("The picture could not be saved.")):
                self._save(path)

    def _enable(self) -> None:
        ui, results = self._ui, self._results
        comparable = results is not None and bool(results.pairs())
        ui.compareButton.enabled = comparable
        ui.shownComboBox.enabled = comparable
        is_shown = self.comparison is not None
        for widget in (
            ui.linkCheckBox,
            ui.liveCheckBox,
            ui.zoomButton,
            ui.blinkButton,
            ui.curtainCheckBox,
            ui.curtainSlider,
            ui.inventedSlider,
            ui.screenshotButton,
        ):
            widget.enabled = is_shown
        ui.tissuesSlider.enabled = is_shown and results.segmentation is not None
