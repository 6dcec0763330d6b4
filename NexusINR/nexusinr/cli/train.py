"""`nexusinr train`: a training run from a YAML file."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from nexusinr.cli import options
from nexusinr.cli.interrupt import until_done
from nexusinr.errors import Cancelled, InputError

if TYPE_CHECKING:
    from nexusinr.training.trainer import TrainConfig, Trainer

#: Keys of the file that are not the trainer's.
PLACES = ("name", "data", "out", "device")

CANCELLED = "cancelled: the last checkpoint is kept, go on with --resume"


@dataclass(frozen=True)
class Run:
    """What a configuration file asks for."""

    name: str
    config: TrainConfig
    data: Path
    out: Path
    device: str


def train(
    config: Annotated[
        Path,
        Argument(help="A YAML file, or the name of one that ships: nexus-inr, nexus-inr-paper."),
    ],
    resume: Annotated[
        bool, Option("--resume", help="Go on where the run in its folder stopped.")
    ] = False,
    minutes: Annotated[
        float, Option(min=0.0, metavar="M", help="Stop after so long; default: when it is done.")
    ] = math.inf,
) -> None:
    """Train a model.

    The data folder is the key `data` of the file or the environment variable NEXUSINR_DATA. The
    run's folder (key `out`) gets a checkpoint, TensorBoard events and, at the end, the weights,
    to be used after `nexusinr models import`.
    """

    def work(cancelled: Callable[[], bool]) -> Path:
        with options.needs_extra("train"):
            run = read_config(config)
            trainer = _trainer(run, resume)

            def log(line: str) -> None:
                if cancelled():
                    raise Cancelled(CANCELLED)
                print(line, flush=True)

            trainer.run(minutes, log)
        return _export(run, trainer)

    weights = until_done(work, CANCELLED)
    print(f"{weights}: the weights after this run; add them with nexusinr models import")


def read_config(path: Path) -> Run:
    """A configuration file, checked. Raises InputError that names the file and the key."""
    import yaml

    from nexusinr.training.trainer import TrainConfig

    file = path if path.exists() else _shipped(path)
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path.name}: it cannot be read as YAML ({error})") from error
    if not isinstance(values, dict):
        raise InputError(f"{path.name}: it holds no keys and values; see the one that ships")
    places = {key: values.pop(key) for key in PLACES if key in values}
    _check_numbers(path, values, TrainConfig())
    try:
        config = TrainConfig.from_dict(values)
    except (TypeError, ValueError) as error:
        raise InputError(f"{path.name}: {str(error).partition('() ')[2] or error}") from error
    name = str(places.get("name", file.stem))
    out = Path(places.get("out", Path("runs") / name))
    return Run(name, config, _data_folder(path, places), out, str(places.get("device", "auto")))


def _shipped(path: Path) -> Path:
    import nexusinr.training

    folder = Path(str(nexusinr.training.__file__)).parent / "configs"
    if (folder / f"{path}.yaml").is_file():
        return folder / f"{path}.yaml"
    known = ", ".join(sorted(file.stem for file in folder.glob("*.yaml")))
    raise InputError(f"{path}: no such file, and none of the configurations that ship ({known})")


def _check_numbers(path: Path, values: dict[str, Any], default: TrainConfig) -> None:
    """YAML takes 1e-3, without a point, for a text."""
    for field in fields(default):
        kind, value = type(getattr(default, field.name)), values.get(field.name, 0)
        wanted = {int: "a whole number", float: "a number such as 0.001"}.get(kind)
        if wanted and (isinstance(value, bool) or not isinstance(value, (int, kind))):
            raise InputError(f"{path.name}: {field.name} is {value!r}, not {wanted}")


def _data_folder(path: Path, places: dict[str, Any]) -> Path:
    folder = places.get("data") or os.environ.get("NEXUSINR_DATA")
    if not folder:
        raise InputError(
            f"{path.name}: no training data: give the key data, or set NEXUSINR_DATA to the folder"
        )
    return Path(folder)


def _trainer(run: Run, resume: bool) -> Trainer:
    from nexusinr.inference.device import choose
    from nexusinr.training.trainer import Trainer

    checkpoint = run.out / "checkpoint.safetensors"
    if checkpoint.exists() and not resume:
        raise InputError(f"{checkpoint}: a run lies there already: give --resume or another out")
    device = choose(run.device)
    try:
        return Trainer(run.config, run.data, run.out, device.name)
    except (OSError, ValueError) as error:
        raise InputError(str(error)) from error


def _export(run: Run, trainer: Trainer) -> Path:
    """The averaged weights with the card that makes them a model."""
    from nexusinr.models import weights
    from nexusinr.training.card import describe

    return weights.save(trainer.averaged(), run.out, describe(trainer, run.name))
