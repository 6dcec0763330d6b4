"""What a model brings to its training: the network, its examples, losses and restorations."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

import torch
from torch import Tensor, nn

from nexusinr.training.config import TrainConfig
from nexusinr.training.crops import CropSource
from nexusinr.training.dataset import Subject, TrainingData
from nexusinr.training.losses import restoration
from nexusinr.training.patches import PatchSource
from nexusinr.training.stages import StageSource

E = TypeVar("E")

#: Edge of the patches that validate, fine voxels.
VALIDATION_SIZE = 64

MODALITIES = ("t1w", "t2w")


@dataclass
class Restored:
    """One modality of an example, restored: (B, I, J, K) each, 0 ... 1 in `truth`."""

    interpolated: Tensor
    restored: Tensor
    truth: Tensor


class Task(nn.Module, ABC, Generic[E]):
    """A network in training. Calling it with an example gives the loss terms by name.

    E is the model's kind of example, a batch on the device. It must be neither a tensor nor a
    dataclass: what runs the task on several devices looks into those.

    Args:
        config: the run.
        network: the model.
        data: what is drawn from.
        device: where examples are made.
        teacher: another network of this kind, there as well, whose restorations are learned too.
    """

    #: The class of the network, as in its card.
    architecture: ClassVar[str]
    #: What draws its examples.
    source_class: ClassVar[type[PatchSource] | type[StageSource]]

    def __init__(
        self,
        config: TrainConfig,
        network: nn.Module,
        data: TrainingData,
        device: torch.device,
        teacher: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.config, self.network, self.device = config, network, device
        self._teacher = (teacher,)  # in a tuple it is no part of what learns
        self.source: CropSource = self.source_class(
            data,
            config.patch,
            config.seed,
            config.label_share,
            config.brats_share,
            config.subject_weights,
            device=device,
        )

    @abstractmethod
    def draw(self, number: int) -> E:
        """The batch of this number; its randomness has been seeded by the trainer."""

    @abstractmethod
    def fixed(self, subject: Subject) -> list[E]:
        """Examples of a validation subject, acquired as protocol `brats` does: always the same."""

    @abstractmethod
    def run(self, network: nn.Module, example: E) -> Any:
        """What a network of this kind makes of an example: for `terms` and `restored`."""

    @abstractmethod
    def terms(self, found: Any, example: E) -> dict[str, Tensor]:
        """The loss terms by name, unweighted; the names are those of the loss weights."""

    @abstractmethod
    def restored(self, found: Any, example: E) -> dict[str, Restored]:
        """The images of an example, by modality (MODALITIES)."""

    def restore(self, network: nn.Module, example: E) -> dict[str, Restored]:
        """An example restored by a network of this kind."""
        return self.restored(self.run(network, example), example)

    def losses(self, example: E) -> dict[str, Tensor]:
        """As `terms`, and with a teacher how far the images are from its own (`teacher`)."""
        found = self.run(self.network, example)
        terms = self.terms(found, example)
        (teacher,) = self._teacher
        if teacher is not None:
            with torch.no_grad():
                right = self.restore(teacher, example)
            own = self.restored(found, example)
            errors = [restoration(own[m].restored, right[m].restored) for m in own]
            terms["teacher"] = torch.stack(errors).sum()
        return terms

    def forward(self, example: E) -> dict[str, Tensor]:
        """As `losses`."""
        return self.losses(example)
