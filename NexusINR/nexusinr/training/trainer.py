"""The trainer of Nexus-INR: one readable loop, checkpoints, moving average, validation PSNR."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nexusinr.models import weights
from nexusinr.models.nexus_inr import Decoded, NexusINR, NexusINRConfig
from nexusinr.training import checkpoint
from nexusinr.training.dataset import TrainingData, load, read_pair
from nexusinr.training.losses import LossWeights, modality_losses, total
from nexusinr.training.patches import Example, PatchSource, Protocol


@dataclass(frozen=True)
class TrainConfig:
    """What a training run needs to know; see configs/*.yaml for the ones that ship."""

    model: NexusINRConfig = field(default_factory=NexusINRConfig)
    losses: LossWeights = field(default_factory=LossWeights)
    steps: int = 5000
    batch: int = 1
    patch: int = 32
    learning_rate: float = 2e-3
    final_learning_rate: float = 2e-5
    warmup: int = 100
    clip: float = 1.0
    average_decay: float = 0.998
    label_share: float = 0.22
    brats_share: float = 0.6
    subject_weights: dict[str, float] = field(default_factory=dict)
    validation: tuple[str, ...] = ()
    validate_every: int = 250
    seed: int = 0
    #: Name of weights to begin with instead of random ones; they must be of the same sizes.
    start: str = ""

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TrainConfig:
        """From plain values, e.g. of a YAML file; TypeError for a key that does not exist."""
        values = dict(values)
        if "model" in values:
            values["model"] = NexusINRConfig(**values["model"])
        if "losses" in values:
            values["losses"] = LossWeights(**values["losses"])
        if "validation" in values:
            values["validation"] = tuple(values["validation"])
        return cls(**values)


class Trainer:
    """Trains Nexus-INR in a folder: checkpoint.safetensors and TensorBoard events.

    Args:
        config: the run.
        data: training data folder (see training.dataset).
        out: the run's folder; a checkpoint found there is resumed.
        device: torch device.
    """

    def __init__(self, config: TrainConfig, data: Path, out: Path, device: str = "cpu") -> None:
        self.config, self.out, self.device = config, out, torch.device(device)
        torch.manual_seed(config.seed)
        self.network = self._fresh_network()
        if config.start:
            self._start_from(config.start)
        self.average = {n: p.detach().clone() for n, p in self.network.named_parameters()}
        self.optimiser = torch.optim.Adam(
            self.network.parameters(), lr=config.learning_rate, betas=(0.9, 0.99)
        )
        training = load(data, leave_out=config.validation)
        self.source = self._source(training, config.label_share)
        self.validation = self._fixed_examples(data)
        self.step, self.seconds = 0, 0.0
        if self.checkpoint.is_file():
            progress = checkpoint.load(self.checkpoint, self.network, self.average, self.optimiser)
            self.step, self.seconds = progress["step"], progress["seconds"]

    @property
    def checkpoint(self) -> Path:
        """Where the run's state is kept."""
        return self.out / "checkpoint.safetensors"

    def run(self, minutes: float = math.inf, log: Callable[[str], None] = print) -> None:
        """Trains until the configured number of steps or the minutes are over, then saves."""
        from torch.utils.tensorboard import SummaryWriter

        writer = SummaryWriter(str(self.out / "tensorboard"))
        begun, before = time.monotonic(), self.seconds
        recent: dict[str, float] = {}
        while self.step < self.config.steps and time.monotonic() - begun < 60 * minutes:
            for name, value in self.train_step().items():
                recent[name] = 0.98 * recent.get(name, value) + 0.02 * value
            self.seconds = before + time.monotonic() - begun
            if self.step % 50 == 0:
                for name, value in recent.items():
                    writer.add_scalar(f"loss/{name}", value, self.step)
                terms = " ".join(f"{name} {value:.4f}" for name, value in sorted(recent.items()))
                log(f"step {self.step} {self.seconds:.0f} s: {terms}")
            if self.step % self.config.validate_every == 0:
                for name, value in self.validate().items():
                    writer.add_scalar(f"validation/{name}", value, self.step)
                    log(f"step {self.step} validation {name} {value:.2f} dB")
                self.save()
        self.save()
        writer.close()

    def train_step(self) -> dict[str, float]:
        """One optimiser step; the loss terms by name. A step with a non-finite loss is left out.

        The examples of a step depend on the seed and its number alone, so that an interrupted run
        goes on with just the examples that it would have seen.
        """
        self.source.reseed((self.config.seed, self.step))
        self.network.train()
        for group in self.optimiser.param_groups:
            group["lr"] = self._learning_rate()
        self.optimiser.zero_grad(set_to_none=True)
        terms = self.losses(self.source.draw(self.config.batch))
        terms["total"] = total(terms, self.config.losses)
        terms["total"].backward()
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.config.clip)
        if bool(torch.isfinite(norm)):
            self.optimiser.step()
            self._update_average()
        self.step += 1
        values = {name: float(value.detach()) for name, value in terms.items()}
        return {**values, "gradient_norm": float(norm)}

    def losses(self, example: Example) -> dict[str, Tensor]:
        """The loss terms of one batch, both modalities."""
        terms: dict[str, Tensor] = {}
        for modality, decoded in decode_example(self.network, example, self.device).items():
            side = example.sides[modality]
            assert side is not None
            truth, tissues = side.truth.to(self.device), side.tissues.to(self.device)
            for name, value in modality_losses(
                self.network, modality, decoded, truth, tissues
            ).items():
                terms[name] = terms[name] + value if name in terms else value
        return terms

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """PSNR gain over trilinear of the averaged weights on the validation subjects, dB."""
        network = self.averaged()
        errors = {modality: [0.0, 0.0] for modality in range(2)}
        for example in self.validation:
            for modality, decoded in decode_example(network, example, self.device).items():
                side = example.sides[modality]
                assert side is not None
                truth = side.truth.to(self.device)
                inside = truth > 0
                for n, image in enumerate((decoded.interpolated, decoded.intensity)):
                    error = (image.clamp(0, 1) - truth.clamp(0, 1))[inside]
                    errors[modality][n] += float(error.square().sum())
        return {
            f"gain_{name}": 10 * math.log10(errors[modality][0] / errors[modality][1])
            for modality, name in enumerate(("t1w", "t2w"))
            if errors[modality][1]
        }

    def averaged(self) -> NexusINR:
        """A network with the moving average of the weights."""
        network = self._fresh_network()
        network.load_state_dict(self.average, strict=False)
        return network.eval()

    def save(self) -> None:
        """Writes the checkpoint."""
        progress = {"step": self.step, "seconds": self.seconds, "config": asdict(self.config)}
        checkpoint.save(self.checkpoint, self.network, self.average, self.optimiser, progress)

    def _fresh_network(self) -> NexusINR:
        network = NexusINR(self.config.model)
        layout = torch.channels_last_3d
        return network.to(self.device, memory_format=layout)  # type: ignore[call-overload]

    def _start_from(self, name: str) -> None:
        trained, card = weights.load(name)
        if card.config != self.config.model.to_dict():
            raise ValueError(f"the weights {name!r} are of another size than this run's model")
        self.network.load_state_dict(trained.state_dict())

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

    def _source(self, data: TrainingData, label_share: float) -> PatchSource:
        c = self.config
        return PatchSource(data, c.patch, c.seed, label_share, c.brats_share, c.subject_weights)

    def _fixed_examples(self, folder: Path) -> list[Example]:
        """Two large patches of each validation subject, acquired as protocol `brats` does."""
        protocol = Protocol(axes=(2, 1), steps=(2, 4), thickness=(2, 4))
        examples = []
        for name in self.config.validation:
            subject = read_pair(folder / "pairs" / name)
            source = PatchSource(TrainingData([subject], []), 64, seed=1, context=0)
            examples += [source.from_subject(subject, protocol, remap=0) for _ in range(2)]
        return examples


def decode_example(network: NexusINR, example: Example, device: torch.device) -> dict[int, Decoded]:
    """Encodes an example's scans and decodes each on the lattice of its own truth."""
    layout = torch.channels_last_3d
    encodings = [
        None
        if side is None
        else network.encode(
            side.scan.to(device, memory_format=layout), side.conditions.to(device), modality
        )
        for modality, side in enumerate(example.sides)
    ]
    decoded = {}
    for modality, (side, own) in enumerate(zip(example.sides, encodings, strict=True)):
        if side is None or own is None:
            continue
        target = side.truth_grids
        other, guide = example.sides[1 - modality], encodings[1 - modality]
        read = None
        if other is not None and guide is not None:
            read = network.sample(guide, other.map_to(target))
        decoded[modality] = network.decode(modality, network.sample(own, side.map_to(target)), read)
    return decoded
