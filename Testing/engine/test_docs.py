"""The pages that people read: links and pictures exist, quotes are true, the example works."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "Resources" / "Docs"
README = ROOT / "README.md"
PAGES = (
    README,
    ROOT / "CHANGELOG.md",
    ROOT / ".github" / "SECURITY.md",
    ROOT / "NexusINR" / "nexusinr" / "training" / "README.md",
    *sorted(DOCS.glob("*.md")),
)
PACKAGE = ROOT / "NexusINR" / "nexusinr"

#: A clone stays small; bytes of a picture.
LARGEST_PICTURE = 400_000


# --- links and pictures -------------------------------------------------------------------------


def links_of(page: Path) -> list[str]:
    """Where its links and pictures lead, those on the web left out."""
    text = re.sub(r"^ *```.*?^ *```$", "", page.read_text("utf-8"), flags=re.M | re.S)
    found = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|href)="([^"]+)"', text)
    return [link for link in found if not re.match(r"https?://|mailto:", link)]


def anchors_of(page: Path) -> set[str]:
    """The names that GitHub gives to its headings."""
    heads = re.findall(r"^#+ (.*)$", page.read_text("utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in links_of(page):
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        assert target.exists(), f"{page.name}: {link}"
        assert target.is_relative_to(ROOT), link
        assert not anchor or anchor in anchors_of(target), f"{page.name}: {link}"


def test_links_are_found() -> None:
    assert "Resources/Docs/method.md" in links_of(README)
    assert any(link.endswith(".png") for link in links_of(README))
    assert "limits-and-intended-use" in anchors_of(README)


def test_pictures_are_small_and_shown() -> None:
    shown = {(page.parent / link).resolve() for page in PAGES for link in links_of(page)}
    for picture in (*(ROOT / "Resources" / "Screenshots").iterdir(), *DOCS.glob("*.png")):
        assert picture.stat().st_size < LARGEST_PICTURE, picture.name
        assert picture in shown, f"{picture.name} is on no page"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_named_tests_exist(page: Path) -> None:
    for file, name in re.findall(r"`(Testing/[\w/]+\.py)::(\w+)`", page.read_text("utf-8")):
        assert f"\ndef {name}(" in (ROOT / file).read_text("utf-8"), f"{page.name}: {file} {name}"


# --- quotes -------------------------------------------------------------------------------------


@cache
def texts_of_the_program() -> str:
    """Every text in its code, parts of f-strings included, a line each, and of the panel."""
    found = []
    for folder in ("nexusinr", "NexusINRLib"):
        for file in (ROOT / "NexusINR" / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text("utf-8"))):
                if isinstance(node, ast.JoinedStr):
                    parts = [v.value if isinstance(v, ast.Constant) else "\0" for v in node.values]
                    found.append("".join(map(str, parts)))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append(re.sub(r"\{\w*\}", "\0", node.value))
    found.append((ROOT / "NexusINR" / "Resources" / "UI" / "NexusINR.ui").read_text("utf-8"))
    return "\n".join(found)


def quotes() -> list[str]:
    """The words of errors in README's table of troubles."""
    table = README.read_text("utf-8").split("## Troubleshooting")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (.*?) \| .* \|$", table, re.M)[1:]
    return [quote for row in rows for quote in re.findall(r"`([^`]+)`", row)]


@pytest.mark.parametrize("quote", quotes())
def test_the_program_does_say_so(quote: str) -> None:
    assert quote in texts_of_the_program()


def test_there_are_quotes() -> None:
    assert len(quotes()) > 12
    assert "the scanner is on fire" not in texts_of_the_program()


# --- pages that follow from the code ------------------------------------------------------------


def test_the_diagram_of_imports_is_up_to_date() -> None:
    script = ROOT / "Testing" / "Benchmarks" / "import_diagram.py"
    command = [sys.executable, str(script), "--check"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def follow(page: Path, package: Path) -> str:
    """Does what adding-a-model.md says to a copy of the package; gives the last snippet."""
    text = page.read_text("utf-8")
    snippets = re.findall(r"^```python\n(.*?)^```$", text, re.M | re.S)
    files = re.findall(r"`NexusINR/nexusinr/(models/\w+\.py|inference/sharpening\.py)`:", text)
    for file, snippet in zip(files, snippets, strict=False):
        (package / file).write_text(snippet)
    assert len(files) == len(snippets) - 1 == 2
    [diff] = re.findall(r"^```diff\n(.*?)^```$", text, re.M | re.S)
    for part in re.split(r"^--- a/nexusinr/", diff, flags=re.M)[1:]:
        file, _, _, *lines = part.splitlines(keepends=True)  # and +++, and @@
        change(package / file.strip(), lines)
    return snippets[-1]


def change(file: Path, lines: list[str]) -> None:
    """One part of a diff, wherever in the file its context stands."""
    before = "".join(line[1:] for line in lines if line[0] in " -")
    after = "".join(line[1:] for line in lines if line[0] in " +")
    text = file.read_text("utf-8")
    assert text.count(before) == 1, f"{file.name} no longer has these lines:\n{before}"
    file.write_text(text.replace(before, after))


def test_the_page_on_adding_a_model_works(thick_files, tmp_path: Path) -> None:
    copy = tmp_path / "package" / "nexusinr"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
    snippet = follow(DOCS / "adding-a-model.md", copy)
    shutil.copy(thick_files[0], tmp_path / "t1w.nii.gz")
    environment = {
        **os.environ,
        "PYTHONPATH": str(copy.parent),
        "NEXUSINR_HOME": str(tmp_path / "home"),
    }

    verify = 'from nexusinr.cli import main; main(["models", "verify", "sharpen"])'
    command = [sys.executable, "-c", f"{snippet}\n{verify}"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "'name': 'sharpen'" in done.stdout
    assert "check case repeated" in done.stdout
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {"t1w_sr.nii.gz", "report.json"}
