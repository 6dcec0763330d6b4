"""Where nodes lie in patient space: lattices and linear transforms, in and out of MRML."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from vtkmodules.vtkCommonMath import vtkMatrix4x4

from nexusinr.errors import InputError
from nexusinr.geometry import Affine, FloatArray
from nexusinr.mrml.scene import new_node


def to_vtk(matrix: ArrayLike) -> vtkMatrix4x4:
    """A (4, 4) array as VTK has it."""
    result = vtkMatrix4x4()
    result.DeepCopy(np.asarray(matrix, dtype=np.float64).ravel().tolist())
    return result


def from_vtk(matrix: vtkMatrix4x4) -> FloatArray:
    """The (4, 4) array."""
    return np.array([[matrix.GetElement(i, j) for j in range(4)] for i in range(4)])


def world_transform(node: Any) -> FloatArray:
    """What the transforms above a node do, as one matrix (4, 4), RAS mm to RAS mm.

    Raises InputError where one of them is not linear.
    """
    parent = node.GetParentTransformNode()
    if parent is None:
        return np.eye(4)
    if not parent.IsTransformToWorldLinear():
        raise InputError(
            "the node lies under a transform that is not linear (it bends space), which a lattice "
            "cannot follow: harden the transform or take the node out of it"
        )
    matrix = vtkMatrix4x4()
    parent.GetMatrixTransformToWorld(matrix)
    return from_vtk(matrix)


def straighten(affine: Affine) -> tuple[Affine, FloatArray | None]:
    """Splits a sheared lattice into a rectangular one and a transform (4, 4) that shears it.

    The rectangular one keeps spacing, origin and the direction of the first axis. Without shear
    the lattice comes back as it is, and None.
    """
    if not affine.is_sheared:
        return affine, None
    orthogonal, triangular = np.linalg.qr(affine.direction)
    orthogonal = orthogonal * np.sign(np.diag(triangular))
    upright = Affine.from_parts(affine.spacing, orthogonal, affine.origin)
    return upright, affine.matrix @ upright.inverse


def put_under_shear(node: Any, shear: FloatArray | None) -> None:
    """Places a node under a linear transform node of its own; with None, under nothing.

    MRML could hold a sheared lattice, but files of volumes and several modules cannot. A transform
    is how Slicer keeps the tilt of a gantry, and it survives saving.
    """
    if shear is None:
        return
    transform = new_node(node.GetScene(), "vtkMRMLLinearTransformNode", f"{node.GetName()} shear")
    transform.SetMatrixTransformToParent(to_vtk(shear))
    node.SetAndObserveTransformNodeID(transform.GetID())
