"""What a lattice shows of the scans where nothing is restored, and where they show head."""

from __future__ import annotations

from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nexusinr.geometry import Grid
from nexusinr.inference.gpu import is_out_of_memory
from nexusinr.inference.prepared import PreparedScan
from nexusinr.inference.threads import each
from nexusinr.models.sampling import LatticeMap
from nexusinr.resample import covered, interpolate

#: Points of the largest lattice that a GPU is given: planes, which have to come at once. Each takes
#: up to BYTES on the way, counted.
GPU_POINTS, BYTES = 2**21, 200

Images = dict[int, NDArray[np.float32]]
Masks = dict[int, NDArray[np.bool_]]
Pair = tuple[NDArray[np.float32], NDArray[np.float32]]


class Backdrops:
    """The scans behind what is restored, on any lattice; a GPU keeps those that it cuts planes of.

    Args:
        device: where the network is.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._there: WeakKeyDictionary[PreparedScan, Tensor] = WeakKeyDictionary()

    def at(self, scans: dict[int, PreparedScan], target: Grid) -> tuple[Images, Masks]:
        """Each scan interpolated trilinearly, (I, J, K), and where it has head, (I, J, K).

        A voxel of the lattice has head where one of the scan's voxels around it has.
        """
        pairs = self._cut_all(scans, target)
        if pairs is None:
            volumes = [volume for scan in scans.values() for volume in (scan.whole, scan.head)]
            found = list(each(lambda volume: interpolate(volume, target), volumes))
            pairs = list(zip(found[::2], found[1::2], strict=True))
        images, masks = {}, {}
        for (modality, scan), (image, head) in zip(scans.items(), pairs, strict=True):
            images[modality] = image
            masks[modality] = (head > 0) & covered(scan.whole.grid, target)
        return images, masks

    def _cut_all(self, scans: dict[int, PreparedScan], target: Grid) -> list[Pair] | None:
        """What a GPU gives; None where there is none, or where it is not for that."""
        if self._device.type == "cpu" or target.voxels > GPU_POINTS:
            return None
        try:
            return [self._cut(scan, target) for scan in scans.values()]
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            return None

    def _cut(self, scan: PreparedScan, target: Grid) -> Pair:
        """Scan and head, on the device."""
        if scan not in self._there:
            both = np.stack((scan.whole.data, scan.head.data), axis=-1)
            self._there[scan] = torch.from_numpy(both).to(self._device)
        found = LatticeMap([scan.whole.grid], [target]).sample(self._there[scan][None])
        image, head = found[0].movedim(-1, 0).contiguous().cpu().numpy()
        return image, head
