"""Memory that is kept, in a process of its own as it holds for all of one."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

CODE = """
import resource, torch
{before}
def pages():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def work():
    maps = [torch.full((10, 2**18), 1.0) for _ in range(30)]  # 10 MB each
for _ in range(3):
    work()
then = pages()
work()
print(pages() - then)
"""


def fetched(before: str) -> int:
    """Pages that 300 MB of tensors fetch where as much was there before and is free."""
    code = CODE.format(before=before)
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return int(run.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told")
def test_tensors_take_the_memory_of_those_before():
    assert fetched("import nexusinr.models") < fetched("") / 4
