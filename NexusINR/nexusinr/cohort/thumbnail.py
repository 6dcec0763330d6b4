"""A small picture of a session: each scan as acquired and restored, side by side."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nexusinr.geometry import Affine, Grid
from nexusinr.intensity import head_of
from nexusinr.resample import Kind, covered, interpolate
from nexusinr.volume import Volume

#: Pixels of a tile's edge, and between tiles.
EDGE, GAP = 132, 2

#: Air shown around the head, as a share of its size.
AIR = 0.06

#: Percentiles of the head that become black and white.
WINDOW = (1.0, 98.0)

QUALITY = 82


def windows(acquired: Mapping[str, Volume]) -> dict[str, tuple[float, float]]:
    """Black and white of each scan, in its units, by modality."""
    found = {}
    for modality, scan in acquired.items():
        low, high = np.percentile(scan.data[head_of(scan)], WINDOW)
        found[modality] = float(low), float(high)
    return found


def thumbnail(
    acquired: Mapping[str, Volume],
    restored: Mapping[str, Volume],
    grey: Mapping[str, tuple[float, float]],
) -> str:
    """A sagittal plane through the middle of the head: acquired, restored, for each modality.

    Thick slices show there whether they are axial or coronal.

    Args:
        acquired: scans by modality, one or two.
        restored: the same keys.
        grey: what `windows` gives.

    Returns a JPEG, base64.
    """
    plane = _plane(next(iter(acquired.values())))
    tiles = []
    for modality, scan in acquired.items():
        low, high = grey[modality]
        shown: tuple[tuple[Volume, Kind], ...] = (
            (scan, "nearest"),
            (restored[modality], "trilinear"),
        )
        for volume, kind in shown:
            values = (interpolate(volume, plane, kind) - low) / max(high - low, 1e-6)
            values[~covered(volume.grid, plane)] = 0
            tiles.append(values[:, :, 0].T.clip(0, 1))
            tiles.append(np.zeros((EDGE, GAP), np.float32))
    strip = np.concatenate(tiles[:-1], axis=1)
    return _jpeg((strip * 255).astype(np.uint8))


def _plane(scan: Volume) -> Grid:
    """Square pixels over the head: columns from anterior to posterior, rows downwards."""
    points = scan.affine.apply(np.argwhere(head_of(scan)))
    low, high = points.min(axis=0), points.max(axis=0)
    middle = (low + high) / 2
    pixel = float((high - low)[1:].max() * (1 + 2 * AIR) / EDGE)
    direction = np.array([[0.0, 0.0, -1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
    first = middle + np.array([0.0, 1.0, 1.0]) * pixel * (EDGE - 1) / 2
    return Grid((EDGE, EDGE, 1), Affine.from_parts((pixel,) * 3, direction, first))


def _jpeg(pixels: NDArray[np.uint8]) -> str:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=QUALITY)
    return base64.b64encode(stream.getvalue()).decode("ascii")
