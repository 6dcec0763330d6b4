"""The worker: real child processes that are asked, interrupted, left alone and killed."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from scipy.spatial.transform import Rotation

from nexusinr.errors import Cancelled, InputError, OutOfMemory
from nexusinr.geometry import Affine, Grid
from nexusinr.inference import protocol
from nexusinr.inference.client import Client, Crashed, start
from nexusinr.inference.protocol import unpacked
from nexusinr.volume import write_volume

#: For a machine that is busy: seconds after which a test gives up.
PATIENCE = 300

#: What a cancel may take: a second, and the rest for a machine that is busy.
SOON = 3


class Talk:
    """A worker, and what it says without being asked."""

    def __init__(self, log: Path) -> None:
        self.said: queue.SimpleQueue[dict] = queue.SimpleQueue()
        with log.open("wb") as stream:
            self.client: Client = start(on_event=self.said.put, log=stream)
        self.first = [self.next(), self.next()]

    def ask(self, op: str, **options) -> dict:
        return self.client.request(op, **options).result(PATIENCE)

    def next(self) -> dict:
        return self.said.get(timeout=PATIENCE)

    def begin(self, step: str, **options):
        """Sends an upsample request, and comes back when it has come to a step."""
        there: queue.SimpleQueue[None] = queue.SimpleQueue()
        call = self.client.request(
            "upsample", on_progress=lambda e: there.put(None) if e["step"] == step else None,
            **options,
        )  # fmt: skip
        call.done.add_done_callback(lambda _: there.put(None))
        there.get(timeout=PATIENCE)
        assert not call.done.done(), call.done.exception()
        return call


@pytest.fixture(scope="module")
def talk(tiny_model, tmp_path_factory) -> Iterator[Talk]:
    talk = Talk(tmp_path_factory.mktemp("log") / "stderr")
    yield talk
    talk.client.close()


@pytest.fixture(scope="module")
def run(tiny_model, thick_files) -> dict:
    """Options of a run of seconds."""
    t1w, t2w = thick_files
    return {"t1w": t1w, "t2w": t2w, "model": tiny_model, "register": "none", "threads": 1}


SLOW = {"spacing": 0.4}


def left_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


# --- one worker, asked in turn ----------------------------------------------------------------


def test_first_it_is_ready_then_warm(talk):
    ready, warm = talk.first
    assert talk.client.ready.result() == ready
    assert (ready["event"], ready["protocol"]) == ("ready", protocol.VERSION)
    assert ready["pid"] == talk.client.process.pid
    assert warm["event"] == "warm"
    status = talk.ask("status")
    assert status["torch"] == warm["torch"]
    assert (status["model"], status["encoded"], status["running"]) == (None, [], None)


def test_nobody_but_its_parent_can_ask_it(talk):
    """Requests come through a pipe; there is no port and no socket."""
    assert psutil.Process(talk.client.process.pid).net_connections("all") == []


def test_an_estimate_tells_what_comes(talk, run):
    told = talk.ask("estimate", **run, spacing=[2, 2, 2.5])
    assert told["lattice"]["spacing_mm"] == [2, 2, 2.5]
    assert told["voxels"] == np.prod(told["lattice"]["shape"])
    assert 0.1 < told["memory_gb"] < 2
    assert (told["seconds"], told["warnings"]) == (None, [])
    assert told["model"]["name"] == "tiny"
    assert told["device"]["reason"]


def test_a_run_gives_the_files_of_the_command_line(talk, run, command, tmp_path):
    options = [f"--{name}={value}" for name, value in run.items()]
    fractions: list[float] = []
    for spacing, anew in ((2.0, ["T1w", "T2w"]), (2.5, [])):
        out = tmp_path / f"worker-{spacing}"
        call = talk.client.request(
            "upsample", **run, spacing=spacing, out=out,
            on_progress=lambda event: fractions.append(event["fraction"]),
        )  # fmt: skip
        result = call.result(PATIENCE)
        assert result["encoded_anew"] == anew
        theirs = tmp_path / f"command-{spacing}"
        assert command("upsample", *options, "--spacing", spacing, "--out", theirs)[0] == 0
        assert left_in(out) == left_in(theirs) == sorted(result["files"])
        for name in ("t1w_sr.nii.gz", "t2w_sr.nii.gz", "segmentation.nii.gz"):
            assert (out / name).read_bytes() == (theirs / name).read_bytes()
        assert json.loads((out / "report.json").read_text()) == result["report"]
        assert fractions[-1] == 1
        assert fractions == sorted(fractions)
        fractions.clear()
    status = talk.ask("status")
    assert [scan["path"] for scan in status["encoded"]] == [str(run["t1w"]), str(run["t2w"])]
    assert 0 < talk.ask("estimate", **run, spacing=2)["seconds"] < PATIENCE


def test_a_plane_is_the_cut_through_the_run(talk, run, thick_pair, tmp_path):
    from nexusinr import upsample

    talk.ask("upsample", **run, spacing=3, out=tmp_path)
    turned = Rotation.from_euler("xyz", (20, -35, 50), degrees=True).as_matrix()
    affine = Affine.from_parts((1.5, 2, 1), turned, turned @ (-20, -30, 2))
    told = talk.ask("plane", affine=affine.matrix.tolist(), size=[31, 29])["images"]
    plane = Grid((31, 29, 1), affine)
    options = {name: run[name] for name in ("model", "register")}
    wanted = upsample(*thick_pair, like=plane, consistency=0, device="cpu", **options)
    for name, volume in (("T1w", wanted.t1w), ("T2w", wanted.t2w)):
        assert volume is not None
        found = unpacked(told[name])
        assert (found.shape, found.dtype) == ((31, 29, 1), np.float32)
        assert np.ptp(found) > 100
        # Factors are rounded to 8 binary digits: what was different in the last of 24 may show.
        assert np.abs(found - volume.data).max() < 1e-3 * np.ptp(found)
    assert (unpacked(told["segmentation"]) == wanted.segmentation).mean() > 0.99
    without = talk.ask("plane", affine=affine.matrix.tolist(), size=[4, 5], segmentation=False)
    assert set(without["images"]) == {"T1w", "T2w"}


def test_another_device_is_another_session(talk, run):
    talk.ask("estimate", **{**run, "threads": 2})
    assert talk.ask("status")["encoded"] == []
    with pytest.raises(InputError, match="send upsample first"):
        talk.ask("plane", affine=np.eye(4).tolist(), size=[4, 4])


def test_models_are_listed(talk):
    tiny = {"name": "tiny", "version": "0", "architecture": "NexusINR", "origin": "imported"}
    assert tiny in talk.ask("models")["models"]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"t1w": "/nowhere/gone.nii.gz"}, "gone.nii.gz"),
        ({"t1w": None, "t2w": None}, "no scan given"),
        ({"model": "larger"}, "'larger'"),
        ({"device": "tpu"}, "'tpu'"),
        ({"spacing": 500}, "500 mm"),
        ({"spacing": 1, "like": "other.nii.gz"}, "choose one"),
        ({"max_memory": 0.01}, "GB of memory"),
        ({"register": "perhaps"}, "'perhaps'"),
        ({"consistency": 2}, "weight of 2"),
        ({"dicom": True}, r"t1w\.nii\.gz: it is no DICOM folder"),
    ],
)
def test_what_cannot_be_used_is_one_sentence(options, problem, talk, run, tmp_path):
    with pytest.raises(InputError, match=problem) as error:
        talk.ask("upsample", **{**run, **options}, out=tmp_path / "out")
    assert "\n" not in str(error.value)
    assert left_in(tmp_path) == []


def test_scans_that_do_not_overlap(talk, run, thick_pair, tmp_path):
    far = thick_pair[1].affine.transformed(Affine.from_parts((1, 1, 1), origin=(400, 0, 0)).matrix)
    write_volume(tmp_path / "far.nii.gz", thick_pair[1].data, far)
    with pytest.raises(InputError, match="do not overlap"):
        talk.ask("estimate", **{**run, "t2w": tmp_path / "far.nii.gz"})


@pytest.mark.parametrize(
    ("line", "id", "problem"),
    [
        (b"upsample please", None, "not JSON"),
        (b"\xff\xfe\x00", None, "not JSON"),
        (b"[" * 100_000, None, "not JSON"),
        (b"x" * (3 * protocol.MAX_LINE), None, "too long"),
        (b"17", None, "an object"),
        (b'{"op": "status"}', None, "needs an id"),
        (b'{"id": true, "op": "status"}', None, "needs an id"),
        (b'{"id": "a"}', "a", "unknown op null"),
        (b'{"id": "a", "op": "sharpen"}', "a", "sharpen"),
        (b'{"id": "a", "op": ["status"]}', "a", "unknown op"),
        (b'{"id": "a", "op": "status", "verbose": 1}', "a", "verbose"),
        (b'{"id": "a", "op": "upsample", "t1w": "a.nii"}', "a", "needs out"),
        (b'{"id": "a", "op": "upsample", "t1w": 7, "out": "o"}', "a", "t1w is a path, not 7"),
        (b'{"id": "a", "op": "estimate", "spacing": [1, 2]}', "a", "list of three"),
        (b'{"id": "a", "op": "estimate", "spacing": NaN}', "a", "spacing"),
        (b'{"id": "a", "op": "estimate", "roi": [1, 2, 3]}', "a", "six numbers"),
        (b'{"id": "a", "op": "estimate", "threads": 0}', "a", "at least 1"),
        (b'{"id": "a", "op": "estimate", "segmentation": "no"}', "a", "true or false"),
        (b'{"id": "a", "op": "plane", "affine": [[1]], "size": [4, 4]}', "a", "four rows"),
        (b'{"id": "a", "op": "plane", "affine": [], "size": [4.5, 4]}', "a", "affine"),
        (b'{"id": "a", "op": "cancel", "target": {}}', "a", "target"),
    ],
)
def test_bad_lines_are_answered_and_it_goes_on(line, id, problem, talk):
    stdin = talk.client.process.stdin
    assert stdin is not None
    stdin.write(line + b"\n")
    stdin.flush()
    answer = talk.next()
    assert (answer["event"], answer["code"], answer["id"]) == ("error", 2, id)
    assert problem in answer["message"]
    assert talk.ask("status")["event"] == "result"


def test_out_of_memory_is_said_and_the_worker_goes_on(talk, run, tmp_path):
    """Really: its address space is closed, after the check before the run was talked out of it."""
    resource = pytest.importorskip("resource")
    if not hasattr(resource, "prlimit"):
        pytest.skip("only Linux limits a process that runs")
    process = psutil.Process(talk.client.process.pid)
    talk.ask("upsample", **run, spacing=3, out=tmp_path / "before")
    limit = process.memory_info().vms + 100_000_000
    resource.prlimit(process.pid, resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
    try:
        with pytest.raises(OutOfMemory, match="choose a coarser spacing or a smaller region"):
            talk.ask("upsample", **run, spacing=0.15, max_memory=1000, out=tmp_path / "fine")
    finally:
        unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        resource.prlimit(process.pid, resource.RLIMIT_AS, unlimited)
    talk.ask("upsample", **run, spacing=3, out=tmp_path / "after")
    assert {path.parts[0] for path in map(Path, left_in(tmp_path))} == {"before", "after"}
    assert process.is_running()


# --- cancel -----------------------------------------------------------------------------------


def test_a_queue_of_three_two_of_them_cancelled(talk, run, tmp_path):
    first = talk.begin("decoding", **run, **SLOW, out=tmp_path / "deep" / "first")
    steps: list[str] = []
    second = talk.client.request(
        "upsample", **run, spacing=3, out=tmp_path / "second",
        on_progress=lambda event: steps.append(event["step"]),
    )  # fmt: skip
    third = talk.client.request("upsample", **run, spacing=3, out=tmp_path / "third")
    status = talk.ask("status")
    assert (status["running"], status["waiting"]) == (first.id, [second.id, third.id])

    third.cancel()
    with pytest.raises(Cancelled):
        third.result(SOON)
    assert talk.ask("status")["waiting"] == [second.id]
    assert not first.done.done()
    assert talk.client.cancel().result(SOON)["cancelled"] == [first.id]
    with pytest.raises(Cancelled, match="nothing was written"):
        first.result(SOON)
    assert second.result(PATIENCE)["report"]["lattice"]["spacing_mm"] == [3, 3, 3]
    assert steps[0] == "waiting"
    assert steps[-1] == "done"
    assert {path.parts[0] for path in map(Path, left_in(tmp_path))} == {"second"}
    assert talk.client.cancel().result(SOON)["cancelled"] == []
    assert talk.client.cancel(third.id).result(SOON)["cancelled"] == []


def test_a_long_call_into_a_library_is_answered_for(talk, run, tmp_path):
    """Registration does not ask whether to stop; the next request waits until it has ended."""
    options = {**run, "register": "rigid"}
    call = talk.begin("registering", **options, out=tmp_path / "deep" / "out")
    call.cancel()
    with pytest.raises(Cancelled):
        call.result(SOON)
    assert left_in(tmp_path) == []
    result = talk.ask("upsample", **run, spacing=3, out=tmp_path / "next")
    assert left_in(tmp_path / "next") == sorted(result["files"])
    assert left_in(tmp_path)[0] == "next"


def test_an_id_can_be_used_again_but_not_twice_at_once(talk, run, tmp_path):
    call = talk.begin("decoding", **run, **SLOW, out=tmp_path / "out")
    stdin = talk.client.process.stdin
    assert stdin is not None
    for _ in range(2):
        stdin.write(protocol.request("same", "estimate", **run))
    stdin.flush()
    assert talk.next()["step"] == "waiting"
    refused = talk.next()
    assert (refused["id"], refused["code"]) == (None, 2)
    assert "'same'" in refused["message"]
    call.cancel()
    for _ in range(2):
        event = talk.next()
        while event["event"] == "progress":
            event = talk.next()
        assert (event["event"], event["id"]) == ("result", "same")
        stdin.write(protocol.request("same", "status"))
        stdin.flush()
    talk.next()


# --- the end ----------------------------------------------------------------------------------

#: A program with a worker at work. Arguments: options and folder.
PARENT = """
import json, sys
from nexusinr.inference.client import start

worker = start()
def tell(event):
    if event["step"] == "decoding":
        print(worker.process.pid, flush=True)
worker.request("upsample", on_progress=tell, **json.loads(sys.argv[1]))
print(worker.process.wait())
"""


@pytest.mark.parametrize("name", ["SIGKILL of its parent", "SIGTERM"])
def test_it_ends_at_once_and_leaves_nothing(name, run, tmp_path):
    options = {**run, **SLOW, "out": tmp_path / "deep" / "out"}
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, json.dumps(options, default=str)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    worker = psutil.Process(int(parent.stdout.readline()))
    assert len(list((tmp_path / "deep" / "out").iterdir())) == 1
    if name == "SIGTERM":
        worker.terminate()
    else:
        parent.kill()
    sent = time.monotonic()
    while worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() - sent < SOON
        time.sleep(0.02)
    assert left_in(tmp_path) == []
    out, _ = parent.communicate(timeout=PATIENCE)
    assert out == ("130\n" if name == "SIGTERM" else "")


def test_a_killed_worker_is_a_crash_with_one_sentence(run):
    client = start()
    call = client.request("estimate", **run)
    client.ready.result(PATIENCE)
    client.process.send_signal(signal.SIGKILL)
    for crashed in (call, client.request("status")):
        with pytest.raises(Crashed, match=r"SIGKILL.*memory"):
            crashed.result(PATIENCE)
    client.close()


def test_quit_is_no_crash(run, tmp_path):
    with start() as client:
        call = client.request("upsample", **run, out=tmp_path / "out")
        answered = client.request("quit").done
        assert answered.result(PATIENCE)["event"] == "result"
        assert client.process.wait(PATIENCE) == 0
    with pytest.raises(Cancelled):
        call.result(PATIENCE)
    assert left_in(tmp_path) == []


def test_what_is_no_worker_is_told_apart(tmp_path):
    with pytest.raises(Crashed, match="cannot be started"):
        start(tmp_path / "python")
    fake = tmp_path / "python"
    fake.write_text("#!/bin/sh\necho hello\nsleep 60\n")
    fake.chmod(0o755)
    client = start(fake)
    with pytest.raises(Crashed, match="not JSON"):
        client.ready.result(PATIENCE)
    client.kill()


@pytest.mark.parametrize(
    ("status", "words"),
    [(-11, "crashed (SIGSEGV)"), (-9, "memory"), (3, "status 3"), (-200, "signal 200")],
)
def test_ends_in_words(status, words):
    assert words in protocol.ended(status)


#: Instead of torch: noisy, and of no use.
BROKEN_TORCH = """
import os
print("torch says hello")
os.write(1, b"so does its C++\\n")
raise {error}
"""


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            "ModuleNotFoundError(\"No module named 'torch'\", name='torch')",
            "torch is not installed",
        ),
        ("OSError('libtorch_cpu.so: cannot open shared object file')", "libtorch_cpu.so"),
    ],
)
def test_torch_that_does_not_load_is_an_error_and_no_crash(
    error, words, run, tmp_path, monkeypatch
):
    (tmp_path / "torch.py").write_text(BROKEN_TORCH.format(error=error))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    process = subprocess.Popen(
        [sys.executable, *protocol.ARGUMENTS],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, **protocol.environment()},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    ready, failed = (json.loads(process.stdout.readline()) for _ in range(2))
    assert ready["event"] == "ready"
    assert (failed["event"], failed["id"], failed["code"]) == ("error", None, 1)
    assert words in failed["message"]
    for id, (op, options) in enumerate((("models", {}), ("estimate", run))):
        process.stdin.write(protocol.request(id, op, **options))
    process.stdin.flush()
    models, refused = (json.loads(process.stdout.readline()) for _ in range(2))
    assert "tiny" in {model["name"] for model in models["models"]}
    assert refused == {**failed, "id": 1}
    out, err = process.communicate(timeout=PATIENCE)
    assert (out, process.returncode) == (b"", 0)
    assert b"torch says hello" in err
    assert b"so does its C++" in err
    assert b"Traceback" in err
