"""`nexusinr train`: a training run from a YAML file."""

from __future__ import annotations

import math
import os
import reprlib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from nexusinr.cli import options
from nexusinr.cli.interrupt import stop_on_signals
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
        Argument(help="A YAML file, or the name of one that ships, such as nexus-inr or iconet."),
    ],
    resume: Annotated[
        bool, Option("--resume", help="Go on where the run in its folder stopped.")
    ] = False,
    minutes: Annotated[
        float, Option(min=0.0, metavar="M", help="Stop after so long; default: when it is done.")
    ] = math.inf,
    pack: Annotated[
        Path | None,
        Option("--pack", metavar="FILE", help="Only write the training data as one file."),
    ] = None,
) -> None:
    """Train a model.

    The training data is the key `data` of the file or the environment variable NEXUSINR_DATA: a
    folder, or a file written with --pack. The run's folder (key `out`) gets a checkpoint,
    TensorBoard events and, at the end, the weights, to be used after `nexusinr models import`.
    Ctrl-C ends the step, saves and stops.
    """
    with options.needs_extra("train"):
        run = read_config(config)
        if pack is not None:
            _pack(run, pack)
            return
        with stop_on_signals() as stopped:
            trainer = _trainer(run, resume)
            cancelled = trainer.run(minutes, lambda line: print(line, flush=True), stopped)
    if cancelled:
        raise Cancelled(CANCELLED)
    if trainer.fabric.is_global_zero:
        weights = _export(run, trainer)
        done = f"{trainer.step} of {run.config.steps} steps"
        print(f"{weights}: the weights after {done}; add them with nexusinr models import")


def read_config(path: Path) -> Run:
    """A configuration file, checked. Raises InputError that names the file and the key."""
    import yaml

    from nexusinr.training.config import TrainConfig, read_yaml

    file = path if path.exists() else _shipped(path)
    try:
        values = read_yaml(file)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path.name}: it cannot be read as YAML ({error})") from error
    except ValueError as error:
        raise InputError(f"{path.name}: {error}") from error
    places = {key: values.pop(key) for key in PLACES if key in values}
    _check_numbers(path, values, TrainConfig())
    try:
        config = TrainConfig.from_dict(values)
    except (TypeError, ValueError) as error:
        raise InputError(f"{path.name}: {str(error).partition('() ')[2] or error}") from error
    name = str(places.get("name", file.stem))
    out = Path(places.get("out", Path("runs") / name))
    return Run(name, config, _data(path, places), out, str(places.get("device", "auto")))


def _shipped(path: Path) -> Path:
    from nexusinr.training.config import SHIPPED

    file = SHIPPED / f"{path}.yaml"
    if file.is_file():
        return file
    known = ", ".join(sorted(file.stem for file in SHIPPED.glob("*.yaml")))
    raise InputError(f"{path}: no such file, and none of the configurations that ship ({known})")


def _check_numbers(path: Path, values: dict[str, Any], default: TrainConfig) -> None:
    """YAML takes 1e-3, without a point, for a text."""
    for field in fields(default):
        kind, value = type(getattr(default, field.name)), values.get(field.name, 0)
        wanted = {int: "a whole number", float: "a number such as 0.001"}.get(kind)
        if wanted and (isinstance(value, bool) or not isinstance(value, (int, kind))):
            raise InputError(f"{path.name}: {field.name} is {reprlib.repr(value)}, not {wanted}")


def _data(path: Path, places: dict[str, Any]) -> Path:
    data = places.get("data") or os.environ.get("NEXUSINR_DATA")
    if not data:
        raise InputError(
            f"{path.name}: no training data: give the key data, or set NEXUSINR_DATA to the folder"
        )
    return Path(data)


def _pack(run: Run, file: Path) -> None:
    from nexusinr.training.loading import load
    from nexusinr.training.packing import check_name, pack

    try:
        check_name(file)  # before all is read
        pack(load(run.data), file)
    except (OSError, ValueError) as error:
        raise InputError(str(error)) from error
    size = file.stat().st_size / 2**20
    print(f"{file}: the training data, {size:.1f} MiB; name it with the key data")


def _trainer(run: Run, resume: bool) -> Trainer:
    from nexusinr.inference.device import choose
    from nexusinr.training.trainer import Trainer

    checkpoint = run.out / "checkpoint.safetensors"
    if checkpoint.exists() and not resume:
        raise InputError(f"{checkpoint}: a run lies there already: give --resume or another out")
    device = choose(_own_gpu(run.device))
    try:
        return Trainer(run.config, run.data, run.out, device.name)
    except (OSError, ValueError) as error:
        raise InputError(str(error)) from error


def _own_gpu(request: str) -> str:
    """The GPU of a process that torchrun started, so that not all of them open the first one."""
    import torch

    number = os.environ.get("LOCAL_RANK")
    if number is not None and request in ("auto", "cuda") and torch.cuda.is_available():
        return f"cuda:{number}"
    return request


def _export(run: Run, trainer: Trainer) -> Path:
    """The averaged weights with the card that makes them a model."""
    from nexusinr.models import weights
    from nexusinr.training.card import describe

    return weights.save(trainer.averaged(), run.out, describe(trainer, run.name))
