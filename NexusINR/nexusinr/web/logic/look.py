"""Looking: which views, at what window, with what laid over them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from trame_server import Server
from trame_server.utils.typed_state import TypedState

from nexusinr.inference.protocol import Event
from nexusinr.labels import TISSUES
from nexusinr.mrml.results import Results
from nexusinr.web.logic.open import Scan
from nexusinr.web.results import add_run, read_run, remove_run
from nexusinr.web.room import Room
from nexusinr.web.state import LookState, TissueRow

#: What is chosen to see both modalities.
BOTH = "both"

#: Seconds for which either image is seen while blinking.
BLINK = 0.7


class LookLogic:
    """Keeps the room as the page wants it, and tells the page of what changes in the room."""

    def __init__(self, server: Server, room: Room) -> None:
        self._state = server.state
        self.typed_state = TypedState(server.state, LookState)
        self._room = room
        self._results: Results | None = None
        self._blinking: asyncio.Task[None] | None = None
        self._bind()
        room.window_changed.connect(self._on_window_changed)
        room.fitted.connect(self._on_fitted)

    @property
    def data(self) -> LookState:
        """What the page shows."""
        return self.typed_state.data

    @property
    def results(self) -> Results | None:
        """The run that is shown."""
        return self._results

    @property
    def modality(self) -> str:
        """The one that the window sliders are for."""
        show = str(self.data.show)
        return self.data.modalities[0] if show == BOTH else show

    def _bind(self) -> None:
        name = self.typed_state.name
        self.typed_state.bind_changes(
            {
                (name.show, name.surface): self._on_arranged,
                name.linked: self._on_linked,
                (name.window, name.level): self._on_window,
                (name.overlay, name.overlay_opacity): self._on_overlay,
                (name.invented, name.invented_opacity): self._on_invented,
                (name.curtain, name.curtain_at): self._on_curtain,
                name.blink: self._on_blink,
                name.restored_on_top: self._on_top,
            }
        )

    # --- scans and results --------------------------------------------------------------------

    def show_scans(self, scans: Mapping[str, Scan]) -> None:
        """Other scans; what was made of earlier ones is no longer shown."""
        self._clear({role: scan.node for role, scan in scans.items()})
        with self.typed_state.suppress_change_listeners():
            self.data.has_scans, self.data.has_results = bool(scans), False
            self.data.modalities, self.data.tissues = list(scans), []
            self.data.show = BOTH if len(scans) > 1 else next(iter(scans), "T1w")
        if scans:
            self._arrange()
            self._tell_window()

    async def show_results(self, event: Event, scans: Mapping[str, Scan]) -> None:
        """What a run has made of scans. Raises InputError where its files cannot be read."""
        run = await asyncio.to_thread(read_run, event["files"], event["report"])
        nodes = {role: scan.node for role, scan in scans.items()}
        with self._state:
            self._clear(nodes)
            self._room.prepare()
            self._results = add_run(self._room.scene, run, nodes)
            self._room.show_results(self._results.pairs(), self._results.segmentation)
            with self.typed_state.suppress_change_listeners():
                self.data.has_results = True
                self.data.tissues = _legend(event["report"])
                self.data.show = self.modality
            self._arrange()
            self._tell_window()

    def _clear(self, scans: Mapping[str, Any]) -> None:
        """Shows scans alone; everything that lay over them is off."""
        self._on_blink(False)
        with self.typed_state.suppress_change_listeners():
            self.data.surface = self.data.overlay = self.data.invented = False
            self.data.curtain = self.data.blink = self.data.restored_on_top = False
        self._room.show_scans(scans)
        if self._results is not None:
            remove_run(self._room.scene, self._results)
            self._results = None

    # --- from the page ------------------------------------------------------------------------

    def fit(self) -> None:
        """The head into the middle of the views."""
        self._room.fit()

    def reset_window(self) -> None:
        """Window and level as the scan itself suggests."""
        if self.data.has_scans:
            self._room.reset_window(self.modality)

    def show_tissue(self, key: str, on: bool) -> None:
        """One line of the legend on or off."""
        rows = self.data.tissues
        for row in rows:
            row.shown = on if row.key == key else row.shown
        self.data.tissues = rows
        self._room.show_tissue(key, on)

    def _arrange(self) -> None:
        show = str(self.data.show)
        shown = self.data.modalities if show == BOTH else [show]
        self._room.arrange(shown, bool(self.data.surface))

    async def _on_arranged(self, _show: str, surface: bool) -> None:
        if not self.data.has_scans:
            return
        with self._state:
            self._arrange()
            self._tell_window()
        if surface:
            await self._make_surfaces()

    async def _make_surfaces(self) -> None:
        with self._state:
            self.data.surface_busy = True
        try:
            await self._room.make_surfaces()
        finally:
            with self._state:
                self.data.surface_busy = False

    def _on_linked(self, on: bool) -> None:
        self._room.link(on)

    def _on_window(self, window: float, level: float) -> None:
        if self.data.has_scans:
            self._room.set_window(self.modality, float(window), float(level))

    def _on_overlay(self, on: bool, opacity: float) -> None:
        if self._room.comparison is not None:
            self._room.comparison.show_segmentation(float(opacity) if on else 0.0)

    def _on_invented(self, on: bool, opacity: float) -> None:
        if self._room.comparison is not None:
            self._room.comparison.show_invented(float(opacity) if on else 0.0)
            self._room.redraw()

    def _on_curtain(self, on: bool, at: float) -> None:
        if self._room.comparison is not None:
            self._room.comparison.draw_curtain(float(at) if on else None)

    def _on_top(self, restored: bool) -> None:
        if self._room.comparison is not None:
            self._room.comparison.blink(restored)

    def _on_blink(self, on: bool) -> None:
        if self._blinking is not None:
            self._blinking.cancel()
            self._blinking = None
        if on:
            self._blinking = asyncio.get_running_loop().create_task(self._blink())
        else:
            self.data.restored_on_top = False

    async def _blink(self) -> None:
        while True:
            with self._state:
                self.data.restored_on_top = not self.data.restored_on_top
            await asyncio.sleep(BLINK)

    # --- from the room ------------------------------------------------------------------------

    def _on_fitted(self) -> None:
        self._state.flush()  # a timer fits views: it has nobody else to tell the page their places

    def _on_window_changed(self, modality: str) -> None:
        if self.data.has_scans and modality == self.modality:
            self._tell_window()

    def _tell_window(self) -> None:
        window, level = self._room.window_of(self.modality)
        low, high = self._room.range_of(self.modality)
        with self.typed_state.suppress_change_listeners():
            self.data.window, self.data.level = round(window, 3), round(level, 3)
            self.data.least, self.data.most = low, high


def _legend(report: dict[str, Any]) -> list[TissueRow]:
    volumes = report["tissue_volumes_ml"]
    return [
        TissueRow(
            t.name, t.name, "#{:02x}{:02x}{:02x}".format(*t.colour), f"{volumes[t.name]:.1f} mL"
        )
        for t in TISSUES
        if volumes.get(t.name)
    ]
