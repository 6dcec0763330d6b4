"""Take: links to everything that can be saved."""

from __future__ import annotations

from typing import Any

from trame.widgets import html
from trame.widgets import vuetify3 as v3
from trame_server import Server
from trame_server.utils.typed_state import TypedState

from nexusinr.web.state import SCENE, SCREEN, LookState, TakeState
from nexusinr.web.ui import parts


class TakeUI:
    """One link for each file; the browser asks where to put it, or puts it with its downloads."""

    def __init__(self, server: Server) -> None:
        name: Any = TypedState(server.state, TakeState).name
        look: Any = TypedState(server.state, LookState).name
        with html.Div(v_if=(f"{name.files}.length",)):
            parts.heading("Files of the run")
            with html.A(
                v_for=f"file in {name.files}",
                key="file.name",
                href=("'download/' + file.name",),
                download=("file.name",),
                classes="nx-file",
            ):
                v3.VIcon(icon=("file.icon",), size=20)
                with html.Div(classes="nx-file-text"):
                    html.Div("{{ file.title }}", classes="nx-title")
                    html.Div("{{ file.name }} · {{ file.size }}", classes="nx-note")
                v3.VIcon("mdi-download", size=18)
        with html.Div(v_if=(look.has_scans,)):
            parts.heading("What is open")
            _link(SCREEN, "Screenshot", "All views as they are now", "mdi-camera-outline")
            _link(SCENE, "Scene", "Everything, for 3D Slicer (.mrb)", "mdi-cube-scan")
            with html.Div(v_if=(name.busy,), classes="nx-group"):
                parts.note("Writing the scene; the views stand still meanwhile …")
                v3.VProgressLinear(indeterminate=True, color="primary", height=3, rounded=True)
        parts.note("Open or restore scans first.", v_if=(f"!{look.has_scans}",))


def _link(name: str, title: str, text: str, icon: str) -> None:
    with html.A(href=f"download/{name}", download=name, classes="nx-file"):
        v3.VIcon(icon, size=20)
        with html.Div(classes="nx-file-text"):
            html.Div(title, classes="nx-title")
            html.Div(text, classes="nx-note")
        v3.VIcon("mdi-download", size=18)
