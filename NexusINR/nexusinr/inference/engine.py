"""What a kind of network has to be able to do, so that a Session can put it to work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nexusinr.geometry import Grid
from nexusinr.inference.prepared import PreparedScan
from nexusinr.inference.progress import Progress
from nexusinr.models.nexus_inr import scan_conditions

#: What an engine makes of one scan and keeps for the next question about it.
Encoded = TypeVar("Encoded")


@dataclass(frozen=True)
class Steps:
    """How an engine's two steps are called, and their expected shares of a whole run."""

    encoding: str
    encoding_share: float
    decoding: str
    decoding_share: float


@dataclass
class Restored:
    """Arrays on the target lattice (I, J, K): intensity by modality, tissue values or None."""

    intensity: dict[int, NDArray[np.float32]]
    tissues: NDArray[np.uint8] | None


class Engine(Protocol[Encoded]):
    """A network at work: scans are encoded one by one, then all are decoded on a target lattice.

    Attributes:
        steps: the two steps.
        piece_voxels: voxels that one pass of the network takes at most, unless memory is short.
        network: on the device and in the precision in which it is to work.
    """

    @property
    def steps(self) -> Steps: ...  # noqa: D102 - see the class

    @property
    def piece_voxels(self) -> int: ...  # noqa: D102

    @property
    def network(self) -> nn.Module: ...  # noqa: D102

    def serves(self, encoded: Encoded, scan: PreparedScan, target: Grid) -> bool:
        """Whether what was made of a scan for one target is what another one needs."""
        ...

    def encode(
        self,
        modality: int,
        scan: PreparedScan,
        target: Grid,
        progress: Progress,
        piece_voxels: int,
    ) -> Encoded:
        """What there is to do for one scan by itself, in pieces of at most `piece_voxels`."""
        ...

    def decode(
        self,
        encoded: dict[int, Encoded],
        start: dict[int, NDArray[np.float32]],
        inside: dict[int, NDArray[np.bool_]],
        target: Grid,
        progress: Progress,
        with_tissues: bool,
        piece_voxels: int,
    ) -> Restored:
        """Every scan on the target lattice, in normalised intensities.

        Args:
            encoded: by modality, one or two.
            start: by modality, what air shows, (I, J, K); changed in place.
            inside: by modality, where its scan shows head, (I, J, K): air is not computed.
            target: the lattice.
            progress: told of each piece.
            with_tissues: whether the segmentation is wanted, if the network gives one.
            piece_voxels: what one pass may take.
        """
        ...

    def memory(self, scans: Sequence[Grid], target: Grid, piece_voxels: int) -> int:
        """Bytes that encodings and passes need, whatever the output itself takes."""
        ...


def conditions_of(scan: PreparedScan) -> Tensor:
    """What a network is told of a scan, (1, 6) float32."""
    return scan_conditions(
        torch.tensor(scan.grid.spacing, dtype=torch.float32)[None],
        torch.tensor(scan.thickness, dtype=torch.float32)[None],
    )
