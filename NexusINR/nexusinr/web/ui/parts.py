"""Small parts of the panel that occur more than once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from trame.widgets import html
from trame.widgets import vuetify3 as v3


def heading(text: str) -> None:
    """The title of a group."""
    html.Div(text, classes="nx-heading")


def note(text: str, **kwargs: Any) -> None:
    """A remark in small letters; ``{{ }}`` in it is filled in by the page."""
    html.Div(text, classes="nx-note", **kwargs)


def alert(kind: str, key: str) -> None:
    """A sentence of the state, shown while there is one; kind: info, warning, error or success."""
    v3.VAlert(
        v_if=(key,),
        type=kind,
        text=(key,),
        variant="tonal",
        density="compact",
        classes="nx-alert",
    )


def warnings(expression: str) -> None:
    """Sentences of a list, each with a sign."""
    with html.Div(v_for=f"(text, at) in {expression}", key="at", classes="nx-warning"):
        v3.VIcon("mdi-alert-outline", size=14)
        html.Span("{{ text }}")


def slider(key: str, low: Any, high: Any, step: Any, **kwargs: Any) -> None:
    """A thin slider; limits are numbers or expressions in a tuple."""
    v3.VSlider(
        v_model=(key,),
        min=low,
        max=high,
        step=step,
        hide_details=True,
        density="compact",
        thumb_size=12,
        track_size=3,
        color="primary",
        **kwargs,
    )


@contextmanager
def switched(title: str, key: str, hint: str = "", **kwargs: Any) -> Iterator[None]:
    """A switch with a title and the key that turns it; what follows inside belongs to it."""
    with html.Div(classes="nx-group"):
        with html.Div(classes="nx-row"):
            v3.VSwitch(
                v_model=(key,),
                hide_details=True,
                density="compact",
                color="primary",
                classes="nx-switch",
                **kwargs,
            )
            html.Span(title, classes="nx-title")
            v3.VSpacer()
            if hint:
                html.Kbd(hint)
        yield


def tool(icon: str, title: str, click: Callable[..., Any] | str, **kwargs: Any) -> None:
    """A button of the bar: an icon, with its name and key where the mouse rests."""
    with v3.VBtn(
        icon=True,
        size=34,
        variant="text",
        rounded="lg",
        click=click,
        raw_attrs=[f'aria-label="{title}"'],
        **kwargs,
    ):
        v3.VIcon(icon, size=20)
        v3.VTooltip(title, activator="parent", location="bottom", open_delay=400)


def toggle(icon: str, title: str, key: str, **kwargs: Any) -> None:
    """A button of the bar that is on or off."""
    tool(
        icon, title, f"{key} = !{key}", active=(key,), color=(f"{key} ? 'primary' : ''",), **kwargs
    )
