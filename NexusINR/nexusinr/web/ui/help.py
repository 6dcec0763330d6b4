"""The dialog that lists mouse and keys; the keys themselves are in the page's script."""

from __future__ import annotations

from trame.widgets import html
from trame.widgets import vuetify3 as v3
from trame_server import Server
from trame_server.utils.typed_state import TypedState

from nexusinr.web.state import PageState
from nexusinr.web.ui import parts

MOUSE = (
    ("Wheel", "next slice"),
    ("Left drag", "window and level; in 3D: turn"),
    ("Right drag", "zoom"),
    ("Middle drag, Shift + left", "pan"),
)

KEYS = (
    ("1  2  3", "T1w, T2w, both"),
    ("4", "tissues in 3D"),
    ("S", "tissues over the slices"),
    ("M", "measured or invented"),
    ("C", "curtain;  ←  →  move it"),
    ("B", "blink by itself"),
    ("Space", "restored in the place of the original"),
    ("↑  ↓", "next slice under the mouse"),
    ("V", "live slice"),
    ("L", "link views"),
    ("F", "fit the head into the views"),
    ("W", "reset window and level"),
    ("P", "show or hide the panel"),
    ("?", "this help"),
)


class HelpUI:
    """Opened by the bar or by a key."""

    def __init__(self, server: Server) -> None:
        name = TypedState(server.state, PageState).name
        with (
            v3.VDialog(v_model=(name.help,), width=640),
            v3.VCard(title="Mouse and keys", classes="nx-help"),
            v3.VCardText(),
        ):
            for title, rows in (("Mouse", MOUSE), ("Keys", KEYS)):
                parts.heading(title)
                with html.Div(classes="nx-keys"):
                    for key, meaning in rows:
                        html.Kbd(key)
                        html.Span(meaning)
