"""The page: a bar above, the panel on the left, the views, and a welcome before there are any."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trame.ui.html import DivLayout
from trame.ui.vuetify3 import VAppLayout
from trame.widgets import client, html
from trame.widgets import vuetify3 as v3
from trame_client.widgets.core import VirtualNode
from trame_server import Server
from trame_server.utils.typed_state import TypedState

from nexusinr.web.state import LookState, OpenState, PageState
from nexusinr.web.ui import parts
from nexusinr.web.ui.help import HelpUI
from nexusinr.web.ui.look import LookUI
from nexusinr.web.ui.open import OpenUI, open_buttons
from nexusinr.web.ui.run import RunUI
from nexusinr.web.ui.take import TakeUI

NOTICE = "Derived images for research; not for primary diagnosis."

#: Style and script of the page, as a module of trame; nothing comes from elsewhere.
ASSETS = {
    "serve": {"nexusinr": str(Path(__file__).parents[1] / "static")},
    "scripts": ["nexusinr/reading-room.js"],
    "styles": ["nexusinr/reading-room.css"],
}

#: Dark, and grey where the scans are: colours near them would change how bright they look.
THEME = {
    "theme": {
        "defaultTheme": "reading",
        "themes": {
            "reading": {
                "dark": True,
                "colors": {
                    "background": "#07090c",
                    "surface": "#12161b",
                    "primary": "#5ab4c5",
                    "success": "#6fbf8b",
                    "warning": "#e0ad55",
                    "error": "#e57373",
                },
            }
        },
    }
}

TABS = (
    ("open", "Open", "mdi-folder-open-outline"),
    ("run", "Run", "mdi-auto-fix"),
    ("look", "Look", "mdi-eye-outline"),
    ("take", "Take", "mdi-tray-arrow-down"),
)

#: Pixels: wide enough for the longest line of the panel; on screens of 4K it is drawn larger.
PANEL = "$vuetify.display.width < 2400 ? 328 : 460"


#: Template of its own: the browser makes the rest of the page once, whatever views there are.
VIEWS = "nexusinr_views"


class PageUI:
    """Builds the page; its parts have the signals.

    Attributes:
        views: where the views go.
    """

    def __init__(self, server: Server) -> None:
        server.enable_module(ASSETS)
        self.views = VirtualNode(server)
        with DivLayout(server, VIEWS, connect_parent=False, classes="nx-layout") as layout:
            self.views(layout)
        self._name: Any = TypedState(server.state, PageState).name
        look: Any = TypedState(server.state, LookState).name
        with VAppLayout(server, vuetify_config=THEME) as self.layout:
            with v3.VAppBar(density="compact", flat=True, classes="nx-bar") as bar:
                pass
            with v3.VNavigationDrawer(
                v_model=(self._name.panel,),
                width=(PANEL,),
                permanent=(self._name.panel,),
                disable_resize_watcher=True,
                classes="nx-panel",
            ):
                self._tabs(server)
            with v3.VMain(classes="nx-main"), html.Div(classes="nx-views"):
                client.ServerTemplate(name=VIEWS)
                self._welcome(look, TypedState(server.state, OpenState).name)
            with bar:
                self._bar()
            HelpUI(server)
            html.Div("Drop scans to open them", classes="nx-drop")

    def _bar(self) -> None:
        name = self._name
        parts.tool("mdi-menu", "Panel (P)", f"{name.panel} = !{name.panel}")
        html.Span("NexusINR", classes="nx-brand")
        v3.VSpacer()
        self.look.bar()
        v3.VSpacer()
        html.Span(NOTICE, classes="nx-notice")
        parts.tool("mdi-keyboard-outline", "Mouse and keys (?)", f"{name.help} = true")

    def _tabs(self, server: Server) -> None:
        name = self._name
        with v3.VTabs(
            v_model=(name.tab,),
            grow=True,
            show_arrows=("false",),
            density="compact",
            classes="nx-tabs",
        ):
            for value, title, icon in TABS:
                with v3.VTab(value=value, size="small"):
                    v3.VIcon(icon, size=16, start=True)
                    html.Span(title)
        with html.Div(classes="nx-scroll"):
            with html.Div(v_show=(f"{name.tab} === 'open'",)):
                self.open = OpenUI(server)
            with html.Div(v_show=(f"{name.tab} === 'run'",)):
                self.run = RunUI(server)
            with html.Div(v_show=(f"{name.tab} === 'look'",)):
                self.look = LookUI(server)
            with html.Div(v_show=(f"{name.tab} === 'take'",)):
                self.take = TakeUI(server)
        self.run.progress()

    def _welcome(self, look: Any, opening: Any) -> None:
        with html.Div(v_if=(f"!{look.has_scans}",), classes="nx-welcome"):
            v3.VIcon("mdi-brain", size=72)
            html.H1("Thick slices in, any voxel size out")
            html.P(
                "Drop a T1w scan, a T2w scan or both here. They stay on this machine, in a folder "
                "that is removed when the viewer ends."
            )
            parts.note(f"{{{{ {opening.busy} }}}} …", v_if=(opening.busy,))
            with html.Div(v_if=(f"!{opening.busy}",), classes="nx-buttons"):
                open_buttons()
                self.open.sample_button()
