"""How the scans of an example are acquired, drawn at random for Nexus-INR."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from nexusinr.acquisition import Profile
from nexusinr.training.dataset import Turn


@dataclass(frozen=True)
class Protocol:
    """How the two scans of one example are acquired; lengths in fine voxels.

    Attributes:
        axes: slice axis of the T1w and of the T2w scan.
        steps: distance between slices of each.
        thickness: slice thickness of each.
        in_plane: in-plane voxel size of each.
        profile: slice profile.
        noise: standard deviation of the noise, intensities of 0 ... 1.
        misalignment: shift of the T2w scan against its header, (3,).
        present: whether each scan is there.
    """

    axes: tuple[int, int]
    steps: tuple[float, float]
    thickness: tuple[float, float]
    in_plane: tuple[float, float] = (1.0, 1.0)
    profile: Profile = "box"
    noise: float = 0.0
    misalignment: tuple[float, float, float] = (0.0, 0.0, 0.0)
    present: tuple[bool, bool] = (True, True)


#: The evaluation's own: T1w averaged 2x, T2w 4x, along two different axes.
BRATS = Protocol(axes=(2, 1), steps=(2, 4), thickness=(2, 4))


def draw_protocol(rng: np.random.Generator, sharp: tuple[int, ...], brats_share: float) -> Protocol:
    """A random acquisition: the evaluation's own 2x and 4x, or anything from 1 to 6 voxels."""
    first = int(rng.choice(sharp))
    others = [axis for axis in sharp if axis != first] or [first]
    second = int(rng.choice(others))
    if rng.random() < brats_share:
        present = (True, True) if rng.random() < 0.95 else (False, True)
        return Protocol((first, second), BRATS.steps, BRATS.thickness, present=present)
    if rng.random() < 0.25:
        second = first
    steps = np.exp(rng.uniform(0, np.log(6), 2))
    steps[rng.random(2) < 0.1] = 1.0
    thickness = np.maximum(steps * (1 - rng.uniform(0, 0.3, 2) * (rng.random(2) < 0.5)), 1)
    in_plane = np.where(rng.random(2) < 0.35, rng.uniform(1, 1.5, 2), 1)
    # Where slices were thick already there is no truth along them that could be restored.
    in_plane = np.minimum(in_plane, steps) if len(sharp) == 3 else np.ones(2)
    shift = rng.normal(0, 0.4, 3) * (rng.random() < 0.3)
    alone = rng.random()
    return Protocol(
        (first, second),
        (steps[0], steps[1]),
        (thickness[0], thickness[1]),
        in_plane=(in_plane[0], in_plane[1]),
        profile="gaussian" if rng.random() < 0.5 else "box",
        noise=float(rng.choice([0, 0, 0.01, 0.02, 0.04])),
        misalignment=(shift[0], shift[1], shift[2]),
        present=(alone > 0.1, alone < 0.9),
    )


def turns(axes: tuple[int, ...], sharp: tuple[int, ...]) -> list[Turn]:
    """Every way to turn an image so that these axes, across slices, were sharp ones before."""
    ways = itertools.permutations((0, 1, 2), 3)
    return [(i, j, k) for i, j, k in ways if all((i, j, k)[a] in sharp for a in axes)]


def slice_axis_last(axis: int) -> Turn:
    """The order of array axes that puts one of them last and keeps the others in order."""
    first, second = (a for a in range(3) if a != axis)
    return first, second, axis
