"""How much goes through a network at once on a GPU, and how its results come back.

What keeps a GPU busy goes through at once, or less where its memory ends: what a run needs there is
known beforehand, from the network's sizes; out of memory comes late. Results are copied while the
next ones are computed.
"""

from __future__ import annotations

import torch
from torch import Tensor

#: Of the free memory, what one pass may take: the rest is for what is kept, and for torch itself.
SHARE = 0.5


def affordable(weight: Tensor, values: int, most: int) -> int:
    """Voxels that may be worked on at once, at least one.

    Args:
        weight: of the network, on its device and in its precision.
        values: that are kept for each voxel meanwhile.
        most: voxels that are enough.
    """
    free = free_bytes(weight.device)
    if free is None:
        return most
    return min(most, max(1, int(SHARE * free) // (values * weight.itemsize)))


def free_bytes(device: torch.device) -> int | None:
    """Memory of a GPU that a new tensor could have; None where it cannot be asked."""
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + kept
    if device.type == "mps" and hasattr(torch.mps, "recommended_max_memory"):  # since torch 2.5
        return torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory()
    return None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether that is what an error says: torch has a word of its own for every device."""
    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)):
        return True
    words = "out of memory", "can't allocate memory"  # Apple GPUs, CPUs
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)


class Coming:
    """A tensor on its way to the CPU: from CUDA into pinned memory, for which nothing waits."""

    def __init__(self, tensor: Tensor) -> None:
        self._arrived = None
        if not tensor.is_cuda:
            self._here = tensor.cpu()
            return
        self._here = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        self._here.copy_(tensor, non_blocking=True)
        self._arrived = torch.cuda.Event()
        self._arrived.record(torch.cuda.current_stream(tensor.device))

    def wait(self) -> Tensor:
        """The tensor on the CPU, once it is there."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return self._here
