"""A curtain: left of it the original, right of it the restored image, in one view.

MRML blends whole layers. But a layer ends where its volume ends, so that the part of the restored
image on one side, cropped and laid over the original, is a curtain: exact to the voxel and in any
front end. It moves in steps of a voxel, along the lattice axis that runs across the view, and holds
a copy of the part that it shows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from vtkmodules.vtkCommonDataModel import vtkImageData

from nexusinr.geometry import Grid
from nexusinr.mrml.framing import Frame
from nexusinr.mrml.layout import Plane
from nexusinr.mrml.placement import to_vtk
from nexusinr.mrml.scene import new_node
from nexusinr.mrml.volumes import affine_of, array_of, copy_display, fill, grid_of


class Curtain:
    """The cropped copies of one restored volume node, one for each axis that is cut."""

    def __init__(self, scene: Any, restored: Any) -> None:
        self.scene = scene
        self.restored = restored
        self.parts: dict[int, Any] = {}

    def part(self, plane: Plane, frame: Frame, at: float) -> Any:
        """The node that lies right of the curtain in a plane; None where nothing does.

        Args:
            plane: of the view.
            frame: what the views show.
            at: 0 (all is restored) ... 1 (all is original), from left to right across the head.
        """
        axis, start, stop = cut(grid_of(self.restored), plane, frame, at)
        if start >= stop:
            return None
        node = self.parts.get(axis) or self._make(axis)
        box = [slice(None)] * 3
        box[axis] = slice(start, stop)
        corner = np.zeros(3)
        corner[axis] = start
        image = vtkImageData()
        fill(image, array_of(self.restored)[tuple(box)])
        matrix = affine_of(self.restored).matrix.copy()
        matrix[:3, 3] = affine_of(self.restored).apply(corner)
        was_modifying = node.StartModify()
        node.SetIJKToRASMatrix(to_vtk(matrix))
        node.SetAndObserveImageData(image)
        node.EndModify(was_modifying)
        return node

    def displays(self) -> list[Any]:
        """Display nodes of the parts."""
        return [node.GetDisplayNode() for node in self.parts.values()]

    def remove(self) -> None:
        """Takes the copies out of the scene."""
        for node in self.parts.values():
            self.scene.RemoveNode(node.GetDisplayNode())
            self.scene.RemoveNode(node)
        self.parts.clear()

    def _make(self, axis: int) -> Any:
        node = new_node(self.scene, "vtkMRMLScalarVolumeNode", f"{self.restored.GetName()} curtain")
        node.SetHideFromEditors(True)
        node.SetSaveWithScene(False)
        copy_display(self.restored, node)
        node.GetDisplayNode().SetSaveWithScene(False)
        self.parts[axis] = node
        return node


def cut(grid: Grid, plane: Plane, frame: Frame, at: float) -> tuple[int, int, int]:
    """Which part of a lattice lies right of a curtain: axis, first index, index after the last."""
    across = np.array(plane.axes, dtype=np.float64)[:, 0]  # screen right, in the frame's axes
    along = int(np.abs(across).argmax())
    share = at if across[along] > 0 else 1 - at
    point = (frame.low + frame.high) / 2
    point[along] = frame.low[along] + share * (frame.high - frame.low)[along]
    cosines = grid.affine.direction.T @ (frame.axes @ across)
    axis = int(np.abs(cosines).argmax())
    index = grid.affine.to_index(frame.axes @ point)[axis]
    size = grid.shape[axis]
    if cosines[axis] > 0:
        return axis, int(np.clip(np.ceil(index), 0, size)), size
    return axis, 0, int(np.clip(np.floor(index) + 1, 0, size))
