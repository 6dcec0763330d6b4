"""Everything that a run leaves in a scene: added together, and found again after a reload."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nexusinr.geometry import Affine, Grid
from nexusinr.mrml.colours import MOST_INVENTED
from nexusinr.mrml.comparison import Pair
from nexusinr.mrml.hierarchy import place_beside, place_results, restored_name, spacing_text
from nexusinr.mrml.invented import add_invented, share_invented
from nexusinr.mrml.placement import to_vtk
from nexusinr.mrml.record import PREFIX, REPORT_ROLE, SOURCE_ROLE, add_record, record_of
from nexusinr.mrml.scene import new_node
from nexusinr.mrml.segmentation import add_segmentation
from nexusinr.mrml.volumes import add_volume, affine_of, copy_display

#: Attribute of restored volumes and of maps: ``T1w`` or ``T2w``.
MODALITY = PREFIX + "Modality"

#: Attribute that tells the results of one run apart: restored, tissues, invented, moved.
PART = PREFIX + "Part"

#: Role under which a map refers to the restored volume that it belongs to.
RESTORED_ROLE = "NexusINR.restored"


class Image(NamedTuple):
    """An image on its way into a scene: values, (i, j, k), and their affine."""

    data: NDArray[Any]
    affine: Affine


@dataclass(frozen=True, eq=False)
class Results:
    """The nodes of one run.

    Attributes:
        report: the text node with the run's record.
        restored: volume nodes by modality.
        originals: volume nodes of the scans by modality, those that are still in the scene.
        invented: volume nodes of the maps by modality, those that were made.
        segmentation: the segmentation node, None where there is none.
    """

    report: Any
    restored: dict[str, Any]
    originals: dict[str, Any]
    invented: dict[str, Any]
    segmentation: Any = None

    @property
    def nodes(self) -> list[Any]:
        """Restored volumes, then the segmentation."""
        return [*self.restored.values(), *filter(None, [self.segmentation])]

    @property
    def record(self) -> dict[str, Any]:
        """The run's report."""
        found = record_of(next(iter(self.restored.values())))
        assert found is not None, "restored volumes always refer to their report"
        return found

    def pairs(self) -> list[Pair]:
        """What can be compared: modalities whose scan is still there."""
        return [
            Pair(modality, self.originals[modality], node, self.invented.get(modality))
            for modality, node in self.restored.items()
            if modality in self.originals
        ]


def add_results(
    scene: Any,
    report: dict[str, Any],
    images: Mapping[str, Image],
    tissues: Image | None,
    sources: Mapping[str, Any],
) -> Results:
    """Restored volumes, tissues, record and, where a scan was moved, the transform that did it.

    They stand beside the first scan in the subject hierarchy and are shown as the scans are. If
    something goes wrong halfway, nothing stays in the scene.

    Args:
        scene: where everything goes.
        report: as in report.json.
        images: restored images by modality; one at least.
        tissues: values of labels.TISSUES, or None.
        sources: volume nodes of the scans by modality; one that was removed meanwhile is left out.
    """
    made: list[Any] = []
    try:
        restored = {}
        for modality, image in images.items():
            restored[modality] = _add_restored(scene, modality, image, sources.get(modality))
            made.append(restored[modality])
        segmentation = None
        if tissues is not None:
            segmentation = _add_tissues(scene, tissues, next(iter(restored.values())))
            made.append(segmentation)
        moved = _add_transform(scene, report)
        made += filter(None, [moved])
        text = add_record(scene, report, list(made), list(sources.values()))
        made.append(text)
        place_results(scene, made, next(iter(sources.values()), made[0]))
    except BaseException:
        for node in made:
            _discard(scene, node)
        raise
    return Results(text, restored, dict(sources), {}, segmentation)


def results_of(report: Any) -> Results | None:
    """The results that refer to a report's text node; None where no restored volume is left."""
    found: dict[str, dict[str, Any]] = {"restored": {}, "invented": {}, "tissues": {}}
    originals: dict[str, Any] = {}
    scene = report.GetScene()
    for index in range(scene.GetNumberOfNodes()):
        node = scene.GetNthNode(index)
        if node.GetNodeReferenceID(REPORT_ROLE) != report.GetID():
            continue
        part, modality = node.GetAttribute(PART), node.GetAttribute(MODALITY) or ""
        if part in found:
            found[part][modality] = node
        if part == "restored" and node.GetNodeReference(SOURCE_ROLE + modality) is not None:
            originals[modality] = node.GetNodeReference(SOURCE_ROLE + modality)
    if not found["restored"]:
        return None
    segmentation = found["tissues"].get("")
    return Results(report, found["restored"], originals, found["invented"], segmentation)


def with_invented(scene: Any, results: Results) -> Results:
    """The results with a map of what was invented for every scan that is still there."""
    invented = dict(results.invented)
    for pair in results.pairs():
        if pair.invented is None:
            node = _add_map(scene, results, pair)
            invented[pair.modality] = node
    return replace(results, invented=invented)


def _discard(scene: Any, node: Any) -> None:
    """Takes a node out of the scene, with its display and a shear above it."""
    if node.IsA("vtkMRMLDisplayableNode"):
        for index in reversed(range(node.GetNumberOfDisplayNodes())):
            scene.RemoveNode(node.GetNthDisplayNode(index))
    if node.IsA("vtkMRMLTransformableNode") and node.GetParentTransformNode() is not None:
        scene.RemoveNode(node.GetParentTransformNode())
    scene.RemoveNode(node)


def _add_restored(scene: Any, modality: str, image: Image, source: Any) -> Any:
    grid = Grid(image.data.shape, image.affine)
    node = add_volume(scene, image.data, image.affine, restored_name(modality, grid))
    node.SetAttribute(PART, "restored")
    node.SetAttribute(MODALITY, modality)
    if source is not None:
        node.SetNodeReferenceID(SOURCE_ROLE + modality, source.GetID())
        copy_display(source, node)
    return node


def _add_tissues(scene: Any, tissues: Image, reference: Any) -> Any:
    values = np.asarray(tissues.data, dtype=np.uint8)
    name = f"Tissues {spacing_text(tissues.affine.spacing)}"
    node = add_segmentation(scene, values, tissues.affine, name, reference)
    node.SetAttribute(PART, "tissues")
    return node


def _add_transform(scene: Any, report: dict[str, Any]) -> Any:
    """How the T2w scan was moved onto the T1w scan; None where it was not."""
    matrix = _moved(report)
    if matrix is None:
        return None
    node = new_node(scene, "vtkMRMLLinearTransformNode", "T2w onto T1w")
    node.SetMatrixTransformToParent(to_vtk(matrix))
    node.SetAttribute(PART, "moved")
    return node


def _moved(report: dict[str, Any]) -> NDArray[np.float64] | None:
    registration = report["registration"]
    return np.array(registration["matrix_ras"]) if registration["applied"] else None


def _add_map(scene: Any, results: Results, pair: Pair) -> Any:
    moved = _moved(results.record) if pair.modality == "T2w" else None
    share = share_invented(pair.original, pair.restored, moved)
    name = f"{pair.modality} invented"
    affine = affine_of(pair.restored)
    node = add_invented(scene, share, affine, name, most=MOST_INVENTED, title=name)
    node.SetAttribute(PART, "invented")
    node.SetAttribute(MODALITY, pair.modality)
    node.SetNodeReferenceID(REPORT_ROLE, results.report.GetID())
    node.SetNodeReferenceID(RESTORED_ROLE, pair.restored.GetID())
    place_beside(scene, node, pair.restored)
    return node
