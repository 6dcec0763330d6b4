"""Weights on disk: safetensors beside a JSON card, verified by SHA-256 before anything is read.

Bundled weights lie in the package; a user's own, brought in by `import_weights`, in a folder of
their own (``NEXUSINR_HOME``, default ``~/.local/share/nexusinr``). Nothing is ever unpickled.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import re
import reprlib
import shutil
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nexusinr.errors import InputError

if TYPE_CHECKING:
    from torch import nn

BUNDLED = Path(__file__).resolve().parent.parent / "weights"

#: What a card must say, and a weights file's own header when it is imported.
REQUIRED = ("name", "architecture", "config", "version")

#: A model's name is a file's name, too, on every system.
_NAME = re.compile(r"\w[\w.+ -]{0,63}", re.ASCII)

#: No network that fits its card is larger: a card cannot ask for all memory and time there is.
_LARGEST = 1024
_DEEPEST = 64
_DEPTHS = ("blocks", "layers", "decoder_depth", "frequencies", "reach")

#: What else the header carries: the case by which the weights are checked (models.check_case).
CHECK_CASE = "check_case"


@dataclass(frozen=True)
class Card:
    """What is known of one set of weights.

    Attributes:
        name: as given to ``--model``.
        architecture: the class that the configuration builds, e.g. ``NexusINR``.
        config: the values that build it.
        version: of these weights.
        sha256: of the weights file.
        path: the weights file.
        details: the whole card, for display.
    """

    name: str
    architecture: str
    config: dict[str, Any]
    version: str
    sha256: str
    path: Path
    details: dict[str, Any]

    @property
    def is_bundled(self) -> bool:
        """Whether the weights came with the package."""
        return self.path.parent == BUNDLED


def user_folder() -> Path:
    """Where imported weights are kept."""
    home = os.environ.get("NEXUSINR_HOME")
    base = Path(home) if home else Path.home() / ".local" / "share" / "nexusinr"
    return base / "weights"


def available() -> dict[str, Card]:
    """Every card by name; imported weights do not hide bundled ones of the same name."""
    cards: dict[str, Card] = {}
    for folder in (user_folder(), BUNDLED):
        for path in sorted(folder.glob("*.json")):
            card = read_card(path)
            cards[card.name] = card
    return dict(sorted(cards.items()))


def read_card(path: Path) -> Card:
    """One card. Raises InputError where it is no card."""
    try:
        details = json.loads(path.read_text(encoding="utf-8"))
        known = {key: details[key] for key in (*REQUIRED, "sha256")}
        _check_types(known)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(
            f"{path.name}: not a model card ({_short(error)}); import the weights again"
        ) from None
    return Card(**known, path=path.with_suffix(".safetensors"), details=details)


def _check_types(card: dict[str, Any]) -> None:
    """Raises ValueError unless every known key of a card holds a text; `config`: a table."""
    if not isinstance(card["name"], str) or not _NAME.fullmatch(card["name"]):
        raise ValueError(
            f"{reprlib.repr(card['name'])} cannot be the name of a model: letters, digits and "
            "- _ . + are taken, 64 at most"
        )
    for key in card.keys() & {*REQUIRED, "sha256"}:
        kind = dict if key == "config" else str
        if not isinstance(card[key], kind):
            what = "a table" if kind is dict else "a text"
            raise ValueError(f"{key} is {reprlib.repr(card[key])}, not {what}")


def _short(error: Exception) -> str:
    return textwrap.shorten(str(error), 200, placeholder="...")


def find(name: str) -> Card:
    """The card of a model. Raises InputError that names the ones there are."""
    cards = available()
    if name not in cards:
        there = ", ".join(cards) or "none"
        raise InputError(f"unknown model {name!r}: choose one of {there}")
    return cards[name]


def sha256(path: Path) -> str:
    """Digest of a file, hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def verify(card: Card) -> None:
    """Raises InputError where the weights file is missing or is not the one the card describes."""
    if not card.path.is_file():
        raise InputError(
            f"{card.path.name}: the weights of model {card.name!r} are missing; reinstall"
        )
    found = sha256(card.path)
    if found != card.sha256:
        raise InputError(
            f"{card.path.name}: the weights are damaged or were changed (SHA-256 {found[:12]}..., "
            f"expected {card.sha256[:12]}...); install them again"
        )


def load(name: str) -> tuple[nn.Module, Card]:
    """A verified model, on the CPU, in float32, ready for inference."""
    from safetensors import SafetensorError
    from safetensors.torch import load as load_tensors

    card = find(name)
    verify(card)
    network = build(card.architecture, card.config)
    try:
        tensors = load_tensors(card.path.read_bytes())
        network.load_state_dict({key: value.float() for key, value in tensors.items()})
    except (SafetensorError, RuntimeError) as error:
        raise InputError(
            f"{card.path.name}: the weights do not fit their card ({_short(error)}); install them "
            "again"
        ) from None
    return network.eval(), card


def build(architecture: str, config: dict[str, Any]) -> nn.Module:
    """An untrained network.

    Raises InputError for an architecture that does not exist and for sizes that cannot be.
    """
    from nexusinr.models.iconet import ICONet, ICONetConfig
    from nexusinr.models.nexus_inr import NexusINR, NexusINRConfig

    try:
        _check_sizes(config)
        if architecture == "NexusINR":
            return NexusINR(NexusINRConfig(**config))
        if architecture == "ICONet":
            return ICONet(ICONetConfig(**config))
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"the model's configuration does not fit this version: {_short(error)}"
        ) from None
    raise InputError(
        f"unknown architecture {reprlib.repr(architecture)}: this version knows NexusINR and ICONet"
    )


def _check_sizes(config: dict[str, Any]) -> None:
    """Raises ValueError for a network without channels, or too large to be one of ours."""
    if not isinstance(config, dict):
        raise ValueError(f"it is {reprlib.repr(config)}, not a table")
    for name, value in config.items():
        largest = _DEEPEST if name in _DEPTHS else _LARGEST
        if not isinstance(value, (bool, str)) and not (
            isinstance(value, int) and 1 <= value <= largest
        ):
            raise ValueError(
                f"{reprlib.repr(name)} is {reprlib.repr(value)}, not a whole number from 1 to "
                f"{largest}"
            )


def save(network: nn.Module, folder: Path, card: dict[str, Any]) -> Path:
    """Writes weights (float16) and card; the card also travels inside the weights file.

    Args:
        network: the trained network.
        folder: where to; the file names follow the card's name.
        card: at least REQUIRED; ``sha256`` and the check case are added.
    """
    from safetensors.torch import save_file

    from nexusinr.models import check_case

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{card['name']}.safetensors"
    # Of the weights as they will be read: rounded.
    card = {**card, CHECK_CASE: check_case.compute(copy.deepcopy(network).half())}
    header = {"card": json.dumps({key: card[key] for key in (*REQUIRED, CHECK_CASE)})}
    tensors = {key: value.half().contiguous() for key, value in network.state_dict().items()}
    save_file(tensors, path, header)
    write_card(path, card)
    return path


def write_card(weights: Path, card: dict[str, Any]) -> None:
    """Writes the card beside a weights file, with that file's digest."""
    text = json.dumps({**card, "sha256": sha256(weights)}, indent=2) + "\n"
    partial = weights.with_suffix(".json.partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, weights.with_suffix(".json"))


def import_weights(file: Path) -> Card:
    """Takes a weights file that carries its own card into the user's folder.

    Raises InputError where it is no safetensors file with a card, where its tensors do not fit
    the network that the card describes, or where its name belongs to bundled weights.
    """
    from safetensors import SafetensorError, safe_open

    if not file.is_file():
        raise InputError(f"{file.name}: no such weights file")
    try:
        with safe_open(file, framework="pt") as opened:
            card = json.loads((opened.metadata() or {}).get("card", "null"))
            shapes = {key: tuple(opened.get_slice(key).get_shape()) for key in opened.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise InputError(f"{file.name}: not a safetensors file ({_short(error)})") from None
    if not isinstance(card, dict) or any(key not in card for key in REQUIRED):
        raise InputError(
            f"{file.name}: carries no model card; export it with this program's training"
        )
    try:
        _check_types({**card, "config": {}})  # `build` looks at that
    except ValueError as error:
        raise InputError(f"{file.name}: its model card cannot be used ({error})") from None
    name = card["name"]
    if (BUNDLED / f"{name}.json").is_file():
        raise InputError(f"{file.name}: {name!r} is the name of a bundled model; rename yours")
    if shapes != _shapes(card["architecture"], card["config"]):
        raise InputError(f"{file.name}: its tensors do not fit the network that its card describes")
    folder = user_folder()
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{name}.safetensors"
    partial = target.with_suffix(".partial")
    shutil.copyfile(file, partial)
    os.replace(partial, target)
    write_card(target, card)
    return find(name)


def _shapes(architecture: str, config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Of every tensor of a network, which is built without memory for its weights."""
    import torch
    from torch.overrides import TorchFunctionMode

    class Unfilled(TorchFunctionMode):
        """Draws no first weights: without memory for them, torch would load its compiler."""

        def __torch_function__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            if func in (torch.Tensor.normal_, torch.Tensor.uniform_):
                return args[0]
            return func(*args, **(kwargs or {}))

    with torch.device("meta"), Unfilled():
        tensors = build(architecture, config).state_dict()
    return {key: tuple(value.shape) for key, value in tensors.items()}


def remove(name: str) -> None:
    """Deletes imported weights. Raises InputError for unknown and for bundled ones."""
    card = find(name)
    if card.is_bundled:
        raise InputError(f"{name!r} came with the package: it is not removed")
    card.path.with_suffix(".json").unlink()
    card.path.unlink(missing_ok=True)
