"""How nodes are made."""

from __future__ import annotations

from typing import Any


def new_node(scene: Any, kind: str, name: str) -> Any:
    """A node of a class (such as ``vtkMRMLTextNode``) under a name that is not yet in the scene.

    Raises RuntimeError for a class that the scene does not know: the logic of the module that
    brings it must exist first.
    """
    node = scene.AddNewNodeByClass(kind, scene.GenerateUniqueName(name))
    if node is None:
        raise RuntimeError(
            f"the scene knows no {kind}: create the logic of its module for this scene first"
        )
    return node
