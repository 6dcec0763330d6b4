"""The cases that run inside a real Slicer, on its stand-ins: the same list."""

from __future__ import annotations

import ast
import unittest
from pathlib import Path

import pytest

HERE = Path(__file__).parent
CASES = {
    "NexusINRTest": HERE.parents[1] / "NexusINR" / "NexusINR.py",
    "PanelCases": HERE / "panel_cases.py",
}


def listed() -> list[tuple[str, str]]:
    """Class and method of every case, read without importing it: that needs Slicer."""
    found = []
    for name, path in CASES.items():
        classes = [n for n in ast.parse(path.read_text()).body if isinstance(n, ast.ClassDef)]
        methods = [m for c in classes if c.name == name for m in c.body]
        found += [(name, m.name) for m in methods if getattr(m, "name", "").startswith("test")]
    return found


@pytest.mark.parametrize(("kind", "case"), listed())
def test_case(kind, case, module, scene, monkeypatch):
    monkeypatch.syspath_prepend(HERE)
    owner = __import__("NexusINR" if kind == "NexusINRTest" else "panel_cases")
    result = unittest.TestResult()
    getattr(owner, kind)(case).run(result)
    problems = [text for _, text in (*result.errors, *result.failures)]
    assert problems == []
    assert (result.testsRun, result.skipped) == (1, [])
