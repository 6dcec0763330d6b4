"""A curtain: left of it the original, right of it the restored image, in one view.

MRML blends whole layers. But a layer ends where its volume ends, so that the part of the restored
image on one side, cropped and laid over the original, is a curtain: exact to the voxel and in any
front end. It moves in steps of a voxel, along the lattice axis that runs across the view, and holds
a copy of the part that it shows. Where it hangs, a model cuts the view in a line.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from vtkmodules.vtkCommonDataModel import vtkImageData
from vtkmodules.vtkFiltersSources import vtkPlaneSource

from nexusinr.geometry import FloatArray, Grid
from nexusinr.mrml.framing import Frame
from nexusinr.mrml.layout import Plane
from nexusinr.mrml.placement import to_vtk
from nexusinr.mrml.scene import new_node
from nexusinr.mrml.volumes import affine_of, array_of, copy_display, fill, grid_of

#: Of the line: like nothing in a scan or among the tissues.
COLOUR = (0.35, 0.95, 0.85)


class Curtain:
    """The cropped copies of one restored volume node, one for each axis that is cut."""

    def __init__(self, scene: Any, restored: Any) -> None:
        self.scene = scene
        self.restored = restored
        self.parts: dict[int, Any] = {}
        self.edges: dict[str, Any] = {}  # by the name of the view

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

    def draw_edge(self, slice_node: Any, part: Any) -> None:
        """Marks where the curtain hangs in a view: the edge of a part; with None, nowhere."""
        name = slice_node.GetLayoutName()
        if part is None:
            if name in self.edges:
                self.edges[name].GetDisplayNode().SetVisibility(False)
            return
        node = self.edges.get(name) or self._make_edge(slice_node)
        axis = next(axis for axis, each in self.parts.items() if each is part)
        origin, one, other = _edge(grid_of(self.restored), grid_of(part), axis)
        source = vtkPlaneSource()
        source.SetOrigin(*origin)
        source.SetPoint1(*one)
        source.SetPoint2(*other)
        source.Update()
        node.SetAndObserveMesh(source.GetOutput())
        node.GetDisplayNode().SetVisibility(True)

    def displays(self) -> list[Any]:
        """Display nodes of the parts."""
        return [node.GetDisplayNode() for node in self.parts.values()]

    def remove(self) -> None:
        """Takes the copies out of the scene."""
        for node in (*self.parts.values(), *self.edges.values()):
            self.scene.RemoveNode(node.GetDisplayNode())
            self.scene.RemoveNode(node)
        self.parts.clear()
        self.edges.clear()

    def _make(self, axis: int) -> Any:
        node = self._new("vtkMRMLScalarVolumeNode", "curtain")
        copy_display(self.restored, node)
        node.GetDisplayNode().SetSaveWithScene(False)
        self.parts[axis] = node
        return node

    def _make_edge(self, slice_node: Any) -> Any:
        node = self._new("vtkMRMLModelNode", "curtain edge")
        node.CreateDefaultDisplayNodes()
        display = node.GetDisplayNode()
        display.SetSaveWithScene(False)
        display.SetColor(*COLOUR)
        display.SetSliceIntersectionThickness(2)
        display.SetVisibility2D(True)
        display.SetVisibility3D(False)
        display.AddViewNodeID(slice_node.GetID())
        self.edges[slice_node.GetLayoutName()] = node
        return node

    def _new(self, kind: str, name: str) -> Any:
        node = new_node(self.scene, kind, f"{self.restored.GetName()} {name}", hidden=True)
        node.SetSaveWithScene(False)
        return node


def _edge(whole: Grid, part: Grid, axis: int) -> FloatArray:
    """Three corners, (3, 3), mm, of the face of a part that lies inside of the whole lattice."""
    start = round(float(whole.affine.to_index(part.affine.origin)[axis]))
    stop = start + part.shape[axis]
    index = np.full((3, 3), -0.5)
    for corner, other in enumerate({0, 1, 2} - {axis}, start=1):
        index[corner, other] = whole.shape[other] - 0.5
    index[:, axis] = (start if start > 0 else stop) - 0.5
    return whole.affine.apply(index)


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
