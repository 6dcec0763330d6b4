"""Cut-outs of fine pairs around deep white matter, with lesions planted into them.

Restoring a cut-out takes seconds where a head takes minutes, so that many conditions can be tried.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage

from nexusinr.evaluation import lesions
from nexusinr.evaluation.lesions import Array, Mask, Site
from nexusinr.evaluation.subjects import Pair
from nexusinr.geometry import Grid
from nexusinr.labels import WHITE, from_freesurfer
from nexusinr.resample import interpolate
from nexusinr.volume import Volume, read_volume

Scalar = TypeVar("Scalar", bound=np.generic)

#: What is acquired around a cut-out, mm: room for the thickest slices.
AROUND = 16.0

#: This close to the faces of a cut-out nothing is judged, mm: what lies beyond is not restored.
MARGIN = 8.0

#: Diameters of the lesions that room is looked for in one cut-out, mm.
SIZES = (10.0, *(7.0,) * 2, *(5.0,) * 3, *(3.0,) * 4)

#: White matter this far from anything else (mm) is what a cut-out is laid around.
DEEP = 2.5


@dataclass(frozen=True, eq=False)
class Crop:
    """One subject's cut-out.

    Attributes:
        subject: its name.
        grid: the fine lattice of the cut-out.
        healthy: T1w and T2w as they are, on one lattice that reaches AROUND beyond the cut-out.
        planted: the same with lesions.
        scales: the 99.9th percentile of each scan inside the whole head: its range.
        sites: where the lesions are on the cut-out's lattice.
        brain: what of the cut-out is brain, (I, J, K).
    """

    subject: str
    grid: Grid
    healthy: tuple[Volume, Volume]
    planted: tuple[Volume, Volume]
    scales: tuple[float, float]
    sites: tuple[Site, ...]
    brain: Mask

    def scan(self, modality: int, with_lesions: bool) -> Volume:
        """The fine scan around the cut-out."""
        return (self.planted if with_lesions else self.healthy)[modality]

    def truth(self, modality: int, with_lesions: bool) -> Array:
        """The fine scan on the cut-out's own lattice, (I, J, K)."""
        scan = self.scan(modality, with_lesions)
        return _part(scan.data, scan.grid, self.grid)

    @cached_property
    def valid(self) -> Mask:
        """Brain away from lesions, (I, J, K)."""
        return self.brain & ~lesions.near([site.lesion for site in self.sites], self.grid)

    @cached_property
    def judged(self) -> Mask:
        """The same, far enough from the faces, (I, J, K)."""
        return self.valid & far_from_faces(self.grid, MARGIN)


def read_crop(pair: Pair, size: float) -> Crop:
    """A subject's cut-out with an edge of `size` mm; see `cut_out`."""
    t1w, t2w = read_volume(pair.t1w), read_volume(pair.t2w)
    labels = None
    if pair.seg is not None:
        labels = interpolate(read_volume(pair.seg), t1w.grid, "nearest")
        labels = (labels > 0).astype(np.float32) if pair.tumour else labels
    return cut_out(pair.subject, t1w, t2w, labels, size)


def cut_out(subject: str, t1w: Volume, t2w: Volume, labels: Array | None, size: float) -> Crop:
    """Lays a cut-out around the deepest white matter of a fine pair and plants lesions there.

    Places and shapes follow from the subject's name: they are the same in every run.

    Args:
        subject: name.
        t1w: the fine T1w scan; its lattice serves both.
        t2w: the fine T2w scan; brought onto that lattice by cubic splines where it has another.
        labels: FreeSurfer ids, or a mask of what is abnormal already; None: neither.
        size: edge of the cut-out, mm.

    Raises ValueError where no lesion finds room.
    """
    whole, white = t1w.grid, white_matter(t1w.data, labels)
    pair = (t1w, _on(whole, t2w))
    grid = _around_deep_white(whole, white, size)
    beyond = np.ceil(AROUND / whole.spacing).astype(int)
    first = np.rint(whole.affine.to_index(grid.affine.origin)).astype(int)
    start, stop = np.maximum(first - beyond, 0), first + grid.shape + beyond
    around = whole.crop(start, np.minimum(stop, whole.shape))
    white = _part(white, whole, around)
    there = _part(white, around, grid)
    allowed = far_from_faces(grid, MARGIN + max(SIZES) / 2)
    rng = np.random.default_rng(zlib.crc32(subject.encode()))
    found = lesions.place(there, allowed, grid, SIZES, rng)
    if not found:
        raise ValueError(f"{subject}: no lesion finds room in its white matter")
    healthy = [Volume(_part(scan.data, whole, around), around.affine) for scan in pair]
    planted = [
        scan.replace(data=lesions.plant(scan.data, around, found, change, white))
        for scan, change in zip(healthy, lesions.CHANGES, strict=True)
    ]
    scales = [float(np.percentile(scan.data[scan.data > 0], 99.9)) for scan in pair]
    return Crop(
        subject,
        grid,
        (healthy[0], healthy[1]),
        (planted[0], planted[1]),
        (scales[0], scales[1]),
        tuple(lesions.sites(found, there, grid)),
        _part(t1w.data > 0, whole, grid),
    )


def white_matter(t1w: Array, labels: Array | None) -> Mask:
    """White matter, (I, J, K).

    From FreeSurfer ids where they are given. Otherwise the brightest of three classes (Otsu) of
    the T1w scan, which is right for adults, without what a mask of lesions covers.
    """
    if labels is not None and labels.max() > 1:
        return np.asarray(from_freesurfer(np.rint(labels)) == WHITE)
    brain = t1w > 0
    thresholds = sitk.OtsuMultipleThresholdsImageFilter()
    thresholds.SetNumberOfThresholds(2)
    thresholds.SetNumberOfHistogramBins(256)
    thresholds.Execute(sitk.GetImageFromArray(t1w[brain][None].astype(np.float32)))
    white = brain & (t1w > thresholds.GetThresholds()[1])
    if labels is not None:
        white &= ~ndimage.binary_dilation(labels > 0.5, iterations=2)
    return np.asarray(white)


def far_from_faces(grid: Grid, distance: float) -> Mask:
    """Voxels at least this far (mm) inside a lattice's outer faces, (I, J, K)."""
    i, j, k = (
        (np.minimum(np.arange(n), np.arange(n)[::-1]) + 0.5) * step >= distance
        for n, step in zip(grid.shape, grid.spacing, strict=True)
    )
    return np.asarray(i[:, None, None] & j[None, :, None] & k[None, None])


def _on(grid: Grid, scan: Volume) -> Volume:
    """A scan on another lattice: as it is where it lies on it already."""
    if scan.grid.same_as(grid):
        return scan
    data = interpolate(scan, grid, "cubic").clip(min=0)
    data[interpolate(scan, grid, "nearest") == 0] = 0  # splines swing around a cut-off edge
    return Volume(data, grid.affine, name=scan.name)


def _around_deep_white(grid: Grid, white: Mask, size: float) -> Grid:
    """The box of the given size (mm) whose inner part holds the most deep white matter."""
    shape = np.minimum(np.rint(size / grid.spacing).astype(int), grid.shape)
    deep = ndimage.distance_transform_edt(white, sampling=grid.spacing) > DEEP
    inner = np.maximum(shape - np.rint(2 * MARGIN / grid.spacing).astype(int), 1)
    amount = ndimage.uniform_filter(deep.astype(np.float32), inner.tolist(), mode="constant")
    start = np.array(np.unravel_index(amount.argmax(), amount.shape)) - shape // 2
    start = np.clip(start, 0, np.array(grid.shape) - shape)
    return grid.crop(start, start + shape)


def _part(data: NDArray[Scalar], whole: Grid, part: Grid) -> NDArray[Scalar]:
    """What of an array belongs to a sub-lattice."""
    first = np.rint(whole.affine.to_index(part.affine.origin)).astype(int)
    i, j, k = (slice(a, a + n) for a, n in zip(first, part.shape, strict=True))
    return np.ascontiguousarray(data[i, j, k])
