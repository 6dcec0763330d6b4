"""Where is computed, and why."""

from __future__ import annotations

import pytest
import torch

from nexusinr.errors import InputError
from nexusinr.inference.device import choose, cpu_instead


def test_the_cpu_is_always_there():
    device = choose("cpu")
    assert (device.name, device.reason, device.dtype) == ("cpu", "asked for", torch.float32)
    assert device.torch == torch.device("cpu")
    assert str(torch.get_num_threads()) in device.description


def test_auto_finds_something_that_computes():
    device = choose("auto")
    assert torch.ones(3, device=device.torch).sum().item() == 3
    assert device.reason
    if not torch.cuda.is_available() and not torch.backends.mps.is_available():
        assert device.name == "cpu"
        assert "no GPU" in device.reason


@pytest.mark.parametrize("request_", ["tpu", "", "CPU", "cuda:", "cuda:x", "cuda:-1", "cpu:0"])
def test_unknown_devices(request_):
    with pytest.raises(InputError, match="choose auto, cpu"):
        choose(request_)


def test_a_device_that_is_asked_for_has_to_work():
    with pytest.raises(InputError, match=r"device 'cuda:99' cannot be used \(.+\): choose auto"):
        choose("cuda:99")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device")
def test_a_gpu_is_preferred():
    assert choose("auto").name == "cuda:0"
    assert choose("cuda").name == "cuda:0"


def test_a_fallback_says_why():
    assert cpu_instead("cuda:0 has too little memory").reason == "cuda:0 has too little memory"
