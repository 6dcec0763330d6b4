"""Checkpoints as safetensors: weights, moving average and Adam's moments; nothing is unpickled."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn


def save(
    path: Path,
    network: nn.Module,
    average: dict[str, Tensor],
    optimiser: torch.optim.Optimizer,
    progress: dict[str, Any],
) -> None:
    """Writes one checkpoint, whole or not at all.

    Args:
        path: a .safetensors file.
        network: whose parameters are stored.
        average: the moving average of the parameters, by name.
        optimiser: an Adam over `network.parameters()`.
        progress: plain values (step, configuration), stored as JSON in the header.
    """
    tensors = {f"model.{name}": p.detach() for name, p in network.named_parameters()}
    tensors |= {f"average.{name}": value for name, value in average.items()}
    for name, parameter in network.named_parameters():
        for key, value in optimiser.state.get(parameter, {}).items():
            tensors[f"adam.{key}.{name}"] = torch.as_tensor(value)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    tensors = {name: value.contiguous() for name, value in tensors.items()}
    save_file(tensors, partial, {"progress": json.dumps(progress)})
    os.replace(partial, path)


def load(
    path: Path,
    network: nn.Module,
    average: dict[str, Tensor],
    optimiser: torch.optim.Optimizer | None = None,
) -> dict[str, Any]:
    """Reads a checkpoint into a network, its average and, if given, its optimiser.

    Returns the progress values stored with it. Raises ValueError where names or shapes do not fit.
    """
    parameters = dict(network.named_parameters())
    with safe_open(path, framework="pt") as file:
        progress = json.loads((file.metadata() or {}).get("progress", "{}"))
        stored = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
    wanted = {(f"model.{name}", parameter.shape) for name, parameter in parameters.items()}
    found = {(key, value.shape) for key, value in stored.items() if key.startswith("model.")}
    if wanted != found:
        name, shape = min(wanted ^ found)
        raise ValueError(
            f"{path.name}: no checkpoint of this network: {name} {tuple(shape)} does not fit"
        )
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(stored[f"model.{name}"])
            average[name].copy_(stored[f"average.{name}"])
    if optimiser is not None:
        for name, parameter in parameters.items():
            if f"adam.step.{name}" in stored:
                optimiser.state[parameter] = {
                    "step": stored[f"adam.step.{name}"],  # which Adam wants on the CPU
                    "exp_avg": stored[f"adam.exp_avg.{name}"].to(parameter.device),
                    "exp_avg_sq": stored[f"adam.exp_avg_sq.{name}"].to(parameter.device),
                }
    return dict(progress)
