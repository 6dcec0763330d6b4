"""Where to compute: chosen by running real kernels there, with the reason in words."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional

from nexusinr.errors import InputError
from nexusinr.models import bfloat16, eight_bit, fused_attention


@dataclass(frozen=True)
class Device:
    """A device that works.

    Attributes:
        name: as torch calls it: ``cpu``, ``cuda:0``, ``mps``.
        kind: for people, e.g. the GPU's name.
        reason: why this one.
        dtype: of the network there; half precision only where the hardware is fast at it.
        eight_bit: whether wide convolutions have 8-bit factors; see `models.eight_bit`.
        bfloat16: whether perceptrons have bfloat16 factors; see `models.bfloat16`.
        fused_attention: whether that is one kernel; see `models.fused_attention`.
    """

    name: str
    kind: str
    reason: str
    dtype: torch.dtype = torch.float32
    eight_bit: bool = False
    bfloat16: bool = False
    fused_attention: bool = False

    @property
    def description(self) -> str:
        """For people: what computes, and which of the quicker ways it takes."""
        ways = {
            "8-bit convolutions": self.eight_bit,
            "bfloat16 perceptrons": self.bfloat16,
            "fused attention": self.fused_attention,
        }
        return ", ".join([self.kind, *(words for words, used in ways.items() if used)])

    @property
    def torch(self) -> torch.device:
        """The torch device."""
        return torch.device(self.name)

    def in_float32(self) -> Device:
        """The same device in full precision."""
        return Device(self.name, self.kind, self.reason)


def choose(request: str = "auto") -> Device:
    """The device for a request of ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.

    ``auto`` takes the first GPU on which a convolution and an interpolation really run. Raises
    InputError for an unknown request, and for a device that was asked for by name and fails.
    """
    if request == "cpu":
        return _cpu("asked for")
    if request == "auto":
        failures = []
        for name in _present():
            problem = _probe(name)
            if problem is None:
                return _gpu(name, "a convolution and an interpolation ran on it")
            failures.append(f"{name} failed: {problem}")
        return _cpu("; ".join(failures) or "no GPU that torch can use was found")
    kind, colon, index = request.partition(":")
    if kind not in ("cuda", "mps") or (colon and not index.isdecimal()):
        raise InputError(f"unknown device {request!r}: choose auto, cpu, cuda, cuda:N or mps")
    name = "cuda:0" if request == "cuda" else request
    problem = _probe(name)
    if problem is not None:
        raise InputError(f"device {request!r} cannot be used ({problem}): choose auto or cpu")
    return _gpu(name, "asked for")


def cpu_instead(why: str) -> Device:
    """The CPU as a fallback, with the reason."""
    return _cpu(why)


def _present() -> list[str]:
    found = [f"cuda:{n}" for n in range(torch.cuda.device_count())] if _has_cuda() else []
    return found + (["mps"] if torch.backends.mps.is_available() else [])


def _has_cuda() -> bool:
    return torch.backends.cuda.is_built() and torch.cuda.is_available()


def _probe(name: str) -> str | None:
    """Runs the two kernels everything rests on; the problem in one line, or None."""
    try:
        x = torch.ones((1, 8, 6, 6, 6), device=name)
        y = functional.conv3d(x, torch.ones((8, 8, 3, 3, 3), device=name), padding=1)
        rows = y.permute(0, 2, 3, 4, 1).reshape(-1, 8)
        middle = torch.full((1, 2), 3 * 36 + 3 * 6 + 3, device=name)  # row of voxel (3, 3, 3)
        halves = torch.full((1, 2), 0.5, device=name)
        z = functional.embedding_bag(middle, rows, per_sample_weights=halves, mode="sum")
        if abs(float(z.mean()) - 216) > 1:
            return f"it computes wrongly ({float(z.mean()):g} instead of 216)"
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        return str(error).strip().splitlines()[0]
    return None


def _cpu(reason: str) -> Device:
    threads = torch.get_num_threads()
    kind = f"CPU, {threads} thread{'s' if threads > 1 else ''}"
    return Device(
        "cpu", kind, reason, eight_bit=eight_bit.is_quicker(), bfloat16=bfloat16.is_quicker()
    )


def _gpu(name: str, reason: str) -> Device:
    if name == "mps":
        return Device(name, "Apple GPU", reason)
    device = torch.device(name)
    # Tensor cores came with compute capability 7.0; without them half precision is no faster.
    fast_half = torch.cuda.get_device_capability(device) >= (7, 0)
    dtype = torch.float16 if fast_half else torch.float32
    fused = fused_attention.is_quicker(device, dtype)
    kind = torch.cuda.get_device_name(device)
    return Device(name, kind, reason, dtype, fused_attention=fused)
