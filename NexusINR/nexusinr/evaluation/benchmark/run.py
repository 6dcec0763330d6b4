"""The benchmark, top to bottom."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from nexusinr.errors import Cancelled
from nexusinr.evaluation.benchmark import baselines, cold, machine, memory, peak, start
from nexusinr.evaluation.benchmark.baselines import Baseline
from nexusinr.evaluation.benchmark.cold import ColdRun
from nexusinr.evaluation.benchmark.counting import Work
from nexusinr.evaluation.benchmark.heads import Head, acquire
from nexusinr.evaluation.benchmark.peak import Peak
from nexusinr.evaluation.benchmark.warm import PLANES, Warm, WarmRun
from nexusinr.inference import report
from nexusinr.inference.session import Session
from nexusinr.volume import Volume

#: The other spacing that is asked for in the same session, in fine voxels.
NEW_SPACING = 1.5

#: How often it is asked for; the median counts.
TIMES = 3


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Attributes:
        head: one of heads.SIZES.
        spacings: other lattices of this head that show how the cost grows, mm.
        sizes: other heads that do.
        conv_lattice: of the convolution whose speed is the machine's peak.
        matrix: edge of the matrices whose product is timed beside it.
    """

    head: str = "whole"
    spacings: tuple[float, ...] = (0.5, 2.0)
    sizes: tuple[str, ...] = ("quarter", "half", "double")
    conv_lattice: tuple[int, int, int] = (128, 128, 64)
    matrix: int = 4096

    @classmethod
    def quick(cls) -> Plan:
        """A quarter of a head, and nothing of how the cost grows."""
        return cls("quarter", (), (), (64, 64, 64), 2048)


def measure(
    fine: tuple[Volume, Volume],
    plan: Plan,
    model: str,
    device: str = "auto",
    threads: int | None = None,
    log: Callable[[str], None] = print,
    cancelled: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """Measures a model on a device.

    Args:
        fine: a T1w and a T2w image of a whole head on one isotropic lattice; they are acquired
            with slices of two and of four voxels and restored.
        plan: what is measured.
        model: name of the weights.
        device: as for Session.
        threads: that this process has been given already, for the process of the main job; None:
            all.
        log: told of each part.
        cancelled: asked often.

    Returns:
        Plain values, as in benchmark.json.

    Raises InputError for what cannot be used, OutOfMemory, Cancelled.
    """
    warm = Warm(Session(model, device), cancelled)

    def begin(what: str) -> None:
        if cancelled():
            raise Cancelled("cancelled: nothing was written")
        log(what)

    head = acquire(fine, plan.head)
    begin("the machine's own peak")
    limit = peak.measure(warm.session.device, plan.conv_lattice, plan.matrix)
    begin("how soon a new process is ready")
    ready = _start(model, device, cancelled)
    begin(f"the main job in a process of its own ({head.name} head)")
    once = cold.run(head, model, device, threads, cancelled)
    begin("what each step computes")
    steps = warm.count(head)
    begin("the main job in a session")
    memory.begin(warm.session.device)
    first = warm.first(head, _spacing(head))
    gpu_memory = memory.gpu_peak_gb(warm.session.device)
    begin("another spacing and a plane from the same session")
    asked = _asked_again(warm, head)
    begin("the baselines")
    others = baselines.measure(warm.session, head)
    return {
        **_identity(warm.session, limit),
        "start": ready,
        "whole_head": _whole_head(head, once, first, steps, limit, gpu_memory),
        **asked,
        "baselines": _baselines(model, first, others),
        "scaling": _scaling(fine, plan, warm, _growth(head, first), begin),
    }


def _identity(session: Session, limit: Peak) -> dict[str, Any]:
    """What the figures belong to."""
    return {
        "machine": machine.describe(),
        "device": session.device.description,
        "precision": str(session.device.dtype).removeprefix("torch."),
        "model": session.card.name,
        "weights_sha256": session.card.sha256,
        "software": report.software(),
        "peak_conv_gflops": round(limit.conv, 1),
        "peak_matmul_gflops": round(limit.matmul, 1),
        "peak_eight_bit_conv_gflops": limit.eight_bit_conv and round(limit.eight_bit_conv, 1),
    }


def _start(model: str, device: str, cancelled: Callable[[], bool]) -> dict[str, float]:
    return {
        "help_seconds": round(start.help_seconds(cancelled), 3),
        "ready_seconds": round(start.ready_seconds(model, device, cancelled), 3),
        "installed_gb": round(start.installed_gb(), 2),
    }


def _asked_again(warm: Warm, head: Head) -> dict[str, float]:
    spacing = NEW_SPACING * _spacing(head)
    seconds = [warm.again(head, spacing).seconds for _ in range(TIMES)]
    return {
        "new_spacing_mm": spacing,
        "new_spacing_seconds": round(statistics.median(seconds), 3),
        **{f"plane_{n}_seconds": round(warm.plane(head, n), 4) for n in PLANES},
    }


def _scaling(
    fine: tuple[Volume, Volume],
    plan: Plan,
    warm: Warm,
    first: dict[str, Any],
    begin: Callable[[str], None],
) -> list[dict[str, Any]]:
    """A row for each lattice and head of the plan, after that of the main job."""
    spacing = float(fine[0].affine.spacing[0])
    todo = [(plan.head, other) for other in plan.spacings]
    todo += [(size, spacing) for size in plan.sizes]
    rows = []
    for size, wanted in todo:
        begin(f"how the cost grows: {size} head, {wanted:g} mm")
        head = acquire(fine, size)
        rows.append(_growth(head, warm.first(head, wanted)))
    return [first, *rows] if rows else []


def _spacing(head: Head) -> float:
    return float(head.grid.spacing[0])


def _whole_head(
    head: Head,
    once: ColdRun,
    first: WarmRun,
    counted: dict[str, Work],
    limit: Peak,
    gpu_memory: float | None,
) -> dict[str, Any]:
    """The main job: as a user runs it, then warm, then step by step."""
    seconds = dict(once.report["seconds"])
    begun = {"starting and writing": max(once.seconds - sum(seconds.values()), 0.0)}
    steps = {
        name: _costs(counted.get(name, Work()), took, limit)
        for name, took in {**begun, **seconds}.items()
    }
    return {
        "head": head.name,
        "lattice": once.report["lattice"]["shape"],
        "spacing_mm": _spacing(head),
        **_costs(sum(counted.values(), Work()), once.seconds, limit),
        "warm_seconds": round(first.seconds, 3),
        "peak_memory_gb": once.report["peak_memory_gb"],
        "peak_gpu_memory_gb": gpu_memory,
        "steps": steps,
    }


def _costs(work: Work, seconds: float, limit: Peak) -> dict[str, float]:
    share = work.flop / 1e9 / seconds / limit.conv if seconds else 0.0
    return {
        "seconds": round(seconds, 3),
        "gflop": round(work.flop / 1e9, 3),
        "gbytes": round(work.bytes / 1e9, 3),
        "share_of_peak": round(share, 4),
    }


def _baselines(model: str, first: WarmRun, others: list[Baseline]) -> dict[str, dict[str, Any]]:
    """All ways from normalised scans to intensities on the lattice, the model's own first."""
    own = Baseline(model, first.network, 1.0, "encoding and decoding in a session, with tissues")
    return {
        found.name: {
            "seconds": round(found.seconds, 3),
            "ratio_to_ours": round(found.seconds / first.network, 3),
            "measured_share": round(found.measured_share, 4),
            "what": found.what,
        }
        for found in (own, *others)
    }


def _growth(head: Head, run: WarmRun) -> dict[str, Any]:
    return {
        "head": head.name,
        "spacing_mm": run.spacing,
        "lattice": list(run.lattice),
        "voxels": math.prod(run.lattice),
        "seconds": round(run.seconds, 3),
        "encoding_seconds": round(run.encoding, 3),
        "decoding_seconds": round(run.decoding, 3),
    }
