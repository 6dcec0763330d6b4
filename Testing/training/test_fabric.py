"""Devices, precision, several processes, and signals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from nexusinr.training import checkpoint
from nexusinr.training.hardware import best_precision, make_fabric, place
from nexusinr.training.loading import load

CONFIG = """
data: {data}
out: {out}
device: cpu
steps: {steps}
patch: 8
accumulate: 2
warmup: 1
model: {{features: 4, growth: 4, blocks: 1, layers: 1, decoder_width: 8, attention_width: 4}}
"""

TRAIN = ("-m", "nexusinr.cli", "train")


@pytest.fixture
def config(folder, tmp_path) -> Path:
    file = tmp_path / "small.yaml"
    file.write_text(CONFIG.format(data=folder, out=tmp_path / "run", steps=2))
    return file


def test_a_cpu_computes_in_full_precision():
    assert best_precision("cpu") == "32-true"
    fabric = make_fabric("cpu")
    assert (fabric.device, fabric.world_size) == (torch.device("cpu"), 1)


def test_data_stays_on_a_cpu(folder):
    data = load(folder)
    assert place(data, torch.device("cpu")) is data
    moved = data.to(torch.device("cpu"))
    assert moved.bytes == data.bytes
    assert data.bytes > sum(s.lead.numel() * 2 for s in data.subjects)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_holds_the_data_and_trains(folder, tmp_path):
    from nexusinr.training.config import TrainConfig
    from nexusinr.training.trainer import Trainer

    model = {"features": 8, "growth": 8, "blocks": 1, "decoder_width": 16, "attention_width": 4}
    for values in ({"model": model}, {"architecture": "ICONet", "model": {"features": 8}}):
        config = TrainConfig.from_dict({**values, "patch": 16, "batch": 2})
        trainer = Trainer(config, folder, tmp_path / "run", "cuda:0")
        assert trainer.source.data.subjects[0].lead.is_cuda
        assert all(0 < trainer.train_step()["total"] < 10 for _ in range(3))


def test_two_processes_train_one_model(config, tmp_path):
    """Different examples in each, one set of weights; the first one alone writes."""
    torchrun = ("-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *torchrun, *TRAIN, str(config)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("the weights after 2 of 2 steps") == 1
    card = json.loads((tmp_path / "run" / "small.json").read_text())
    assert (card["version"], card["training"]["batch"]) == ("2 steps", 4)


def test_a_signal_ends_the_step_and_saves(config, folder, tmp_path):
    config.write_text(CONFIG.format(data=folder, out=tmp_path / "run", steps=1_000_000))
    events = tmp_path / "run" / "tensorboard"
    process = subprocess.Popen(
        [sys.executable, *TRAIN, str(config)], stderr=subprocess.PIPE, text=True
    )
    while not list(events.glob("events*")):  # the first thing that a run in progress writes
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate()
    assert process.returncode == 130
    assert "go on with --resume" in err
    found = checkpoint.progress(tmp_path / "run" / "checkpoint.safetensors")
    assert 0 <= found["step"] < 1_000_000
