"""Writes what was measured about faults into Resources/Docs/robustness.md, each between its marks.

    python Testing/Benchmarks/publish_robustness.py --faults --fuzz fuzz.json --soak soak \\
        --cohort cohort --flat flat

--faults runs the tests that its table names; the others take what fuzz.py, soak.py and cohort.py
(twice: several workers; many subjects) wrote. What is not given stays as it is.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fuzz

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "Resources" / "Docs" / "robustness.md"


@dataclass(frozen=True)
class Fault:
    """What goes wrong, what comes of it, and the test that does it."""

    what: str
    outcome: str
    test: str


_COHORT, _ENGINE = "Testing/cohort/test_faults.py", "Testing/engine"

FAULTS = (
    Fault("A worker is killed over a subject", "another worker restores it",
          f"{_COHORT}::test_lost_workers_and_a_poisonous_subject"),
    Fault("A subject kills whoever works on it", "given up and listed after two workers",
          f"{_COHORT}::test_lost_workers_and_a_poisonous_subject"),
    Fault("Subjects are corrupt in each way of the list of bad input", "listed, each with its "
          "reason", f"{_COHORT}::test_corrupt_subjects_are_listed_and_no_other_suffers"),
    Fault("A scan changes while it is restored", "listed; nothing of it is kept",
          f"{_COHORT}::test_a_scan_that_changes_while_it_is_restored"),
    Fault("The disk is full", "listed; done once there is room",
          f"{_COHORT}::test_a_disk_that_is_full"),
    Fault("The disk is read-only", "refused at once, status 2",
          f"{_COHORT}::test_a_disk_that_is_read_only"),
    Fault("An output file is locked", "listed; the file is untouched; done once it is free",
          f"{_COHORT}::test_an_output_file_that_is_locked"),
    Fault("A folder stands where a file is to go", "listed; done once it is away",
          f"{_COHORT}::test_a_folder_where_an_output_file_is_to_go"),
    Fault("The power is cut between temporary file and rename", "that subject counts as not done; "
          "the same command goes on", f"{_COHORT}::test_a_power_cut_between_two_files"),
    Fault("The clock goes backwards", "nothing: content counts, not time",
          f"{_COHORT}::test_a_clock_that_goes_backwards"),
    Fault("Ctrl-C", "stops, status 130; the same command goes on",
          f"{_COHORT}::test_ctrl_c_stops_and_the_same_command_goes_on"),
    Fault("Two runs on one folder", "the second is refused, status 2",
          f"{_COHORT}::test_two_runs_on_one_folder"),
    Fault("The worker of a program is killed", "one sentence; the program goes on",
          f"{_ENGINE}/test_worker.py::test_a_killed_worker_is_a_crash_with_one_sentence"),
    Fault("A program ends without a word to its worker", "the worker ends, nothing is left",
          f"{_ENGINE}/test_worker.py::test_it_ends_at_once_and_leaves_nothing"),
)  # fmt: skip


def main() -> None:
    """Publishes what the command line gives."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--faults", action="store_true")
    for name in ("fuzz", "soak", "cohort", "flat"):
        parser.add_argument(f"--{name}", type=Path)
    given = parser.parse_args()
    if given.faults:
        publish("faults", faults())
    if given.fuzz:
        publish("fuzz", fuzz.table(json.loads(given.fuzz.read_text())))
    if given.soak:
        publish("soak", soak(given.soak))
    if given.cohort:
        publish("cohort", cohort(given.cohort))
    if given.flat:
        publish("flat", flat(given.flat))


def publish(name: str, lines: list[str]) -> None:
    """Replaces what stands between the marks of this name."""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    before, rest = PAGE.read_text(encoding="utf-8").split(begin)
    after = rest.split(end)[1]
    text = "\n".join(lines)
    PAGE.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}", encoding="utf-8")


def faults() -> list[str]:
    """The table of faults, with what their tests say today."""
    results = tested(sorted({fault.test for fault in FAULTS}))
    rows = [f"| {f.what} | {f.outcome} | `{f.test}` | {results[f.test]} |" for f in FAULTS]
    return ["| Fault | What comes of it | Test | Result |", "|---|---|---|---|", *rows]


def tested(tests: list[str]) -> dict[str, str]:
    """``passed``, ``failed`` or ``skipped`` of each test; one with parameters fails with any."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "tests.xml"
        command = [sys.executable, "-m", "pytest", "-q", f"--junitxml={file}", *tests]
        subprocess.run(command, cwd=ROOT)
        cases = list(ElementTree.parse(file).iter("testcase"))
    found = {}
    for test in tests:
        name = test.partition("::")[2]
        kinds = [
            {child.tag for child in case}
            for case in cases
            if case.attrib["name"].partition("[")[0] == name
        ]
        if not kinds or any({"failure", "error"} & kind for kind in kinds):
            found[test] = "failed"
        else:
            found[test] = "skipped" if any("skipped" in kind for kind in kinds) else "passed"
    return found


def soak(folder: Path) -> list[str]:
    """What a night did to a worker, and its curve."""
    told = json.loads((folder / "soak.json").read_text())
    shutil.copy(folder / "soak.png", PAGE.parent / "soak.png")
    lines = [f"| {told.pop('subjects')} subjects | |", "|---|---:|"]
    lines += [f"| {name.replace('_', ' ')} | {value} |" for name, value in told.items()]
    picture = "![Memory, open files, threads and processes of the worker, subject by subject]"
    return [*lines, "", f"{picture}(soak.png)"]


def cohort(folder: Path) -> list[str]:
    """Wall time by the number of workers, and the report."""
    told = json.loads((folder / "cohort.json").read_text())
    shutil.copy(folder / "report.png", PAGE.parent / "cohort-report.png")
    lines = [
        "| Workers | Wall time, s | Efficiency | Memory of a worker, MB |",
        "|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {run['workers']} | {run['seconds']:.0f} | {run['efficiency']:.0%} | "
        f"{run['worker_mb']:.0f} |"
        for run in told["runs"]
    ]
    return [
        f"{_what(told)} Efficiency: the time of one worker against that of all of them together.",
        "",
        *lines,
        "",
        "![The report of that cohort: thumbnails, numbers and flags](cohort-report.png)",
    ]


def flat(folder: Path) -> list[str]:
    """Memory over many subjects."""
    told = json.loads((folder / "cohort.json").read_text())
    shutil.copy(folder / "cohort.png", PAGE.parent / "cohort-memory.png")
    growths = [
        f"{run['growth']:+.1%} with {run['workers']} workers"
        for run in told["runs"]
        if run["growth"] is not None
    ]
    if not growths:
        sys.exit(f"{folder}: too few subjects to tell whether the memory is flat")
    return [
        f"{_what(told)} Memory of a worker, last quarter of the subjects against the second: "
        f"{', '.join(growths)}.",
        "",
        "![Memory of a worker and of the main program, subject by subject](cohort-memory.png)",
    ]


def _what(told: dict[str, Any]) -> str:
    same = "are the same bit for bit" if told["same_results"] else "DIFFER"
    return (
        f"{told['subjects']} phantom heads and one with a scan that is cut off, results of "
        f"{told['voxel_mm']:g} mm, model {told['model']}; {told['machine']}, one thread a worker. "
        f"The results of all runs {same}; the head that is cut off "
        f"{'alone is' if told['only_the_cut_one_failed'] else 'is NOT alone'} listed as failed."
    )


if __name__ == "__main__":
    main()
