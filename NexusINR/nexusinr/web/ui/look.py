"""Look: window and level, what is laid over the scans, and ways to compare."""

from __future__ import annotations

from typing import Any

from trame.widgets import html
from trame.widgets import vuetify3 as v3
from trame_server import Server
from trame_server.utils.typed_state import TypedState
from undo_stack import Signal

from nexusinr.mrml.colours import MOST_INVENTED, RAMP
from nexusinr.web.state import LiveState, LookState
from nexusinr.web.ui import parts


class LookUI:
    """Everything about the views that is not in them.

    Signals:
        fit_wanted: the head into the middle of the views.
        reset_wanted: window and level as the scan suggests.
        tissue_switched: key of a tissue, whether it is shown.
    """

    fit_wanted = Signal()
    reset_wanted = Signal()
    tissue_switched = Signal(str, bool)

    def __init__(self, server: Server) -> None:
        self._name: Any = TypedState(server.state, LookState).name
        self._live: Any = TypedState(server.state, LiveState).name
        name, live = self._name, self._live
        self._window()
        with html.Div(v_if=(name.has_results,)):
            with parts.switched("Tissues", name.overlay, "S"):
                self._opacity(name.overlay, name.overlay_opacity)
            self._legend()
            with parts.switched("Measured or invented", name.invented, "M"):
                self._opacity(name.invented, name.invented_opacity)
                self._colour_bar()
            with parts.switched("Curtain", name.curtain, "C"):
                parts.slider(name.curtain_at, 0, 1, 0.01, disabled=(f"!{name.curtain}",))
            with parts.switched("Blink", name.blink, "B"):
                pass
            with parts.switched("Live slice", live.on, "V"):
                parts.note(
                    "Restored views are decoded anew at the resolution of the screen: zoom in.",
                    v_if=(f"!{live.busy}",),
                )
                parts.note("Decoding …", v_if=(live.busy,))
                parts.alert("warning", live.problem)
            with parts.switched("Tissues in 3D", name.surface, "4"):
                parts.note("Making the surfaces …", v_if=(name.surface_busy,))
        with html.Div(v_if=(name.has_scans,)), parts.switched("Linked views", name.linked, "L"):
            pass
        parts.note("Open scans first.", v_if=(f"!{name.has_scans}",))

    def bar(self) -> None:
        """The same in the bar, for quick use."""
        name = self._name
        with v3.VBtnToggle(
            v_if=(name.has_scans,),
            v_model=(name.show,),
            mandatory=True,
            divided=True,
            density="compact",
            variant="outlined",
            color="primary",
            classes="nx-show",
        ):
            for at, modality in enumerate(("T1w", "T2w")):
                v3.VBtn(
                    modality,
                    v_if=(f"{name.modalities}.includes('{modality}')",),
                    value=modality,
                    size="small",
                    raw_attrs=[f'title="{modality} ({at + 1})"'],
                )
            v3.VBtn(
                "Both", v_if=(f"{name.modalities}.length > 1",), value="both", size="small",
                raw_attrs=['title="Both (3)"'],
            )  # fmt: skip
        with html.Div(v_if=(name.has_results,), classes="nx-tools"):
            parts.toggle("mdi-cube-outline", "Tissues in 3D (4)", name.surface)
            v3.VDivider(vertical=True, inset=True, classes="mx-1")
            parts.toggle("mdi-palette-outline", "Tissues (S)", name.overlay)
            parts.toggle("mdi-map-search-outline", "Measured or invented (M)", name.invented)
            parts.toggle("mdi-compare", "Curtain (C)", name.curtain)
            parts.toggle("mdi-swap-vertical", "Blink (B)", name.blink)
            parts.toggle("mdi-magnify-scan", "Live slice (V)", self._live.on)
            v3.VDivider(vertical=True, inset=True, classes="mx-1")
        with html.Div(v_if=(name.has_scans,), classes="nx-tools"):
            parts.toggle("mdi-link-variant", "Linked views (L)", name.linked)
            parts.tool("mdi-fit-to-screen-outline", "Fit (F)", self.fit_wanted.emit)
            parts.tool("mdi-contrast-circle", "Reset window and level (W)", self.reset_wanted.emit)

    def _window(self) -> None:
        name = self._name
        span = f"({name.most} - {name.least})"
        with html.Div(classes="nx-group", v_if=(name.has_scans,)):
            for title, key, low, high in (
                ("Window", name.window, 0, (span,)),
                ("Level", name.level, (name.least,), (name.most,)),
            ):
                with html.Div(classes="nx-row"):
                    html.Span(title, classes="nx-title")
                    v3.VSpacer()
                    html.Span(f"{{{{ Number({key}).toPrecision(4) }}}}", classes="nx-value")
                parts.slider(key, low, high, (f"{span} / 500",))

    def _opacity(self, on: str, key: str) -> None:
        parts.slider(key, 0.05, 1, 0.05, disabled=(f"!{on}",))

    def _legend(self) -> None:
        with html.Div(
            v_for=f"tissue in {self._name.tissues}", key="tissue.key", classes="nx-row nx-tissue"
        ):
            html.Span(classes="nx-swatch", style=("{ background: tissue.colour }",))
            html.Span("{{ tissue.name }}", classes="nx-ellipsis")
            v3.VSpacer()
            html.Span("{{ tissue.volume }}", classes="nx-value")
            with v3.VBtn(
                icon=True,
                size=24,
                variant="text",
                click=(self.tissue_switched.emit, "[tissue.key, !tissue.shown]"),
                raw_attrs=['aria-label="Show or hide"'],
            ):
                v3.VIcon(
                    icon=("tissue.shown ? 'mdi-eye-outline' : 'mdi-eye-off-outline'",), size=16
                )

    def _colour_bar(self) -> None:
        stops = ", ".join(
            "rgb({:.0f} {:.0f} {:.0f})".format(*(255 * c for c in colour)) for colour in RAMP
        )
        html.Div(classes="nx-ramp", style=f"background: linear-gradient(to right, {stops})")
        with html.Div(classes="nx-row nx-note"):
            html.Span("measured")
            v3.VSpacer()
            html.Span(f"{MOST_INVENTED:.0%} of the range added")
        parts.note(
            "How far the restored scan departs from plain interpolation of the scan, as a share "
            "of its intensities."
        )
