"""What a run computes on: devices, precision, and whether all training data fits there."""

from __future__ import annotations

import os
from typing import Literal, cast

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy

from nexusinr.training.dataset import TrainingData

Precision = Literal["32-true", "bf16-mixed"]

#: Of the free memory of a GPU, how much training data may take; the rest is for the network.
DATA_SHARE = 0.4


def make_fabric(device: str = "cpu", precision: str = "auto") -> Fabric:
    """The process's part in a run, ready to be set up.

    Args:
        device: as torch calls it. In a process that torchrun started it says which kind; which one
            follows from the process's own number.
        precision: ``auto`` or one of Precision.
    """
    kind, _, number = device.partition(":")
    chosen = cast(Precision, best_precision(device) if precision == "auto" else precision)
    accelerator = kind if kind in ("cuda", "mps") else "cpu"
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        # Of a pair of scans one may be missing: then some weights have no gradient.
        fabric = Fabric(
            accelerator=accelerator,
            devices=processes,
            num_nodes=int(os.environ["WORLD_SIZE"]) // processes,
            strategy=DDPStrategy(find_unused_parameters=True),
            precision=chosen,
        )
        fabric.launch()
        return fabric
    devices = [int(number or 0)] if accelerator == "cuda" else 1
    return Fabric(accelerator=accelerator, devices=devices, precision=chosen)


def best_precision(device: str) -> Precision:
    """bfloat16 where the hardware multiplies it fast (compute capability 8.0), else float32."""
    if device.startswith("cuda") and torch.cuda.get_device_capability(device) >= (8, 0):
        return "bf16-mixed"
    return "32-true"


def place(data: TrainingData, device: torch.device) -> TrainingData:
    """The data on the device where it fits there, or as it is: patches then travel one by one."""
    if device.type == "cpu":
        return data
    if device.type == "cuda" and data.bytes > DATA_SHARE * torch.cuda.mem_get_info(device)[0]:
        return data
    return data.to(device)
