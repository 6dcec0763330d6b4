"""Large memory pages for feature maps, in a process of its own as torch asks but once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SWITCH = Path("/sys/kernel/mm/transparent_hugepage/enabled")

CODE = """
import torch
import nexusinr.models
tensor = torch.zeros(64, 2**20 // 4)
rows = open("/proc/self/smaps_rollup").read().splitlines()
print(next(int(row.split()[1]) // 1024 for row in rows if row.startswith("AnonHugePages:")))
"""


@pytest.mark.skipif(
    not SWITCH.exists() or "[never]" in SWITCH.read_text(), reason="no large pages on this system"
)
def test_feature_maps_lie_in_large_pages():
    run = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert int(run.stdout) > 0  # MB; the kernel gives what it has
