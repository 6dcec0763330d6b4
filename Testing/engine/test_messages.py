"""What a worker is told and tells: messages, without a process."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexusinr.errors import Cancelled, InputError, NexusError
from nexusinr.inference import protocol
from nexusinr.inference.protocol import EventReader, packed, parse, unpacked

numbers = st.floats(-1e6, 1e6)


def test_who_talks_to_a_worker_needs_no_torch():
    code = "import sys, nexusinr.inference.client, nexusinr.inference.worker; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"torch", "numpy", "SimpleITK", "nexusinr.cli"}.isdisjoint(done.stdout.split())


@given(
    spacing=numbers | st.lists(numbers, min_size=3, max_size=3),
    path=st.text(st.characters(exclude_characters="\0"), min_size=1).filter(str.strip),
    flag=st.booleans(),
)
def test_what_is_sent_arrives(spacing, path, flag):
    options = {"spacing": spacing, "out": path, "segmentation": flag, "dicom": not flag}
    line = protocol.request("x", "upsample", **options, like=None)
    assert line.count(b"\n") == 1
    request = parse(line)
    assert (request.id, request.op, request.options) == ("x", "upsample", options)


@given(st.lists(st.dictionaries(st.text(), st.text() | st.integers())), st.lists(st.integers(0)))
def test_events_come_out_whole_however_they_are_cut(events, cuts):
    data = b"".join(map(protocol.line, events))
    reader, found, begin = EventReader(), [], 0
    for end in (*sorted(cut % (len(data) + 1) for cut in cuts), len(data)):
        found += reader.feed(data[begin:end])
        begin = end
    assert found == events


def test_numbers_that_are_not_finite_become_null():
    line = protocol.line({"event": "result", "values": [1.5, float("nan"), (float("inf"), 2)]})
    assert json.loads(line)["values"] == [1.5, None, [None, 2]]


@pytest.mark.parametrize("kind", [np.float32, np.uint8])
def test_images_survive_a_message(kind):
    image = np.random.default_rng(0).uniform(0, 255, (5, 4, 1)).astype(kind)
    found = unpacked(json.loads(protocol.line(packed(image.transpose(1, 0, 2)))))
    assert found.dtype == kind
    assert np.array_equal(found, image.transpose(1, 0, 2))


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (InputError("no\nsuch file"), 2, "no such file"),
        (MemoryError(), 3, "coarser spacing"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: 8 bytes"), 3, "can't allocate"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), 3, "2 GiB"),
        (Cancelled("cancelled"), 130, "cancelled"),
        (KeyError("x"), 1, "KeyError: 'x'"),
    ],
)
def test_errors_keep_their_kind(error: Exception, code, words):
    event = protocol.failure(error)
    assert event["code"] == code
    assert words in event["message"]
    back = protocol.raised_by(event)
    assert isinstance(back, NexusError)
    assert (back.exit_code, str(back)) == (code, event["message"])
