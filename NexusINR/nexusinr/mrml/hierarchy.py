"""Where results stand in the subject hierarchy, and what they are called."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from slicer import vtkMRMLSubjectHierarchyConstants as Levels
from slicer import vtkMRMLSubjectHierarchyNode

from nexusinr.geometry import FloatArray, Grid

FOLDER = "NexusINR results"

#: What Slicer's DICOM export takes a volume for; without it, for CT.
MODALITY = "DICOM.Modality"


def restored_name(modality: str, grid: Grid) -> str:
    """For example ``T1w restored 1.0 mm``; holds nothing of the scan's own name."""
    return f"{modality} restored {spacing_text(grid.spacing)}"


def spacing_text(spacing: FloatArray) -> str:
    """``1.0 mm`` where all three are the same to 0.01 mm, else ``0.9 × 0.9 × 3.0 mm``."""
    texts = [f"{round(float(s), 2):.2f}".removesuffix("0") for s in spacing]
    return f"{texts[0] if len(set(texts)) == 1 else ' × '.join(texts)} mm"


def place_results(scene: Any, results: Sequence[Any], source: Any, folder: str = FOLDER) -> int:
    """Puts result nodes under the study of the scan that they come from.

    Where no study stands right above the scan they have a folder of their own beside it. (In a
    study a folder would hide patient and study from Slicer's DICOM export, which looks at the item
    above alone.) A scan that the subject hierarchy does not know is added at its root.

    Returns the item above the results.
    """
    hierarchy = vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    home = hierarchy.GetItemParent(_item(hierarchy, source))
    if hierarchy.GetItemLevel(home) != Levels.GetDICOMLevelStudy():
        home = hierarchy.CreateFolderItem(home, hierarchy.GenerateUniqueItemName(folder))
    for node in results:
        item = _item(hierarchy, node)
        hierarchy.SetItemParent(item, home)
        if node.IsA("vtkMRMLScalarVolumeNode"):
            hierarchy.SetItemAttribute(item, MODALITY, "MR")
    return int(home)


def place_beside(scene: Any, node: Any, other: Any) -> None:
    """Puts a node into the folder of another one."""
    hierarchy = vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    folder = hierarchy.GetItemParent(_item(hierarchy, other))
    hierarchy.SetItemParent(_item(hierarchy, node), folder)


def _item(hierarchy: Any, node: Any) -> int:
    """The item of a node; Slicer makes them by itself, a scene alone does not."""
    found = hierarchy.GetItemByDataNode(node)
    if found != hierarchy.GetInvalidItemID():
        return int(found)
    return int(hierarchy.CreateItem(hierarchy.GetSceneItemID(), node))
