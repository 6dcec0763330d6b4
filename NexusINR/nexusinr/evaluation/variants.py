"""Methods that are a model with something added: ``nexus-inr+adapt``, ``iconet+ensemble-8``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nexusinr.errors import InputError
from nexusinr.models import weights

if TYPE_CHECKING:
    from nexusinr.models.weights import Card

#: Members of an ensemble that is named without a number.
MEMBERS = 4

_ADDED = re.compile(r"(adapt|ensemble)(?:-(\d+))?")


@dataclass(frozen=True)
class Variant:
    """A model and how it is run.

    Attributes:
        card: of the model.
        adapt: seconds of adapting to each case; 0: for as long as is usual; None: not at all.
        ensemble: members of a self-ensemble; 1: none.
    """

    card: Card
    adapt: int | None = None
    ensemble: int = 1


def find(method: str) -> Variant:
    """What a method's name means; a model of exactly that name comes first. Raises InputError.

    ``+adapt`` or ``+adapt-SECONDS`` and ``+ensemble`` or ``+ensemble-MEMBERS`` may follow a model.
    """
    if method in weights.available():
        return Variant(weights.find(method))
    model, *added = method.split("+")
    values: dict[str, int] = {}
    for text in added:
        parts = _ADDED.fullmatch(text)
        if parts is None or parts[1] in values:
            raise InputError(
                f"no method {method!r}: +adapt, +adapt-SECONDS, +ensemble or +ensemble-MEMBERS may "
                "follow the name of a model"
            )
        values[parts[1]] = int(parts[2] or {"adapt": 0, "ensemble": MEMBERS}[parts[1]])
    return Variant(weights.find(model), values.get("adapt"), values.get("ensemble", 1))
