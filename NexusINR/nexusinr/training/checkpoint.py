"""Checkpoints as safetensors: weights, moving average and Adam's moments; nothing is unpickled.

A checkpoint is one file, or, where that would be too large for some file stores, a first file that
names further parts. The first file is replaced last: what is found is always whole.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

#: No file becomes larger than this unless a single tensor is, bytes: 16 MiB with its header.
FILE_LIMIT = 15 * 2**20


def save(
    path: Path,
    network: nn.Module,
    average: dict[str, Tensor],
    optimiser: torch.optim.Optimizer,
    progress: dict[str, Any],
    limit: int = FILE_LIMIT,
) -> None:
    """Writes one checkpoint, whole or not at all.

    Args:
        path: a .safetensors file; further parts lie beside it as ``<name>.<step>-<n>.safetensors``.
        network: whose parameters are stored.
        average: the moving average of the parameters, by name.
        optimiser: an Adam over `network.parameters()`.
        progress: plain values (step, configuration), stored as JSON in the header.
        limit: largest size of a file, bytes.
    """
    tensors = {f"model.{name}": p.detach() for name, p in network.named_parameters()}
    tensors |= {f"average.{name}": value for name, value in average.items()}
    for name, parameter in network.named_parameters():
        for key, value in optimiser.state.get(parameter, {}).items():
            tensors[f"adam.{key}.{name}"] = torch.as_tensor(value)
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {name: value.contiguous() for name, value in tensors.items()}
    first, *rest = _split(tensors, limit)
    step = progress.get("step", 0)
    parts = [f"{path.stem}.{step}-{n}{path.suffix}" for n in range(2, len(rest) + 2)]
    for name, group in zip(parts, rest, strict=True):
        _write(path.with_name(name), group, {})
    header = {"progress": json.dumps(progress), "parts": json.dumps(parts)}
    _write(path, first, header)
    for stale in path.parent.glob(f"{path.stem}.*-*{path.suffix}"):
        if stale.name not in parts:
            stale.unlink()


def load(
    path: Path,
    network: nn.Module,
    average: dict[str, Tensor],
    optimiser: torch.optim.Optimizer | None = None,
) -> dict[str, Any]:
    """Reads a checkpoint into a network, its average and, if given, its optimiser.

    Returns the progress values stored with it. Raises ValueError where a part is missing or no
    safetensors file, and where names or shapes do not fit.
    """
    parameters = dict(network.named_parameters())
    stored, header = _read(path)
    for name in json.loads(header.get("parts", "[]")):
        stored |= _read(path.with_name(name))[0]
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
    return progress_of(header)


def progress(path: Path) -> dict[str, Any]:
    """The progress values of a checkpoint, without its tensors; ValueError where it is none."""
    try:
        with safe_open(path, framework="pt") as file:
            return progress_of(file.metadata() or {})
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path.name}: it cannot be read as a checkpoint ({error})") from error


def progress_of(header: dict[str, str]) -> dict[str, Any]:
    """The progress values in a file's header."""
    return dict(json.loads(header.get("progress", "{}")))


def _split(tensors: dict[str, Tensor], limit: int) -> Iterator[dict[str, Tensor]]:
    """Groups of tensors, each of at most so many bytes, in their order."""
    group: dict[str, Tensor] = {}
    size = 0
    for name, tensor in tensors.items():
        own = tensor.numel() * tensor.element_size()
        if group and size + own > limit:
            yield group
            group, size = {}, 0
        group[name] = tensor
        size += own
    yield group


def _write(path: Path, tensors: dict[str, Tensor], header: dict[str, str]) -> None:
    partial = path.with_suffix(".partial")
    save_file(tensors, partial, header)
    os.replace(partial, path)


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
            return tensors, file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path.name}: it cannot be read as a checkpoint ({error})") from error
