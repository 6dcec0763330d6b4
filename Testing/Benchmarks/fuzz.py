"""Many damaged inputs for every reader, with limits on time and memory; counts what comes of them.

Cases run in blocks, each block in a process of its own, whose crash, hang or hunger for memory is
one more outcome. The state file tells which cases are done: a second call goes on where the first
stopped, and one case is repeated with --case. Exit status 1: a promise was broken (fuzz_cases.py).

    .venv/bin/python Testing/Benchmarks/fuzz.py --cases 100000 --minutes 60 --state fuzz.json
    .venv/bin/python Testing/Benchmarks/fuzz.py --case DICOM:1234 --seed 1
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path
from random import Random
from typing import Any

#: What one case may take: seconds of a processor, and bytes beyond what the process had before it.
SECONDS = 5
MEMORY = 1_000_000_000

#: Seconds without a word after which a process hangs in a library.
SILENCE = 3 * SECONDS
STARTING = 120

BLOCK = 1000

#: Kept of each reader, for whoever mends it.
MOST_PROBLEMS = 200


def main() -> int:
    """Runs what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=100_000, help="of all readers together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=1e9, help="stop after so long")
    parser.add_argument("--state", type=Path, help="what is done, to go on from")
    parser.add_argument("--readers", nargs="*", help="default: all")
    parser.add_argument("--case", metavar="READER:NUMBER", help="one case, with its traceback")
    parser.add_argument("--block", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.block:
        reader, first, count = arguments.block
        return _block(reader, int(first), int(count), arguments.seed)
    if arguments.case:
        return _one(arguments.case, arguments.seed)
    return _many(arguments)


# --- many cases -------------------------------------------------------------------------------


def _many(arguments: argparse.Namespace) -> int:
    from fuzz_cases import READERS

    names = arguments.readers or list(READERS)
    state = _read_state(arguments.state, arguments.seed)
    each, until = -(-arguments.cases // len(names)), time.monotonic() + 60 * arguments.minutes
    while time.monotonic() < until:
        tallies = [state["readers"].setdefault(name, _new_tally()) for name in names]
        least, name = min(
            (tally["cases"], name) for tally, name in zip(tallies, names, strict=True)
        )
        if least >= each:
            break
        _run_block(name, min(BLOCK, each - least), arguments.seed, state["readers"][name])
        if arguments.state:
            partial = arguments.state.with_suffix(".partial")
            partial.write_text(json.dumps(state, indent=1))
            os.replace(partial, arguments.state)
    _print(state)
    return int(any(tally["problems"] for tally in state["readers"].values()))


def _new_tally() -> dict[str, Any]:
    return {
        "cases": 0, "refused": 0, "read": 0, "broken": 0, "seconds": 0.0, "slowest_s": 0.0,
        "memory_mb": 0.0, "problems": [],
    }  # fmt: skip


def _read_state(file: Path | None, seed: int) -> dict[str, Any]:
    if file is None or not file.exists():
        return {"seed": seed, "readers": {}}
    state: dict[str, Any] = json.loads(file.read_text())
    if state["seed"] != seed:
        sys.exit(f"{file}: begun with --seed {state['seed']}")
    return state


def _run_block(name: str, count: int, seed: int, tally: dict[str, Any]) -> None:
    """The next cases of one reader. A process that dies or hangs ends the block at its case."""
    first = tally["cases"]
    command = [
        sys.executable,
        __file__,
        "--seed",
        str(seed),
        "--block",
        name,
        str(first),
        str(count),
    ]
    settings = {"MALLOC_ARENA_MAX": "2", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder, open(f"{folder}/log", "w+b") as log:
        child = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=log,
            env={**os.environ, **settings, "TMPDIR": folder, "HOME": folder},
        )
        lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        threading.Thread(target=_pass_on, args=(child.stdout, lines), daemon=True).start()
        done, patience = 0, STARTING
        try:
            while (line := lines.get(timeout=patience)) is not None:
                _count(json.loads(line), tally)
                done, patience = done + 1, SILENCE
            status = child.wait()
            problem = f"the process ended with status {status}"
        except queue.Empty:
            child.kill()
            child.wait()
            problem = f"no answer for {patience} s"
        if done < count:
            log.seek(0)
            told = log.read().decode(errors="replace").strip().splitlines()[-12:]
            case = {"result": "broken", "seconds": 0, "memory_mb": 0, "case": first + done}
            _count({**case, "problem": "\n".join((problem, *told))}, tally)


def _pass_on(stream: Any, lines: queue.SimpleQueue[bytes | None]) -> None:
    for line in stream:
        lines.put(line)
    lines.put(None)


def _count(case: dict[str, Any], tally: dict[str, Any]) -> None:
    tally["cases"] += 1
    tally[case["result"]] += 1
    tally["seconds"] += case["seconds"]
    tally["slowest_s"] = max(tally["slowest_s"], case["seconds"])
    tally["memory_mb"] = max(tally["memory_mb"], case["memory_mb"])
    if case["result"] == "broken" and len(tally["problems"]) < MOST_PROBLEMS:
        tally["problems"].append({"case": case["case"], "problem": case["problem"]})


def _print(state: dict[str, Any]) -> None:
    print("\n".join(table(state)))
    for name, tally in state["readers"].items():
        for problem in tally["problems"]:
            last = problem["problem"].strip().splitlines()[-1]
            print(f"{name}:{problem['case']}: {last[:160]}")


def table(state: dict[str, Any]) -> list[str]:
    """What a state file tells, as a table in Markdown."""
    columns = (
        "cases", "refused", "read", "broken", "slowest, s", "memory, MB", "a CPU minute",
    )  # fmt: skip
    lines = [
        f"| reader (seed {state['seed']}) | {' | '.join(columns)} |",
        "|---" + "|---:" * 7 + "|",
    ]
    total = _new_tally()
    for name, tally in state["readers"].items():
        lines.append(_row(name, tally))
        for key in ("cases", "refused", "read", "broken", "seconds"):
            total[key] += tally[key]
        for key in ("slowest_s", "memory_mb"):
            total[key] = max(total[key], tally[key])
    return [*lines, _row("all", total)]


def _row(name: str, tally: dict[str, Any]) -> str:
    counts = [str(tally[key]) for key in ("cases", "refused", "read", "broken")]
    pace = 60 * tally["cases"] / max(tally["seconds"], 1e-6)
    most = (f"{tally['slowest_s']:.2f}", f"{tally['memory_mb']:.0f}", f"{pace:.0f}")
    return f"| {' | '.join((name, *counts, *most))} |"


# --- one block, in a process of its own -------------------------------------------------------


def _block(name: str, first: int, count: int, seed: int) -> int:
    _prepare(name, seed)
    _limit_memory()
    signal.signal(signal.SIGPROF, _too_long)
    for number in range(first, first + count):
        print(json.dumps(_tried(name, number, seed)), flush=True)
    return 0


def _prepare(name: str, seed: int) -> None:
    """Everything is loaded and made that is no case's doing; done by cases that are not counted."""
    import SimpleITK as sitk
    import torch
    from fuzz_damage import bomb, deflated_zeros

    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    torch.set_num_threads(1)
    os.chdir(tempfile.mkdtemp())
    for make in (bomb, deflated_zeros):  # once, as it takes seconds
        make()
    for number in range(-5, 0):
        _tried(name, number, seed)


def _limit_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _too_long(*_: object) -> None:
    raise _TooLong(f"longer than {SECONDS} s")


class _TooLong(BaseException):
    """No reader catches this."""


def _tried(name: str, number: int, seed: int) -> dict[str, Any]:
    from fuzz_cases import READERS, outcome

    case: dict[str, Any] = {"case": number}
    reader = READERS[name]
    with tempfile.TemporaryDirectory(prefix="case-") as folder:
        given = reader.make(Random(f"{seed}:{name}:{number}"), Path(folder))
        before, begun = _peak(), time.process_time()
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        try:
            case["result"] = outcome(reader, given, Path(folder))
        except BaseException:
            case |= {"result": "broken", "problem": traceback.format_exc()[-3000:]}
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        case |= {"seconds": time.process_time() - begun, "memory_mb": _peak() - before}
    return case


def _peak() -> float:
    """The most memory that this process ever had, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def _one(case: str, seed: int) -> int:
    name, _, number = case.partition(":")
    _prepare(name, seed)
    _limit_memory()
    signal.signal(signal.SIGPROF, _too_long)
    result = _tried(name, int(number), seed)
    print(result.pop("problem", ""))
    print(json.dumps(result))
    return int(result["result"] == "broken")


if __name__ == "__main__":
    sys.exit(main())
