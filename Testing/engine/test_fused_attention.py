"""Attention in one kernel: run point by point by Triton's interpreter, compiled for real GPUs."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor

from nexusinr.geometry import Affine, Grid
from nexusinr.inference.device import Device, choose
from nexusinr.inference.progress import Progress
from nexusinr.inference.session import Session
from nexusinr.models import fused_attention
from nexusinr.models.attention import CrossModalAttention
from nexusinr.models.neighbourhood import attended

triton = pytest.importorskip("triton", reason="there is no Triton for this system")

from nexusinr.models import triton_attention  # noqa: E402

TURN = np.array([[0.8, -0.6, 0], [0.48, 0.64, -0.6], [0.36, 0.48, 0.8]])


@pytest.fixture
def interpreted(monkeypatch) -> Iterator[ModuleType]:
    """The kernel as a program for the CPU: so are then the parts of the language that it uses."""
    modules = triton.language.standard, triton.language, triton_attention
    with monkeypatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", "1")
        for module in modules:
            importlib.reload(module)
        yield triton_attention
    for module in modules:
        importlib.reload(module)


def given(
    width: int, shape: tuple[int, int, int], batch: int = 1, size: float = 1.0
) -> list[Tensor]:
    """What attention is given, drawn at random."""
    generator = torch.Generator().manual_seed(0)
    shapes = (batch, width, *shape), (batch, 2 * width, *(n + 2 for n in shape)), (27,)
    return [size * torch.randn(s, generator=generator) for s in shapes]


@pytest.mark.parametrize("width", [4, 16, 64])
@pytest.mark.parametrize("shape", [(5, 9, 7), (13, 17, 1), (1, 1, 1)])
def test_the_kernel_attends(width, shape, interpreted):
    inputs = given(width, shape, batch=2)
    torch.testing.assert_close(
        interpreted.attended(*inputs), attended(*inputs), rtol=1e-5, atol=1e-5
    )


def test_large_scores_and_other_layouts(interpreted):
    """No power of e is ever too large; what does not lie in a row is copied."""
    asked, key_value, bias = given(16, (4, 5, 6), size=30.0)
    asked = asked.permute(0, 4, 3, 2, 1).contiguous().permute(0, 4, 3, 2, 1)
    found = interpreted.attended(asked, key_value, bias)
    torch.testing.assert_close(found, attended(asked, key_value, bias), rtol=1e-4, atol=1e-4)
    assert found.is_contiguous()


def test_half_precision_is_added_up_in_full(interpreted):
    inputs = [tensor.half() for tensor in given(16, (6, 7, 8))]
    right = attended(*(tensor.float() for tensor in inputs))
    found = interpreted.attended(*inputs)
    assert found.dtype == torch.half
    own = (found.float() - right).abs().max()
    assert float(own) < 2e-3
    assert own < (attended(*inputs).float() - right).abs().max()


@pytest.mark.filterwarnings("ignore::UserWarning:triton")  # of its own defaults
@pytest.mark.parametrize("target", [("cuda", 75, 32), ("cuda", 90, 32), ("hip", "gfx942", 64)])
@pytest.mark.parametrize("width", [16, 64])
def test_it_compiles_for_gpus(target, width):
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    pointers = dict.fromkeys(("asked", "key_value", "bias", "answer"), "*fp16")
    sizes = dict.fromkeys(("i_size", "j_size", "k_size"), "i32")
    constants = {"WIDTH": width, "POINTS": max(triton_attention.VALUES // width, 16)}
    source = ASTSource(
        triton_attention.attend,
        {**pointers, **sizes, **dict.fromkeys(constants, "constexpr")},
        constants,
    )
    compiled = triton.compile(source, target=GPUTarget(*target))
    assert compiled.asm["cubin" if target[0] == "cuda" else "hsaco"]
    assert compiled.metadata.shared <= 48 * 1024  # what every GPU has


# --- where it is used -------------------------------------------------------------------------


def test_a_session_restores_the_same(interpreted, thick_pair):
    """Through the whole path, though the CPU never chooses it."""
    session = Session("nexus-inr", "cpu")
    scans = {m: session.prepare(scan) for m, scan in enumerate(thick_pair)}
    centre = thick_pair[0].grid.centre
    plane = Grid((16, 16, 1), Affine.from_parts((1, 1, 1), TURN, centre - TURN @ (8, 8, 0)))
    plain = session.decode(scans, plane, Progress())
    session.move(Device("cpu", "CPU", "a test", fused_attention=True))
    assert session.device.description == "CPU, fused attention"
    calls = []
    kernel = interpreted.attended
    interpreted.attended = lambda *given: calls.append(1) or kernel(*given)
    exact = {m: session.decode(scans, plane, Progress()).intensity[m] for m in scans}
    assert calls
    session.move(session.device.in_float32())
    assert not session.device.fused_attention
    count = len(calls)
    right = session.decode(scans, plane, Progress())
    assert len(calls) == count
    for m in scans:
        assert np.abs(exact[m] - right.intensity[m]).max() < 1e-5
        assert np.abs(exact[m] - plain.intensity[m]).max() < 1e-2  # without 8-bit factors


def test_not_where_something_is_learned_or_the_width_does_not_fit(interpreted):
    layer, odd = CrossModalAttention(8, 4), CrossModalAttention(8, 6)
    for each in (layer, odd):
        fused_attention.use(each, True)
    assert fused_attention.of(layer, 4) is attended
    with torch.inference_mode():
        assert fused_attention.of(layer, 4) is interpreted.attended
        assert fused_attention.of(odd, 6) is attended
        fused_attention.use(layer, False)
        assert fused_attention.of(layer, 4) is attended


def test_it_has_to_be_right_and_quicker(monkeypatch):
    cpu = torch.device("cpu")
    monkeypatch.setattr(fused_attention, "LATTICE", (20, 20, 20))
    right = attended(*given(16, (20, 20, 20)))
    assert fused_attention._wins(lambda *given: right, cpu, torch.float32)
    assert not fused_attention._wins(lambda *given: 1.1 * right, cpu, torch.float32)
    slow = lambda *given: (attended(*given), attended(*given))[0]  # noqa: E731
    assert not fused_attention._wins(slow, cpu, torch.float32)


@pytest.mark.parametrize(
    "error",
    [RuntimeError("Failed to find C compiler"), triton_attention.TritonError("no such operation")],
)
def test_a_kernel_that_fails_is_told_of(error, monkeypatch, caplog):
    def fail(*given):
        raise error

    monkeypatch.setattr(fused_attention, "_wins", fail)
    fused_attention.is_quicker.cache_clear()
    assert not fused_attention.is_quicker(torch.device("cuda"), torch.float16)
    assert f"attention is not fused: {error}" in caplog.text
    fused_attention.is_quicker.cache_clear()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device")
def test_a_gpu_is_right():
    device = choose("cuda")
    inputs = [tensor.to(device.torch, device.dtype) for tensor in given(16, (33, 20, 17))]
    right = attended(*(tensor.float() for tensor in inputs))
    found = triton_attention.attended(*inputs).float()
    torch.testing.assert_close(found, right, rtol=5e-3, atol=5e-3)
