"""What a run would do, in words."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nexusinr.cohort import records
from nexusinr.cohort.cost import Cost, Pace
from nexusinr.cohort.folder import Folder
from nexusinr.cohort.pair import Pair
from nexusinr.cohort.settings import Settings
from nexusinr.cohort.source import Source
from nexusinr.reading import lengths_text, sizes_text


def describe(
    source: Source,
    pairs: Sequence[Pair],
    settings: Settings,
    costs: Sequence[Cost | str],
    pace: Pace | None,
    workers: int,
    folder: Folder,
) -> str:
    """The sessions one by one, what is odd about them, and the cost of the whole."""
    lines = [_heading(source, pairs)]
    for pair, cost in zip(pairs, costs, strict=True):
        lines.append(_session(source.root, pair, cost, _is_done(folder, pair, settings)))
        lines += [f"    {note}" for note in pair.notes]
    done = [_is_done(folder, pair, settings) for pair in pairs]
    left = [cost for cost, is_done in zip(costs, done, strict=True) if not is_done]
    if any(done):
        lines.append(
            f"{sum(done)} are done with this model already: those whose scans and options are the "
            "same are left as they are"
        )
    return "\n".join([*lines, *_cost(left, pace, workers)])


def _heading(source: Source, pairs: Sequence[Pair]) -> str:
    kinds = [tuple(pair.scans) for pair in pairs]
    counts = {
        "with T1w and T2w": kinds.count(("T1w", "T2w")),
        "with T1w alone": kinds.count(("T1w",)),
        "with T2w alone": kinds.count(("T2w",)),
        "without either": kinds.count(()),
    }
    told = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
    people = len({pair.subject for pair in pairs})
    return f"{source.kind}: {_count(people, 'subject')}, {_count(len(pairs), 'session')} ({told})"


def _session(root: Path, pair: Pair, cost: Cost | str, is_done: bool) -> str:
    names = " + ".join(_shown(root, scan.path) for scan in pair.scans.values()) or "no scan"
    what = cost
    if isinstance(cost, Cost):
        spacing = lengths_text(cost.grid.spacing)
        what = f"{sizes_text(cost.grid.shape)} voxels of {spacing} mm"
    return f"{pair.label}: {names} -> {what}{' (done)' if is_done else ''}"


def _shown(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


def _is_done(folder: Folder, pair: Pair, settings: Settings) -> bool:
    known = records.read(folder, pair.label)
    if known is None or known.state != "done":
        return False
    return bool(known.report["model"]["sha256"] == settings.weights)


def _cost(costs: Sequence[Cost | str], pace: Pace | None, workers: int) -> list[str]:
    known = [cost for cost in costs if isinstance(cost, Cost)]
    failing = len(costs) - len(known)
    lines = []
    if known:
        size = sum(cost.disk for cost in known)
        memory = max(cost.memory for cost in known)
        lines.append(f"On disk: about {_gigabytes(size)}; memory of a worker: {_gigabytes(memory)}")
    if known and pace is not None:
        one = [cost.seconds(pace) for cost in known]
        # No worker can share a session with another one.
        whole = max(sum(one) / workers, max(one))
        lines.append(
            f"Time: about {_duration(whole)} on {_count(workers, 'worker')}, "
            f"{_duration(sum(one) / len(one))} a session ({pace.origin})"
        )
    if failing:
        lines.append(f"{_count(failing, 'session')} cannot be restored")
    return lines


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 0.95e9 else f"{max(size / 1e6, 1):.0f} MB"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"
