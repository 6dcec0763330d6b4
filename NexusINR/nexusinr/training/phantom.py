"""A procedural adult head: T1w, T2w, FLAIR and PD images with known tissues on any lattice.

The anatomy is a function of patient space, drawn from a seed: every lattice, however oblique or
coarse, samples the same head directly. Signals follow from relaxation times and the equations of
the sequences; voxels that hold several tissues are mixed from 2 x 2 x 2 points.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from nexusinr.geometry import Affine, Grid
from nexusinr.labels import CSF, DEEP_GREY, GREY, LESION, WHITE
from nexusinr.training.anatomy.brain import Brain
from nexusinr.training.anatomy.head import Head, paint_vessels
from nexusinr.training.anatomy.lesions import lesions, tumour
from nexusinr.training.anatomy.parts import Labels, Paint, Part, paint
from nexusinr.training.anatomy.shapes import Array, Waves, pick
from nexusinr.volume import Volume

Modality = Literal["T1w", "T2w", "FLAIR", "PD"]


@dataclass(frozen=True)
class Tissue:
    """A part of the head: T1 and T2 at 3 T in ms, proton density, and its nexusinr.labels value."""

    part: Part
    t1: float
    t2: float
    pd: float
    tissue: int = 0

    @property
    def name(self) -> str:
        """In words."""
        return self.part.name.lower().replace("_", " ")


#: After Stanisz et al., MRM 2005, Wansapura et al., JMRI 1999 and Bojorquez et al., MRI 2017. T2 of
#: fat is the long one of fast spin-echo trains. Blood flows: its signal is lost.
TISSUE_TABLE: tuple[Tissue, ...] = (
    Tissue(Part.AIR, 1000, 10, 0.0),
    Tissue(Part.SKIN, 900, 40, 0.60),
    Tissue(Part.FAT, 380, 120, 0.58),
    Tissue(Part.MUSCLE, 1400, 35, 0.75),
    Tissue(Part.BONE, 900, 5, 0.06),
    Tissue(Part.MARROW, 480, 80, 0.45),
    Tissue(Part.DURA, 1000, 25, 0.45),
    Tissue(Part.MUCOSA, 1500, 110, 0.85),
    Tissue(Part.VITREOUS, 4200, 1200, 1.0),
    Tissue(Part.LENS, 1200, 30, 0.60),
    Tissue(Part.OPTIC_NERVE, 1000, 75, 0.72),
    Tissue(Part.VESSEL, 1900, 20, 0.30),
    Tissue(Part.FLUID, 4300, 1600, 1.0, CSF),
    Tissue(Part.VENTRICLE, 4300, 1800, 1.0, CSF),
    Tissue(Part.CORTEX, 1400, 99, 0.82, GREY),
    Tissue(Part.HIPPOCAMPUS, 1420, 102, 0.83, GREY),
    Tissue(Part.WHITE_MATTER, 850, 71, 0.70, WHITE),
    Tissue(Part.CALLOSUM, 820, 67, 0.69, WHITE),
    Tissue(Part.CAUDATE, 1320, 88, 0.82, DEEP_GREY),
    Tissue(Part.PUTAMEN, 1270, 82, 0.81, DEEP_GREY),
    Tissue(Part.PALLIDUM, 1030, 62, 0.75, DEEP_GREY),
    Tissue(Part.THALAMUS, 1180, 83, 0.78, DEEP_GREY),
    Tissue(Part.CLAUSTRUM, 1330, 90, 0.81, GREY),
    Tissue(Part.BRAIN_STEM, 960, 76, 0.73, WHITE),
    Tissue(Part.NIGRA, 1050, 58, 0.74, WHITE),
    Tissue(Part.CEREBELLAR_CORTEX, 1420, 100, 0.83, GREY),
    Tissue(Part.CEREBELLAR_WHITE, 880, 72, 0.71, WHITE),
    Tissue(Part.DENTATE, 1120, 68, 0.76, WHITE),
    Tissue(Part.LESION, 1500, 170, 0.88, LESION),
    Tissue(Part.OEDEMA, 1450, 150, 0.86, LESION),
    Tissue(Part.TUMOUR, 1550, 140, 0.87, LESION),
    Tissue(Part.NECROSIS, 2900, 500, 0.96, LESION),
)

#: The whole head, mm: size and middle of the default lattice; and the middle of the brain.
_SIZE, _MIDDLE, _BRAIN_MIDDLE = (180.0, 220.0, 190.0), (0.0, -8.0, -4.0), (0.0, -16.0, 12.0)

#: Intensities run from 0 to FULL_SCALE; the brightest tissue has BRIGHTEST, before its texture.
FULL_SCALE, BRIGHTEST = 1000.0, 800.0

#: Voxels are looked at in blocks of this edge length: it bounds the memory.
_BLOCK = 64

#: In voxels larger than this, mm, what lies between the centres is looked at everywhere.
_COARSE = 1.6

_TEXTURE_STEP, _TEXTURE_SIZE = 1.2, 64  # of the periodic noise behind the texture: mm, samples
_TEXTURE = 0.025  # standard deviation of the texture relative to the signal


class Phantom:
    """One head.

    Args:
        seed: draws the anatomy, the places of the lesions and all noise.
        lesions: number of bright-on-T2w lesions, 3-10 mm, in the white matter.
        head: with skull, scalp and face; without, all outside the skull's inner face is air.
        tumour: adds a tumour of about 3 cm with necrosis and oedema.

    Raises ValueError where so many lesions find no room.
    """

    def __init__(
        self, seed: int = 0, lesions: int = 6, head: bool = True, tumour: bool = False
    ) -> None:
        self.seed, self.head = seed, head
        self._person = _person(seed)
        self._layers = _abnormal(seed, lesions, tumour)

    def labels_at(self, points: ArrayLike) -> Labels:
        """Fine labels (values of Part), (...), at patient-space points (..., 3), mm."""
        given = np.asarray(points)
        if given.shape[-1:] != (3,):
            raise ValueError(f"points have three coordinates each; the shape is {given.shape}")
        flat = np.ascontiguousarray(given.reshape(-1, 3).T, dtype=np.float32)
        return self._at(flat).reshape(given.shape[:-1])

    def labels(self, grid: Grid) -> Labels:
        """Fine labels (values of Part) at the voxel centres, (i, j, k)."""
        result = np.empty(grid.shape, np.uint8)
        for block, inside in _blocks(grid):
            result[inside] = self._centres(block)
        return result

    def tissues(self, grid: Grid) -> Labels:
        """Values of nexusinr.labels.TISSUES at the voxel centres, (i, j, k)."""
        return _TISSUE_OF_PART[self.labels(grid)]

    def image(
        self,
        grid: Grid,
        modality: Modality = "T1w",
        noise: float = 0.0,
        texture: float = 1.0,
        bias: float = 0.0,
    ) -> Volume:
        """An image, 0 ... 1000.

        Args:
            grid: the lattice.
            modality: T1w (inversion-prepared gradient echo), T2w (fast spin echo), FLAIR or PD.
            noise: standard deviation of the (Rician) noise, as a share of full scale.
            texture: strength of the texture within tissues; 1 is about 2.5 % of the signal. It
                belongs to the anatomy: the same at a patient-space point on every lattice.
            bias: amplitude of the smooth shading of the receive coil, e.g. 0.2.

        Raises ValueError for an unknown modality and for negative amounts.
        """
        signal, _ = self._signals(grid, [modality])
        return self._finished(grid, signal[0], modality, noise, texture, bias)

    def images(
        self,
        grid: Grid,
        modalities: tuple[Modality, ...] = ("T1w", "T2w"),
        noise: float = 0.0,
        texture: float = 1.0,
        bias: float = 0.0,
    ) -> tuple[tuple[Volume, ...], Labels]:
        """Several images as by `image`, and the tissues (i, j, k), in one pass over the anatomy."""
        signals, parts = self._signals(grid, list(modalities))
        volumes = tuple(
            self._finished(grid, signal, modality, noise, texture, bias)
            for signal, modality in zip(signals, modalities, strict=True)
        )
        return volumes, _TISSUE_OF_PART[parts]

    def _centres(self, block: Grid) -> Labels:
        index = np.indices(block.shape).reshape(3, -1)
        return self._at(_places(block, index)).reshape(block.shape)

    def _at(self, points: Array) -> Labels:
        return self._person.labels(points, self.head, self._layers)

    def _signals(self, grid: Grid, modalities: list[Modality]) -> tuple[Array, Labels]:
        """Signals (M, i, j, k) with partial volume, and the part at each centre, (i, j, k)."""
        tables = np.stack([signal_table(modality) for modality in modalities])
        signals = np.empty((len(modalities), *grid.shape), np.float32)
        parts = np.empty(grid.shape, np.uint8)
        everywhere = grid.spacing.max() > _COARSE
        for block, inside in _blocks(grid):
            around = self._centres(block.pad(1))
            centres = around[1:-1, 1:-1, 1:-1]
            mixed = _differing(around)
            if everywhere:
                mixed |= centres != Part.AIR
            parts[inside] = centres
            values = tables[:, centres]
            values[:, mixed] = self._mixture(block, np.argwhere(mixed), tables)
            signals[(slice(None), *inside)] = values
        return signals, parts

    def _mixture(self, block: Grid, voxels: NDArray[np.intp], tables: Array) -> Array:
        """Mean signals (M, N) over 2 x 2 x 2 points in voxels (N, 3) of a block."""
        total = np.zeros((len(tables), len(voxels)), np.float32)
        index = voxels.T.astype(np.float32)
        for offset in product((-0.25, 0.25), repeat=3):
            points = _places(block, index + np.array(offset, np.float32)[:, None])
            total += np.take(tables, self._at(points), axis=1)
        return total / np.float32(8)

    def _finished(
        self,
        grid: Grid,
        signal: Array,
        modality: Modality,
        noise: float,
        texture: float,
        bias: float,
    ) -> Volume:
        for name, amount in (("noise", noise), ("texture", texture), ("bias", bias)):
            if not 0 <= amount < np.inf:
                raise ValueError(f"an amount of {name} is not negative, unlike {amount}")
        data = np.empty(grid.shape, np.float32)
        grain = _grain(self.seed, modality)
        for block, inside in _blocks(grid):
            values = signal[inside].copy()
            some = values > 0
            points = _places(block, np.argwhere(some).T)
            values[some] *= 1 + np.float32(texture * _TEXTURE) * grain(points)
            values[some] *= 1 + np.float32(bias) * grain.shading(points)
            data[inside] = values
        if noise > 0:
            rng = np.random.default_rng([self.seed, 8, _MODALITIES.index(modality)])
            deviation = np.float32(noise * FULL_SCALE)
            data += deviation * rng.standard_normal(data.shape, np.float32)
            np.hypot(data, deviation * rng.standard_normal(data.shape, np.float32), out=data)
        return Volume(np.clip(data, 0, FULL_SCALE), grid.affine, name=f"phantom {modality}")


def default_grid(spacing: float = 1.0, shape: tuple[int, int, int] | None = None) -> Grid:
    """An isotropic RAS lattice: the whole head, or `shape` voxels about the brain's middle."""
    middle: tuple[float, float, float] = _BRAIN_MIDDLE
    if shape is None:
        sizes = [int(np.ceil(size / spacing)) for size in _SIZE]
        shape, middle = (sizes[0], sizes[1], sizes[2]), _MIDDLE
    corner = np.array(middle) - np.array(shape) * spacing / 2
    return Grid.from_corner(shape, (spacing,) * 3, np.eye(3), corner)


def pair(
    spacing: float = 1.0,
    seed: int = 0,
    shape: tuple[int, int, int] | None = None,
    lesions: int = 6,
    head: bool = True,
    tumour: bool = False,
    noise: float = 0.01,
    texture: float = 1.0,
    bias: float = 0.1,
) -> tuple[Volume, Volume, Labels]:
    """T1w and T2w image and tissues (nexusinr.labels) of one phantom on `default_grid`.

    A small one for tests: ``pair(spacing=4.0)`` or ``pair(shape=(48, 48, 48))``.
    """
    phantom = Phantom(seed, lesions, head, tumour)
    grid = default_grid(spacing, shape)
    (t1w, t2w), tissues = phantom.images(grid, ("T1w", "T2w"), noise, texture, bias)
    return t1w, t2w, tissues


def acquire(
    t1w: Volume,
    t2w: Volume,
    t1w_thickness: float = 3.0,
    t2w_thickness: float = 4.0,
    angle: float = 6.0,
) -> tuple[Volume, Volume]:
    """The pair as two scans with thick slices: T1w axial, T2w coronal, at an angle to each other.

    The slices, `t1w_thickness` and `t2w_thickness` mm thick, touch. `angle` is that by which the
    T2w scan is tilted about the left-right and the vertical axis, in degrees.

    Raises ValueError for slices thinner than the fine voxels.
    """
    import torch

    from nexusinr.acquisition import acquisition_between, degrade

    axial = degrade(t1w, _axis(t1w.affine, "SI"), t1w_thickness)
    coronal = _axis(t2w.affine, "AP")
    sizes = np.where(np.arange(3) == coronal, t2w_thickness, t2w.affine.spacing)
    turned = Grid(t2w.data.shape, t2w.affine.transformed(_turn(t2w.grid.centre, angle)))
    scan = turned.with_spacing(sizes)
    model = acquisition_between(scan, t2w.grid, sizes)
    data = model.forward(torch.from_numpy(np.ascontiguousarray(t2w.data))).numpy()
    return axial, Volume(data, scan.affine, thickness=tuple(sizes.tolist()), name=t2w.name)


def _axis(affine: Affine, directions: str) -> int:
    """The array axis that runs along one of these anatomical directions."""
    return next(axis for axis, letter in enumerate(affine.orientation) if letter in directions)


def _turn(centre: NDArray[np.float64], angle: float) -> NDArray[np.float64]:
    """4x4 matrix: a turn by the angle about x, then about z, around a centre."""
    c, s = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    about_x = np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    about_z = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    matrix = np.eye(4)
    matrix[:3, :3] = about_z @ about_x
    matrix[:3, 3] = centre - matrix[:3, :3] @ centre
    return matrix


class _Person:
    """A healthy anatomy: size, shape and folds of one person."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng([seed, 7])
        self._size = (0.98 * (1 + rng.uniform(-0.03, 0.03, (3, 1)))).astype(np.float32)
        self._shape = [Waves(rng, (70, 130), 0.9, count=3) for _ in range(3)]
        self._head, self._brain = Head(seed), Brain(seed)

    def labels(self, points: Array, head: bool, layers: tuple[Paint, ...]) -> Labels:
        """Fine labels (N,) at points (3, N), mm, with layers laid over the healthy anatomy."""
        points = points / self._size + np.stack([shift(points) for shift in self._shape])
        inner, outer = self._head.locate(points)
        labels = np.zeros(points.shape[1], np.uint8)
        if head:
            around = np.flatnonzero((inner <= 0) & (outer > 0))
            surrounds = labels[around]
            self._head.paint(pick(points, around), inner[around], outer[around], surrounds)
            labels[around] = surrounds
        inside = np.flatnonzero(inner > 0)
        points = pick(points, inside)
        contents = np.full(inside.size, Part.FLUID, np.uint8)
        self._brain.paint(points, contents)
        paint_vessels(points, inner[inside], contents)
        paint(layers, points, contents)
        labels[inside] = contents
        return labels

    def in_own_space(self, points: Array) -> Labels:
        """As `labels`, for points given before the head got its size and shape; brain only."""
        contents = np.full(points.shape[1], Part.FLUID, np.uint8)
        self._brain.paint(points, contents)
        return contents


@lru_cache(maxsize=4)
def _person(seed: int) -> _Person:
    return _Person(seed)


@lru_cache(maxsize=8)
def _abnormal(seed: int, count: int, with_tumour: bool) -> tuple[Paint, ...]:
    """Layers of lesions and tumour."""
    label = _person(seed).in_own_space
    return (*lesions(count, label, seed), *(tumour(label, seed) if with_tumour else ()))


class _Grain:
    """What varies smoothly within a tissue: its texture, and the shading by the receive coil."""

    def __init__(self, seed: int, modality: Modality) -> None:
        rng = np.random.default_rng([seed, 9])
        common = _periodic_noise(rng)
        own = [_periodic_noise(rng) for _ in _MODALITIES][_MODALITIES.index(modality)]
        self._noise = 0.6 * common + 0.8 * own
        coil = np.random.default_rng([seed, 10, _MODALITIES.index(modality)])
        self.shading = Waves(coil, (260, 420), 0.6, count=3)

    def __call__(self, points: Array) -> Array:
        """Values (N,), unit deviation, of points (3, N), mm."""
        index = points / np.float32(_TEXTURE_STEP)
        return ndimage.map_coordinates(self._noise, index, order=1, mode="grid-wrap")


@lru_cache(maxsize=8)
def _grain(seed: int, modality: Modality) -> _Grain:
    return _Grain(seed, modality)


def _periodic_noise(rng: np.random.Generator) -> Array:
    """Noise (64, 64, 64) of unit deviation, correlated over about 2 and over about 8 mm."""
    fine, coarse = rng.standard_normal((2, *(_TEXTURE_SIZE,) * 3), np.float32)
    fine = ndimage.gaussian_filter(fine, 0.8, mode="wrap")
    coarse = ndimage.gaussian_filter(coarse, 3.0, mode="wrap")
    mixed = fine / fine.std() + 0.7 * coarse / coarse.std()
    return np.asarray(mixed / mixed.std(), np.float32)


_MODALITIES: tuple[Modality, ...] = ("T1w", "T2w", "FLAIR", "PD")
_TISSUE_OF_PART = np.zeros(len(Part), np.uint8)
_TISSUE_OF_PART[[row.part for row in TISSUE_TABLE]] = [row.tissue for row in TISSUE_TABLE]


def signal_table(modality: Modality) -> Array:
    """Signal of each part, (parts,), the brightest being BRIGHTEST.

    T1w: magnetisation-prepared gradient echo, TI 1100 and TR 2300 ms. T2w: TR 4500, TE 100 ms.
    FLAIR: TI 2500, TR 9000, TE 120 ms. PD: TR 4500, TE 12 ms.
    """
    t1, t2, pd = np.array([(r.t1, r.t2, r.pd) for r in sorted(TISSUE_TABLE, key=_part)]).T
    if modality == "T1w":
        signal = pd * np.abs(_inverted(t1, 1100, 2300)) * np.exp(-3 / t2)
    elif modality == "T2w":
        signal = pd * (1 - np.exp(-4500 / t1)) * np.exp(-100 / t2)
    elif modality == "FLAIR":
        signal = pd * np.abs(_inverted(t1, 2500, 9000)) * np.exp(-120 / t2)
    elif modality == "PD":
        signal = pd * (1 - np.exp(-4500 / t1)) * np.exp(-12 / t2)
    else:
        raise ValueError(f"unknown modality {modality!r}: choose one of {', '.join(_MODALITIES)}")
    return np.asarray(BRIGHTEST * signal / signal.max(), np.float32)


def _part(row: Tissue) -> Part:
    return row.part


def _inverted(t1: NDArray[np.float64], ti: float, tr: float) -> NDArray[np.float64]:
    """Longitudinal magnetisation at TI after an inversion, repeated every TR; ms."""
    return 1 - 2 * np.exp(-ti / t1) + np.exp(-tr / t1)


def _differing(labels: Labels) -> NDArray[np.bool_]:
    """Which voxels have a neighbour (of 26) of another label; the outermost are left out."""
    highest = ndimage.maximum_filter(labels, 3)
    lowest = ndimage.minimum_filter(labels, 3)
    return (highest != lowest)[1:-1, 1:-1, 1:-1]


def _blocks(grid: Grid) -> Iterator[tuple[Grid, tuple[slice, slice, slice]]]:
    """The grid cut into blocks: each with its place in the grid."""
    for start in product(*(range(0, size, _BLOCK) for size in grid.shape)):
        stop = np.minimum(np.array(start) + _BLOCK, grid.shape)
        i, j, k = (slice(a, int(b)) for a, b in zip(start, stop, strict=True))
        yield grid.crop(start, stop), (i, j, k)


def _places(block: Grid, index: NDArray[np.integer] | Array) -> Array:
    """Points (3, N), mm, at indices (3, N) of a block."""
    matrix = block.affine.matrix.astype(np.float32)
    return matrix[:3, :3] @ index.astype(np.float32) + matrix[:3, 3:]
