"""The benchmark: what the main job costs on this machine, and how near it comes to its limit.

`measure` runs it all on one pair of scans: the machine's own peak, the main job as a user runs it,
what each of its steps computes, another spacing and a plane from the same session, the baselines
and how the cost grows. `write` leaves benchmark.json, benchmark.md and scaling.png.
"""

from __future__ import annotations

from nexusinr.evaluation.benchmark.results import write
from nexusinr.evaluation.benchmark.run import Plan, measure

__all__ = ["Plan", "measure", "write"]
