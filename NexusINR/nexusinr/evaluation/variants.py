"""Methods that are a model with something added: ``nexus-inr+adapt``, ``iconet+ensemble-8``."""

from __future__ import annotations

import re
from dataclasses import dataclass

from nexusinr.errors import InputError
from nexusinr.inference.adaptation.tuning import Schedule
from nexusinr.models import weights
from nexusinr.models.weights import Card

#: Members of an ensemble that is named without a number.
MEMBERS = 4

_ADDED = re.compile(r"(float32)|(?:(adapt|ensemble)(?:-([1-9]\d*))?)")


@dataclass(frozen=True)
class Variant:
    """A model and how it is run.

    Attributes:
        card: of the model.
        adapt: how it is adapted to each case; None: not at all.
        ensemble: members of a self-ensemble; 1: none.
        float32: whether it is computed in full precision where that is not the quickest way.
    """

    card: Card
    adapt: Schedule | None = None
    ensemble: int = 1
    float32: bool = False


def find(method: str) -> Variant:
    """What a method's name means; a model of exactly that name comes first. Raises InputError.

    ``+adapt`` or ``+adapt-SECONDS``, ``+ensemble`` or ``+ensemble-MEMBERS`` and ``+float32`` may
    follow a model.
    """
    if method in weights.available():
        return Variant(weights.find(method))
    model, *added = method.split("+")
    numbers: dict[str, int | None] = {}
    for text in added:
        parts = _ADDED.fullmatch(text)
        name = parts and (parts[1] or parts[2])
        if parts is None or name is None or name in numbers:
            raise InputError(
                f"no method {method!r}: +adapt, +adapt-SECONDS, +ensemble, +ensemble-MEMBERS or "
                "+float32 may follow the name of a model"
            )
        numbers[name] = None if parts[3] is None else int(parts[3])
    adapt, ensemble = None, 1
    if "adapt" in numbers:
        seconds = numbers["adapt"]
        adapt = Schedule() if seconds is None else Schedule(seconds=seconds)
    if "ensemble" in numbers:
        ensemble = numbers["ensemble"] or MEMBERS
    return Variant(weights.find(model), adapt, ensemble, "float32" in numbers)
