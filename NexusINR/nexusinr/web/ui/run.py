"""Run: what is asked for, what it will take, and how far it is."""

from __future__ import annotations

from typing import Any

from trame.widgets import html
from trame.widgets import vuetify3 as v3
from trame_server import Server
from trame_server.utils.typed_state import TypedState
from undo_stack import Signal

from nexusinr.web.state import RunState
from nexusinr.web.ui import parts

#: Spacings to choose with one click, mm; the empty one is the finest of the scans.
PRESETS = (("", "auto"), ("1", "1.0"), ("0.8", "0.8"), ("0.5", "0.5"))

DEVICES = ("auto", "cpu", "cuda", "mps")


class RunUI:
    """The form and its buttons.

    Signals:
        applied: restore the scans.
        cancelled: stop.
    """

    applied = Signal()
    cancelled = Signal()

    def __init__(self, server: Server) -> None:
        self._name: Any = TypedState(server.state, RunState).name
        name = self._name
        with html.Fieldset(disabled=(name.running,), classes="nx-form"):
            self._spacing()
            with html.Div(classes="nx-columns"):
                _select("Model", name.model, (name.models,))
                _select("Device", name.device, list(DEVICES))
            with html.Div(classes="nx-group"):
                with html.Div(classes="nx-row"):
                    html.Span("Keep what was measured", classes="nx-title")
                    v3.VSpacer()
                    html.Span(f"{{{{ (100 * {name.keep}).toFixed(0) }}}} %", classes="nx-value")
                parts.slider(name.keep, 0, 1, 0.05, disabled=(name.running,))
            with parts.switched("Segment the tissues", name.segmentation):
                pass
        self._estimate()
        self._buttons()
        parts.alert("error", name.problem)
        parts.alert("success", name.outcome)

    def _spacing(self) -> None:
        name = self._name
        with html.Div(classes="nx-group"):
            html.Span("Voxel size, mm", classes="nx-title")
            with html.Div(classes="nx-row nx-spacing"):
                with v3.VBtnToggle(
                    v_model=(name.spacing,),
                    divided=True,
                    density="compact",
                    variant="outlined",
                    color="primary",
                ):
                    for value, title in PRESETS:
                        v3.VBtn(title, value=value, size="small")
                v3.VTextField(
                    v_model=(name.spacing,),
                    placeholder="0.7 0.7 2",
                    raw_attrs=['title="One length, or three along the axes of the first scan"'],
                    hide_details=True,
                    density="compact",
                    variant="outlined",
                    classes="nx-free",
                )

    def _estimate(self) -> None:
        name = self._name
        waiting = f"{name.estimating} && !{name.estimate}"
        parts.note("Estimating …", v_if=(waiting,))
        parts.note(f"{{{{ {name.estimate} }}}}", v_if=(name.estimate,))
        parts.alert("warning", name.estimate_problem)
        parts.warnings(name.warnings)

    def _buttons(self) -> None:
        name = self._name
        v3.VBtn(
            "Restore",
            prepend_icon="mdi-auto-fix",
            click=self.applied.emit,
            v_if=(f"!{name.running}",),
            disabled=(f"!{name.can_run}",),
            color="primary",
            block=True,
        )

    def progress(self) -> None:
        """How far the run is, at the foot of the panel whatever else it shows."""
        name = self._name
        with html.Div(v_if=(name.running,), classes="nx-progress"):
            with html.Div(classes="nx-row"):
                html.Span(f"{{{{ {name.step} }}}}", classes="nx-title nx-ellipsis")
                v3.VSpacer()
                html.Span(f"{{{{ {name.remaining} }}}}", classes="nx-value")
            with html.Div(classes="nx-row"):
                v3.VProgressLinear(
                    model_value=(name.percent,), color="primary", height=6, rounded=True
                )
                v3.VBtn("Cancel", click=self.cancelled.emit, size="small", variant="tonal")


def _select(label: str, key: str, items: Any) -> None:
    v3.VSelect(
        label=label,
        v_model=(key,),
        items=items if isinstance(items, tuple) else ("['" + "', '".join(items) + "']",),
        hide_details=True,
        density="compact",
        variant="outlined",
    )
