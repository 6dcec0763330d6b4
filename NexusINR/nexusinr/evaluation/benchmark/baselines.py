"""The baselines, on the same scans in the same run.

What would take hours is measured on a part: a block of the lattice in the middle of the head and
the part of the scans that it reads. Encoding is scaled by the scans' voxels and decoding by those
of the lattice. A part is encoded in one piece, one layer after the other, as torch runs a network.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
import torch
from torch import Tensor

from nexusinr.evaluation.benchmark.heads import Head
from nexusinr.evaluation.benchmark.paths import (
    arssr_form,
    decode_dense,
    decode_each,
    dense_form,
)
from nexusinr.evaluation.benchmark.timing import best_of, seconds_of
from nexusinr.geometry import Grid
from nexusinr.inference.engine import conditions_of
from nexusinr.inference.implicit import EncodedScan
from nexusinr.inference.prepared import PreparedScan
from nexusinr.inference.session import Session
from nexusinr.inference.tiles import indices_around
from nexusinr.models.nexus_inr import NexusINR
from nexusinr.reading import LPS_TO_RAS
from nexusinr.volume import Volume

#: Edge of the block of the lattice that is measured.
EDGE = 64

Decode = Callable[[NexusINR, dict[int, EncodedScan], Grid], dict[int, Tensor]]


@dataclass(frozen=True)
class Baseline:
    """One way to restore both scans.

    Attributes:
        name: of it.
        seconds: for the whole head, from normalised scans to intensities on the lattice.
        measured_share: of the lattice that was really computed; 1: all of it.
        what: it does, in words.
    """

    name: str
    seconds: float
    measured_share: float
    what: str


@dataclass(frozen=True)
class _Part:
    """The block that is measured, and by how much the whole is larger.

    Attributes:
        grid: the block.
        scans: what it reads of each scan: image (1, 1, i, j, k), conditions (1, 6), lattice.
        scan_scale: voxels of each whole scan in one of its part.
        grid_scale: voxels of the whole lattice in one of the block.
    """

    grid: Grid
    scans: dict[int, tuple[Tensor, Tensor, Grid]]
    scan_scale: dict[int, float]
    grid_scale: float


def measure(session: Session, head: Head) -> list[Baseline]:
    """All baselines; those of Nexus-INR where the session's model is one."""
    found = [_bspline(head)]
    network = session.network
    if not isinstance(network, NexusINR):
        return found
    part = _part(session, head)
    share = 1 / part.grid_scale
    encoding, decoding = _times(session, dense_form(network), part, decode_dense)
    found.append(
        Baseline(
            "dense path of the paper",
            encoding + decoding,
            share,
            "the same network: whole scans encoded, all features brought to the whole lattice by "
            "torch's grid_sample, keys and values projected and 27 neighbours gathered there, "
            "attention at every point, air as well",
        )
    )
    encoding, decoding = _times(session, arssr_form(network), part, decode_each)
    planes = head.grid.shape[0]
    return [
        *found,
        Baseline(
            "ArSSR, each slab encoded anew",
            planes * encoding + decoding,
            share,
            "the same sizes, every switch off; as in its public script the whole scan is encoded "
            f"again for each of the {planes} planes of the lattice",
        ),
        Baseline(
            "ArSSR, encoded once",
            encoding + decoding,
            share,
            "the same sizes, every switch off; each scan is encoded once",
        ),
    ]


@torch.inference_mode()
def _times(session: Session, network: NexusINR, part: _Part, decode: Decode) -> tuple[float, float]:
    """Seconds of encoding both whole scans once and of decoding the whole lattice."""
    device, encoding, encoded = session.device, 0.0, {}
    for modality, (image, conditions, grid) in part.scans.items():

        def encode(
            modality: int = modality, image: Tensor = image, conditions: Tensor = conditions
        ) -> object:
            return network.encode(image, conditions, modality)

        encoding += best_of(encode, device, 1) * part.scan_scale[modality]
        encoded[modality] = EncodedScan(network.encode(image, conditions, modality), grid)
    decoding = best_of(lambda: decode(network, encoded, part.grid), device, 1)
    return encoding, decoding * part.grid_scale


def _part(session: Session, head: Head) -> _Part:
    shape = np.array(head.grid.shape)
    edges = np.minimum(shape, EDGE)
    first = (shape - edges) // 2
    grid = head.grid.crop(first, first + edges)
    scans, scales = {}, {}
    weight = next(session.network.parameters())
    for modality, volume in enumerate(head.scans):
        scan = session.prepare(volume)
        scans[modality] = _read_by(grid, scan, weight)
        scales[modality] = volume.grid.voxels / scans[modality][2].voxels
    return _Part(grid, scans, scales, head.grid.voxels / grid.voxels)


def _read_by(grid: Grid, scan: PreparedScan, like: Tensor) -> tuple[Tensor, Tensor, Grid]:
    """What interpolation at a block's points reads of a scan."""
    start, stop = indices_around(scan.grid, grid.pad(1))
    i, j, k = (slice(int(a), int(b)) for a, b in zip(start, stop, strict=True))
    image = torch.from_numpy(np.ascontiguousarray(scan.image[i, j, k]))[None, None].to(like)
    image = image.to(memory_format=torch.channels_last_3d)
    return image, conditions_of(scan).to(like), scan.grid.crop(start, stop)


def _bspline(head: Head) -> Baseline:
    """Cubic B-spline of SimpleITK, on the whole lattice and on the CPU whatever the device."""
    reference = sitk.Image(list(head.grid.shape), sitk.sitkFloat32)
    _place(reference, head.grid)
    images = [_image(volume) for volume in head.scans]

    def resample() -> None:
        for image in images:
            sitk.Resample(image, reference, sitk.Transform(), sitk.sitkBSpline)

    seconds = seconds_of(resample)
    what = "cubic B-spline interpolation of both scans, on the CPU"
    return Baseline("SimpleITK B-spline", seconds, 1.0, what)


def _image(volume: Volume) -> sitk.Image:
    image = sitk.GetImageFromArray(np.ascontiguousarray(volume.data.T))
    _place(image, volume.grid)
    return image


def _place(image: sitk.Image, grid: Grid) -> None:
    image.SetSpacing(grid.spacing.tolist())
    image.SetDirection((LPS_TO_RAS @ grid.affine.direction).ravel().tolist())
    image.SetOrigin((LPS_TO_RAS @ grid.affine.origin).tolist())
