"""Small pieces of work on several threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing

import pytest
import torch

from nexusinr.inference.threads import each


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_results_keep_their_order_and_torch_its_threads(two_threads):
    seen, met = set(), threading.Barrier(2, timeout=30)

    def work(n: int) -> int:
        if n < 2:
            met.wait()  # for the other thread: one alone would wait for ever
        seen.add(threading.current_thread().name)
        assert torch.get_num_threads() == 1
        return n * n

    assert list(each(work, range(20))) == [n * n for n in range(20)]
    assert len(seen) == 2
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, torch.enable_grad])
def test_threads_know_whether_gradients_are_wanted(two_threads, mode):
    def modes(_: int) -> tuple[bool, bool]:
        return torch.is_inference_mode_enabled(), torch.is_grad_enabled()

    with mode():
        assert set(each(modes, range(4))) == {modes(0)}


def test_an_error_is_raised_and_the_rest_left(two_threads):
    done = []

    def work(n: int) -> None:
        if n == 1:
            raise ValueError("piece 1")
        time.sleep(0.01)
        done.append(n)

    with pytest.raises(ValueError, match="piece 1"), closing(each(work, range(1000))) as results:
        list(results)
    assert len(done) < 100
    assert torch.get_num_threads() == 2


def test_when_one_stops_early_nothing_goes_on(two_threads):
    done = []

    def work(n: int) -> None:
        time.sleep(0.01)
        done.append(n)

    with closing(each(work, range(1000))) as results:
        next(results)
    count = len(done)
    assert count < 100
    assert torch.get_num_threads() == 2
    time.sleep(0.1)
    assert len(done) == count


def test_a_gpu_is_given_one_after_the_other(two_threads):
    here = threading.current_thread()
    assert set(each(lambda n: threading.current_thread(), range(4), on_cpu=False)) == {here}


def test_a_gpu_is_one_ahead():
    """It has begun the next item when a result is given, and not more than that."""
    begun = []
    results = each(lambda n: begun.append(n) or n, [3, 4, 5], on_cpu=False)
    seen = [(result, len(begun)) for result in results]
    assert seen == [(3, 2), (4, 3), (5, 3)]
    assert list(each(str, [], on_cpu=False)) == []
