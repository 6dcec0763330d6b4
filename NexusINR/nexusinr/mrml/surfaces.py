"""Closed surfaces of tissues, made by VTK alone: in another thread, while the views stay alive.

`labels_of` and `show` look at the scene and belong to the thread of the views; what takes long lies
between them, in `surfaces_of`, for which VTK lets other threads run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from slicer import vtkSegmentationConverter
from vtkmodules.vtkCommonDataModel import vtkImageData, vtkPolyData
from vtkmodules.vtkCommonMath import vtkMatrix4x4
from vtkmodules.vtkCommonTransforms import vtkTransform
from vtkmodules.vtkFiltersCore import (
    vtkPolyDataNormals,
    vtkReverseSense,
    vtkWindowedSincPolyDataFilter,
)
from vtkmodules.vtkFiltersGeneral import vtkDiscreteFlyingEdges3D, vtkTransformPolyDataFilter

from nexusinr.geometry import FloatArray
from nexusinr.mrml.placement import from_vtk, to_vtk
from nexusinr.mrml.segmentation import LABELMAP
from nexusinr.mrml.volumes import fill, values_of

SURFACE = vtkSegmentationConverter.GetSegmentationClosedSurfaceRepresentationName()

#: How much steps between voxels are smoothed; both as Slicer does by default.
PASS_BAND, PASSES = 0.01, 40


@dataclass(frozen=True, eq=False)
class Labels:
    """One segment: where it is in an image of label values.

    Attributes:
        values: a copy of the image, (i, j, k), which segments may share.
        label: its value there.
        to_world: index of these values to the segmentation's space, (4, 4), mm.
    """

    values: NDArray[Any]
    label: int
    to_world: FloatArray


def has_surfaces(node: Any) -> bool:
    """Whether a segmentation node has them already."""
    return bool(node.GetSegmentation().ContainsRepresentation(SURFACE))


def labels_of(node: Any) -> dict[str, Labels]:
    """The segments of a segmentation node that have voxels, by identifier."""
    node.CreateBinaryLabelmapRepresentation()
    found: dict[str, Labels] = {}
    copies: dict[Any, NDArray[Any]] = {}
    segmentation = node.GetSegmentation()
    for at in range(segmentation.GetNumberOfSegments()):
        segment = segmentation.GetNthSegment(at)
        image = segment.GetRepresentation(LABELMAP)
        if image is not None and image.GetNumberOfPoints() > 0:
            if image not in copies:
                copies[image] = values_of(image).copy(order="F")
            name = segmentation.GetNthSegmentID(at)
            found[name] = Labels(copies[image], segment.GetLabelValue(), _to_world(image))
    return found


def surfaces_of(segments: dict[str, Labels]) -> dict[str, vtkPolyData]:
    """A closed surface of each segment. Needs no scene; takes about a second for a head."""
    made = {name: _surface(labels) for name, labels in segments.items()}
    return {name: surface for name, surface in made.items() if surface is not None}


def show(node: Any, surfaces: dict[str, vtkPolyData]) -> None:
    """Gives surfaces to the segments of a node, by identifier, and shows them in 3D views."""
    segmentation = node.GetSegmentation()
    for name, surface in surfaces.items():
        segmentation.GetSegment(name).AddRepresentation(SURFACE, surface)
    display = node.GetDisplayNode()
    display.SetPreferredDisplayRepresentationName3D(SURFACE)
    display.SetVisibility3D(True)


def _to_world(image: Any) -> FloatArray:
    """Of the first voxel that it has, whatever number that has."""
    matrix = vtkMatrix4x4()
    image.GetImageToWorldMatrix(matrix)
    to_world = from_vtk(matrix)
    to_world[:3, 3] += to_world[:3, :3] @ np.array(image.GetExtent()[::2])
    return to_world


def _surface(labels: Labels) -> vtkPolyData | None:
    inside = labels.values == labels.label
    box, start = [], []
    for axis in range(3):
        kept = np.flatnonzero(inside.any(axis=tuple({0, 1, 2} - {axis})))
        if len(kept) == 0:
            return None
        box.append(slice(kept[0], kept[-1] + 1))
        start.append(kept[0] - 1)  # with a margin, so that it is closed
    to_world = labels.to_world.copy()
    to_world[:3, 3] += to_world[:3, :3] @ start
    image = vtkImageData()
    fill(image, np.pad(inside[tuple(box)], 1))
    return _smooth(image, to_world)


def _smooth(image: vtkImageData, to_world: FloatArray) -> vtkPolyData:
    """The surface of what is 1 in an image."""
    edges = vtkDiscreteFlyingEdges3D()
    edges.SetInputData(image)
    edges.SetValue(0, 1)
    edges.ComputeNormalsOff()
    edges.ComputeGradientsOff()
    smooth = vtkWindowedSincPolyDataFilter()
    smooth.SetInputConnection(edges.GetOutputPort())
    smooth.SetNumberOfIterations(PASSES)
    smooth.SetPassBand(PASS_BAND)
    smooth.BoundarySmoothingOff()
    smooth.FeatureEdgeSmoothingOff()
    smooth.NonManifoldSmoothingOn()
    smooth.NormalizeCoordinatesOn()
    transform = vtkTransform()
    transform.SetMatrix(to_vtk(to_world))
    placed = vtkTransformPolyDataFilter()
    placed.SetInputConnection(smooth.GetOutputPort())
    placed.SetTransform(transform)
    last = placed
    if np.linalg.det(to_world[:3, :3]) < 0:  # a mirror turns triangles inside out
        last = vtkReverseSense()
        last.SetInputConnection(placed.GetOutputPort())
    normals = vtkPolyDataNormals()
    normals.SetInputConnection(last.GetOutputPort())
    normals.SplittingOff()
    normals.ConsistencyOff()
    normals.Update()
    return normals.GetOutput()
