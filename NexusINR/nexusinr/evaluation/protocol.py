"""Fixed experiments: how a fine pair is degraded before it is restored on its own lattice."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nexusinr.acquisition import block_average, degrade
from nexusinr.errors import InputError
from nexusinr.evaluation.metrics import axis_nearest
from nexusinr.evaluation.subjects import Truth, Truths, unusable
from nexusinr.volume import Volume

#: (scan, array axis) to the scan with thick slices across that axis.
Thicken = Callable[[Volume, int], Volume]


@dataclass(frozen=True)
class Protocol:
    """A named way to degrade a pair.

    Attributes:
        name: as given to ``--protocol``.
        summary: in words.
        thicken: for the T1w scan and for the T2w scan.
        across: anatomical direction (``R``, ``A``, ``S``) across the slices of each; empty: the
            first sharp axis of the T1w scan and the second of the T2w scan, in the order R, A, S.
    """

    name: str
    summary: str
    thicken: tuple[Thicken, Thicken]
    across: str = ""

    def refuses(self, truths: Truths) -> str | None:
        """Why a subject is no reference for this protocol, in words; None where it is one."""
        if self.across:
            return unusable(*(truth.scan for truth in truths))
        if any(len(truth.sharp) != 2 for truth in truths):
            return "it has no thick slices: protocols through the slices serve it"
        return None

    def axes(self, truths: Truths) -> tuple[int, int]:
        """The array axes that are degraded."""
        if not self.across:
            first, second = (_in_order(truth) for truth in truths)
            return first[0], second[1]
        first_axis, second_axis = (
            axis_nearest(truth.scan.affine, direction)
            for truth, direction in zip(truths, self.across, strict=True)
        )
        return first_axis, second_axis

    def degrade(self, truths: Truths) -> tuple[Volume, Volume]:
        """The pair with thick slices. Raises InputError where its voxels are thicker already."""
        try:
            first, second = (
                thicken(truth.scan, axis)
                for thicken, truth, axis in zip(
                    self.thicken, truths, self.axes(truths), strict=True
                )
            )
        except ValueError as error:
            raise InputError(f"{self.name}: {error}") from error
        return first, second


def _in_order(truth: Truth) -> list[int]:
    axes = [axis_nearest(truth.scan.affine, direction) for direction in "RAS"]
    return [axis for axis in axes if axis in truth.sharp]


def _brats() -> Protocol:
    return Protocol(
        "brats",
        "T1w averaged 2x along z, T2w 4x along y (paper, section 4.1)",
        (lambda scan, axis: block_average(scan, axis, 2),
         lambda scan, axis: block_average(scan, axis, 4)),
        "SA",
    )  # fmt: skip


def _millimetres(thickness: float) -> Thicken:
    return lambda scan, axis: degrade(scan, axis, thickness)


def _through_plane(thickness: float) -> Protocol:
    text = f"slices of {thickness:g} mm, both axial"
    return Protocol(f"through-plane-{thickness:g}", text, (_millimetres(thickness),) * 2, "SS")


def _orthogonal(thickness: float) -> Protocol:
    text = f"slices of {thickness:g} mm, T1w axial, T2w coronal"
    return Protocol(f"orthogonal-{thickness:g}", text, (_millimetres(thickness),) * 2, "SA")


def _ratio(factor: float) -> Protocol:
    def thicken(scan: Volume, axis: int) -> Volume:
        return degrade(scan, axis, factor * float(scan.affine.spacing[axis]))

    text = f"slices {factor:g} voxels thick, T1w axial, T2w coronal"
    if factor == 1:
        text = "nothing to restore: the scans as they are"
    return Protocol(f"ratio-{factor:g}", text, (thicken, thicken), "SA")


def _in_plane(factor: float) -> Protocol:
    def thicken(scan: Volume, axis: int) -> Volume:
        # What is sampled in the plane of a slice has a box profile (see nexusinr.acquisition).
        return degrade(scan, axis, factor * float(scan.affine.spacing[axis]), profile="box")

    text = f"in-plane voxels {factor:g}x longer, along one axis of T1w and the other of T2w"
    return Protocol(f"in-plane-{factor:g}", text, (thicken, thicken))


#: Families with a number behind their name: maker, unit, least and largest number.
_FAMILIES: dict[str, tuple[Callable[[float], Protocol], str, float, float]] = {
    "through-plane": (_through_plane, "mm", 0.5, 20),
    "orthogonal": (_orthogonal, "mm", 0.5, 20),
    "ratio": (_ratio, "times", 1, 20),
    "in-plane": (_in_plane, "times", 1, 20),
}

#: What ``--protocol all`` runs.
PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        _brats(),
        *(_through_plane(thickness) for thickness in (3, 4, 5, 6, 7)),
        *(_orthogonal(thickness) for thickness in (3, 4, 5, 6, 7)),
        *(_ratio(factor) for factor in (1, 2.5)),
        *(_in_plane(factor) for factor in (2, 3)),
    )
}


def find(name: str) -> Protocol:
    """A protocol by name, for example ``brats`` or ``through-plane-4.5``. Raises InputError."""
    if name in PROTOCOLS:
        return PROTOCOLS[name]
    parts = re.fullmatch(r"([a-z-]+)-(\d+(?:\.\d+)?)", name)
    if parts is None or parts[1] not in _FAMILIES:
        families = ", ".join(f"{family}-N" for family in _FAMILIES)
        raise InputError(f"no protocol {name!r}: choose from brats, {families}, or all")
    make, unit, least, most = _FAMILIES[parts[1]]
    number = float(parts[2])
    if not least <= number <= most:
        raise InputError(f"{name}: give {least:g} to {most:g} ({unit}) behind {parts[1]}-")
    return make(number)


def parse(names: Sequence[str]) -> list[Protocol]:
    """Protocols from names, lists with commas, and ``all``; each once. Raises InputError."""
    single = [name.strip() for entry in names for name in entry.split(",") if name.strip()]
    wanted = [name for given in single for name in (PROTOCOLS if given == "all" else (given,))]
    found = {protocol.name: protocol for protocol in map(find, wanted)}
    if not found:
        raise InputError("no protocol is named: give brats, for example, or all")
    return list(found.values())
