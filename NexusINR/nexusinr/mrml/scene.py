"""How nodes are made and found."""

from __future__ import annotations

from typing import Any


def new_node(scene: Any, kind: str, name: str, hidden: bool = False) -> Any:
    """A node of a class (such as ``vtkMRMLTextNode``) under a name that is not yet in the scene.

    A hidden one is never offered to choose from, nor put into the subject hierarchy.

    Raises RuntimeError for a class that the scene does not know: the logic of the module that
    brings it must exist first.
    """
    node = scene.CreateNodeByClass(kind)
    if node is None:
        raise RuntimeError(
            f"the scene knows no {kind}: create the logic of its module for this scene first"
        )
    node.UnRegister(None)  # Python holds it now
    node.SetName(scene.GenerateUniqueName(name))
    if hidden:
        node.SetHideFromEditors(True)
    return scene.AddNode(node)


def nodes_of(scene: Any, kind: str) -> list[Any]:
    """All nodes of a class, such as ``vtkMRMLTextNode``, and of those made from it, in order."""
    nodes = scene.GetNodesByClass(kind)
    nodes.UnRegister(None)  # Python holds the collection now
    return [nodes.GetItemAsObject(index) for index in range(nodes.GetNumberOfItems())]
