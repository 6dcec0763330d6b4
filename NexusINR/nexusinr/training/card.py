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
    "inverted contrast; adult through-plane detail was learned from synthesis alone."
)

#: What else is to be known of each model.
LIMITS_OF = {
    "NexusINR": "Segmentation was learned from label maps and infants and is not validated.",
    "ICONet": "Each scan is restored by itself, in steps of 2; there is no segmentation.",
}


def describe(trainer: Trainer, name: str) -> dict[str, Any]:
    """Card of the averaged weights as they are now, without evaluation; plain values."""
    config = trainer.config
    data = trainer.source.data
    return {
        "name": name,
        "architecture": config.architecture,
        "config": config.model.to_dict(),
        "version": f"{trainer.step} steps",
        "licence": "Apache-2.0",
        "intended_use": INTENDED_USE,
        "limits": f"{LIMITS} {LIMITS_OF[config.architecture]}",
        "training": {
            "subjects": [subject.name for subject in data.subjects],
            "label_maps": [label_map.name for label_map in data.label_maps],
            "validation_subjects": list(config.validation),
            "validation_gain_over_trilinear_db": {
                key: round(value, 2) for key, value in trainer.validate().items()
            },
            "steps": trainer.step,
            "started_from": config.start or None,
            "teacher": config.teacher or None,
            "batch": config.batch * config.accumulate * trainer.fabric.world_size,
            "patch": config.patch,
            "hours": round(trainer.seconds / 3600, 2),
            "hardware": hardware(trainer),
            "torch": torch.__version__,
        },
    }


def hardware(trainer: Trainer) -> str:
    """The machine, in words."""
    count = trainer.fabric.world_size
    if trainer.device.type == "cuda":
        return f"{count} x {torch.cuda.get_device_name(trainer.device)}"
    return f"{os.cpu_count()} CPU cores, {platform.machine()}"
