"""The dress of a view: caption, letters of the patient's sides, place, slider."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from trame.widgets import html
from trame.widgets import vuetify3 as v3
from trame_server import Server
from trame_server.utils.typed_state import TypedState
from trame_slicer.core import ViewManager
from trame_slicer.rca_view import RemoteViewFactory
from trame_slicer.views import (
    AbstractView,
    NoScheduleRendering,
    SliceView,
    ThreeDView,
    ViewDirection,
    ViewType,
)

from nexusinr.mrml.layout import View, views_of
from nexusinr.web.logic import slices
from nexusinr.web.room import Room
from nexusinr.web.state import LiveState

Dress = Callable[[Server, str, Any], None]

#: Quality of the pictures that are sent while something moves; at rest trame sends better ones.
MOVING = 70

#: Frames a second in views that the mouse is not over: linked views are looked at as well.
BLUR_FPS = 20.0

_VIEWS = {view.tag: view for view in views_of(("T1w", "T2w"))}


def register_views(views: ViewManager, server: Server, room: Room) -> None:
    """Has views rendered here and shown in the page, in their dress."""
    for kind, make, dress in (
        (ViewType.SLICE_VIEW, SliceView, slice_dress(room)),
        (ViewType.THREE_D_VIEW, ThreeDView, surface_dress(room)),
    ):
        factory = RemoteViewFactory(
            server,
            partial(_quiet, make),
            kind,
            populate_view_ui_f=dress,
            blur_fps=BLUR_FPS,
            interactive_quality=MOVING,
        )
        views.register_factory(factory)


def _quiet(make: Callable[..., AbstractView], **arguments: Any) -> AbstractView:
    """A view that renders nothing until it is in the page, and later without smoothing edges.

    Otherwise every step of making it would be rendered, eight samples a pixel, on a CPU as a rule.
    """
    view = make(**arguments, scheduled_render_strategy=NoScheduleRendering())
    view.render_window().SetMultiSamples(0)
    return view


def slice_dress(room: Room) -> Dress:
    """For slice views of a room."""

    def dress(server: Server, _id: str, slice_view: SliceView) -> None:
        view = _VIEWS[slice_view.get_singleton_tag()]
        room.adopt(slice_view)
        name: Any = slices.connect(server, room, slice_view).name
        live: Any = TypedState(server.state, LiveState).name
        with html.Div(classes=f"nx-dress nx-{view.row}", raw_attrs=[f'data-view="{view.tag}"']):
            with html.Div(classes="nx-caption"):
                html.B(view.modality)
                html.Span(view.row, classes="nx-row-name")
                html.Span(view.plane.name.lower(), classes="nx-plane")
            for side, letter in zip(
                ("left", "right", "bottom", "top"), _letters(view), strict=True
            ):
                html.Span(letter, classes=f"nx-letter nx-{side}")
            html.Span(f"{{{{ {name.place} }}}}", classes="nx-place")
            if view.row == "restored":
                html.Span("live", v_if=(f"{live.shown}.includes('{view.tag}')",), classes="nx-live")
            v3.VSlider(
                v_model=(name.at,),
                min=(name.low,),
                max=(name.high,),
                step=(name.step,),
                hide_details=True,
                density="compact",
                thumb_size=10,
                track_size=2,
                color=view.plane.colour,
                classes="nx-slices",
            )

    return dress


def surface_dress(room: Room) -> Dress:
    """For the 3D view of a room."""

    def dress(_server: Server, _id: str, view: ThreeDView) -> None:
        room.adopt(view)
        with html.Div(classes="nx-dress"):
            with html.Div(classes="nx-caption"):
                html.B("Tissues")
                html.Span("3D")
            with html.Div(classes="nx-directions"):
                for direction in ViewDirection:
                    _direction(view, direction)

    return dress


def _direction(view: ThreeDView, direction: ViewDirection) -> None:
    def turn() -> None:
        view.rotate_to_view_direction(direction)

    title = direction.name.title()
    v3.VBtn(
        title[0],
        click=turn,
        raw_attrs=[f'title="From {title.lower()}"'],
        size="x-small",
        variant="tonal",
    )


def _letters(view: View) -> list[str]:
    """The patient's sides at left, right, bottom and top of the view."""
    found: list[str] = []
    for column in range(2):
        axis = [view.plane.axes[row][column] for row in range(3)]
        at = next(i for i, value in enumerate(axis) if value)
        ends = slices.LETTERS[at]
        found += ends if axis[at] > 0 else ends[::-1]
    return found
