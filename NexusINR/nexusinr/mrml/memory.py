"""What the user had before, to give it back."""

from __future__ import annotations

from typing import Any

from nexusinr.mrml.scene import nodes_of

SELECTION = ("ActiveVolumeID", "SecondaryVolumeID", "ActiveLabelVolumeID")
COMPOSITE = (
    "BackgroundVolumeID",
    "ForegroundVolumeID",
    "LabelVolumeID",
    "ForegroundOpacity",
    "LabelOpacity",
    "Compositing",
    "LinkedControl",
    "HotLinkedControl",
)
SHOWN = ("Visibility",)
SEGMENTATION = ("Visibility", "Visibility2D", "Opacity2DFill", "Opacity2DOutline")
LAYOUT = ("ViewArrangement",)


class Memory:
    """Properties of nodes, to be set back."""

    def __init__(self) -> None:
        self._kept: list[tuple[Any, str, Any]] = []

    def keep(self, node: Any, properties: tuple[str, ...]) -> None:
        """Remembers properties by the name that follows Get and Set."""
        for name in properties:
            self._kept.append((node, name, getattr(node, f"Get{name}")()))

    def keep_class(self, scene: Any, kind: str, properties: tuple[str, ...]) -> None:
        """Remembers properties of all nodes of a class."""
        for node in nodes_of(scene, kind):
            self.keep(node, properties)

    def restore(self, scene: Any) -> None:
        """Sets everything back, where the node is still there, and forgets it."""
        for node, name, value in self._kept:
            if scene.IsNodePresent(node) and getattr(node, f"Get{name}")() != value:
                getattr(node, f"Set{name}")(value)
        self._kept.clear()
