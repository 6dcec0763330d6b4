"""The application ends during a run, in good order and by force: no process and no file stays."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

HERE = Path(__file__).parent
NEXUS = HERE.parents[1] / "NexusINR"

#: For a machine that is busy: seconds until something has to have happened.
PATIENCE = 120

#: Starts a long run; says which process does it once it is on its way; then ends as it is told.
APPLICATION = """
import sys, time
from pathlib import Path
sys.path[:0] = sys.argv[1:3]
import slicerapp
app = slicerapp.start(Path(sys.argv[3]))
import slicer
from slicerapp import modules
module = modules.load_module(Path(sys.argv[2], "NexusINR.py"))
from NexusINR import NexusINRLogic
scan = slicer.util.loadVolume(sys.argv[4], {"name": "T1w"})
steps = []
run = NexusINRLogic().start(
    scan, spacing=0.3, model="tiny", device="cpu",
    onProgress=lambda share, step, eta: steps.append(step), onError=print,
)
while not any(step.startswith("encoding") for step in steps):
    assert not run.finished
    app.processEvents()
    time.sleep(0.01)
print(NexusINRLogic().worker._process.processId(), flush=True)
if sys.argv[5] == "quit":
    app.aboutToQuit.emit()
elif sys.argv[5] == "hang":
    time.sleep(600)
"""


@pytest.fixture
def application(slicer_app, thick_files, tmp_path) -> Any:
    """An application of its own with a run on its way; gives it, the run's process, its folder."""
    started: list[subprocess.Popen[str]] = []

    def start(ending: str) -> tuple[subprocess.Popen[str], psutil.Process, Path]:
        paths = HERE / "standins", NEXUS, tmp_path, thick_files[0]
        started.append(
            subprocess.Popen(
                [sys.executable, "-c", APPLICATION, *map(str, paths), ending],
                stdout=subprocess.PIPE,
                text=True,
            )
        )
        assert started[0].stdout is not None
        worker = psutil.Process(int(started[0].stdout.readline()))
        return started[0], worker, tmp_path

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("ending", ["quit", "fall off the end"])
def test_an_end_in_good_order_leaves_nothing(ending, application):
    process, worker, scratch = application(ending)
    process.wait(PATIENCE)
    psutil.wait_procs([worker], timeout=PATIENCE)
    assert not worker.is_running()
    assert list(scratch.glob("nexusinr-*")) == []


def test_after_an_end_by_force_the_worker_goes_and_the_next_run_cleans_up(application):
    from NexusINRLib.exchange import Folder

    process, worker, scratch = application("hang")
    process.kill()
    process.wait(PATIENCE)
    psutil.wait_procs([worker], timeout=PATIENCE)
    assert not worker.is_running()
    assert len(list(scratch.glob("nexusinr-*"))) == 1
    folder = Folder(scratch)
    assert list(scratch.glob("nexusinr-*")) == [folder.path]
    folder.remove()
