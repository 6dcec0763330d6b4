"""Safety gates of a model: planted lesions, hallucinations, reproduced slices, leaks.

    .venv/bin/python Testing/Benchmarks/safety_gates.py "$NEXUSINR_DATA" --out results

Writes safety.csv, safety.md, safety.json and lesions.csv; exit status 1 where a gate failed.
"""

from __future__ import annotations

import argparse
import sys
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nexusinr import upsample
from nexusinr.evaluation import safety
from nexusinr.geometry import Grid
from nexusinr.inference.session import Session
from nexusinr.volume import Volume

Array = NDArray[np.float32]


def main() -> int:
    """Runs the gates."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", action="append", help="again for each; default: nexus-inr")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--split", default="test")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--quick", action="store_true", help="one subject, one thickness")
    arguments = parser.parse_args()

    @cache
    def session(model: str) -> Session:
        return Session(model, arguments.device)

    def restore(
        t1w: Volume | None, t2w: Volume | None, grid: Grid, model: str
    ) -> tuple[Array | None, Array | None]:
        result = upsample(
            t1w, t2w, like=grid, session=session(model), register="none", segmentation=False
        )
        first, second = (None if scan is None else scan.data for scan in (result.t1w, result.t2w))
        return first, second

    gates = safety.evaluate(
        arguments.folder,
        arguments.model or ["nexus-inr"],
        arguments.out,
        restore,
        safety.QUICK if arguments.quick else None,
        arguments.split,
    )
    print((arguments.out / "safety.md").read_text(encoding="utf-8"))
    return int(any(not gate.passed for gate in gates))


if __name__ == "__main__":
    sys.exit(main())
