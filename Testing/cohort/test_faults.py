"""What goes wrong in a night: each fault really happens, and the healthy subjects never notice."""

from __future__ import annotations

import contextlib
import csv
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from distributed import default_client
from matplotlib import get_cachedir

from nexusinr.cohort.folder import opened

LISTED = Path(__file__).parents[1] / "engine" / "test_bad_input.py"


def failures(out: Path) -> dict[str, tuple[str, str]]:
    """Code and reason by subject."""
    with (out / "failures.csv").open(newline="") as lines:
        return {row["subject"]: (row["code"], row["reason"]) for row in csv.DictReader(lines)}


def left_over(out: Path) -> list[Path]:
    """What no run leaves behind: half-made files and rooms of runs."""
    hidden = [p for p in out.glob("sub-*/**/*") if p.name.startswith(".")]
    return hidden + list((out / ".nexusinr").glob("run-*"))


def check_whole(out: Path, undisturbed: Path, helpers, but: tuple[str, ...] = ()) -> None:
    """Every subject is as if nothing had happened; those named are not there."""
    healthy = [s for s in helpers.SUBJECTS if s not in but]
    wanted = helpers.of_subject(helpers.contents(undisturbed), *healthy)
    assert helpers.contents(out) == wanted
    assert left_over(out) == []


# --- workers ----------------------------------------------------------------------------------


def kill(mark: Path) -> None:
    os.kill(int(mark.read_text().split()[0]), signal.SIGKILL)


def marks(out: Path, subject: str):
    def found() -> list[Path]:
        there = (out / ".nexusinr").glob(f"run-*/sub-{subject}.try-*")
        return [mark for mark in there if mark.stat().st_size]

    return found


def test_lost_workers_and_a_poisonous_subject(batch, cohort, undisturbed, helpers, tmp_path):
    """One worker is killed over subject 01; whoever takes subject 02 is killed, twice."""
    out = tmp_path / "out"
    with (
        helpers.watching(marks(out, "01"), kill) as once,
        helpers.watching(marks(out, "02"), kill, times=2) as twice,
    ):
        status, told, _ = batch(cohort, out)
    assert (len(once), len(twice)) == (1, 2)
    assert status == 1
    code, reason = failures(out)["sub-02"]
    assert code == "1"
    assert reason.startswith("2 workers were lost while they worked on it")
    assert "sub-01: done" in told
    check_whole(out, undisturbed, helpers, but=("02",))

    status, told, _ = batch(cohort, out)
    assert (status, told.count("done before")) == (0, 2)
    assert failures(out) == {}
    check_whole(out, undisturbed, helpers)


def until(happened: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_a_worker_is_lost_before_its_result_is_fetched(
    batch, cohort, undisturbed, helpers, tmp_path, monkeypatch
):
    """Everything of subject 01 is written, but whoever would have said so is killed."""
    states = []

    def lose(key: str) -> None:
        client = default_client()
        (address,) = client.who_has()[key]
        (pid,) = client.run(os.getpid, workers=[address]).values()
        os.kill(pid, signal.SIGKILL)
        until(lambda: client.futures[key].status != "finished", helpers.PATIENCE)
        states.append(client.futures[key].status)

    def asked() -> bool:
        """Called before each look at what is done: nothing is fetched meanwhile."""
        if not states:
            until(lambda: bool(finished()), helpers.PATIENCE)
            lose(finished()[0])
        return False

    def finished() -> list[str]:
        futures = default_client().futures
        return [key for key, state in futures.items() if state.status == "finished"]

    monkeypatch.setattr("nexusinr.cli.batch.stop_on_signals", lambda: contextlib.nullcontext(asked))
    status, told, _ = batch(cohort, tmp_path / "out")
    assert (status, len(states)) == (0, 1)
    assert states[0] in ("lost", "pending")
    assert told.count(": done ") == 3
    check_whole(tmp_path / "out", undisturbed, helpers)


# --- scans ------------------------------------------------------------------------------------


def corrupt_files() -> dict:
    """The list of bad input that `upsample` is tested with."""
    spec = importlib.util.spec_from_file_location("bad_input", LISTED)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.FILES


def test_corrupt_subjects_are_listed_and_no_other_suffers(
    batch, cohort, undisturbed, helpers, tmp_path
):
    files = corrupt_files()
    rows, words = ["subject,session,t1w,t2w"], {}
    for number, (name, make, problem) in enumerate(files.values()):
        folder = tmp_path / "scans" / f"{number}"
        folder.mkdir(parents=True)
        if make is not None:
            make(folder / name)
        rows.append(f"bad{number:02d},,scans/{number}/{name},")
        words[f"sub-bad{number:02d}"] = problem
    for subject in ("01", "02"):
        scans = (f"{cohort}/sub-{subject}/anat/sub-{subject}_{m}.nii.gz" for m in ("T1w", "T2w"))
        rows.insert(int(subject) * 4, f"{subject},,{','.join(scans)}")
    (tmp_path / "pairs.csv").write_text("\n".join(rows))
    assert len(rows) == 1 + len(files) + 2
    status, told, err = batch(tmp_path / "pairs.csv", tmp_path / "out")
    assert (status, err) == (1, "")
    listed = failures(tmp_path / "out")
    assert listed.keys() == words.keys()
    for subject, problem in words.items():
        code, reason = listed[subject]
        assert (code, "\n" in reason, "Traceback" in reason) == ("2", False, False)
        assert problem in reason
        assert f"{subject}: failed: {reason}" in told
    wanted = helpers.of_subject(helpers.contents(undisturbed), "01", "02")
    found = helpers.contents(tmp_path / "out")
    assert found.keys() == wanted.keys()
    # The sidecars name other sources.
    assert all(found[name] == wanted[name] for name in wanted if not name.endswith(".json"))
    assert left_over(tmp_path / "out") == []


def test_a_scan_that_changes_while_it_is_restored(batch, cohort, undisturbed, helpers, tmp_path):
    source, out = tmp_path / "bids", tmp_path / "out"
    shutil.copytree(cohort, source)
    file = source / "sub-02/anat/sub-02_T1w.nii.gz"
    content = file.read_bytes()

    def change(_: Path) -> None:
        other = tmp_path / "other"
        other.write_bytes(content + b"\0" * 8)
        other.replace(file)  # at once: it may be read at this very moment

    def at_work() -> list[Path]:
        return list((out / ".nexusinr").glob("run-*/tmp*"))

    with helpers.watching(at_work, change) as seen:
        status, _, _ = batch(source, out, "--participant-label", "02")
    assert (status, len(seen)) == (1, 1)
    assert "changed while they were restored" in failures(out)["sub-02"][1]
    assert helpers.contents(out) == {}
    file.write_bytes(content)
    assert batch(source, out, "--participant-label", "02")[0] == 0
    check_whole(out, undisturbed, helpers, but=("01", "03"))


# --- disks ------------------------------------------------------------------------------------


def test_a_disk_that_is_full(batch, cohort, undisturbed, helpers, thick_pair, tmp_path):
    """There is no room for the results of a fourth subject."""
    source, out = tmp_path / "bids", tmp_path / "disk" / "out"
    shutil.copytree(cohort, source)
    helpers.write_scans(source / "sub-04/anat/sub-04", thick_pair, 4)
    with helpers.small_disk(tmp_path / "disk", "size=64M") as remount:
        shutil.copytree(undisturbed, out)
        remount(f"size={shutil.disk_usage(out).used + 250_000}")
        status, told, err = batch(source, out)
        assert (status, told.count("done before")) == (1, 3), (told, err)
        assert list(failures(out)) == ["sub-04"]
        assert "no space left on device" in failures(out)["sub-04"][1].lower()
        check_whole(out, undisturbed, helpers)
        remount("size=64M")
        status, told, _ = batch(source, out)
        assert (status, told.count("done before")) == (0, 3)
        assert failures(out) == {}
        assert left_over(out) == []


def test_a_disk_that_is_read_only(batch, cohort, helpers, tmp_path):
    with helpers.small_disk(tmp_path / "disk", "ro"):
        out = tmp_path / "disk" / "out"
        status, told, err = batch(cohort, out)
        assert (status, told, err.count("\n")) == (2, "", 1)
        assert f"nexusinr: {out}: cannot write there (read-only file system)" in err


@contextlib.contextmanager
def locked(file: Path) -> Iterator[None]:
    """A file that the system lets nobody replace: something is mounted on it."""
    mount = ["mount", "--bind", str(file), str(file)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("only root, on a system with mount, can lock a file against everyone")
    try:
        yield
    finally:
        subprocess.run(["umount", str(file)], check=True)


def check_refused(batch, cohort, out: Path, why: str) -> None:
    """Subject 02 fails for this reason, nothing of it counts as done, and the others are done."""
    assert batch(cohort, out)[0] == 1
    assert failures(out) == {"sub-02": ("1", f"its files cannot be written ({why})")}
    assert not (out / ".nexusinr/records/sub-02.json").read_text().count('"done"')


def test_an_output_file_that_is_locked(batch, cohort, undisturbed, helpers, tmp_path):
    out = tmp_path / "out"
    file = out / "sub-02/anat/sub-02_res-4mm_desc-nexusinr_T1w.nii.gz"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"of somebody else")
    with locked(file):
        check_refused(batch, cohort, out, "device or resource busy")
        assert file.read_bytes() == b"of somebody else"
        assert left_over(out) == []
    assert batch(cohort, out)[0] == 0
    check_whole(out, undisturbed, helpers)


def test_a_folder_where_an_output_file_is_to_go(batch, cohort, undisturbed, helpers, tmp_path):
    out = tmp_path / "out"
    folder = out / "sub-02/anat/sub-02_res-4mm_desc-nexusinr_T1w.nii.gz"
    folder.mkdir(parents=True)
    check_refused(batch, cohort, out, "is a directory")
    folder.rmdir()
    assert batch(cohort, out)[0] == 0
    check_whole(out, undisturbed, helpers)


# --- the whole machine ------------------------------------------------------------------------

#: Instead of moving this file into place, everything ends at once, as in a power cut.
POWER_CUT = """
import os, signal

replace = os.replace

def cut(source, target, **options):
    if str(target).endswith("sub-01_space-T1w_res-4mm_desc-nexusinr_dseg.nii.gz"):
        os.killpg(0, signal.SIGKILL)
    replace(source, target, **options)

os.replace = cut
"""


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen]]:
    """The command with one worker, as a process group of its own."""
    begun = []

    def go(*arguments: object, **changes: str) -> subprocess.Popen:
        process = subprocess.Popen(
            [sys.executable, "-m", "nexusinr.cli", "batch", *map(str, arguments), "--workers", "1"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, **changes},
        )
        begun.append(process)
        return process

    yield go
    for process in begun:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


def gone(group: int, within: float) -> bool:
    """Whether every process of a group has ended."""
    until = time.monotonic() + within
    while time.monotonic() < until:
        alive = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, ProcessLookupError):
                zombie = process.status() == psutil.STATUS_ZOMBIE
                alive += [process.pid] if os.getpgid(process.pid) == group and not zombie else []
        if not alive:
            return True
        time.sleep(0.1)
    return False


def test_a_power_cut_between_two_files(
    batch, cohort, undisturbed, helpers, tiny_model, tmp_path, start
):
    (tmp_path / "sitecustomize.py").write_text(POWER_CUT)
    out = tmp_path / "out"
    path = os.pathsep.join(filter(None, (str(tmp_path), os.environ.get("PYTHONPATH"))))
    fonts = get_cachedir()  # whose list takes seconds to make
    options = (cohort, out, "--model", tiny_model, *helpers.FIXED, "--participant-label", "01")
    process = start(*options, PYTHONPATH=path, MPLCONFIGDIR=fonts)
    process.communicate(timeout=helpers.PATIENCE)
    assert process.returncode == -signal.SIGKILL
    assert gone(process.pid, 10)
    wanted = helpers.of_subject(helpers.contents(undisturbed), "01")
    found = helpers.contents(out)
    assert "sub-01/anat/sub-01_res-4mm_desc-nexusinr_T1w.nii.gz" in found
    assert found.items() <= wanted.items()  # what is there is whole
    assert found.keys() != wanted.keys()
    assert (out / ".nexusinr/records/sub-01.json").read_text().count('"moving"') == 1
    status, told, _ = batch(cohort, out, "--participant-label", "01")
    assert (status, "sub-01: done in" in told) == (0, True)
    check_whole(out, undisturbed, helpers, but=("02", "03"))


#: Whenever a file has been put in place, it is a day earlier.
CLOCK = """
import os, time

replace, back = os.replace, 0

def put(source, target, **options):
    global back
    replace(source, target, **options)
    back += 86400

def earlier(now, unit=1):
    return lambda: now() - back * unit

os.replace = put
time.time, time.time_ns = earlier(time.time), earlier(time.time_ns, 10**9)
"""


def test_a_clock_that_goes_backwards(
    batch, cohort, undisturbed, helpers, tiny_model, tmp_path, start
):
    """In the command and in its worker; the scans, too, are of days to come."""
    (tmp_path / "sitecustomize.py").write_text(CLOCK)
    source, out = tmp_path / "bids", tmp_path / "out"
    shutil.copytree(cohort, source)
    for file in source.rglob("*.nii.gz"):
        os.utime(file, (4e9, 4e9))
    path = os.pathsep.join(filter(None, (str(tmp_path), os.environ.get("PYTHONPATH"))))
    options = (source, out, "--model", tiny_model, *helpers.FIXED, "--participant-label", "01")
    process = start(*options, PYTHONPATH=path, MPLCONFIGDIR=get_cachedir())
    told, err = process.communicate(timeout=helpers.PATIENCE)
    assert (process.returncode, "sub-01: done in" in told) == (0, True), err
    check_whole(out, undisturbed, helpers, but=("02", "03"))
    status, told, _ = batch(source, out, "--participant-label", "01")
    assert (status, "sub-01: done before" in told) == (0, True)


def test_ctrl_c_stops_and_the_same_command_goes_on(
    batch, cohort, undisturbed, helpers, tiny_model, tmp_path, start
):
    """Meanwhile nobody else works in the folder, and nothing is written into the home."""
    home, out = tmp_path / "home", tmp_path / "out"
    home.mkdir()
    process = start(cohort, out, "--model", tiny_model, *helpers.FIXED, HOME=str(home))
    assert process.stdout is not None
    workers, _, dashboard = process.stdout.readline().strip().partition("; Dask's dashboard: ")
    assert (workers, dashboard.startswith("http://127.0.0.1:")) == ("Workers: 1", True)
    with urllib.request.urlopen(dashboard, timeout=30) as page:
        assert b"static/js/bokeh" in page.read()  # without bokeh it is a page that says so
    assert "sub-01: done in" in process.stdout.readline()

    status, told, err = batch(cohort, out)
    assert (status, told, err.count("\n")) == (2, "", 1)
    assert f"nexusinr: {out}: another run is at work there" in err

    os.killpg(process.pid, signal.SIGINT)
    told, err = process.communicate(timeout=helpers.PATIENCE)
    assert process.returncode == 130, err
    assert err.startswith("nexusinr: stopped: ")
    assert err.count("\n") == 1, err
    assert gone(process.pid, 10)
    assert left_over(out) == []
    assert list(home.iterdir()) == []
    assert helpers.contents(out).items() <= helpers.contents(undisturbed).items()

    status, told, _ = batch(cohort, out)
    assert status == 0
    assert "sub-01: done before" in told
    check_whole(out, undisturbed, helpers)


def test_two_runs_on_one_folder(batch, cohort, undisturbed, helpers, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(undisturbed, out)
    with opened(out) as run:
        status, told, err = batch(cohort, out)
        assert run.is_on
    assert (status, told, err.count("\n")) == (2, "", 1)
    assert "wait for it to end or choose another folder" in err
    assert batch(cohort, out)[0] == 0
