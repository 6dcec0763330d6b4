"""README's tutorial calls buttons, tabs and choices by the names that the user sees."""

from __future__ import annotations

import ast
import html
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULE = ROOT / "NexusINR"

#: What Slicer itself calls so.
SLICERS_OWN = {"Sample Data"}


def names() -> list[str]:
    """What stands in italics there."""
    text = (ROOT / "README.md").read_text("utf-8")
    text = text.split("\n## Tutorial\n")[1].split("\n## ")[0]
    text = re.sub(r"\*\*.*?\*\*", "", text, flags=re.S)
    found = [" ".join(name.split()) for name in re.findall(r"\*([^*]+)\*", text)]
    return sorted({part for name in found for part in name.split(" > ")} - SLICERS_OWN)


def shown() -> set[str]:
    """Texts of the panel and of the viewer, without signs for the keyboard."""
    panel = (MODULE / "Resources" / "UI" / "NexusINR.ui").read_text("utf-8")
    texts = [html.unescape(text) for text in re.findall(r"<string>(.*?)</string>", panel)]
    files = [MODULE / "NexusINR.py", *(MODULE / "NexusINRLib").glob("*.py")]
    for file in (*files, *(MODULE / "nexusinr" / "web").rglob("*.py")):
        nodes = ast.walk(ast.parse(file.read_text("utf-8")))
        values = [node.value for node in nodes if isinstance(node, ast.Constant)]
        texts += [value for value in values if isinstance(value, str)]
    return {text.replace("&", "").rstrip(":") for text in texts}


@pytest.mark.parametrize("name", names())
def test_the_name_is_on_the_screen(name: str) -> None:
    assert name in shown()


def test_names_are_found() -> None:
    assert {"Apply", "Restore", "Export DICOM…"} < set(names())
    assert "Improve" not in shown()
