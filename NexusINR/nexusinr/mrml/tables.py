"""The numbers of a run as a table in the scene."""

from __future__ import annotations

from typing import Any

from vtkmodules.vtkCommonCore import vtkDoubleArray, vtkStringArray

from nexusinr.mrml.scene import new_node

Row = tuple[str, float, str]  # quantity, value, unit


def add_table(scene: Any, report: dict[str, Any], name: str = "NexusINR measures") -> Any:
    """Tissue volumes, the residual of each scan, and the time; as quantity, value and unit.

    Args:
        scene: where the table goes.
        report: as in report.json.
        name: of the table node.
    """
    node = new_node(scene, "vtkMRMLTableNode", name)
    rows = rows_of(report)
    for title, kind, column in (
        ("quantity", vtkStringArray, 0),
        ("value", vtkDoubleArray, 1),
        ("unit", vtkStringArray, 2),
    ):
        array = kind()
        array.SetName(title)
        for row in rows:
            array.InsertNextValue(row[column])
        node.AddColumn(array)
    node.SetUseColumnTitleAsColumnHeader(True)
    node.SetLocked(True)
    return node


def rows_of(report: dict[str, Any]) -> list[Row]:
    """What the table says; residuals are in the units of each scan."""
    rows: list[Row] = [(t, ml, "mL") for t, ml in report["tissue_volumes_ml"].items()]
    for scan in report["inputs"]:
        modality = scan["modality"]
        residual = report["consistency"][modality]
        rows.append((f"{modality} residual as decoded", residual["before"], "scan units"))
        rows.append((f"{modality} residual", residual["after"], "scan units"))
    if "seconds" in report:
        rows.append(("time", round(sum(report["seconds"].values()), 1), "s"))
    return rows
