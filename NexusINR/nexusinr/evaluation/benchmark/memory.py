"""The most memory that a GPU has held; for the CPU a run's own report says it."""

from __future__ import annotations

import torch

from nexusinr.inference.device import Device


def begin(device: Device) -> None:
    """From now on."""
    if device.torch.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device.torch)


def gpu_peak_gb(device: Device) -> float | None:
    """GB held by tensors on a CUDA device since `begin`; None on others, which do not tell."""
    if device.torch.type != "cuda":
        return None
    return round(torch.cuda.max_memory_allocated(device.torch) / 1e9, 3)
