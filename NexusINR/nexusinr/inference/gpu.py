"""How much goes through a network at once on a GPU: what keeps it busy, or less where memory ends.

What a run needs there is known beforehand, from the network's sizes; out of memory comes late.
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
