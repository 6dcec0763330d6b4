"""Where results come from: attributes on each of them and the whole report as a text node."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

#: Attributes on result nodes start with this.
PREFIX = "NexusINR."

#: Roles under which a result refers to its report and to the scans that it was made from.
REPORT_ROLE = "NexusINR.report"
SOURCE_ROLE = "NexusINR.source"

#: Nothing is derived without this remark.
NOTICE = "derived, not for primary diagnosis"


def add_record(
    scene: Any, report: dict[str, Any], results: Sequence[Any], sources: Sequence[Any]
) -> Any:
    """Says on every result what it was made from and how; the whole report in a text node.

    Args:
        scene: where everything is.
        report: as in report.json. Paths of inputs are left out: they may name the patient.
        results: nodes that were made.
        sources: the scans' nodes.

    Returns the text node; results refer to it, and to the sources.
    """
    shown = _without_paths(report)
    text = scene.CreateNodeByClass("vtkMRMLTextNode")
    text.UnRegister(None)  # Python owns it, until the scene does
    text.SetName(scene.GenerateUniqueName("NexusINR report"))
    text.SetText(json.dumps(shown, indent=2, ensure_ascii=False))
    for node in [*results, text]:
        for name, value in _attributes(shown).items():
            node.SetAttribute(PREFIX + name, value)
    scene.AddNode(text)  # complete: selectors look at a node's attributes when it appears
    for node in results:
        node.SetNodeReferenceID(REPORT_ROLE, text.GetID())
        for index, source in enumerate(sources):
            node.SetNthNodeReferenceID(SOURCE_ROLE, index, source.GetID())
    return text


def record_of(node: Any) -> dict[str, Any] | None:
    """The report that a result was made with; None for a node that is no result."""
    text = node.GetNodeReference(REPORT_ROLE)
    return None if text is None else json.loads(text.GetText())


def _without_paths(report: dict[str, Any]) -> dict[str, Any]:
    inputs = [{k: v for k, v in scan.items() if k != "path"} for scan in report["inputs"]]
    return {**report, "inputs": inputs}


def _attributes(report: dict[str, Any]) -> dict[str, str]:
    """What a reader of the scene wants to know without opening the report."""
    model, kept = report["model"], report["consistency"]
    scans = [scan["modality"] for scan in report["inputs"]]
    values: dict[str, Any] = {
        "Notice": NOTICE,
        "Inputs": {scan["modality"]: scan["sha256"] for scan in report["inputs"]},
        "Model": f"{model['name']} {model['version']}",
        "WeightsSHA256": model["sha256"],
        "SpacingMm": report["lattice"]["spacing_mm"],
        "Registration": report["registration"]["mode"],
        "RegistrationApplied": report["registration"]["applied"],
        "ConsistencyWeight": kept["weight"],
        "Residual": {name: kept[name]["after"] for name in scans},
        "Software": report["software"],
    }
    return {k: v if isinstance(v, str) else json.dumps(v) for k, v in values.items()}
