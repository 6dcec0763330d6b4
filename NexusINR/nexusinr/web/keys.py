"""What the keys of the page do; `ui.help` says it in words, the page's script sends them."""

from __future__ import annotations

from collections.abc import Callable

from trame_server import Server

from nexusinr.web.logic.live import LiveLogic
from nexusinr.web.logic.look import BOTH, LookLogic
from nexusinr.web.room import Room
from nexusinr.web.state import PageState

#: How far the curtain moves at a time, and how many slices the page keys turn.
CURTAIN_STEP, PAGE = 0.02, 5


class Keys:
    """Hears ``nexusinr_key``: the key, and the view under the mouse."""

    def __init__(
        self, server: Server, room: Room, look: LookLogic, live: LiveLogic, page: PageState
    ) -> None:
        self._room, self._look, self._live = room, look, live
        data = look.data
        self._actions: dict[str, Callable[[], None]] = {
            "1": lambda: self._show("T1w"),
            "2": lambda: self._show("T2w"),
            "3": lambda: self._show(BOTH),
            "4": lambda: self._toggle("surface"),
            "s": lambda: self._toggle("overlay"),
            "m": lambda: self._toggle("invented"),
            "c": lambda: self._toggle("curtain"),
            "b": lambda: self._toggle("blink"),
            " ": lambda: self._toggle("restored_on_top"),
            "v": self._toggle_live,
            "l": lambda: setattr(data, "linked", not data.linked),
            "f": look.fit,
            "w": look.reset_window,
            "p": lambda: setattr(page, "panel", not page.panel),
            "?": lambda: setattr(page, "help", not page.help),
            "ArrowLeft": lambda: self._move_curtain(-CURTAIN_STEP),
            "ArrowRight": lambda: self._move_curtain(CURTAIN_STEP),
        }
        self._steps = {"ArrowUp": 1, "ArrowDown": -1, "PageUp": PAGE, "PageDown": -PAGE}
        server.trigger("nexusinr_key")(self.press)

    def press(self, key: str, tag: str) -> None:
        """One key, with the tag of the view under the mouse or an empty text."""
        if key in self._steps and self._look.data.has_scans:
            shown = {view.tag for view in self._room.views}
            first = next(iter(self._room.views)).tag
            self._room.scroll(tag if tag in shown else first, self._steps[key])
        elif key in self._actions:
            self._actions[key]()

    def _show(self, choice: str) -> None:
        modalities = self._look.data.modalities
        if choice in modalities or (choice == BOTH and len(modalities) > 1):
            self._look.data.show = choice

    def _toggle(self, name: str) -> None:
        data = self._look.data
        if data.has_results:
            setattr(data, name, not getattr(data, name))

    def _toggle_live(self) -> None:
        if self._look.data.has_results:
            self._live.data.on = not self._live.data.on

    def _move_curtain(self, step: float) -> None:
        data = self._look.data
        if data.curtain:
            data.curtain_at = round(min(max(data.curtain_at + step, 0.0), 1.0), 2)
