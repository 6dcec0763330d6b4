"""Safety: lesions that a model must not erase, and what it must not invent.

Lesions of known size and contrast are planted into fine scans (`nexusinr.evaluation.lesions`),
cut-outs of these are acquired with thick slices, restored with and without a good guide, and
compared with the truth; plain interpolations stand beside. `evaluate` runs it all and leaves
safety.csv (the gates), safety.md, safety.json and lesions.csv.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from nexusinr.errors import InputError
from nexusinr.evaluation.restorations import Restore
from nexusinr.evaluation.safety import tables
from nexusinr.evaluation.safety.crops import Crop, read_crop
from nexusinr.evaluation.safety.gates import Gate, judge
from nexusinr.evaluation.safety.records import Records
from nexusinr.evaluation.safety.trials import QUICK, Plan, Trials
from nexusinr.evaluation.subjects import Pair, subjects, unusable
from nexusinr.volume import read_volume

__all__ = ["QUICK", "Gate", "Plan", "evaluate", "measure"]


def evaluate(
    folder: Path,
    models: Sequence[str],
    out: Path,
    restore: Restore,
    plan: Plan | None = None,
    split: str | None = "test",
    log: Callable[[str], None] = print,
) -> list[Gate]:
    """Judges models on the fine pairs of a folder; brought up to date after every subject.

    Args:
        folder: as for the other protocols (see `subjects`); label maps beside the scans are used.
        models: names, as restore takes them.
        out: folder to write to.
        restore: runs a model on a pair, or on one scan alone.
        plan: what is tried; None: everything, which takes about a quarter of an hour on two CPU
            cores. QUICK takes a minute or two.
        split: the subjects of this split count where a split.csv lies beside the pairs.
        log: told of every subject.

    Raises InputError where no subject can be used.
    """
    plan = plan or Plan()
    out.mkdir(parents=True, exist_ok=True)
    records, gates, done = Records(), list[Gate](), 0
    for pair in subjects(folder, split):
        if plan.subjects is not None and done == plan.subjects:
            break
        crop = _crop(pair, plan, log)
        if crop is None:
            continue
        measure(crop, models, restore, plan, records)
        gates = [gate for model in models for gate in judge(records, model)]
        tables.write(gates, records, plan, out)
        failed = sum(not gate.passed for gate in gates)
        log(f"{pair.subject}: {len(crop.sites)} lesions; {failed} of {len(gates)} gates failed")
        done += 1
    if not done:
        raise InputError(f"no pair in {folder} has fine scans with room for lesions")
    return gates


def _crop(pair: Pair, plan: Plan, log: Callable[[str], None]) -> Crop | None:
    reason = unusable(read_volume(pair.t1w), read_volume(pair.t2w))
    if reason is None:
        try:
            return read_crop(pair, plan.size)
        except ValueError as error:
            reason = str(error)
    log(f"{pair.subject}: left out, {reason}")
    return None


def measure(
    crop: Crop, models: Sequence[str], restore: Restore, plan: Plan, records: Records
) -> None:
    """Runs one cut-out through a plan; slices thinner than its voxels are left out."""
    finest = float(crop.grid.spacing.max())
    thicknesses = tuple(t for t in plan.thicknesses if t >= finest * (1 - 1e-3))
    trials = Trials(crop, replace(plan, thicknesses=thicknesses), restore, records)
    for thickness in thicknesses:
        trials.run(thickness, models)
    for model in models:
        trials.ratio_one(model)
