"""``slicer.app.coreIOManager()``: volumes and scenes, read and written by MRML itself."""

# ruff: noqa: N802 (names of Slicer and Qt)

from __future__ import annotations

from pathlib import Path
from typing import Any

#: Kinds of files and what loads them.
KINDS = {".mrb": "SceneFile", ".mrml": "SceneFile", ".gz": "VolumeFile", ".nrrd": "VolumeFile"}


class IOManager:
    """Loads and saves. Other kinds of files raise ValueError.

    Args:
        core: the scene with its logics.
    """

    def __init__(self, core: Any) -> None:
        self._core = core

    def fileType(self, path: str) -> str:
        return KINDS[Path(path).suffix]

    def fileWriterFileType(self, node: Any) -> str:
        return "VolumeFile" if node.IsA("vtkMRMLVolumeNode") else "other"

    def loadNodes(self, kind: str, properties: dict[str, Any], nodes: Any, _: Any) -> bool:
        path = properties["fileName"]
        if kind == "SceneFile":
            return bool(self._core.io_manager.load_scene(path))
        if kind != "VolumeFile":
            raise ValueError(f"{kind} cannot be loaded here")
        for node in self._core.io_manager.load_volumes(path):
            node.SetName(properties.get("name") or node.GetName())
            nodes.AddItem(node)
        return bool(nodes.GetNumberOfItems())

    def saveNodes(self, kind: str, properties: dict[str, Any], _: Any) -> bool:
        path = properties["fileName"]
        if kind == "SceneFile":
            return bool(self._core.io_manager.save_scene(path))
        if kind != "VolumeFile":
            raise ValueError(f"{kind} cannot be saved here")
        self._core.io_manager.write_volume(self._core.scene.GetNodeByID(properties["nodeID"]), path)
        return Path(path).exists()
