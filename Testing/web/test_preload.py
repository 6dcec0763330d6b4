"""Libraries that are loaded ahead of their import."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from nexusinr.web import preload

pytest.importorskip("trame_slicer")

CODE = """
import sys
from pathlib import Path
from nexusinr.web import preload

preload.begin().join()
maps = Path("/proc/self/maps").read_text()
assert not any(name.startswith(preload.PACKAGES) for name in sys.modules)
print(sum(str(path) in maps for path in preload.libraries()), len(preload.libraries()))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc what is loaded")
def test_all_libraries_are_loaded_and_nothing_is_imported():
    run = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    loaded, known = map(int, run.stdout.split())
    assert loaded == known > 100


def test_a_library_that_cannot_be_loaded_is_left_to_the_import(monkeypatch, tmp_path):
    broken = tmp_path / "vtkBroken.so"
    broken.write_bytes(b"no library")
    problems = []
    monkeypatch.setattr(preload, "libraries", lambda: [broken])
    monkeypatch.setattr(threading, "excepthook", problems.append)
    preload.begin().join()
    assert problems == []
