"""A session keeps a model and the encodings of the scans, so that the next question costs less."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from nexusinr import registration
from nexusinr.errors import OutOfMemory
from nexusinr.geometry import Grid
from nexusinr.inference.backdrop import Backdrops
from nexusinr.inference.device import Device, choose, cpu_instead
from nexusinr.inference.engine import Engine, Restored
from nexusinr.inference.gpu import is_out_of_memory
from nexusinr.inference.implicit import Implicit
from nexusinr.inference.prepared import PreparedScan, digest
from nexusinr.inference.progress import Progress
from nexusinr.inference.staged import Staged
from nexusinr.models import bfloat16, eight_bit, fused_attention, weights
from nexusinr.models.heap import keep_freed_memory
from nexusinr.models.iconet import ICONet
from nexusinr.models.nexus_inr import MODALITIES, NexusINR
from nexusinr.registration import RigidResult
from nexusinr.volume import Volume

T = TypeVar("T")

#: The members of a self-ensemble in the order in which they join it: axes along which the scans
#: are mirrored, that across their slices first.
MEMBERS: tuple[tuple[int, ...], ...] = (
    (), (2,), (0,), (0, 2), (1,), (1, 2), (0, 1), (0, 1, 2),
)  # fmt: skip

#: Encoded scans that a session keeps: two pairs; and pairs that were aligned.
KEEP = 4


class Session:
    """A model on a device, and what it knows of the scans that it has seen.

    Args:
        model: name of the weights.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.

    Attributes:
        card: of the weights.
        adapted_sha256: digest of weights that were adapted to one case; None where they are those
            of the card.

    Raises InputError for an unknown model or device and for damaged weights.
    """

    adapted_sha256: str | None = None

    def __init__(self, model: str = "nexus-inr", device: str = "auto") -> None:
        keep_freed_memory()
        network, self.card = weights.load(model)
        self.engine = engine_for(network)
        self.notes: list[str] = []
        self._encoded: OrderedDict[object, Any] = OrderedDict()
        self._aligned: OrderedDict[object, RigidResult] = OrderedDict()
        self.move(choose(device))

    @property
    def network(self) -> nn.Module:
        """The model itself."""
        return self.engine.network

    def with_network(self, network: nn.Module, sha256: str | None) -> Session:
        """Another session, on the same device, with weights that were adapted.

        This one forgets its encodings: there is room for those of one of the two.

        Args:
            network: of the same kind as this session's; it is moved to the device.
            sha256: digest of its weights.
        """
        other = copy.copy(self)
        other.engine, other.adapted_sha256 = engine_for(network), sha256
        self._encoded.clear()
        other._encoded = OrderedDict()
        other.move(self.device)
        return other

    def move(self, device: Device) -> None:
        """Takes the network to a device; encodings elsewhere are forgotten."""
        self.device = device
        self._encoded.clear()
        self._backdrops = Backdrops(device.torch)
        self.network.to(device.torch, device.dtype)
        self.network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        eight_bit.use(self.network, device.eight_bit)
        bfloat16.use(self.network, device.bfloat16)
        fused_attention.use(self.network, device.fused_attention)
        self.piece_voxels = self.engine.piece_voxels
        self._least_piece = self.piece_voxels // 8

    def forget(self) -> None:
        """Everything that is kept of any scan."""
        self._encoded.clear()
        self._aligned.clear()
        self._backdrops = Backdrops(self.device.torch)

    def align(self, fixed: Volume, moving: Volume) -> RigidResult:
        """Where the moving scan lies on the fixed one: see `registration.rigid`. Kept as well."""
        key = tuple((digest(scan.data), scan.grid, scan.thickness) for scan in (fixed, moving))
        if key not in self._aligned:
            self._aligned[key] = registration.rigid(fixed, moving)
            while len(self._aligned) > KEEP:
                self._aligned.popitem(last=False)
        return self._aligned[key]

    def prepare(self, volume: Volume) -> PreparedScan:
        """Normalises and crops a scan."""
        return PreparedScan(volume)

    @torch.inference_mode()
    def encode(self, modality: int, scan: PreparedScan, target: Grid, progress: Progress) -> Any:
        """What the engine makes of a scan: from memory where it has been made before."""
        key = (modality, scan.digest, scan.grid, tuple(scan.thickness))
        known = self._encoded.get(key)
        if known is None or not self.engine.serves(known, scan, target):
            self._encoded[key] = self._with_fallback(
                lambda: self.engine.encode(modality, scan, target, progress, self.piece_voxels),
                f"{self.engine.steps.encoding} {MODALITIES[modality]}",
            )
            while len(self._encoded) > KEEP:
                self._encoded.popitem(last=False)
        self._encoded.move_to_end(key)
        return self._encoded[key]

    @torch.inference_mode()
    def decode(
        self,
        scans: dict[int, PreparedScan],
        target: Grid,
        progress: Progress,
        with_tissues: bool = True,
        encoded_for: Grid | None = None,
    ) -> Restored:
        """Restores every given scan on a target lattice, in normalised intensities.

        Args:
            scans: prepared scans by modality (T1W, T2W), one or two, already encoded or not.
            target: the lattice.
            progress: told of each block.
            with_tissues: whether the segmentation is wanted.
            encoded_for: the lattice to encode for, where it is another one: a plane through what
                was restored before.
        """
        lattice = target if encoded_for is None else encoded_for
        start, inside = self._backdrops.at(scans, target)
        progress.check()

        def run() -> Restored:
            quiet = progress.quiet()
            encoded = {m: self.encode(m, scan, lattice, quiet) for m, scan in scans.items()}
            return self.engine.decode(
                encoded, start, inside, target, progress, with_tissues, self.piece_voxels
            )

        return self._with_fallback(run, self.engine.steps.decoding)

    def decode_ensemble(
        self,
        scans: dict[int, PreparedScan],
        target: Grid,
        progress: Progress,
        with_tissues: bool,
        members: int,
    ) -> Restored:
        """The mean of what the network makes of the scans and of mirrored copies of them.

        Intensities are averaged; tissues are those of the scans as they are.

        Args:
            scans: as for `decode`.
            target: the lattice.
            progress: told of each member.
            with_tissues: whether the segmentation is wanted.
            members: 2 ... 8, the scans as they are among them.
        """
        sums: dict[int, NDArray[np.float32]] = {}
        for n in reversed(range(members)):  # the scans as they are come last, and stay encoded
            share = progress.part((members - 1 - n) / members, 1 / members)
            turned = {m: scan.mirrored(MEMBERS[n]) if n else scan for m, scan in scans.items()}
            self._encoded.clear()  # no more than one pair of encodings at a time
            for part, (m, scan) in enumerate(turned.items()):
                half = share.part(part / len(turned) / 2, 1 / len(turned) / 2)
                self.encode(m, scan, target, half)
            restored = self.decode(turned, target, share.part(0.5, 0.5), with_tissues and n == 0)
            for m, image in restored.intensity.items():
                sums[m] = sums[m] + image if m in sums else image
        return Restored(
            {m: image / np.float32(members) for m, image in sums.items()}, restored.tissues
        )

    def _with_fallback(self, work: Callable[[], T], what: str) -> T:
        """Runs; out of memory is answered by smaller pieces, then by the CPU, and said."""
        while True:
            try:
                return work()
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                self._shrink(what, error)

    def _shrink(self, what: str, error: BaseException) -> None:
        if self.piece_voxels > self._least_piece:
            self.piece_voxels //= 2
            self.notes.append(f"out of memory while {what}: going on in smaller pieces")
        elif self.device.name != "cpu":
            self.notes.append(
                f"out of memory on {self.device.name} while {what}: going on on the CPU"
            )
            self.move(cpu_instead(f"{self.device.name} has too little memory"))
        else:
            raise OutOfMemory(
                f"out of memory while {what}, in the smallest pieces too: choose a coarser spacing"
            ) from error


def engine_for(network: nn.Module) -> Engine[Any]:
    """What puts a network to work."""
    if isinstance(network, ICONet):
        return Staged(network)
    assert isinstance(network, NexusINR)
    return Implicit(network)
