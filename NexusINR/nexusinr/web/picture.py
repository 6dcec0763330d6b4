"""A picture of what is on the screen: every view with its caption, as one PNG."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont
from slicer import vtkMRMLLayerDisplayableManager
from trame_slicer.views import Layout, LayoutDirection, ViewLayoutDefinition
from vtkmodules.vtkCommonDataModel import vtkImageData

from nexusinr.web.room import Room

_GAP = 2  # pixels between views


def save_screen(room: Room, path: Path) -> Path:
    """Writes the views as they are arranged now."""
    assert room.arrangement is not None
    captions = {view.tag: f"{view.label}  {view.plane.name.lower()}" for view in room.views}
    _laid_out(room, room.arrangement.layout(), captions).save(path)
    return path


def _laid_out(room: Room, item: Any, captions: dict[str, str]) -> Image.Image:
    if isinstance(item, ViewLayoutDefinition):
        return _view(room, item.singleton_tag, captions.get(item.singleton_tag, "tissues"))
    assert isinstance(item, Layout)
    parts = [_laid_out(room, part, captions) for part in item.items]
    across = item.direction == LayoutDirection.Horizontal
    widths, heights = [p.width for p in parts], [p.height for p in parts]
    gaps = _GAP * (len(parts) - 1)
    size = (sum(widths) + gaps, max(heights)) if across else (max(widths), sum(heights) + gaps)
    whole = Image.new("RGB", size, (34, 40, 48))
    at = 0
    for part in parts:
        whole.paste(part, (at, 0) if across else (0, at))
        at += _GAP + (part.width if across else part.height)
    return whole


def _view(room: Room, tag: str, caption: str) -> Image.Image:
    window = room.slicer.view_manager.get_view(tag).render_window()
    window.Render()
    image = vtkImageData()
    vtkMRMLLayerDisplayableManager.RenderWindowBufferToImage(window, image)
    width, height, _ = image.GetDimensions()
    scalars = image.GetPointData().GetScalars()
    pixels = bytes(memoryview(scalars))
    picture = Image.frombytes("RGB", (width, height), pixels).transpose(
        Image.Transpose.FLIP_TOP_BOTTOM
    )
    ImageDraw.Draw(picture).text((8, 6), caption, (200, 208, 216), ImageFont.load_default(14))
    return picture
