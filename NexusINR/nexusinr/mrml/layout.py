"""The layout of a comparison: original beside restored, axial, sagittal and coronal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any
from xml.etree.ElementTree import Element, SubElement, tostring

import numpy as np

from nexusinr.geometry import Affine, FloatArray

#: A view group of its own: linked views follow one another only inside a group.
VIEW_GROUP = 73

#: Numbers of the layouts with one and with two modalities.
LAYOUTS = {1: 7361, 2: 7362}

ROWS = ("original", "restored")


@dataclass(frozen=True)
class Plane:
    """A plane as radiologists look at it.

    Attributes:
        name: as Slicer calls the orientation.
        colour: of the view, as in Slicer's own views.
        axes: screen right, screen up and the slice normal as columns, RAS, (3, 3).
    """

    name: str
    colour: str
    axes: tuple[tuple[int, int, int], tuple[int, int, int], tuple[int, int, int]]


#: The patient's right is on the left of the screen; sagittal views look to the left.
PLANES = (
    Plane("Axial", "#F34A33", ((-1, 0, 0), (0, 1, 0), (0, 0, 1))),
    Plane("Sagittal", "#EDD54C", ((0, 0, 1), (-1, 0, 0), (0, 1, 0))),
    Plane("Coronal", "#6EB04B", ((-1, 0, 0), (0, 0, 1), (0, 1, 0))),
)


@dataclass(frozen=True)
class View:
    """One slice view of the layout."""

    modality: str
    row: str
    plane: Plane

    @property
    def tag(self) -> str:
        """The name that makes its nodes unique."""
        return f"NexusINR{self.modality}{self.row.title()}{self.plane.name}"

    @property
    def label(self) -> str:
        """Shown with the view."""
        return f"{self.modality} {self.row}"


def views_of(modalities: Sequence[str]) -> list[View]:
    """Row by row; in each row modality by modality, and in each the three planes."""
    return [View(m, row, plane) for row, m, plane in product(ROWS, modalities, PLANES)]


def description(modalities: Sequence[str]) -> str:
    """The layout in the language of MRML layout nodes, which trame-slicer reads as well.

    With one modality the originals are above the restored images, a column for each plane. With two
    each plane is a row and each original is left of its restored image: views are then about as
    wide as high, as heads are.
    """
    root = Element("layout", type="vertical")
    for views in arranged(modalities):
        line = SubElement(SubElement(root, "item"), "layout", type="horizontal")
        for view in views:
            _add_view(SubElement(line, "item"), view)
    return tostring(root, encoding="unicode")


def arranged(modalities: Sequence[str]) -> list[list[View]]:
    """The views as they are on the screen, in rows from above."""
    views = views_of(modalities)
    if len(modalities) == 1:
        return [[view for view in views if view.row == row] for row in ROWS]
    return [
        [view for m in modalities for view in views if (view.modality, view.plane) == (m, plane)]
        for plane in PLANES
    ]


def _add_view(item: Element, view: View) -> None:
    element = SubElement(item, "view", {"class": "vtkMRMLSliceNode", "singletontag": view.tag})
    for name, value in (
        ("orientation", view.plane.name),
        ("viewlabel", view.label),
        ("viewcolor", view.plane.colour),
        ("viewgroup", str(VIEW_GROUP)),
    ):
        SubElement(element, "property", name=name, action="default").text = value


def frame_of(affine: Affine) -> FloatArray:
    """The rotation (3, 3) from patient axes to the axes of a lattice that lie nearest to them.

    Planes turned by it cut a scan along its own slices. A sheared lattice gives the rotation that
    is nearest to its axes.
    """
    left, _, right = np.linalg.svd(affine.direction)
    orthogonal = left @ right
    frame = np.zeros((3, 3))
    for voxel, letter in enumerate(affine.orientation):
        patient = next(i for i, pair in enumerate(("RL", "AP", "SI")) if letter in pair)
        frame[:, patient] = orthogonal[:, voxel] * (1 if letter in "RAS" else -1)
    return frame


def slice_axes(plane: Plane, frame: FloatArray) -> FloatArray:
    """Screen right, screen up and slice normal in patient space, as columns, (3, 3)."""
    return frame @ np.array(plane.axes, dtype=np.float64)


def view_nodes(scene: Any, view: View) -> tuple[Any, Any]:
    """The slice node and the composite node of a view; made where they do not exist yet."""
    slice_node = _singleton(scene, "vtkMRMLSliceNode", view.tag)
    slice_node.SetName(view.tag)  # linking finds the composite node by this name
    slice_node.SetLayoutLabel(view.label)
    slice_node.SetViewGroup(VIEW_GROUP)
    slice_node.SetLayoutColor(*(int(view.plane.colour[i : i + 2], 16) / 255 for i in (1, 3, 5)))
    return slice_node, _singleton(scene, "vtkMRMLSliceCompositeNode", view.tag)


def _singleton(scene: Any, kind: str, tag: str) -> Any:
    node = scene.GetSingletonNode(tag, kind)
    if node is None:
        node = scene.CreateNodeByClass(kind)
        node.UnRegister(None)  # Python holds it now
        node.SetName(tag)
        node.SetLayoutName(tag)  # before Slicer sees it: it makes a view for it at once
        node = scene.AddNode(node)
    node.SetSaveWithScene(False)  # whoever made it: scenes with turned views open with complaints
    return node
