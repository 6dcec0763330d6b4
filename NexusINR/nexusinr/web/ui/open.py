"""Open: where scans come from, and the list of them."""

from __future__ import annotations

from trame.widgets import html
from trame.widgets import vuetify3 as v3
from trame_server import Server
from trame_server.utils.typed_state import TypedState
from undo_stack import Signal

from nexusinr.web.state import ROLES, OpenState
from nexusinr.web.ui import parts


def open_buttons() -> None:
    """Two ways to choose scans; the script of the page sends what is chosen."""
    v3.VBtn(
        "Files",
        prepend_icon="mdi-file-plus-outline",
        click="window.nexusinr.choose(false)",
        color="primary",
        variant="flat",
        size="small",
    )
    v3.VBtn(
        "DICOM folder",
        prepend_icon="mdi-folder-plus-outline",
        click="window.nexusinr.choose(true)",
        variant="tonal",
        size="small",
    )


class OpenUI:
    """One card for each scan.

    Signals:
        sample_wanted: the computed head.
        role_chosen: key of a scan, its role.
        removed: key of a scan.
    """

    sample_wanted = Signal()
    role_chosen = Signal(str, str)
    removed = Signal(str)

    def __init__(self, server: Server) -> None:
        self._state = TypedState(server.state, OpenState)
        name = self._state.name
        with html.Div(classes="nx-buttons"):
            open_buttons()
            self.sample_button()
        parts.note("Or drop them anywhere: NIfTI, NRRD, MetaImage, DICOM, or a zip of these.")
        parts.note(f"{{{{ {name.busy} }}}} …", v_if=(name.busy,))
        parts.alert("error", name.problem)
        with html.Div(v_for=f"scan in {name.scans}", key="scan.key", classes="nx-card"):
            self._card()

    def sample_button(self) -> None:
        """The computed head, for who has no scan at hand."""
        v3.VBtn(
            "Sample",
            prepend_icon="mdi-head-cog-outline",
            click=self.sample_wanted.emit,
            disabled=(f"!!{self._state.name.busy}",),
            variant="tonal",
            size="small",
        )

    def _card(self) -> None:
        with html.Div(classes="nx-row"):
            html.Span("{{ scan.name }}", classes="nx-title nx-ellipsis", title=("scan.name",))
            v3.VSpacer()
            with v3.VBtn(
                icon=True,
                size=24,
                variant="text",
                click=(self.removed.emit, "[scan.key]"),
                raw_attrs=['aria-label="Remove"'],
            ):
                v3.VIcon("mdi-close", size=16)
        parts.note("{{ scan.geometry }}")
        with v3.VBtnToggle(
            model_value=("scan.role",),
            update_modelValue=(self.role_chosen.emit, "[scan.key, $event]"),
            mandatory=True,
            divided=True,
            density="compact",
            variant="outlined",
            color="primary",
            classes="nx-roles",
        ):
            for role in ROLES:
                v3.VBtn(role if role in ROLES[:2] else "not used", value=role, size="small")
        parts.warnings("scan.warnings")
