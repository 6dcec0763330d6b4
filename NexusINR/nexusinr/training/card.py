"""The card of a training run: what a reader must know before trusting the weights."""

from __future__ import annotations

import os
import platform
from typing import Any

import torch

from nexusinr.training.trainer import Trainer

INTENDED_USE = (
    "Research: restoring T1w and T2w scans of the human head on finer lattices. Derived images, "
    "not for primary diagnosis."
)

LIMITS = (
    "Detail between thick slices is inferred and can be wrong, above all in small or rare lesions. "
    "The isotropic real pairs it was trained on are infants, whose white and grey matter have "
    "inverted contrast; adult through-plane detail was learned from synthesis alone. Segmentation "
    "was learned from label maps and infants and is not validated."
)


def describe(trainer: Trainer, name: str) -> dict[str, Any]:
    """Card of the averaged weights as they are now, without evaluation; plain values."""
    config = trainer.config
    data = trainer.source.data
    return {
        "name": name,
        "architecture": type(trainer.network).__name__,
        "config": config.model.to_dict(),
        "version": f"{trainer.step} steps",
        "licence": "Apache-2.0",
        "intended_use": INTENDED_USE,
        "limits": LIMITS,
        "training": {
            "subjects": [subject.name for subject in data.subjects],
            "label_maps": [label_map.name for label_map in data.label_maps],
            "validation_subjects": list(config.validation),
            "validation_gain_over_trilinear_db": {
                key: round(value, 2) for key, value in trainer.validate().items()
            },
            "steps": trainer.step,
            "started_from": config.start or None,
            "batch": config.batch,
            "patch": config.patch,
            "hours": round(trainer.seconds / 3600, 2),
            "hardware": hardware(trainer.device),
            "torch": torch.__version__,
        },
    }


def hardware(device: torch.device) -> str:
    """The machine, in words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{os.cpu_count()} CPU cores, {platform.machine()}"
