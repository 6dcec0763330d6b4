"""Progress: how far, how long, and whether to go on."""

from __future__ import annotations

import time

import pytest

from nexusinr.errors import Cancelled
from nexusinr.inference.progress import INTERVAL, Progress


@pytest.fixture
def told() -> list[tuple[float, str, float | None]]:
    return []


def test_steps_add_up(told):
    watch = Progress(lambda *what: told.append(what))
    with watch.step("first", 0.25):
        watch.tell(0.5, force=True)
    with watch.step("second", 0.75):
        watch.tell(1 / 3, force=True)
    watch.finish()
    assert [(round(f, 9), s) for f, s, _ in told] == [
        (0, "first"),
        (0.125, "first"),
        (0.25, "second"),
        (0.5, "second"),
        (1, "done"),
    ]
    assert set(watch.seconds) == {"first", "second"}


def test_the_time_to_go_follows_from_the_time_that_passed(told):
    watch = Progress(lambda *what: told.append(what))
    with watch.step("work", 1.0):
        time.sleep(0.2)
        watch.tell(0.5, force=True)
    assert told[0][2] is None
    assert 0.2 <= told[1][2] < 2


def test_listeners_are_not_flooded(told):
    watch = Progress(lambda *what: told.append(what))
    begun = time.monotonic()
    with watch.step("work", 1.0):
        for n in range(2000):
            watch.tell(n / 2000)
    assert len(told) <= 2 + (time.monotonic() - begun) / INTERVAL


def test_a_request_to_stop_is_noticed_everywhere(told):
    stop = False
    watch = Progress(lambda *what: told.append(what), lambda: stop)
    watch.check()
    with watch.step("work", 1.0):
        stop = True
        for ask in (watch.check, lambda: watch.tell(0.1), watch.quiet().check):
            with pytest.raises(Cancelled, match="nothing was written"):
                ask()
    with pytest.raises(Cancelled), watch.step("more", 0.0):
        pytest.fail("the step was entered")


def test_the_quiet_one_tells_nobody(told):
    Progress(lambda *what: told.append(what)).quiet().tell(0.5, force=True)
    assert told == []
