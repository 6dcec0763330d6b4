"""What every method makes of one degraded pair: each image once, and only when asked for."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from nexusinr.evaluation.protocol import Protocol
from nexusinr.evaluation.subjects import MODALITIES, Truths
from nexusinr.geometry import Grid
from nexusinr.resample import Kind, covered, interpolate
from nexusinr.volume import Volume

Array = NDArray[np.float32]

#: (degraded T1w, degraded T2w, lattice, model name) to both restored arrays on that lattice; None
#: for a scan that is not given.
Restore = Callable[[Volume | None, Volume | None, Grid, str], tuple[Array | None, Array | None]]

#: Not methods, but what bounds them: thick voxels as they are, and the truth itself.
LOW, HIGH = "low resolution", "original"

_KINDS: dict[str, Kind] = {"trilinear": "trilinear", "cubic": "cubic", LOW: "nearest"}


class Restorations:
    """One degraded pair.

    Args:
        truths: the fine scans.
        protocol: how they are degraded.
        only: the one scan that is given (``T1w`` or ``T2w``); None: both.
        restore: runs a model (see Restore).

    Attributes:
        truths: likewise.
        axes: which array axis of each was degraded.
        given: indices into MODALITIES of the scans that there are.
        scored: those of them whose reference is sharp along the degraded axis.

    Raises InputError where the protocol cannot be applied.
    """

    def __init__(
        self, truths: Truths, protocol: Protocol, only: str | None, restore: Restore | None
    ) -> None:
        self.truths, self._restore = truths, restore
        self.axes = protocol.axes(truths)
        self._degraded = protocol.degrade(truths)
        self.given = [m for m in (0, 1) if only in (None, MODALITIES[m])]
        self.scored = [m for m in self.given if self.axes[m] in self.truths[m].sharp]
        first, second = (truth.scan.grid for truth in truths)
        self._same_lattice = first.same_as(second)
        self._images: dict[tuple[str, int, int], Array] = {}

    def covered(self, modality: int) -> NDArray[np.bool_]:
        """Where on the fine lattice the degraded scan reaches."""
        return covered(self._degraded[modality].grid, self.truths[modality].scan.grid)

    def image(self, method: str, modality: int) -> Array:
        """One scan (0: T1w, 1: T2w) by one method on its own lattice, in its own units."""
        return self._on_lattice(method, modality, modality)

    def on_t1w_lattice(self, method: str) -> tuple[Array, Array]:
        """Both scans at 0 ... 1, scaled by their references, on the lattice of the T1w scan."""
        first, second = (
            np.clip(
                self._on_lattice(method, m, 0) / np.float32(self.truths[m].reference.scale), 0, 1
            )
            for m in (0, 1)
        )
        return first, second

    def _on_lattice(self, method: str, modality: int, lattice: int) -> Array:
        if self._same_lattice:
            lattice = 0
        key = (method, modality, lattice)
        if key not in self._images:
            grid = self.truths[lattice].scan.grid
            if method == HIGH:
                self._images[key] = self._original(modality, grid)
            elif method in _KINDS:
                scan = self._degraded[modality]
                self._images[key] = interpolate(scan, grid, _KINDS[method])
            else:
                self._run(method, lattice, grid)
        return self._images[key]

    def _original(self, modality: int, grid: Grid) -> Array:
        scan = self.truths[modality].scan
        return scan.data if scan.grid.same_as(grid) else interpolate(scan, grid, "cubic")

    def _run(self, model: str, lattice: int, grid: Grid) -> None:
        if self._restore is None:
            raise ValueError(f"nothing was given that runs {model!r}")
        t1w, t2w = (scan if m in self.given else None for m, scan in enumerate(self._degraded))
        for m, data in enumerate(self._restore(t1w, t2w, grid, model)):
            if data is not None:
                self._images[model, m, lattice] = data
