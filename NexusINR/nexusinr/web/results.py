"""What a run has written, brought into the scene beside the scans, and taken out again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nexusinr.mrml.hierarchy import place_beside
from nexusinr.mrml.record import REPORT_ROLE
from nexusinr.mrml.results import PART, Image, Results, add_results, with_invented
from nexusinr.mrml.tables import add_table

#: Names of what a run writes, by modality.
RESTORED = {"T1w": "t1w_sr.nii.gz", "T2w": "t2w_sr.nii.gz"}
SEGMENTATION = "segmentation.nii.gz"


@dataclass(frozen=True, eq=False)
class Run:
    """What was written: the report, restored images by modality, and tissues if there are any."""

    report: dict[str, Any]
    images: dict[str, Image]
    tissues: Image | None


def read_run(files: Mapping[str, str], report: dict[str, Any]) -> Run:
    """Reads the files of a run, given by name; takes a while, and no scene.

    Raises InputError where one cannot be read.
    """
    images = {m: _read(files[name]) for m, name in RESTORED.items() if name in files}
    tissues = None
    if SEGMENTATION in files:
        labels = _read(files[SEGMENTATION])
        tissues = labels._replace(data=labels.data.astype(np.uint8))
    return Run(report, images, tissues)


def _read(path: str) -> Image:
    from nexusinr.nifti import read_nifti

    raw = read_nifti(Path(path))  # not as a scan: there may be no tissue in it
    return Image(raw.data, raw.affine)


def add_run(scene: Any, run: Run, scans: Mapping[str, Any]) -> Results:
    """Adds a run with its maps and numbers; a scan that it moved is shown where it was moved to.

    Args:
        scene: with a segmentations logic.
        run: what was written.
        scans: volume nodes of the scans by modality.
    """
    results = add_results(scene, run.report, run.images, run.tissues, scans)
    results = with_invented(scene, results)
    table = add_table(scene, run.report)
    table.SetNodeReferenceID(REPORT_ROLE, results.report.GetID())
    place_beside(scene, table, results.report)
    for node in _nodes_of(scene, results):
        if node.GetAttribute(PART) == "moved":
            _outermost(scans["T2w"]).SetAndObserveTransformNodeID(node.GetID())
    return results


def remove_run(scene: Any, results: Results) -> None:
    """Takes all of it out of the scene; scans are where they were."""
    for node in [*_nodes_of(scene, results), results.report]:
        if node.IsA("vtkMRMLDisplayableNode"):
            for index in reversed(range(node.GetNumberOfDisplayNodes())):
                scene.RemoveNode(node.GetNthDisplayNode(index))
        scene.RemoveNode(node)


def _nodes_of(scene: Any, results: Results) -> list[Any]:
    report = results.report.GetID()
    return [node for node in _all(scene) if node.GetNodeReferenceID(REPORT_ROLE) == report]


def _all(scene: Any) -> Iterator[Any]:
    for index in range(scene.GetNumberOfNodes()):
        yield scene.GetNthNode(index)


def _outermost(node: Any) -> Any:
    """The node itself, or the last of the transforms above it."""
    while node.GetParentTransformNode() is not None:
        node = node.GetParentTransformNode()
    return node
