"""What came out of a run in numbers: on the panel, as a table in the scene, as a file."""

from __future__ import annotations

import csv
from collections.abc import Callable
from html import escape
from typing import Any

import slicer
from slicer.i18n import tr as _

from nexusinr.mrml.record import NOTICE
from nexusinr.mrml.results import Results
from nexusinr.mrml.tables import add_table, rows_of
from NexusINRLib.compare import ask_for_file
from NexusINRLib.words import number, seconds, sentence, tissue


def summary(report: dict[str, Any]) -> str:
    """The report as rich text: how it was made, a table of the numbers, what to keep in mind."""
    model, device = report["model"], report["device"]
    made = _("{model}, version {version}, on {device}, took {time}.").format(
        model=model["name"],
        version=model["version"],
        device=device["description"],
        time=seconds(sum(report["seconds"].values())),
    )
    rows = [(tissue(t), f"{ml:.1f}", "mL") for t, ml in report["tissue_volumes_ml"].items()]
    for scan in report["inputs"]:
        residual, units = report["consistency"][scan["modality"]], _("units of the scan")
        name = _("{scan} residual").format(scan=scan["modality"])
        rows.append((name, number(residual["after"]), units))
        rows.append((_("{name}, as decoded").format(name=name), number(residual["before"]), units))
    notes = [_("Note: {text}").format(text=sentence(text)) for text in report["warnings"]]
    lines = "".join(f"<br>{escape(line)}" for line in (*notes, sentence(NOTICE)))
    return f"{escape(made)}<table cellspacing='2'>{''.join(map(_row, rows))}</table>{lines[4:]}"


def _row(row: tuple[str, str, str]) -> str:
    name, value, unit = map(escape, row)
    cells = f"<td>{name}&nbsp;&nbsp;</td><td align='right'>{value}</td><td>&nbsp;{unit}</td>"
    return f"<tr>{cells}</tr>"


def write_csv(path: str, report: dict[str, Any]) -> None:
    """Quantity, value and unit, one a line."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("quantity", "value", "unit"))
        writer.writerows(rows_of(report))


class Report:
    """The part of the panel with the numbers.

    Args:
        ui: the panel's widgets by name.
        scene: where a table goes.
        ask: asks for a path.
    """

    def __init__(self, ui: Any, scene: Any, ask: Callable[[str, str], str] = ask_for_file) -> None:
        self._ui, self._scene, self._ask = ui, scene, ask
        self._report: dict[str, Any] | None = None
        ui.tableButton.clicked.connect(lambda *_: self._add_table())
        ui.csvButton.clicked.connect(lambda *_: self._save())
        self.show(None)

    def show(self, results: Results | None) -> None:
        """Shows the numbers of a run; None: there is none."""
        self._report = None if results is None else results.record
        self._ui.reportLabel.text = summary(self._report) if self._report else _("No result yet.")
        for button in (self._ui.tableButton, self._ui.csvButton):
            button.enabled = results is not None

    def _add_table(self) -> None:
        if self._report is not None:
            add_table(self._scene, self._report)
            slicer.util.showStatusMessage(_("The table is in the scene."), 3000)

    def _save(self) -> None:
        path = self._ask(_("Save the report"), _("Tables (*.csv)"))
        if path and self._report is not None:
            path = path if path.lower().endswith(".csv") else f"{path}.csv"
            with slicer.util.tryWithErrorDisplay(_("The report could not be saved.")):
                write_csv(path, self._report)
