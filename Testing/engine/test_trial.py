"""Which of two ways is quicker here."""

from __future__ import annotations

import pytest

from nexusinr.models import trial


@pytest.mark.parametrize(
    ("new", "old", "quicker", "tries"),
    [
        ([1.0], [2.0], True, 3),
        ([1.9], [2.0], False, 15),  # not by so much
        ([9.0], [2.0], False, 3),  # far behind: it is not tried again
        ([1.9, 1.9, 1.9, 1.0], [2.0], True, 6),  # something else ran at first
    ],
)
def test_the_shortest_of_all_tries_counts(monkeypatch, new, old, quicker, tries):
    left = {"new": list(new), "old": list(old)}
    asked = []

    def seconds(work) -> float:
        name = work()
        asked.append(name)
        return left[name].pop(0) if len(left[name]) > 1 else left[name][0]

    monkeypatch.setattr(trial, "_seconds", seconds)
    assert trial.is_quicker(lambda: "new", lambda: "old", 1.2) is quicker
    assert asked.count("new") == asked.count("old") == tries


def test_real_work():
    assert trial.is_quicker(lambda: None, lambda: sum(range(10_000)), 2)
    assert not trial.is_quicker(lambda: sum(range(10_000)), lambda: None, 2)
