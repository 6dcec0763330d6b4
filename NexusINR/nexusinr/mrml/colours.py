"""Colour nodes: the tissues, and the map of what was measured and what was invented."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nexusinr.labels import TISSUES
from nexusinr.mrml.scene import new_node, nodes_of

#: Marks a colour node as one of ours and says which.
KIND = "NexusINR.Colours"

#: From measured to invented: lightness rises steadily, so that it reads without colour vision too.
RAMP = ((0.16, 0.05, 0.45), (0.70, 0.15, 0.47), (0.96, 0.50, 0.27), (0.98, 0.95, 0.60))

#: Share at the upper end of the map: more than a quarter of the range is rare.
MOST_INVENTED = 0.25

_STEPS = 256

Colour = tuple[str, float, float, float, float]  # name, red, green, blue, opacity


def tissue_colours(scene: Any) -> Any:
    """Names and colours of labels.TISSUES by value; one node a scene."""
    colours: list[Colour] = [("background", 0.0, 0.0, 0.0, 0.0)]
    for tissue in TISSUES:
        red, green, blue = (c / 255 for c in tissue.colour)
        colours.append((tissue.name, red, green, blue, 1.0))
    return _table(scene, "NexusINR tissues", "tissues", colours)


def invented_colours(scene: Any) -> Any:
    """The ramp from measured to invented; one node a scene."""
    at = np.linspace(0, 1, _STEPS)
    stops = np.linspace(0, 1, len(RAMP))
    channels = [np.interp(at, stops, [colour[c] for colour in RAMP]) for c in range(3)]
    colours: list[Colour] = [
        (f"{share:.3f}", float(red), float(green), float(blue), 1.0)
        for share, red, green, blue in zip(at, *channels, strict=True)
    ]
    return _table(scene, "NexusINR measured to invented", "invented", colours)


def _table(scene: Any, name: str, kind: str, colours: Sequence[Colour]) -> Any:
    for found in nodes_of(scene, "vtkMRMLColorTableNode"):
        if found.GetAttribute(KIND) == kind:
            return found
    node = new_node(scene, "vtkMRMLColorTableNode", name)
    node.SetTypeToUser()
    node.SetAttribute(KIND, kind)
    node.SetNumberOfColors(len(colours))
    node.GetLookupTable().SetTableRange(0, len(colours) - 1)
    for value, colour in enumerate(colours):
        node.SetColor(value, *colour)
    return node
