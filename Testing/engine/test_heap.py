"""Memory that is kept, in a process of its own as it holds for all of one."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

CODE = """
import resource, threading, torch
{before}
def pages():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def work():
    maps = [torch.full((10, 2**18), 1.0) for _ in range(30)]  # 10 MB each
def measure():
    for _ in range(3):
        work()
    then = pages()
    work()
    print(pages() - then)
thread = threading.Thread(target=measure)  # as all that is long is done
thread.start()
thread.join()
"""


def fetched(before: str) -> int:
    """Pages that 300 MB of tensors fetch where as much was there before and is free.

    glibc learns from what is freed, and what it learns hangs on where things lie. It does not where
    it is told with what to begin: 128 kB, its default.
    """
    run = subprocess.run(
        [sys.executable, "-c", CODE.format(before=before)],
        env={**os.environ, "MALLOC_MMAP_THRESHOLD_": "131072"},
        capture_output=True,
        text=True,
        check=True,
    )
    return int(run.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told")
def test_tensors_take_the_memory_of_those_before():
    told = "from nexusinr.models.heap import keep_freed_memory; assert keep_freed_memory()"
    assert fetched(told) < fetched("") / 4
