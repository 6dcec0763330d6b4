"""Runs one cut-out through all conditions and measures what comes out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from nexusinr.acquisition import acquisition_between
from nexusinr.evaluation.lesions import Array, Mask
from nexusinr.evaluation.metrics import psnr, to_unit
from nexusinr.evaluation.restorations import Restore
from nexusinr.evaluation.safety import residuals
from nexusinr.evaluation.safety.acquiring import acquire, moved, noisy, shifted, turned
from nexusinr.evaluation.safety.crops import Crop
from nexusinr.evaluation.safety.records import (
    ALONE,
    GUIDED,
    LACKING,
    MISALIGNED,
    NO_MODEL,
    Case,
    Invented,
    Kept,
    Leaked,
    Records,
    Reproduced,
    Unchanged,
)
from nexusinr.evaluation.subjects import MODALITIES
from nexusinr.geometry import FloatArray, Grid
from nexusinr.inference.measured import PROFILES
from nexusinr.resample import Kind, interpolate
from nexusinr.volume import Volume

#: What stands beside the models.
INTERPOLATIONS: tuple[Kind, ...] = ("trilinear", "cubic")

#: PSNR, dB, that equal images count as.
EQUAL = 100.0


@dataclass(frozen=True)
class Plan:
    """What is tried.

    Attributes:
        thicknesses: of the slices, mm.
        misaligned_at: thicknesses at which the guide is misaligned.
        shifts: how far, mm.
        turns: how far, degrees.
        noisy_at: thicknesses at which noise is added.
        noise: its deviation as a share of the scan's range.
        size: edge of a cut-out, mm.
        subjects: how many at most; None: all.
    """

    thicknesses: tuple[float, ...] = (1, 2, 3, 4, 5, 6, 7)
    misaligned_at: tuple[float, ...] = (3, 5)
    shifts: tuple[float, ...] = (1, 2, 3)
    turns: tuple[float, ...] = (1, 2, 3)
    noisy_at: tuple[float, ...] = (3, 5)
    noise: float = 0.02
    size: float = 56.0
    subjects: int | None = None

    def transforms(self, centre: FloatArray) -> dict[str, FloatArray]:
        """Every misalignment by name, (4, 4); turns are about a centre (3,), mm."""
        found = {f"{MISALIGNED} by {d:g} mm": shifted(d) for d in self.shifts}
        found.update({f"{MISALIGNED} by {a:g} degrees": turned(a, centre) for a in self.turns})
        return found


#: For a look within a minute or two: one subject, one thickness.
QUICK = Plan((4,), (4,), (2,), (2,), (4,), size=50.0, subjects=1)

#: Who carries the lesions in a run (T1w, T2w); None: that scan is not given.
Carriers = tuple[bool | None, bool | None]


class Trials:
    """One cut-out and what is tried with it; everything measured goes into records."""

    def __init__(self, crop: Crop, plan: Plan, restore: Restore, records: Records) -> None:
        self.crop, self.plan, self.restore, self.records = crop, plan, restore, records

    def run(self, thickness: float, models: Sequence[str]) -> None:
        """All conditions at one slice thickness, interpolations and models."""
        slices = _Slices(self.crop, thickness)
        for modality in (0, 1):
            for kind in INTERPOLATIONS:
                case = self._case(kind, modality, NO_MODEL, thickness)
                self._judge(case, modality, slices.plain(modality, kind), slices)
        for model in models:
            self._aligned(slices, model, thickness)
            if thickness in self.plan.misaligned_at:
                self._misaligned(slices, model, thickness)
            if thickness in self.plan.noisy_at:
                self._noisy(slices, model, thickness)

    def ratio_one(self, model: str) -> None:
        """Scans that are fine already, restored on their own lattice."""
        crop = self.crop
        pair = [acquire(crop, modality, True, None) for modality in (0, 1)]
        images = self._call((pair[0], pair[1]), model)
        for modality, image in enumerate(images):
            scale = crop.scales[modality]
            truth = to_unit(crop.truth(modality, True), scale)
            case = self._case(model, modality, GUIDED, float(crop.grid.spacing.max()))
            value = psnr(to_unit(image, scale), truth, crop.brain)
            self.records.unchanged.append(Unchanged(case, min(value, EQUAL)))

    def _case(self, method: str, modality: int, condition: str, thickness: float) -> Case:
        return Case(method, self.crop.subject, MODALITIES[modality], condition, thickness)

    def _call(self, scans: tuple[Volume | None, Volume | None], model: str) -> list[Array]:
        """Restores a pair on the cut-out's lattice; an empty array for a scan not given."""
        found = self.restore(*scans, self.crop.grid, model)
        return [np.empty(0, np.float32) if data is None else data for data in found]

    def _restore(self, slices: _Slices, carriers: Carriers, model: str) -> list[Array]:
        t1w, t2w = (
            None if with_lesions is None else slices.scan(modality, with_lesions)
            for modality, with_lesions in enumerate(carriers)
        )
        return self._call((t1w, t2w), model)

    def _judge(self, case: Case, modality: int, image: Array, slices: _Slices) -> None:
        """Lesions that were kept, and what was invented elsewhere."""
        truth, crop = slices.truth(modality), self.crop
        for site in crop.sites:
            share = site.contrast(image) / site.contrast(truth)
            self.records.kept.append(Kept(case, site.lesion.size, share))
        voxel = float(crop.grid.spacing.prod())
        found = slices.detail(image)
        limit, there = slices.limit(modality), slices.true_detail(modality)
        count = residuals.count(found, there, crop.judged, limit, voxel)
        litres = float(crop.judged.sum()) * voxel * 1e-6
        self.records.invented.append(Invented(case, count, litres))

    def _aligned(self, slices: _Slices, model: str, thickness: float) -> None:
        """With and without a guide, with lesions in both scans, in one, and in none."""
        images = {run: self._restore(slices, run, model) for run in _RUNS}
        for condition, runs in _CONDITIONS.items():
            for modality, run in enumerate(runs):
                case = self._case(model, modality, condition, thickness)
                self._judge(case, modality, images[run][modality], slices)
        self._leaks(images, model, thickness)
        for modality, image in enumerate(images[True, True]):
            case = self._case(model, modality, GUIDED, thickness)
            self._reproduces(case, modality, slices.scan(modality, True), image, None)

    def _leaks(self, images: dict[Carriers, list[Array]], model: str, thickness: float) -> None:
        """What lesions of the guide alone change in the other scan, against a healthy guide."""
        for modality, carriers in ((0, (False, True)), (1, (True, False))):
            image, plain = images[carriers][modality], images[False, False][modality]
            case = self._case(model, modality, LACKING, thickness)
            for site, own in zip(self.crop.sites, self._contrasts(1 - modality), strict=True):
                change = site.contrast(image) - site.contrast(plain)
                share = change / self.crop.scales[modality] / own
                self.records.leaked.append(Leaked(case, site.lesion.size, share))

    def _contrasts(self, modality: int) -> Iterator[float]:
        """What planting added to the contrast at every site, as a share of the scan's range."""
        planted, healthy = (self.crop.truth(modality, there) for there in (True, False))
        for site in self.crop.sites:
            yield (site.contrast(planted) - site.contrast(healthy)) / self.crop.scales[modality]

    def _misaligned(self, slices: _Slices, model: str, thickness: float) -> None:
        t1w, t2w = slices.scan(0, True), slices.scan(1, True)
        for condition, transform in self.plan.transforms(self.crop.grid.centre).items():
            for modality, pair in enumerate(
                ((t1w, moved(t2w, transform)), (moved(t1w, transform), t2w))
            ):
                case = self._case(model, modality, condition, thickness)
                self._judge(case, modality, self._call(pair, model)[modality], slices)

    def _noisy(self, slices: _Slices, model: str, thickness: float) -> None:
        rng = np.random.default_rng(0)
        sigmas = [self.plan.noise * scale for scale in self.crop.scales]
        first, second = (noisy(slices.scan(m, True), sigmas[m], rng) for m in (0, 1))
        images = self._call((first, second), model)
        for modality, scan in enumerate((first, second)):
            case = self._case(model, modality, GUIDED, thickness)
            self._reproduces(case, modality, scan, images[modality], sigmas[modality])

    def _reproduces(
        self, case: Case, modality: int, scan: Volume, image: Array, sigma: float | None
    ) -> None:
        seen = (scan.data > 0) & wholly_inside(scan, self.crop.grid)
        for profile in PROFILES:
            model = acquisition_between(
                scan.grid, self.crop.grid, np.array(scan.thickness), profile
            )
            simulated = model.forward(torch.from_numpy(np.ascontiguousarray(image))).numpy()
            error = (scan.data - simulated)[seen].astype(np.float64)
            noise = None if sigma is None else float(np.sqrt(np.mean(error**2))) / sigma
            largest = float(np.abs(error).max()) / self.crop.scales[modality]
            self.records.reproduced.append(Reproduced(case, profile, noise, largest))


#: The run that shows each condition, for the T1w and for the T2w scan.
_CONDITIONS: dict[str, tuple[Carriers, Carriers]] = {
    ALONE: ((True, None), (None, True)),
    GUIDED: ((True, True), (True, True)),
    LACKING: ((True, False), (False, True)),
}

#: All of them, and one without any lesion.
_RUNS: tuple[Carriers, ...] = (
    *dict.fromkeys(run for runs in _CONDITIONS.values() for run in runs),
    (False, False),
)


def wholly_inside(scan: Volume, target: Grid) -> Mask:
    """Scan voxels (i, j, k) of which nothing lies outside a target, but for a Gaussian's 3.5 sigma.

    The lattices are parallel.
    """
    index = np.moveaxis(np.mgrid[tuple(slice(n) for n in scan.data.shape)], 0, -1)
    there = target.affine.to_index(scan.affine.apply(index))
    reach = np.abs(target.affine.inverse[:3, :3] @ scan.affine.direction) @ scan.thickness
    low, high = there - 1.5 * reach, there + 1.5 * reach
    return np.asarray(((low >= -1) & (high <= target.shape)).all(axis=-1))


class _Slices:
    """A cut-out acquired at one thickness, its truth, and the cubic spline's typical error."""

    def __init__(self, crop: Crop, thickness: float) -> None:
        self._crop = crop
        self._scans = {
            (modality, there): acquire(crop, modality, there, thickness)
            for modality in (0, 1)
            for there in (True, False)
        }
        self._truths = [crop.truth(modality, True) for modality in (0, 1)]
        self._details = [self.detail(truth) for truth in self._truths]
        self._limits = [self._limit(modality) for modality in (0, 1)]

    def scan(self, modality: int, with_lesions: bool) -> Volume:
        return self._scans[modality, with_lesions]

    def truth(self, modality: int) -> Array:
        return self._truths[modality]

    def true_detail(self, modality: int) -> Array:
        return self._details[modality]

    def detail(self, image: Array) -> Array:
        return residuals.detail(image, self._crop.valid, self._crop.grid.spacing)

    def plain(self, modality: int, kind: Kind) -> Array:
        return interpolate(self._scans[modality, True], self._crop.grid, kind)

    def limit(self, modality: int) -> float:
        return self._limits[modality]

    def _limit(self, modality: int) -> float:
        difference = self.detail(self.plain(modality, "cubic")) - self._details[modality]
        return residuals.threshold(difference, self._crop.judged, self._crop.scales[modality])
