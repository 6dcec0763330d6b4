"""The machine that the figures belong to, in words."""

from __future__ import annotations

import platform
from pathlib import Path

import psutil


def describe() -> str:
    """Processor, physical cores, memory and system, e.g. ``AMD EPYC, 2 cores, 25 GB, Linux``."""
    cores = psutil.cpu_count(logical=False) or psutil.cpu_count() or 1
    memory = psutil.virtual_memory().total / 1e9
    return f"{_processor()}, {cores} cores, {memory:.0f} GB, {platform.system()}"


def _processor() -> str:
    """The processor's name: Linux alone keeps it in a file."""
    listed = Path("/proc/cpuinfo")
    if listed.is_file():
        for line in listed.read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return " ".join(value.split())
    return platform.processor() or platform.machine()
