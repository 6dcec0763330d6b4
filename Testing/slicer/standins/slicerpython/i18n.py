"""Texts in the user's language; here they stay English."""

from __future__ import annotations

import slicer


def translate(context: str, text: str) -> str:
    """A text of a context."""
    return slicer.app.translate(context, text)


def tr(text: str) -> str:
    """A text of the calling file. Raises TypeError for what a translator would never see."""
    if not isinstance(text, str):
        raise TypeError(f"a text is translated, not {type(text).__name__}")
    return translate("", text)
