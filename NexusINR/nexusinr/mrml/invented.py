"""The map of what was measured and what the model added, to lay over a restored scan."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from slicer import vtkMRMLColorLegendDisplayNode

from nexusinr.geometry import Affine
from nexusinr.mrml.colours import invented_colours
from nexusinr.mrml.scene import new_node
from nexusinr.mrml.volumes import add_volume

LEGEND = "vtkMRMLColorLegendDisplayNode"


def add_invented(
    scene: Any,
    share: NDArray[np.float32],
    affine: Affine,
    name: str,
    *,
    most: float = 1.0,
    least: float = 0.05,
    title: str = "invented",
) -> Any:
    """A volume node that shows how much of each voxel follows from no measurement.

    Colours run from 0 (measured) to `most`; below `least` the scan shows through. The colour bar
    appears in slice views that show the map.

    Args:
        scene: where the map goes.
        share: (i, j, k), not negative.
        affine: of the map.
        name: of the node.
        most: value at the upper end of the colours.
        least: values under this are not shown.
        title: of the colour bar.

    Raises ValueError where `most` does not lie above `least`.
    """
    if not 0 <= least < most:
        raise ValueError(f"the colours need 0 <= least < most, not {least:g} and {most:g}")
    node = add_volume(scene, share, affine, name)
    display = node.GetDisplayNode()
    display.SetAndObserveColorNodeID(invented_colours(scene).GetID())
    display.SetAutoWindowLevel(False)
    display.SetWindowLevelMinMax(0.0, most)
    display.SetAutoThreshold(False)
    display.SetThreshold(least, float(np.finfo(np.float32).max))
    display.SetApplyThreshold(True)
    _add_legend(scene, node, title)
    return node


def _add_legend(scene: Any, node: Any, title: str) -> None:
    if not scene.IsNodeClassRegistered(LEGEND):  # the colours logic does it in Slicer
        scene.RegisterNodeClass(vtkMRMLColorLegendDisplayNode())
    legend = new_node(scene, LEGEND, f"{node.GetName()} colour bar")
    legend.SetTitleText(title)
    legend.SetNumberOfLabels(3)
    legend.SetPosition(0.98, 0.04)  # the corner where the head is least
    legend.SetSize(0.12, 0.35)
    legend.SetLabelFormat("%.2f")
    legend.SetAndObservePrimaryDisplayNode(node.GetDisplayNode())
    node.AddAndObserveDisplayNodeID(legend.GetID())
    legend.Modified()  # its displayable manager does not look at display nodes that are added
