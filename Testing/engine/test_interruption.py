"""Interruption: a run stops within a second, with its exit status and nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from nexusinr.geometry import Affine
from nexusinr.volume import write_volume

RUN = (sys.executable, "-m", "nexusinr.cli")

#: At which step which signal comes, and what makes that step take seconds.
MOMENTS = {
    "reading": ("SIGTERM", ()),
    "registering": ("SIGINT", ("--register", "rigid")),
    "encoding T1w": ("SIGTERM", ("--register", "none")),
    "decoding": ("SIGINT", ("--register", "none", "--spacing", "0.4")),
}


@pytest.fixture(scope="module")
def large_file(tmp_path_factory, thick_pair) -> Path:
    """A scan that takes a while to encode."""
    path = tmp_path_factory.mktemp("large") / "t1w.nii.gz"
    data = np.kron(thick_pair[0].data, np.ones((5, 5, 4), np.float32))
    write_volume(path, data, Affine.from_parts((1.3, 1.3, 2.6), origin=(-80, -90, -50)))
    return path


@pytest.mark.parametrize("step", MOMENTS)
def test_signals_cancel_within_a_second(step, tiny_model, thick_files, large_file, tmp_path):
    name, options = MOMENTS[step]
    t1w = large_file if step.startswith("encoding") else thick_files[0]
    process = subprocess.Popen(
        [
            *(*RUN, "upsample", "--t1w", t1w, "--t2w", thick_files[1], "--model", tiny_model),
            *("--out", tmp_path / "deep" / "out", "--threads", "1", "--json", *options),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        event = json.loads(line)
        assert event["event"] == "progress", event
        if event["step"] == step:
            break
    sent = time.monotonic()
    process.send_signal(getattr(signal, name))
    rest, err = process.communicate(timeout=60)
    assert time.monotonic() - sent < 3  # a second, and the rest for a machine that is busy
    assert process.returncode == 130
    assert err.count("\n") == 1
    assert "cancelled" in err
    assert json.loads(rest.splitlines()[-1])["code"] == 130
    assert list(tmp_path.iterdir()) == []


BUSY = """
import sys, time
from nexusinr.cli.interrupt import until_done
from nexusinr.inference.output import OutputFolder

def work(cancelled):
    with OutputFolder(sys.argv[1]) as folder:
        folder.file("part").write_text("half a result")
        print("busy", flush=True)
        time.sleep(60)

until_done(work)
"""


def test_work_that_does_not_listen_is_left(tmp_path):
    """One long call into a library, in the middle of which a signal comes."""
    process = subprocess.Popen(
        [sys.executable, "-c", BUSY, tmp_path / "deep" / "out"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "busy\n"
    sent = time.monotonic()
    process.terminate()
    _, err = process.communicate(timeout=60)
    assert time.monotonic() - sent < 3
    assert process.returncode == 130
    assert "Cancelled: cancelled: nothing was written" in err
    assert list(tmp_path.iterdir()) == []


def test_nobody_reads_the_events(tiny_model, large_file, tmp_path):
    reader, writer = os.pipe()
    process = subprocess.Popen(
        [
            *(*RUN, "upsample", "--t1w", large_file, "--out", tmp_path / "out"),
            *("--model", tiny_model, "--threads", "1", "--json"),
        ],
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(writer)
    os.close(reader)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
