"""Which views are on the screen, in trame-slicer's terms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trame_slicer.views import (
    Layout,
    LayoutDirection,
    ViewLayoutDefinition,
    ViewProps,
    ViewType,
    slicer_layout_to_vue,
)

from nexusinr.mrml.layout import VIEW_GROUP, View, description, views_of

#: The tag of the 3D view.
SURFACE = "NexusINRSurface"

_ROW, _COLUMN = LayoutDirection.Horizontal, LayoutDirection.Vertical


@dataclass(frozen=True)
class Arrangement:
    """What is to be seen.

    Attributes:
        modalities: one or two.
        restored: whether there is anything but the scans.
        surface: the tissues in 3D beside the restored planes of the first modality.
    """

    modalities: tuple[str, ...]
    restored: bool = False
    surface: bool = False

    @property
    def name(self) -> str:
        """One for each arrangement."""
        parts = [*self.modalities, *(["restored"] * self.restored), *(["3D"] * self.surface)]
        return " ".join(parts)

    @property
    def views(self) -> list[View]:
        """The slice views among them."""
        if self.surface:
            return [v for v in views_of(self.modalities[:1]) if v.row == "restored"]
        rows = views_of(self.modalities)
        return rows if self.restored else [v for v in rows if v.row == "original"]

    def layout(self) -> Layout:
        """Where they are."""
        if self.surface:
            axial, sagittal, coronal = map(_slice_view, self.views)
            return _grid([[axial, sagittal], [coronal, _surface_view()]])
        if self.restored:
            return slicer_layout_to_vue(description(self.modalities))
        views = list(map(_slice_view, self.views))
        if len(self.modalities) == 1:
            return Layout(_ROW, [views[0], Layout(_COLUMN, views[1:])], ["2", "1"])
        return _grid([views[:3], views[3:]])


def _grid(rows: Sequence[list[ViewLayoutDefinition]]) -> Layout:
    return Layout(_COLUMN, [Layout(_ROW, list(row)) for row in rows])


def _slice_view(view: View) -> ViewLayoutDefinition:
    properties = ViewProps(
        label=view.label, orientation=view.plane.name, color=view.plane.colour, group=VIEW_GROUP
    )
    return ViewLayoutDefinition(view.tag, ViewType.SLICE_VIEW, properties)


def _surface_view() -> ViewLayoutDefinition:
    properties = ViewProps(label="3D", background_color=("#000000", "#10151b"), box_visible=False)
    return ViewLayoutDefinition(SURFACE, ViewType.THREE_D_VIEW, properties)
