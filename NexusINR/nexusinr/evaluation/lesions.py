"""Lesions of known size, place and contrast, planted into fine scans, and what is left of them.

A lesion is an ellipsoid with a soft edge. Its contrast is that of multiple sclerosis: as many
times brighter or darker than the white matter around it as real lesions are (CHANGES).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation

from nexusinr.geometry import FloatArray, Grid

Array = NDArray[np.float32]
Mask = NDArray[np.bool_]

#: Change of intensity (T1w, T2w) in units of the white matter around: a quarter darker and 0.6
#: times brighter. In two patients of the open MS data base (Lesjak et al., Neuroinformatics 2017)
#: consensus lesions have 0.67 and 0.81 times the signal of white matter on T1w, 1.98 and 1.55
#: times on T2w.
CHANGES = (-0.25, 0.6)

#: The edge of a lesion rises from nothing to its full contrast over this length, mm.
EDGE = 1.0

#: The shell to which a lesion is compared begins and ends at these distances from it, mm.
SHELL = (1.5, 4.0)

#: Lengths of a lesion's axes relative to those of the ball of the same volume.
ELONGATION = (0.85, 1.2)


@dataclass(frozen=True, eq=False)
class Lesion:
    """One ellipsoid.

    Attributes:
        centre: RAS, (3,), mm.
        size: diameter of the ball of the same volume, mm.
        to_ball: takes offsets from the centre, mm, to the unit ball, (3, 3).
    """

    centre: FloatArray
    size: float
    to_ball: FloatArray

    def distance(self, grid: Grid) -> FloatArray:
        """Distance from the lesion's edge at a lattice's voxel centres, (I, J, K), mm.

        Negative inside. Exact for balls; for ellipsoids the radial distance in ball coordinates.
        Infinite farther away than the shell reaches.
        """
        distance = np.full(grid.shape, np.inf)
        reach = (self.size / 2 + SHELL[1]) * ELONGATION[1] / ELONGATION[0]
        middle = grid.affine.to_index(self.centre)
        half = reach * np.linalg.norm(grid.affine.inverse[:3, :3], axis=1)
        start = np.clip(np.floor(middle - half).astype(int), 0, grid.shape)
        stop = np.clip(np.ceil(middle + half).astype(int) + 1, start, grid.shape)
        box = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
        index = np.moveaxis(np.mgrid[box], 0, -1)
        matrix = self.to_ball @ grid.affine.matrix[:3, :3]
        offset = self.to_ball @ (grid.affine.origin - self.centre)
        radius = np.linalg.norm(index @ matrix.T + offset, axis=-1)
        distance[box] = (radius - 1) * self.size / 2
        return distance


@dataclass(frozen=True, eq=False)
class Site:
    """Where one lesion is measured on a lattice: flat indices of its voxels and of its shell's."""

    lesion: Lesion
    inside: NDArray[np.intp]
    shell: NDArray[np.intp]

    def contrast(self, data: Array) -> float:
        """Mean inside minus mean of the shell, in the units of data (I, J, K)."""
        flat = data.reshape(-1)
        return float(flat[self.inside].mean(dtype=float) - flat[self.shell].mean(dtype=float))


def random_lesion(centre: FloatArray, size: float, rng: np.random.Generator) -> Lesion:
    """A lesion of a given size and place, its axes drawn from ELONGATION and turned at random."""
    lengths = rng.uniform(*ELONGATION, 3)
    lengths /= np.prod(lengths) ** (1 / 3)
    turn = Rotation.random(random_state=rng).as_matrix()
    return Lesion(np.asarray(centre, float), size, turn @ np.diag(2 / (size * lengths)) @ turn.T)


def weight(distance: FloatArray) -> FloatArray:
    """Share of a lesion's contrast at a distance (mm) from its edge: 1 inside, 0 outside."""
    return np.clip(0.5 - distance / EDGE, 0, 1)


def plant(data: Array, grid: Grid, lesions: Sequence[Lesion], change: float, white: Mask) -> Array:
    """A copy of a scan with lesions in it, intensities in the scan's units, (I, J, K).

    Args:
        data: the fine scan, (I, J, K).
        grid: its lattice.
        lesions: to be planted; they do not overlap.
        change: what a lesion adds, in units of the white matter's median in its shell.
        white: where there is white matter, (I, J, K).
    """
    planted = data.astype(np.float32)
    for lesion in lesions:
        distance = lesion.distance(grid)
        around = (distance >= SHELL[0]) & (distance <= SHELL[1]) & white
        level = float(np.median(data[around if around.any() else white]))
        planted += (change * level * weight(distance)).astype(np.float32)
    return planted


def place(
    white: Mask, allowed: Mask, grid: Grid, sizes: Sequence[float], rng: np.random.Generator
) -> list[Lesion]:
    """Lesions in the white matter with room for a shell between any two, the largest first.

    Args:
        white: where there is white matter, (I, J, K).
        allowed: where a centre may lie, (I, J, K).
        grid: the lattice.
        sizes: wanted diameters, mm; those that find no room are left out.
        rng: draws the places and shapes.
    """
    depth = ndimage.distance_transform_edt(white, sampling=grid.spacing)
    found: list[Lesion] = []
    for size in sorted(sizes, reverse=True):
        free = allowed & (depth >= 0.4 + 0.4 * size)  # four fifths of the radius, and half an edge
        index = np.argwhere(free)
        centres = grid.affine.apply(index)
        for other in found:
            apart = np.linalg.norm(centres - other.centre, axis=1)
            centres = centres[apart > (size + other.size) / 2 * ELONGATION[1] + 2 * SHELL[1]]
        if len(centres):
            found.append(random_lesion(centres[rng.integers(len(centres))], size, rng))
    return found


def sites(lesions: Sequence[Lesion], white: Mask, grid: Grid) -> list[Site]:
    """Where to measure lesions: inside their edges, and in the white matter of their shells.

    Raises ValueError where a lesion has no voxel, or no white matter around it.
    """
    found = []
    for lesion in lesions:
        distance = lesion.distance(grid)
        shell = (distance >= SHELL[0]) & (distance <= SHELL[1]) & white
        site = Site(lesion, np.flatnonzero(distance <= 0), np.flatnonzero(shell))
        if not site.inside.size or not site.shell.size:
            raise ValueError(f"a lesion of {lesion.size:g} mm cannot be measured on this lattice")
        found.append(site)
    return found


def near(lesions: Sequence[Lesion], grid: Grid, reach: float = SHELL[1]) -> Mask:
    """Voxels within some distance (mm) of any lesion, (I, J, K)."""
    close = np.zeros(grid.shape, dtype=bool)
    for lesion in lesions:
        close |= lesion.distance(grid) <= reach
    return close
