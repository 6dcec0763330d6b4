"""Lesions of the white matter, and a tumour, at random places."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from nexusinr.training.anatomy.parts import Labels, Paint, Part
from nexusinr.training.anatomy.shapes import Array, Blob, Waves, floats

_WHITE = frozenset({Part.WHITE_MATTER, Part.CALLOSUM})
_CORE = frozenset({Part.TUMOUR})

#: Radii of lesions, mm: with their rough outline they measure 3 to 10 mm across.
RADII = (2.0, 3.9)

#: After so many draws that found no place, there is none.
_PATIENCE = 25

#: Where lesions are looked for: lower and upper bound, mm.
_BOUNDS = floats([[-50, -75, 2], [50, 50, 52]])


def lesions(count: int, label: Callable[[Array], Labels], seed: int) -> tuple[Paint, ...]:
    """Lesions 3 to 10 mm across that lie in the white matter and do not touch one another.

    `label` gives the fine labels (N,) of points (3, N).

    Raises ValueError where so many find no room.
    """
    rng = np.random.default_rng([seed, 5])
    found: list[Blob] = []
    vain = 0
    while len(found) < count and vain < _PATIENCE:
        radius = float(rng.uniform(*RADII))
        centre = _place(rng, label, radius)
        vain += 1
        if centre is None or not all(_apart(blob, centre, radius) for blob in found):
            continue
        found.append(Blob(centre, radius, Waves(rng, (1.5, 3), 0.09)))
        vain = 0
    if len(found) < count:
        raise ValueError(f"{count} lesions find no room in the white matter; ask for fewer")
    return tuple(Paint(Part.LESION, blob, single=True, over=_WHITE) for blob in found)


def tumour(label: Callable[[Array], Labels], seed: int) -> tuple[Paint, ...]:
    """A tumour of about 3 cm with a dead core, and the swelling of the white matter around it."""
    rng = np.random.default_rng([seed, 6])
    centre = None
    while centre is None:
        centre = _place(rng, label, 7)
    radius = float(rng.uniform(11, 16))
    brain = frozenset({*_WHITE, Part.CORTEX, Part.OEDEMA})
    fingers, lumps = Waves(rng, (0.9, 2), 0.16), Waves(rng, (1.2, 3), 0.1)
    return (
        Paint(Part.OEDEMA, Blob(centre, radius + 9, fingers), single=True, over=_WHITE),
        Paint(Part.TUMOUR, Blob(centre, radius, lumps), single=True, over=brain),
        Paint(Part.NECROSIS, Blob(centre, 0.6 * radius, fingers), single=True, over=_CORE),
    )


def _place(
    rng: np.random.Generator, label: Callable[[Array], Labels], clearance: float
) -> tuple[float, float, float] | None:
    """A random place in the white matter with this much of it around, mm, if the draw is lucky."""
    centres = rng.uniform(_BOUNDS[0], _BOUNDS[1], (24, 3)).astype(np.float32)
    points = centres[:, None] + _directions() * np.float32(clearance + 0.5)
    found = label(np.ascontiguousarray(points.reshape(-1, 3).T))
    white = np.isin(found, [int(part) for part in _WHITE]).reshape(24, -1)
    lucky = np.flatnonzero(white.all(axis=1))
    if not lucky.size:
        return None
    x, y, z = centres[lucky[0]]
    return float(x), float(y), float(z)


def _directions() -> NDArray[np.float32]:
    """Unit vectors to the 26 neighbours of a voxel, and none at all, (27, 3)."""
    steps = np.stack(np.meshgrid(*[(-1, 0, 1)] * 3), axis=-1).reshape(-1, 3).astype(np.float32)
    return np.asarray(steps / np.maximum(np.linalg.norm(steps, axis=1, keepdims=True), 1))


def _apart(blob: Blob, centre: tuple[float, float, float], radius: float) -> bool:
    """Whether a lesion would keep a distance from another one."""
    return float(np.linalg.norm(np.subtract(centre, blob.centre))) > blob.radius + radius + 4
