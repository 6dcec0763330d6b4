"""The map of what was measured and what the model added, to lay over a restored scan."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from slicer import vtkMRMLColorLegendDisplayNode
from vtkmodules.util.numpy_support import vtk_to_numpy
from vtkmodules.vtkCommonCore import VTK_FLOAT
from vtkmodules.vtkCommonTransforms import vtkTransform
from vtkmodules.vtkImagingCore import vtkImageReslice

from nexusinr.geometry import Affine, FloatArray
from nexusinr.mrml.colours import invented_colours
from nexusinr.mrml.placement import to_vtk
from nexusinr.mrml.scene import new_node
from nexusinr.mrml.volumes import add_volume, affine_of, array_of

LEGEND = "vtkMRMLColorLegendDisplayNode"

#: Percentiles of a scan between which its intensities count as its range.
RANGE = (0.5, 99.5)


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


def share_invented(
    original: Any, restored: Any, moved: FloatArray | None = None
) -> NDArray[np.float32]:
    """How far a restored scan departs from what the scan itself shows there, (i, j, k), 0 ... 1.

    What the scan shows is its linear interpolation; the departure is given as a share of the scan's
    range. What lies outside of the scan counts as 0: nothing is restored there.

    Args:
        original: volume node of the scan.
        restored: volume node of what was made of it.
        moved: (4, 4), RAS mm: how registration moved the scan before it was restored.

    Raises InputError as `volumes.affine_of` and `volumes.array_of`.
    """
    scan, values = affine_of(original), array_of(original)
    if moved is not None:
        scan = scan.transformed(moved)
    image = array_of(restored)
    shown = _resliced(original, scan.inverse @ affine_of(restored).matrix, image.shape)
    low, high = np.percentile(values, RANGE)
    share = np.abs(image - shown) / np.float32(max(high - low, np.finfo(np.float32).tiny))
    share[np.isnan(share)] = 0
    return np.asarray(np.minimum(share, 1), dtype=np.float32)


def _resliced(node: Any, index_map: FloatArray, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """A volume node at other indices, linearly; NaN outside.

    Its image lies at the origin with voxels of size 1, as those of all volume nodes do.
    """
    transform = vtkTransform()
    transform.SetMatrix(to_vtk(index_map))
    reslice = vtkImageReslice()
    reslice.SetInputData(node.GetImageData())
    reslice.SetResliceTransform(transform)
    reslice.SetInterpolationModeToLinear()
    reslice.SetOutputScalarType(VTK_FLOAT)
    reslice.SetBackgroundLevel(np.nan)
    reslice.SetOutputOrigin(0, 0, 0)
    reslice.SetOutputSpacing(1, 1, 1)
    reslice.SetOutputExtent(0, shape[0] - 1, 0, shape[1] - 1, 0, shape[2] - 1)
    reslice.Update()
    scalars = reslice.GetOutput().GetPointData().GetScalars()
    return np.array(vtk_to_numpy(scalars)).reshape(shape, order="F")


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
