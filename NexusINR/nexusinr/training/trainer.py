"""The trainer of both models: one readable loop, checkpoints, moving average, validation PSNR."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from nexusinr.models import weights
from nexusinr.training import checkpoint
from nexusinr.training.config import TrainConfig, difference
from nexusinr.training.crops import CropSource
from nexusinr.training.hardware import make_fabric, place
from nexusinr.training.loading import load
from nexusinr.training.logbook import EVERY, Logbook
from nexusinr.training.losses import total
from nexusinr.training.task import Restored, Task
from nexusinr.training.tasks import task_class

__all__ = ["TrainConfig", "Trainer"]


class Trainer:
    """Trains a model in a folder: checkpoint.safetensors and TensorBoard events.

    A checkpoint found there is resumed; `notes` says what of the configuration changed since.
    In a process that torchrun started, it is one of several that train together.

    Args:
        config: the run.
        data: training data, a folder or a packed file (see training.dataset).
        out: the run's folder.
        device: torch device.

    Raises ValueError for data that cannot be used, and for a checkpoint of another model.
    """

    def __init__(self, config: TrainConfig, data: Path, out: Path, device: str = "cpu") -> None:
        self.config, self.out = config, out
        self.fabric: Fabric = make_fabric(device, config.precision)
        self.device = self.fabric.device
        self.notes: list[str] = []
        self._check_model()
        torch.manual_seed(config.seed)
        self.network = self._fresh_network()
        if config.start:
            self._start_from(config.start)
        self.average = {n: p.detach().clone() for n, p in self.network.named_parameters()}
        whole = load(data)
        kept = whole.named(config.validation)
        training = place(whole.without(config.validation), self.device)
        kind = task_class(config.architecture)
        teacher = self._teacher(config.teacher) if config.teacher else None
        self.task: Task[Any] = kind(config, self.network, training, self.device, teacher)
        self.validation = [e for subject in kept for e in self.task.fixed(subject)]
        self.optimiser = torch.optim.Adam(
            self.network.parameters(), lr=config.learning_rate, betas=(0.9, 0.99)
        )
        self.step, self.seconds = 0, 0.0
        if self.checkpoint.is_file():
            progress = checkpoint.load(self.checkpoint, self.network, self.average, self.optimiser)
            self.step, self.seconds = progress["step"], progress["seconds"]
        self._module, self._optimiser = self.fabric.setup(self.task, self.optimiser)

    @property
    def checkpoint(self) -> Path:
        """Where the run's state is kept."""
        return self.out / "checkpoint.safetensors"

    @property
    def source(self) -> CropSource:
        """What draws the examples."""
        return self.task.source

    def run(
        self,
        minutes: float = math.inf,
        log: Callable[[str], None] = print,
        stop: Callable[[], bool] = lambda: False,
    ) -> bool:
        """Trains until the configured steps are done, the minutes over, or a stop is asked for.

        A checkpoint is written every few minutes, at each validation and at the end, however it
        comes. Several processes stop together.

        Args:
            minutes: of this call.
            log: takes lines about the run; of the first process alone.
            stop: asked before every step.

        Returns whether a stop was asked for.
        """
        first = self.fabric.is_global_zero
        begun, before = time.monotonic(), self.seconds
        saved, asked = begun, False
        folder = self.out / "tensorboard" if first else None
        with Logbook(folder, log if first else _say_nothing) as book:
            for note in self.notes:
                book.log(note)
            while self.step < self.config.steps:
                asked = self._any(stop())
                if asked or self._any(time.monotonic() - begun >= 60 * minutes):
                    break
                values = self.train_step()
                self.seconds = before + time.monotonic() - begun
                book.step(self.step, values, self.seconds)
                if self.step % self.config.validate_every == 0:
                    self._validate_into(book)
                due = time.monotonic() - saved >= 60 * self.config.checkpoint_minutes
                if due or self.step % self.config.validate_every == 0:
                    self.save()
                    saved = time.monotonic()
            self.save()
        self.fabric.barrier()  # not before: each process has a clock of its own
        return asked

    def train_step(self) -> dict[str, float]:
        """One optimiser step; loss terms and other values by name, see logbook.PLACES.

        A step whose gradient is not finite is left out. The examples of a step depend on the seed,
        its number and the process's number alone, so that an interrupted run goes on with just the
        examples that it would have seen.
        """
        begun = self._now()
        self._module.train()
        rate = self._learning_rate()
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self._optimiser.zero_grad(set_to_none=True)
        sums: dict[str, Tensor] = {}
        drawing, parts = 0.0, self.config.accumulate
        for part in range(parts):
            begun_drawing = self._now()
            example = self._draw(part)
            drawing += self._now() - begun_drawing
            for name, value in self._backward(example, part).items():
                sums[name] = sums[name] + value if name in sums else value
        clip = torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.config.clip)
        norm, *means = torch.stack((clip, *(v / parts for v in sums.values()))).tolist()
        if math.isfinite(norm):
            self._optimiser.step()
            self._update_average()
        self.step += 1
        seconds = self._now() - begun
        return {
            **dict(zip(sums, means, strict=True)),
            "gradient_norm": norm,
            "learning_rate": rate,
            "skipped": float(not math.isfinite(norm)),
            "step_seconds": seconds,
            "data_share": drawing / seconds,
        }

    def losses(self, example: Any) -> dict[str, Tensor]:
        """The loss terms of one batch, unweighted."""
        return self.task.losses(example)

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """PSNR gain over trilinear of the averaged weights on the validation subjects, dB."""
        return gains(self._restored())

    def averaged(self) -> nn.Module:
        """A network with the moving average of the weights."""
        network = self._fresh_network()
        network.load_state_dict(self.average, strict=False)
        return network.eval()

    def save(self) -> None:
        """Writes the checkpoint; of several processes the first one does."""
        if self.fabric.is_global_zero:
            config = self.config.to_dict()
            progress = {"step": self.step, "seconds": self.seconds, "config": config}
            checkpoint.save(self.checkpoint, self.network, self.average, self.optimiser, progress)

    def _draw(self, part: int) -> Any:
        number = self.step * self.config.accumulate + part
        self.source.reseed((self.config.seed, number, self.fabric.global_rank))
        return self.task.draw(number)

    def _backward(self, example: Any, part: int) -> dict[str, Tensor]:
        """Adds the gradient of one batch; the loss terms, detached."""
        more = part < self.config.accumulate - 1
        with self.fabric.no_backward_sync(self._module, enabled=more):
            terms = self._module(example)
            ease = min(1.0, (self.step + 1) / max(self.config.auxiliary_warmup, 1))
            terms["total"] = total(terms, self.config.losses, ease)
            self.fabric.backward(terms["total"] / self.config.accumulate)
        return {name: value.detach() for name, value in terms.items()}

    @torch.no_grad()
    def _restored(self) -> list[dict[str, Restored]]:
        network = self.averaged()
        return [self.task.restore(network, example) for example in self.validation]

    @torch.no_grad()
    def _validate_into(self, book: Logbook) -> None:
        if self.fabric.is_global_zero and self.validation:
            restored = self._restored()
            pictures = {name: image for found in restored[::-1] for name, image in found.items()}
            book.validation(self.step, gains(restored), pictures)

    def _now(self) -> float:
        """The time; where figures are logged, after all work given to a GPU is done."""
        if self.device.type == "cuda" and self.step % EVERY == 0:
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def _any(self, mine: bool) -> bool:
        """Whether any of the processes says so."""
        if self.fabric.world_size == 1:
            return mine
        flag = torch.tensor(float(mine), device=self.device)
        count = self.fabric.all_reduce(flag, reduce_op="sum")
        assert isinstance(count, Tensor)
        return bool(count > 0)

    def _fresh_network(self) -> nn.Module:
        network = weights.build(self.config.architecture, self.config.model.to_dict())
        return self._placed(network)

    def _placed(self, network: nn.Module) -> nn.Module:
        layout = torch.channels_last_3d
        return network.to(self.device, memory_format=layout)  # type: ignore[call-overload]

    def _check_model(self) -> None:
        """Compares a checkpoint's configuration: another model is refused, the rest is noted."""
        if not self.checkpoint.is_file():
            return
        stored = _plain(checkpoint.progress(self.checkpoint).get("config", {}))
        now = _plain(self.config.to_dict())
        other = difference(stored, now, ("architecture",))
        other = other or difference(stored.pop("model", {}), now.pop("model"))
        if other:
            raise ValueError(
                f"{self.checkpoint}: a run of another model: {', '.join(other)}; give another out"
            )
        changed = difference(stored, now)
        if changed:
            self.notes.append(f"resumed with other values than before: {', '.join(changed)}")

    def _start_from(self, name: str) -> None:
        """Weights of the same sizes, which may have parts that this run's model does without."""
        trained, card = weights.load(name)
        known, own = trained.state_dict(), self.network.state_dict()
        same = card.architecture == self.config.architecture
        if not same or any(k not in known or known[k].shape != v.shape for k, v in own.items()):
            raise ValueError(f"the weights {name!r} are of another size than this run's model")
        self.network.load_state_dict({key: known[key] for key in own})

    def _teacher(self, name: str) -> nn.Module:
        """Weights that do not learn, on the device."""
        trained, card = weights.load(name)
        if card.architecture != self.config.architecture:
            raise ValueError(
                f"the teacher {name!r} is a {card.architecture}, and this run's model a "
                f"{self.config.architecture}: choose a teacher of its kind"
            )
        return self._placed(trained.requires_grad_(False))

    def _learning_rate(self) -> float:
        c = self.config
        if self.step < c.warmup:
            return c.learning_rate * (self.step + 1) / c.warmup
        progress = min((self.step - c.warmup) / max(c.steps - c.warmup, 1), 1)
        cosine = 0.5 * (1 + math.cos(math.pi * progress))
        return c.final_learning_rate + (c.learning_rate - c.final_learning_rate) * cosine

    @torch.no_grad()
    def _update_average(self) -> None:
        decay = min(self.config.average_decay, (1 + self.step) / (10 + self.step))
        for name, parameter in self.network.named_parameters():
            self.average[name].lerp_(parameter, 1 - decay)


def gains(examples: list[dict[str, Restored]]) -> dict[str, float]:
    """PSNR gain over interpolation inside the head, dB, by modality, of all examples together."""
    errors: dict[str, list[float]] = {}
    for found in examples:
        for name, images in found.items():
            sums = errors.setdefault(name, [0.0, 0.0])
            inside = images.truth > 0
            for n, image in enumerate((images.interpolated, images.restored)):
                error = (image.clamp(0, 1) - images.truth.clamp(0, 1))[inside]
                sums[n] += float(error.square().sum())
    return {
        f"gain_{name}": 10 * math.log10(before / after)
        for name, (before, after) in sorted(errors.items())
        if after
    }


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """Tuples as the lists that JSON makes of them."""
    return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}


def _say_nothing(line: str) -> None:
    pass
