"""What Slicer's build is told: every file that exists, and none that does not."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
MODULE = ROOT / "NexusINR"


def listed(variable: str) -> set[str]:
    """The files of a ``set(...)`` in the module's CMakeLists.txt."""
    text = (MODULE / "CMakeLists.txt").read_text()
    found = re.search(rf"set\({variable}\s([^)]*)\)", text)
    assert found is not None
    return set(found[1].split())


def test_every_script_is_listed():
    scripts = [MODULE / "NexusINR.py", *(MODULE / "NexusINRLib").rglob("*.py")]
    assert listed("MODULE_PYTHON_SCRIPTS") == {p.relative_to(MODULE).as_posix() for p in scripts}


def test_every_resource_is_listed():
    files = [path for path in (MODULE / "Resources").rglob("*") if path.is_file()]
    assert listed("MODULE_PYTHON_RESOURCES") == {p.relative_to(MODULE).as_posix() for p in files}


def test_every_test_script_exists():
    for folder in (MODULE, ROOT / "Testing" / "slicer"):
        text = (folder / "CMakeLists.txt").read_text().replace("${MODULE_NAME}", "NexusINR")
        scripts = re.findall(r"slicer_add_python_(?:unit)?test\(SCRIPT (\S+)\)", text)
        assert scripts
        assert all((folder / script).is_file() for script in scripts), scripts


def test_the_catalogue_gets_what_it_asks_for():
    """One quoted value each; pictures that are in the repository, under its own address."""
    text = (ROOT / "CMakeLists.txt").read_text()
    said = dict(re.findall(r'set\(EXTENSION_(\w+)\s+"([^"]+)"\)', text))
    assert {"HOMEPAGE", "CONTRIBUTORS", "DESCRIPTION", "ICONURL", "SCREENSHOTURLS", "DEPENDS"} == (
        set(said)
    )
    owner = said["HOMEPAGE"].removeprefix("https://github.com/")
    start = f"https://raw.githubusercontent.com/{owner}/main/"
    for address in (said["ICONURL"], *said["SCREENSHOTURLS"].split()):
        assert address.startswith(start)
        assert (ROOT / address.removeprefix(start)).is_file(), address
