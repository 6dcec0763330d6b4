"""Seconds on a device: a GPU's queue is waited for before the clock is read."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from nexusinr.inference.device import Device


def wait_for(device: Device) -> None:
    """Until everything that was sent to a device is done."""
    if device.torch.type == "cuda":
        torch.cuda.synchronize(device.torch)
    elif device.torch.type == "mps":
        torch.mps.synchronize()


def seconds_of(work: Callable[[], object], device: Device | None = None) -> float:
    """How long one call takes; None: it does not use torch's devices."""
    if device is not None:
        wait_for(device)
    begun = time.perf_counter()
    work()
    if device is not None:
        wait_for(device)
    return time.perf_counter() - begun


def best_of(work: Callable[[], object], device: Device, runs: int) -> float:
    """The shortest of several calls, after one that does not count."""
    work()
    return min(seconds_of(work, device) for _ in range(runs))
