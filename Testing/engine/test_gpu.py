"""What goes through a network at once on a GPU finds room there: bytes are counted without one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from nexusinr.geometry import Affine, Grid
from nexusinr.inference import backdrop, gpu
from nexusinr.inference.device import Device
from nexusinr.inference.pipeline import upsample
from nexusinr.inference.prepared import PreparedScan
from nexusinr.inference.session import Session
from nexusinr.volume import Volume

GIGABYTE = 10**9

TURN = np.array([[0.8, -0.6, 0], [0.48, 0.64, -0.6], [0.36, 0.48, 0.8]])


class Counted(TorchDispatchMode):
    """The bytes of all tensors without numbers that were made in it, at most at one time."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self._alive: dict[int, tuple[int, StorageWeakRef]] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        gone = [key for key, (_, storage) in self._alive.items() if storage.expired()]
        for key in gone:
            del self._alive[key]
        for tensor in tree_leaves(found):
            if isinstance(tensor, torch.Tensor) and tensor.is_meta:
                storage = tensor.untyped_storage()
                self._alive[storage._cdata] = storage.nbytes(), StorageWeakRef(storage)
        self.peak = max(self.peak, sum(count for count, _ in self._alive.values()))
        return found


def head(shape: tuple[int, int, int], spacing: tuple[float, float, float]) -> Volume:
    """A ball of noise that fills the scan, about the origin."""
    places = np.meshgrid(*((np.arange(n) - (n - 1) / 2) / (n / 2) for n in shape), indexing="ij")
    ball = np.square(places).sum(axis=0) < 0.9
    noise = np.random.default_rng(0).uniform(0.5, 1, shape)
    origin = [-step * (n - 1) / 2 for step, n in zip(spacing, shape, strict=True)]
    return Volume((ball * noise).astype(np.float32), Affine.from_parts(spacing, origin=origin))


@pytest.fixture
def peak(stand_in_gpu, monkeypatch):
    """Bytes that restoring a whole head in half precision takes, by model and free memory."""

    def count(model: str, free: int | None) -> int:
        monkeypatch.setattr(gpu, "free_bytes", lambda device: free)
        session = Session(model, "cpu")
        with Counted() as counted:
            session.move(Device(stand_in_gpu.type, "GPU", "a test", torch.float16))
            thick = head((240, 240, 80), (1, 1, 2)), head((240, 60, 160), (1, 4, 1))
            upsample(*thick, session=session, spacing=1, register="none")
        assert not session.notes
        return counted.peak

    return count


@pytest.mark.parametrize("model", ["nexus-inr", "iconet"])
def test_a_whole_head_takes_what_there_is(model, peak):
    assert peak(model, 3 * GIGABYTE) < 3 * GIGABYTE
    assert 3 * GIGABYTE < peak(model, None) < 7 * GIGABYTE


@pytest.mark.parametrize(
    ("turn", "least"), [(np.eye(3), 0.05), (TURN, 0.9)], ids=["parallel", "oblique"]
)
def test_a_plane_takes_what_is_said(turn, least, stand_in_gpu):
    scan = PreparedScan(head((120, 120, 40), (2, 2, 4)))
    plane = Grid((300, 300, 1), Affine.from_parts((0.7, 0.7, 1), turn, turn @ (-105, -105, 0)))
    backdrops = backdrop.Backdrops(stand_in_gpu)
    with torch.inference_mode():
        backdrops.at({0: scan}, plane)  # brings the scan there
        with Counted() as counted:
            backdrops.at({0: scan}, plane)
    own = counted.peak - 2 * 4 * scan.whole.grid.voxels  # scan and head, which are kept
    assert least < own / (backdrop.BYTES * plane.voxels) <= 1


def test_voxels_at_once(monkeypatch):
    weight = torch.zeros(3, dtype=torch.float16)
    monkeypatch.setattr(gpu, "free_bytes", lambda device: 4000)
    assert gpu.affordable(weight, values=10, most=1000) == 100  # half the memory, two bytes each
    assert gpu.affordable(weight, values=10, most=50) == 50
    assert gpu.affordable(weight, values=10_000, most=50) == 1


def test_the_cpu_is_not_asked():
    assert gpu.free_bytes(torch.device("cpu")) is None


def test_an_apple_gpu_is_asked(monkeypatch):
    monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: 900)
    monkeypatch.setattr(torch.mps, "current_allocated_memory", lambda: 300)
    assert gpu.free_bytes(torch.device("mps")) == 600
    monkeypatch.delattr(torch.mps, "recommended_max_memory")
    assert gpu.free_bytes(torch.device("mps")) is None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device")
def test_a_gpu_is_asked():
    device = torch.device("cuda:0")
    before = gpu.free_bytes(device)
    kept = torch.zeros(10**8, dtype=torch.uint8, device=device)
    assert before - gpu.free_bytes(device) >= kept.numel()


@pytest.mark.parametrize(
    ("error", "out"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("no room"), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 9.07 GB)"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("a kernel failed"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_words_for_out_of_memory(error, out):
    assert gpu.is_out_of_memory(error) is out


def test_results_from_the_cpu_are_there():
    tensor = torch.rand(3, 4)
    assert gpu.Coming(tensor).wait() is tensor


@pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device")
def test_results_from_a_gpu_arrive():
    tensor = torch.rand(300, 400, 50, device="cuda:0")
    found = [gpu.Coming(n * tensor).wait() for n in range(3)]
    assert all(result.is_pinned() for result in found)
    torch.testing.assert_close(found[2], 2 * tensor.cpu())
