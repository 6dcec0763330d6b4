"""Slicer's ScreenCapture module: the picture of all views."""

# ruff: noqa: N802 (names of Slicer and Qt)

from __future__ import annotations

from typing import Any

import ctk
import slicer


class ScreenCaptureLogic:
    """Takes pictures."""

    def captureImageFromView(self, view: Any, filename: str | None = None) -> None:
        """Writes what all views show. Raises ValueError where they are not on the screen."""
        if view is not None:
            raise TypeError("only all views at once are captured here")
        slicer.app.processEvents()
        viewport = slicer.app.layoutManager().viewport()
        if not viewport.isVisible():
            raise ValueError("Capture image from view failed")
        picture = ctk.ctkWidgetsUtils.grabWidget(viewport)
        if filename and not picture.save(filename):
            raise ValueError(f"{filename} cannot be written")
