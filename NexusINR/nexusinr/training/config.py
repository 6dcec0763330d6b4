"""What a training run needs to know, from plain values and from YAML files."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from nexusinr.models.nexus_inr import NexusINRConfig
from nexusinr.training.losses import LossWeights, StageWeights

#: Where a file says that it only changes another one: a path beside it, or a file that ships.
BASE = "base"

#: Keys that are paths.
PATHS = ("data", "out")

#: Characters of a file, and lists and tables in brackets in it; those that ship have 2,000 and
#: a few. YAML is read slowly, and more slowly the deeper it is nested.
MAX_LENGTH = 30_000
MAX_BRACKETS = 200

#: What a file never takes over from its base: two runs would share a folder.
OWN = ("name", "out")

SHIPPED = Path(__file__).parent / "configs"

PRECISIONS = ("auto", "32-true", "bf16-mixed")


@dataclass(frozen=True)
class TrainConfig:
    """A training run; see configs/*.yaml for the ones that ship, and README.md for every key.

    `model` are the sizes of the network (NexusINRConfig or ICONetConfig) and `losses` the weights
    of its losses (LossWeights or StageWeights), as `architecture` says.
    """

    architecture: str = "NexusINR"
    model: Any = field(default_factory=NexusINRConfig)
    losses: LossWeights | StageWeights = field(default_factory=LossWeights)
    steps: int = 5000
    batch: int = 1
    accumulate: int = 1
    patch: int = 32
    learning_rate: float = 2e-3
    final_learning_rate: float = 2e-5
    warmup: int = 100
    auxiliary_warmup: int = 0
    clip: float = 1.0
    average_decay: float = 0.998
    label_share: float = 0.22
    brats_share: float = 0.6
    subject_weights: dict[str, float] = field(default_factory=dict)
    validation: tuple[str, ...] = ()
    validate_every: int = 250
    checkpoint_minutes: float = 5.0
    precision: str = "auto"
    seed: int = 0
    #: Name of weights to begin with instead of random ones; they must be of the same sizes.
    start: str = ""
    #: Name of weights, of the same architecture and any size, whose restorations are learned too.
    teacher: str = ""

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "accumulate", "patch", "validate_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, and should be 1 or more")
        if self.precision not in PRECISIONS:
            known = ", ".join(PRECISIONS)
            raise ValueError(f"precision is {self.precision!r}: choose one of {known}")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainConfig:
        """From plain values, e.g. of a YAML file; TypeError for a key that does not exist.

        Raises ValueError for an architecture or a value that cannot be.
        """
        given = dict(values)
        model, losses = _parts(given.get("architecture", "NexusINR"))
        given["model"] = model(**given.get("model") or {})
        given["losses"] = losses(**given.get("losses") or {})
        if "validation" in given:
            given["validation"] = tuple(given["validation"])
        return cls(**given)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as they are stored with a checkpoint."""
        return asdict(self)


def _parts(architecture: str) -> tuple[type[Any], type[Any]]:
    """The classes of the sizes and of the loss weights of an architecture."""
    if architecture == "NexusINR":
        return NexusINRConfig, LossWeights
    if architecture == "ICONet":
        from nexusinr.models.iconet import ICONetConfig

        return ICONetConfig, StageWeights
    raise ValueError(f"architecture is {architecture!r}: choose NexusINR or ICONet")


def read_yaml(file: Path) -> dict[str, Any]:
    """The keys and values of a file, laid over those of its base where it names one.

    Raises ValueError for a file that is no mapping, too large, or full of references (YAML's *),
    which can stand for more than there is memory, and for bases that are missing or go in circles;
    OSError and yaml.YAMLError as reading does.
    """
    return _read_over(file, ())


def _read_over(file: Path, above: tuple[Path, ...]) -> dict[str, Any]:
    import yaml

    if file.resolve() in above:
        raise ValueError(f"{file.name} is its own base")
    text = file.read_text(encoding="utf-8")
    if len(text) > MAX_LENGTH or text.count("[") + text.count("{") > MAX_BRACKETS:
        raise ValueError(
            f"it has {len(text)} characters; a configuration has {MAX_LENGTH} and {MAX_BRACKETS} "
            "brackets at most"
        )
    try:
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text)):
            raise ValueError("it refers to its own parts (*): write them out")
        values = yaml.safe_load(text)
    except RecursionError:
        raise ValueError("its values are nested too deeply") from None
    if not isinstance(values, dict):
        raise ValueError("it holds no keys and values; see the one that ships")
    for key in PATHS:
        if not isinstance(values.get(key, ""), str):
            raise ValueError(f"{key} is {reprlib.repr(values[key])}, not a path")
    base = values.pop(BASE, None)
    if base is None:
        return values
    if not isinstance(base, str) or not 0 < len(base) < 256:
        raise ValueError(f"its base is {reprlib.repr(base)}, not the name of a file")
    places = [folder / base for folder in (file.parent, SHIPPED)]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise ValueError(f"its base {base!r} is neither beside it nor among those that ship")
    below = _read_over(found, (*above, file.resolve()))
    return merged({k: v for k, v in below.items() if k not in OWN}, values)


def merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Values laid over others, key by key, tables within tables too."""
    result = dict(below)
    for key, value in above.items():
        own = result.get(key)
        both = isinstance(own, dict) and isinstance(value, dict)
        result[key] = merged(own, value) if both and isinstance(own, dict) else value
    return result


def difference(
    stored: Mapping[str, Any], now: Mapping[str, Any], keys: Iterable[str] | None = None
) -> list[str]:
    """In words, what changed between two sets of plain values: "steps (100, now 200)".

    Keys that one of the two lacks do not count; `keys` limits the comparison.
    """
    both = [key for key in (now if keys is None else keys) if key in stored and key in now]
    return [f"{k} ({stored[k]!r}, now {now[k]!r})" for k in both if stored[k] != now[k]]
