"""A small case with known results, by which weights are checked on any machine.

The input is a formula on small lattices; the network runs on the CPU in float32. Of each of its
outputs the card keeps the mean, the standard deviation, the range and the values at a few voxels.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from nexusinr.errors import InputError
from nexusinr.geometry import FloatArray, Grid
from nexusinr.models.iconet import ICONet, stage_plan
from nexusinr.models.nexus_inr import MODALITIES, T1W, T2W, NexusINR, scan_conditions
from nexusinr.models.sampling import LatticeMap

#: Largest difference that is let pass, as a share of an output's range.
TOLERANCE = 1e-3

#: Edge of the cube that is restored, in voxels of 1 mm.
EDGE = 24

#: Slices of the two scans, mm; the axes of the T2w scan are R, S, A.
SLICES = {T1W: 2.0, T2W: 4.0}
DIRECTIONS = {T1W: np.eye(3), T2W: np.eye(3)[:, [0, 2, 1]]}

#: Voxels that are compared, as shares of the shape.
POINTS = ((1 / 8, 1 / 8, 1 / 8), (1 / 2, 1 / 2, 1 / 2), (5 / 6, 1 / 3, 2 / 3))

Outputs = dict[str, Tensor]


def compute(network: nn.Module) -> dict[str, Any]:
    """What a card says of its check case; the network itself is left as it is.

    Raises InputError for an architecture that has no case.
    """
    kind = type(network).__name__
    if kind not in _CASES:
        raise InputError(f"unknown architecture {kind!r}: there is a check case of {_known()}")
    ready = copy.deepcopy(network).to("cpu", torch.float32).eval()
    with torch.inference_mode():
        outputs = _CASES[kind](ready)
    return {
        "tolerance": TOLERANCE,
        "outputs": [{"output": name, **_summary(data)} for name, data in outputs.items()],
    }


def compare(model: str, card: Mapping[str, Any], network: nn.Module) -> bool:
    """Runs the case and compares with what a model's card says; False where it says nothing.

    Raises InputError where the two differ by more than the card's tolerance.
    """
    stored = card.get("check_case")
    if stored is None:
        return False
    found = {row["output"]: row for row in compute(network)["outputs"]}
    try:
        wanted = {row["output"]: row for row in stored["outputs"]}
        share = float(stored["tolerance"])
        if wanted.keys() != found.keys():
            raise KeyError(", ".join(wanted.keys() ^ found.keys()))
        for name, row in wanted.items():
            _compare_output(model, name, row, found[name], share * float(row["range"]))
    except (KeyError, TypeError) as error:
        raise InputError(
            f"{model}: the check case in its card cannot be read ({error}); install the "
            "weights again"
        ) from None
    return True


def _compare_output(
    model: str, output: str, wanted: dict[str, Any], found: dict[str, Any], limit: float
) -> None:
    for key, value in found.items():
        if key != "output" and not abs(value - wanted[key]) <= limit:
            raise InputError(
                f"{model}: its check case gives {output} {key} {value:.6g} on this machine and "
                f"{wanted[key]:.6g} on the one where it was made: install the weights and this "
                "program again"
            )


def _known() -> str:
    return " and ".join(_CASES)


def _summary(data: Tensor) -> dict[str, float]:
    """Of one output (..., I, J, K): mean, deviation, range, and its values at POINTS."""
    data = data.double()
    row = {
        "mean": float(data.mean()),
        "deviation": float(data.std()),
        "range": float(data.max() - data.min()),
    }
    flat = data.reshape(-1, *data.shape[-3:])[0]
    for number, shares in enumerate(POINTS, start=1):
        i, j, k = (int(share * size) for share, size in zip(shares, flat.shape, strict=True))
        row[f"value {number}"] = float(flat[i, j, k])
    return {key: float(f"{value:.7g}") for key, value in row.items()}


def _nexus_inr(network: nn.Module) -> Outputs:
    """Both scans, guiding one another, on the fine lattice: intensities and tissues."""
    network = cast("NexusINR", network)
    target = Grid.from_corner((EDGE,) * 3, (1, 1, 1), np.eye(3), (0, 0, 0))
    sampled = {}
    for modality in (T1W, T2W):
        grid = _lattice(modality)
        encoding = network.encode(_image(grid, modality), _conditions(grid), modality)
        sampled[modality] = network.sample(encoding, LatticeMap([grid], [target.pad(1)]))
    outputs: Outputs = {}
    for modality, name in enumerate(MODALITIES):
        decoded = network.decode(modality, sampled[modality], sampled[1 - modality])
        outputs[name] = decoded.intensity[0]
        if decoded.logits is not None:
            outputs[f"{name} tissues"] = decoded.logits[0].permute(3, 0, 1, 2)
    return outputs


def _iconet(network: nn.Module) -> Outputs:
    """The T2w scan in two stages, both images of each; every axis is doubled at least once."""
    grid = _lattice(T2W)
    plan = stage_plan(grid.spacing.tolist(), (0.5, 0.5, 1))
    stages = cast("ICONet", network)(_image(grid, T2W), _conditions(grid), plan)
    outputs: Outputs = {}
    for number, stage in enumerate(stages, start=1):
        outputs[f"stage {number} clean"] = stage.clean[0, 0]
        outputs[f"stage {number} fine"] = stage.fine[0, 0]
    return outputs


#: How each architecture is run.
_CASES: dict[str, Callable[[nn.Module], Outputs]] = {
    NexusINR.__name__: _nexus_inr,
    ICONet.__name__: _iconet,
}


def _lattice(modality: int) -> Grid:
    """The scan's lattice: it covers the cube, slices along the last axis."""
    step = SLICES[modality]
    shape = (EDGE, EDGE, int(EDGE / step))
    return Grid.from_corner(shape, (1, 1, step), DIRECTIONS[modality], (0, 0, 0))


def _conditions(grid: Grid) -> Tensor:
    spacing = torch.tensor(grid.spacing, dtype=torch.float32)[None]
    return scan_conditions(spacing, spacing)


def _image(grid: Grid, modality: int) -> Tensor:
    """Waves in patient space at the voxel centres, about 0 ... 1, (1, 1, i, j, k)."""
    index = np.moveaxis(np.mgrid[tuple(slice(n) for n in grid.shape)], 0, -1)
    x, y, z = np.moveaxis(grid.affine.apply(index), -1, 0)
    waves: FloatArray = np.sin(x / 3 + y / 5) * np.cos(z / 4) + np.sin(y / 2 - z / 6)
    values = 0.5 + (0.22, -0.18)[modality] * waves
    return torch.from_numpy(values.astype(np.float32))[None, None]
