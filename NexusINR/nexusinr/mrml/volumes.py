"""Volumes and label maps, in and out of MRML."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from vtkmodules.util.numpy_support import get_vtk_array_type, vtk_to_numpy
from vtkmodules.vtkCommonDataModel import vtkImageData
from vtkmodules.vtkCommonMath import vtkMatrix4x4

from nexusinr.errors import InputError
from nexusinr.geometry import Affine, Grid
from nexusinr.mrml.colours import tissue_colours
from nexusinr.mrml.placement import (
    from_vtk,
    put_under_shear,
    straighten,
    to_vtk,
    world_transform,
)
from nexusinr.mrml.scene import new_node

if TYPE_CHECKING:
    from nexusinr.volume import Volume

#: How truth values and real numbers are kept; integers stay as they are.
_KEPT: dict[str, np.dtype[Any]] = {"b": np.dtype(np.uint8), "f": np.dtype(np.float32)}


def fill(image: vtkImageData, data: NDArray[Any]) -> None:
    """Gives an image the sizes and values of an array, (i, j, k); one copy.

    Raises ValueError for an array that is not 3D and real.
    """
    data = np.asarray(data)
    if data.ndim != 3 or data.dtype.kind not in "biuf":
        raise ValueError(f"an image is 3D and real, not {data.dtype} of shape {data.shape}")
    kept = _KEPT.get(data.dtype.kind, data.dtype)
    image.SetDimensions(data.shape)
    image.AllocateScalars(get_vtk_array_type(kept), 1)
    values_of(image)[...] = data


def values_of(image: vtkImageData) -> NDArray[Any]:
    """The values of an image as (i, j, k): a view of its memory, valid as long as the image is."""
    shape = image.GetDimensions()
    return vtk_to_numpy(image.GetPointData().GetScalars()).reshape(shape, order="F")


def affine_of(node: Any) -> Affine:
    """Voxel index to patient space of a volume node, transforms above it included.

    The node itself is left as it is.

    Raises InputError under a transform that is not linear.
    """
    matrix = vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    return Affine(world_transform(node) @ from_vtk(matrix))


def array_of(node: Any) -> NDArray[Any]:
    """The values of a volume node, (i, j, k): a view of its memory.

    Raises InputError for a node that is empty or has several values a voxel.
    """
    image = node.GetImageData()
    if image is None or image.GetNumberOfPoints() == 0:
        raise InputError("the volume node is empty; load or choose a volume that has voxels")
    if image.GetNumberOfScalarComponents() != 1:
        raise InputError(
            f"the volume node has {image.GetNumberOfScalarComponents()} values a voxel (a colour "
            "image or a field); choose a scalar volume"
        )
    return values_of(image)


def grid_of(node: Any) -> Grid:
    """The lattice of a volume node in patient space; raises as `affine_of` and `array_of`."""
    i, j, k = array_of(node).shape
    return Grid((i, j, k), affine_of(node))


def volume_of(node: Any, name: str = "") -> Volume:
    """A volume node as a value, hardened: transforms above it are in the affine, data is copied.

    Args:
        node: a scalar volume node; stays as it is.
        name: of the volume. The node's own name is not used, as it may name the patient.

    Raises InputError as `affine_of` and `array_of`.
    """
    # Reading files needs packages that a fresh Slicer lacks and that scenes do without.
    from nexusinr.volume import Volume

    data = np.array(array_of(node), dtype=np.float32, order="C")
    return Volume(data, affine_of(node), name=name)


def add_volume(scene: Any, data: NDArray[Any], affine: Affine, name: str) -> Any:
    """A scalar volume node with a display node; data (i, j, k).

    A sheared lattice becomes a rectangular one under a linear transform (see `put_under_shear`).
    """
    return _add(scene, "vtkMRMLScalarVolumeNode", data, affine, name)


def add_labelmap(scene: Any, tissues: NDArray[Any], affine: Affine, name: str) -> Any:
    """A label map node of tissue values (labels.TISSUES), (i, j, k), in the tissues' colours."""
    node = _add(scene, "vtkMRMLLabelMapVolumeNode", tissues, affine, name)
    node.GetDisplayNode().SetAndObserveColorNodeID(tissue_colours(scene).GetID())
    return node


def _add(scene: Any, kind: str, data: NDArray[Any], affine: Affine, name: str) -> Any:
    image = vtkImageData()
    fill(image, data)
    upright, shear = straighten(affine)
    node = new_node(scene, kind, name)
    node.SetIJKToRASMatrix(to_vtk(upright.matrix))
    node.SetAndObserveImageData(image)
    node.CreateDefaultDisplayNodes()
    put_under_shear(node, shear)
    return node


def copy_display(source: Any, target: Any) -> None:
    """Shows a volume node as another one is shown.

    Window and level, threshold, interpolation and colours are taken over; what the source finds
    out from its own values is fixed at what it is now.
    """
    shown, display = source.GetDisplayNode(), target.GetDisplayNode()
    if shown is None:
        source.CreateDefaultDisplayNodes()
        shown = source.GetDisplayNode()
    if display is None:
        target.CreateDefaultDisplayNodes()
        display = target.GetDisplayNode()
    was_modifying = display.StartModify()
    display.SetAutoWindowLevel(False)
    display.SetWindowLevel(shown.GetWindow(), shown.GetLevel())
    display.SetAutoThreshold(False)
    display.SetThreshold(shown.GetLowerThreshold(), shown.GetUpperThreshold())
    display.SetApplyThreshold(shown.GetApplyThreshold())
    display.SetInterpolate(shown.GetInterpolate())
    display.SetAndObserveColorNodeID(shown.GetColorNodeID())
    display.EndModify(was_modifying)
