"""Gates: what a model must not do, as a table of thresholds and figures."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from nexusinr.evaluation.safety.records import MISALIGNED, Case, Records
from nexusinr.evaluation.scores import BASELINE
from nexusinr.evaluation.subjects import MODALITIES

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)

#: A lesion is erased where less than this share of its contrast is left.
ERASED_BELOW = 0.5

#: Lesions from this size on (mm), under slices up to this thickness (mm), must not be erased.
SMALLEST_LESION, THICKEST_SLICE = 5.0, 5.0

#: Share of such lesions that may be erased; trilinear interpolation's share where that is more.
MOST_ERASED = 0.05

#: What must not be invented is counted against this interpolation ...
SHARPEST = "cubic"

#: ... beyond whose hallucinations this share of them and so many a litre are let pass.
MORE_INVENTED, MORE_PER_LITRE = 0.1, 10.0

#: Share of the guide's contrast that may appear in the other scan.
MOST_LEAKED = 0.2

#: Residual of noisy slices in units of the noise; largest error of clean ones, share of the range.
MOST_NOISE, MOST_ERROR = 1.1, 1e-3

#: PSNR, dB, of a scan that is restored on its own lattice.
LEAST_PSNR = 45.0


@dataclass(frozen=True)
class Gate:
    """One gate.

    Attributes:
        model: who is judged.
        name: what must be so.
        what: which figure, and where it is worst.
        threshold: the most that it may be; the least, where at_least.
        figure: what was measured.
        at_least: which way the threshold is meant.
    """

    model: str
    name: str
    what: str
    threshold: float
    figure: float
    at_least: bool = False

    @property
    def excess(self) -> float:
        """How far the figure is on the wrong side."""
        return (self.figure - self.threshold) * (-1 if self.at_least else 1)

    @property
    def passed(self) -> bool:
        """Whether the figure is on the right side; NaN never is."""
        return bool(self.excess <= 1e-9)


def judge(records: Records, model: str) -> list[Gate]:
    """The gates of one model: each at its worst; those that nothing was measured for are absent."""
    every = [
        *_erased(records, model),
        *_invented(records, model),
        *_leaked(records, model),
        *_reproduced(records, model),
        *_unchanged(records, model),
    ]
    named = grouped((gate.name, gate) for gate in every)
    return [max(gates, key=_badness) for gates in named.values()]


def _badness(gate: Gate) -> float:
    return float("inf") if np.isnan(gate.excess) else gate.excess


def grouped(items: Iterable[tuple[K, T]]) -> dict[K, list[T]]:
    """Values by key, in the order of the first of each key."""
    found: defaultdict[K, list[T]] = defaultdict(list)
    for key, value in items:
        found[key].append(value)
    return dict(found)


def erased(shares: Sequence[float]) -> float:
    """The part of some lesions that is erased."""
    return float(np.mean([not share >= ERASED_BELOW for share in shares]))


def _kind(condition: str) -> str:
    return MISALIGNED if condition.startswith(MISALIGNED) else condition


def _where(case: Case) -> str:
    """Slice thickness, and the condition where the gate's name has only its kind."""
    exact = "" if case.condition == _kind(case.condition) else f", {case.condition}"
    return f"slices of {case.thickness:g} mm{exact}"


def _cell(case: Case) -> Case:
    """The case whoever the subject is."""
    return Case(case.method, "", case.modality, case.condition, case.thickness)


def _erased(records: Records, model: str) -> list[Gate]:
    asked = [
        k for k in records.kept if k.size >= SMALLEST_LESION and k.case.thickness <= THICKEST_SLICE
    ]
    shares = grouped(((_cell(k.case), k.size), k.share) for k in asked)
    allowed = {
        (cell.modality, cell.thickness, size): max(erased(own), MOST_ERASED)
        for (cell, size), own in shares.items()
        if cell.method == BASELINE
    }
    return [
        Gate(
            model,
            f"lesions are kept in {cell.modality}: {_kind(cell.condition)}",
            f"share erased of those of {size:g} mm, {_where(cell)}",
            allowed[cell.modality, cell.thickness, size],
            erased(own),
        )
        for (cell, size), own in shares.items()
        if cell.method == model
    ]


def per_litre(counts: Sequence[tuple[int, float]]) -> float:
    """Hallucinations per litre from (how many, litres) of several scans."""
    return sum(count for count, _ in counts) / sum(litres for _, litres in counts)


def _invented(records: Records, model: str) -> list[Gate]:
    """All slice thicknesses together, against the interpolation at the same ones: counts vary."""
    plain = grouped(
        ((i.case.modality, i.case.thickness), (i.count, i.litres))
        for i in records.invented
        if i.case.method == SHARPEST
    )
    own = grouped(
        ((i.case.modality, i.case.condition), i) for i in records.invented if i.case.method == model
    )
    gates = []
    for (modality, condition), found in own.items():
        thicknesses = dict.fromkeys(i.case.thickness for i in found)
        beside = [counts for t in thicknesses for counts in plain[modality, t]]
        exact = "" if condition == _kind(condition) else f", {condition}"
        gates.append(
            Gate(
                model,
                f"nothing is invented in {modality}: {_kind(condition)}",
                f"hallucinations per litre, all slices{exact}",
                (1 + MORE_INVENTED) * per_litre(beside) + MORE_PER_LITRE,
                per_litre([(i.count, i.litres) for i in found]),
            )
        )
    return gates


def _leaked(records: Records, model: str) -> list[Gate]:
    shares = grouped(
        (_cell(k.case), abs(k.share))
        for k in records.leaked
        if k.case.method == model
        and k.size >= SMALLEST_LESION
        and k.case.thickness <= THICKEST_SLICE
    )
    other = dict(zip(MODALITIES, reversed(MODALITIES), strict=True))
    return [
        Gate(
            model,
            f"{other[cell.modality]} lesions stay out of {cell.modality}",
            f"share of the contrast that leaks, mean, {_where(cell)}",
            MOST_LEAKED,
            float(np.mean(own)),
        )
        for cell, own in shares.items()
    ]


def _reproduced(records: Records, model: str) -> list[Gate]:
    """By the slice profile that fits better: which one it was, no header says."""
    gates = []
    rows = grouped(
        ((r.case, r.noise is None), r) for r in records.reproduced if r.case.method == model
    )
    for (case, clean), by_profile in rows.items():
        name, scan = "acquired slices are reproduced", f"{case.modality}, {_where(case)}"
        if clean:
            what = f"largest error, share of the range, {scan}"
            figure = min(row.largest for row in by_profile)
            gates.append(Gate(model, f"{name}: without noise", what, MOST_ERROR, figure))
        else:
            what = f"residual RMS in units of the noise, {scan}"
            figure = min(row.noise for row in by_profile if row.noise is not None)
            gates.append(Gate(model, f"{name}: with noise", what, MOST_NOISE, figure))
    return gates


def _unchanged(records: Records, model: str) -> list[Gate]:
    return [
        Gate(
            model,
            f"ratio 1 leaves {row.case.modality} unchanged",
            f"PSNR, dB, {row.case.subject}",
            LEAST_PSNR,
            row.psnr,
            at_least=True,
        )
        for row in records.unchanged
        if row.case.method == model
    ]
