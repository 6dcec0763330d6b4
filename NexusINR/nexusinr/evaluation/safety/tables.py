"""What a safety run leaves behind: the gates, the rates behind them, and every single figure."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from nexusinr.evaluation.markdown import table, verdict
from nexusinr.evaluation.safety.gates import ERASED_BELOW, Gate, erased, grouped, per_litre
from nexusinr.evaluation.safety.records import Case, Records
from nexusinr.evaluation.safety.trials import Plan
from nexusinr.evaluation.scores import write_table

T = TypeVar("T")
Rows = list[dict[str, Any]]

#: Names of the files. The gates alone, everything in words, everything as values, and each lesion.
GATES, PAGE, VALUES, LESIONS = "safety.csv", "safety.md", "safety.json", "lesions.csv"


def write(gates: Sequence[Gate], records: Records, plan: Plan, out: Path) -> None:
    """Writes safety.csv, safety.md, safety.json and lesions.csv into a folder that is there."""
    rows, tables = gate_rows(gates), rate_tables(records)
    _write_csv(out / GATES, rows)
    lesions = [
        {**asdict(k.case), "size": k.size, "contrast kept": round(k.share, 4)} for k in records.kept
    ]
    _write_csv(out / LESIONS, lesions)
    (out / PAGE).write_text(_page(rows, tables), encoding="utf-8")
    values = {"plan": asdict(plan), "gates": rows, **tables}
    (out / VALUES).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def gate_rows(gates: Sequence[Gate]) -> Rows:
    """A row a gate, plain values."""
    return [
        {
            "model": gate.model,
            "name": gate.name,
            "what": gate.what,
            "threshold": ("at least " if gate.at_least else "at most ") + f"{gate.threshold:.4g}",
            "figure": _plain(gate.figure),
            "passed": gate.passed,
        }
        for gate in gates
    ]


def rate_tables(records: Records) -> dict[str, Rows]:
    """Erasure, hallucination and leak rates: a row a condition, a column a slice thickness."""
    kept = [((k.case, ("lesion_mm", k.size)), k.share) for k in records.kept]
    invented = [((i.case, ("", None)), (i.count, i.litres)) for i in records.invented]
    errors = [
        ((r.case, ("profile", r.profile)), r.largest) for r in records.reproduced if r.noise is None
    ]
    leaked = [((k.case, ("lesion_mm", k.size)), abs(k.share)) for k in records.leaked]
    return {
        "erasure": _spread(kept, erased),
        "contrast_kept": _spread(kept, _mean),
        "hallucinations_per_litre": _spread(invented, per_litre),
        "leaked_contrast": _spread(leaked, _mean),
        "largest_error_of_slices": _spread(errors, max),
    }


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))


def _spread(
    found: Iterable[tuple[tuple[Case, tuple[str, object]], T]],
    summary: Callable[[Sequence[T]], float],
) -> Rows:
    """One row for what is the same but for subject and thickness; `n`: values of each column."""
    rows: Rows = []
    lines = grouped(
        ((case.method, case.modality, case.condition, more), (case.thickness, value))
        for (case, more), value in found
    )
    for (method, modality, condition, (name, size)), values in lines.items():
        row: dict[str, Any] = {"method": method, "scan": modality, "condition": condition}
        if name:
            row[name] = size
        columns = grouped(values)
        row["n"] = len(next(iter(columns.values())))
        for thickness, own in columns.items():
            row[f"{thickness:g} mm"] = _plain(summary(own))
        rows.append(row)
    return rows


def _plain(value: float) -> float | None:
    """Four digits; None for what is no number (JSON knows no NaN)."""
    return float(f"{value:.4g}") if math.isfinite(value) else None


def _page(gates: Rows, tables: dict[str, Rows]) -> str:
    failed = sum(not row["passed"] for row in gates)
    parts = [
        "# Safety",
        f"{len(gates)} gates, {failed} failed. Each is shown at its worst place.",
        table([{**row, "passed": verdict(row["passed"])} for row in gates]),
        "## Share of lesions erased",
        f"Erased: less than {ERASED_BELOW:.0%} of the contrast is left. Columns: thickness of the "
        "slices; n: lesions behind each figure.",
        table(tables["erasure"]),
        "## Contrast kept, mean share of that in the truth",
        table(tables["contrast_kept"]),
        "## Hallucinations per litre of brain",
        "Connected places where there is more detail of the size of lesions than in the truth, by "
        "more than four robust standard deviations of the cubic spline's error; n: subjects.",
        table(tables["hallucinations_per_litre"]),
        "## Contrast of lesions in the guide alone that appears in the other scan, mean share",
        table(tables["leaked_contrast"]),
        "## Largest error of simulated slices, share of the range",
        "By slice profile: the scans have Gaussian ones, which no model is told; n: subjects.",
        table(tables["largest_error_of_slices"]),
    ]
    return "\n\n".join(parts) + "\n"


def _write_csv(path: Path, rows: Rows) -> None:
    write_table(rows, tuple(rows[0]) if rows else (), path)
