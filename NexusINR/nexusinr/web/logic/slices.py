"""The slider and the caption of each slice view."""

from __future__ import annotations

from typing import Any

from trame_server import Server
from trame_server.utils.typed_state import TypedState
from trame_slicer.views import SliceView

from nexusinr.web.room import Room
from nexusinr.web.state import SliceState

#: Letters at the ends of the axes, right, anterior, superior: towards less and towards more.
LETTERS = (("L", "R"), ("P", "A"), ("I", "S"))


def connect(server: Server, room: Room, view: SliceView) -> TypedState[SliceState]:
    """Keeps slider and view together."""
    state = TypedState(server.state, SliceState, namespace=view.get_singleton_tag())
    data = state.data

    def on_slider(at: float) -> None:
        room.scroll_to(view, float(at))

    def on_view(*_: Any) -> None:
        low, high = view.get_slice_range()
        with state.suppress_change_listeners():
            data.low, data.high = round(low, 3), round(high, 3)
            data.step = round(view.get_slice_step(), 3)
            data.at = round(view.get_slice_value(), 3)
            data.place = _place(view)

    state.bind_changes({state.name.at: on_slider})
    view.modified.connect(on_view)
    # The view's signal holds methods weakly and functions not: this one lives as long as the view.
    on_view()
    return state


def _place(view: SliceView) -> str:
    """For example ``S 12.5 mm``: where along the patient's axis nearest to the normal."""
    matrix = view.get_view_node().GetSliceToRAS()
    normal = [matrix.GetElement(row, 2) for row in range(3)]
    axis = max(range(3), key=lambda i: abs(normal[i]))
    value = view.get_slice_value() * (1 if normal[axis] > 0 else -1)
    return f"{LETTERS[axis][value >= 0]} {abs(value):.1f} mm"
