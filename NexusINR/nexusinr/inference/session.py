"""A session keeps a model and the encodings of the scans, so that the next question costs less."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from typing import TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray

from nexusinr.errors import OutOfMemory
from nexusinr.geometry import Grid
from nexusinr.inference import tiles
from nexusinr.inference.device import Device, choose, cpu_instead
from nexusinr.inference.progress import Progress
from nexusinr.intensity import foreground, normalise
from nexusinr.models import weights
from nexusinr.models.nexus_inr import MODALITIES, NexusINR, scan_conditions
from nexusinr.resample import covered, interpolate
from nexusinr.volume import Volume

T = TypeVar("T")

#: Encoded scans that a session keeps: two pairs.
KEEP = 4

#: Voxels of air kept around the head when a scan is encoded.
RIM = 4


class PreparedScan:
    """A scan as the network sees it: normalised, cropped to the head, slice axis last.

    Attributes:
        whole: the normalised scan before cropping, as a Volume.
        image: what is encoded, (i, j, k) float32, about 0 ... 1.
        grid: its lattice.
        thickness: along its axes, mm.
        normalisation: how to get back to the scan's units.
        head: the foreground on the whole scan, as a Volume of 0 and 1.
    """

    def __init__(self, volume: Volume) -> None:
        mask = foreground(volume.data)
        data, self.normalisation = normalise(volume.data, mask)
        self.whole = volume.replace(data=data)
        self.head = volume.replace(data=mask.astype(np.float32))
        where = [np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {a}))) for a in range(3)]
        start = np.maximum([w[0] - RIM for w in where], 0)
        stop = np.minimum([w[-1] + RIM + 1 for w in where], mask.shape)
        axis = 2 if volume.slice_axis is None else volume.slice_axis
        first, second = (a for a in range(3) if a != axis)
        order = (first, second, axis)
        part = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
        self.image: NDArray[np.float32] = np.ascontiguousarray(data[part].transpose(order))
        self.grid = volume.grid.crop(start, stop).permuted(order)
        self.thickness = np.array(volume.thickness)[list(order)]


class Session:
    """A model on a device, and what it knows of the scans that it has seen.

    Args:
        model: name of the weights.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.

    Raises InputError for an unknown model or device and for damaged weights.
    """

    def __init__(self, model: str = "nexus-inr", device: str = "auto") -> None:
        network, self.card = weights.load(model)
        self.network = cast("NexusINR", network)
        self.notes: list[str] = []
        self.slab_voxels = tiles.SLAB_VOXELS
        self._encoded: OrderedDict[object, tiles.EncodedScan] = OrderedDict()
        self.move(choose(device))

    def move(self, device: Device) -> None:
        """Takes the network to a device; encodings elsewhere are forgotten."""
        self.device = device
        self._encoded.clear()
        self.network.to(device.torch, device.dtype)
        self.network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]

    @property
    def channels(self) -> int:
        """Length of an encoding at one voxel."""
        c = self.network.config
        guiding = 2 * c.attention_width if c.cross_attention else 0
        return 1 + c.features * (1 + c.multi_modal_fusion) + guiding

    def prepare(self, volume: Volume) -> PreparedScan:
        """Normalises and crops a scan."""
        return PreparedScan(volume)

    @torch.inference_mode()
    def encode(self, modality: int, scan: PreparedScan, progress: Progress) -> tiles.EncodedScan:
        """A scan's encoding: from memory where the same scan was encoded before."""
        digest = hashlib.blake2b(scan.image.tobytes()).digest()
        key = (modality, digest, scan.grid, tuple(scan.thickness))
        if key not in self._encoded:
            self._encoded[key] = self._with_fallback(
                lambda: self._encode(modality, scan, progress), f"encoding {MODALITIES[modality]}"
            )
            while len(self._encoded) > KEEP:
                self._encoded.popitem(last=False)
        self._encoded.move_to_end(key)
        return self._encoded[key]

    def _encode(self, modality: int, scan: PreparedScan, progress: Progress) -> tiles.EncodedScan:
        image = torch.from_numpy(scan.image)[None, None].to(self.device.torch, self.device.dtype)
        conditions = scan_conditions(
            torch.tensor(scan.grid.spacing, dtype=torch.float32)[None],
            torch.tensor(scan.thickness, dtype=torch.float32)[None],
        ).to(image)
        return tiles.encode(
            self.network, image, conditions, modality, scan.grid, progress, self.slab_voxels
        )

    @torch.inference_mode()
    def decode(
        self,
        scans: dict[int, PreparedScan],
        target: Grid,
        progress: Progress,
        with_tissues: bool = True,
    ) -> tiles.Restored:
        """Restores every given scan on a target lattice, in normalised intensities.

        Args:
            scans: prepared scans by modality (T1W, T2W), one or two, already encoded or not.
            target: the lattice.
            progress: told of each block.
            with_tissues: whether the segmentation is wanted.
        """
        inside = np.zeros(target.shape, dtype=bool)
        start = {}
        for modality, scan in scans.items():
            start[modality] = interpolate(scan.whole, target)
            inside |= (interpolate(scan.head, target) > 0) & covered(scan.whole.grid, target)
            progress.check()

        def run() -> tiles.Restored:
            encoded = {m: self.encode(m, scan, progress.quiet()) for m, scan in scans.items()}
            return tiles.decode(
                self.network, encoded, start, inside, target, progress, with_tissues
            )

        return self._with_fallback(run, "decoding")

    def _with_fallback(self, work: Callable[[], T], what: str) -> T:
        """Runs; out of memory is answered by smaller pieces, then by the CPU, and said."""
        while True:
            try:
                return work()
            except (torch.OutOfMemoryError, MemoryError) as error:
                self._shrink(what, error)
            except RuntimeError as error:
                if "can't allocate memory" not in str(error):  # what torch says on a CPU
                    raise
                self._shrink(what, error)

    def _shrink(self, what: str, error: BaseException) -> None:
        if self.slab_voxels > tiles.SLAB_VOXELS // 8:
            self.slab_voxels //= 2
            self.notes.append(f"out of memory while {what}: going on in smaller pieces")
        elif self.device.name != "cpu":
            self.notes.append(
                f"out of memory on {self.device.name} while {what}: going on on the CPU"
            )
            self.slab_voxels = tiles.SLAB_VOXELS
            self.move(cpu_instead(f"{self.device.name} has too little memory"))
        else:
            raise OutOfMemory(
                f"out of memory while {what}, in the smallest pieces too: choose a coarser spacing"
            ) from error
