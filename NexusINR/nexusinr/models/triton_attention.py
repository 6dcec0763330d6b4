"""`neighbourhood.attended` as one kernel for GPUs, in the language Triton."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.errors import TritonError

__all__ = ["TritonError", "attended"]

#: Values of one kind that a program holds, in the registers of all its threads.
VALUES = 1024


@triton.jit
def attend(
    asked,
    key_value,
    bias,
    answer,
    i_size,
    j_size,
    k_size,
    WIDTH: tl.constexpr,
    POINTS: tl.constexpr,
):
    """A few points of a lattice, one after the other along k; see `attended`."""
    inner = i_size * j_size * k_size
    outer = (i_size + 2) * (j_size + 2) * (k_size + 2)
    batch = tl.program_id(1).to(tl.int64)
    asked += batch * WIDTH * inner
    answer += batch * WIDTH * inner
    key_value += batch * 2 * WIDTH * outer

    point = tl.program_id(0) * POINTS + tl.arange(0, POINTS)
    here = (point < inner)[None, :]
    k = point % k_size
    j = point // k_size % j_size
    i = point // (k_size * j_size)
    corner = (i * (j_size + 2) + j) * (k_size + 2) + k
    channel = tl.arange(0, WIDTH)[:, None]
    own = channel * inner + point[None, :]
    keys = channel * outer + corner[None, :]
    values = keys + WIDTH * outer

    # The largest score so far is taken off, as it is found: what was added up before shrinks.
    query = tl.load(asked + own, mask=here, other=0.0).to(tl.float32)
    largest = tl.full((POINTS,), float("-inf"), tl.float32)
    total = tl.zeros((POINTS,), tl.float32)
    found = tl.zeros((WIDTH, POINTS), tl.float32)
    for n in range(27):
        step = (n // 9 * (j_size + 2) + n // 3 % 3) * (k_size + 2) + n % 3
        key = tl.load(key_value + keys + step, mask=here, other=0.0).to(tl.float32)
        value = tl.load(key_value + values + step, mask=here, other=0.0).to(tl.float32)
        score = tl.sum(query * key, axis=0) + tl.load(bias + n).to(tl.float32)
        larger = tl.maximum(largest, score)
        before, share = tl.exp(largest - larger), tl.exp(score - larger)
        total = total * before + share
        found = found * before[None, :] + value * share[None, :]
        largest = larger
    tl.store(answer + own, (found / total[None, :]).to(answer.dtype.element_ty), mask=here)


def attended(asked: Tensor, key_value: Tensor, bias: Tensor) -> Tensor:
    """As `neighbourhood.attended`; the width is a power of two."""
    batch, width, i, j, k = asked.shape
    points = max(VALUES // width, 16)
    answer = torch.empty_like(asked, memory_format=torch.contiguous_format)
    programs = (triton.cdiv(i * j * k, points), batch)
    tensors = asked.contiguous(), key_value.contiguous(), bias, answer
    with torch.cuda.device_of(asked):  # Triton itself takes the current one
        attend[programs](*tensors, i, j, k, WIDTH=width, POINTS=points)
    return answer
