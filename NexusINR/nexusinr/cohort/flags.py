"""Which sessions a person should look at: what failed, what was odd, what stands out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from nexusinr.cohort.records import Record
from nexusinr.labels import LESION, TISSUES

#: Fewer sessions than this make no cohort that one of them could stand out of.
ENOUGH = 8

#: Robust standard deviations (1.4826 times the median absolute deviation) from the median beyond
#: which a volume stands out.
FAR = 4.0

#: Deviations below this share of the median are no reason to look, however alike the others are.
LEAST = 0.1


@dataclass(frozen=True)
class Flag:
    """``ok``, ``check`` or ``failed``, and why."""

    kind: Literal["ok", "check", "failed"]
    reasons: tuple[str, ...] = ()


def flags(sessions: Sequence[Record]) -> list[Flag]:
    """One a session."""
    done = [record for record in sessions if record.state == "done"]
    limits = {t.name: _limits(done, t.name) for t in TISSUES if t.value != LESION}
    return [_flag(record, limits) for record in sessions]


def _limits(done: Sequence[Record], tissue: str) -> tuple[float, float, float] | None:
    """Least, median and greatest volume, mL, that is no reason to look."""
    volumes = [v for r in done if (v := r.report["tissue_volumes_ml"].get(tissue)) is not None]
    if len(volumes) < ENOUGH:
        return None
    median = float(np.median(volumes))
    spread = 1.4826 * float(np.median(np.abs(np.array(volumes) - median)))
    reach = max(FAR * spread, LEAST * median)
    return median - reach, median, median + reach


def _flag(record: Record, limits: dict[str, tuple[float, float, float] | None]) -> Flag:
    if record.state == "failed":
        return Flag("failed", (record.reason,))
    if record.state == "moving":
        return Flag("failed", ("the run was cut off while its files were put in place: run again",))
    reasons = list(record.report["warnings"])
    for tissue, volume in record.report["tissue_volumes_ml"].items():
        found = limits.get(tissue)
        if found is not None and not found[0] <= volume <= found[2]:
            reasons.append(
                f"{tissue}: {volume:.0f} mL stand out (median of the cohort: {found[1]:.0f} mL)"
            )
    return Flag("check" if reasons else "ok", tuple(reasons))
