"""ICONet in training: one scan at a time, both branches of every stage supervised."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from nexusinr.models.iconet import Stage
from nexusinr.training.dataset import Subject, TrainingData
from nexusinr.training.losses import gradient_error, restoration, squared_error
from nexusinr.training.stages import Staged, StageSource
from nexusinr.training.task import MODALITIES, VALIDATION_SIZE, Restored, Task

Measure = Callable[[Tensor, Tensor], Tensor]


class ICONetTask(Task[Staged]):
    """L1 losses of multi-stage supervision; T1w and T2w scans take turns."""

    architecture: ClassVar[str] = "ICONet"
    source_class = StageSource

    def draw(self, number: int) -> Staged:
        """A batch of scans of one modality that share one protocol."""
        return cast(StageSource, self.source).draw(self.config.batch, number)

    def fixed(self, subject: Subject) -> list[Staged]:
        """Two large patches of each contrast."""
        data = TrainingData([subject], [])
        source = StageSource(data, VALIDATION_SIZE, seed=1, device=self.device)
        return [*source.fixed(subject), *source.fixed(subject)]

    def run(self, network: nn.Module, example: Staged) -> list[Stage]:
        """All stages."""
        scan = example.scan.contiguous(memory_format=torch.channels_last_3d)
        stages: list[Stage] = network(scan, example.conditions, example.plan)
        return stages

    def terms(self, found: list[Stage], example: Staged) -> dict[str, Tensor]:
        """`clean`, `between` (with two stages or more), and those of the last image."""

        def error(image: Tensor, level: int, measure: Measure = restoration) -> Tensor:
            return measure(example.inner(image, level), example.inner(example.clean[level], level))

        clean = [error(stage.clean, level) for level, stage in enumerate(found)]
        fine = [error(stage.fine, level + 1) for level, stage in enumerate(found)]
        terms = {
            MODALITIES[example.modality]: fine[-1],
            "squared": error(found[-1].fine, len(found), squared_error),
            "gradient": error(found[-1].fine, len(found), gradient_error),
            "clean": torch.stack(clean).mean(),
        }
        if len(fine) > 1:
            terms["between"] = torch.stack(fine[:-1]).mean()
        return terms

    def restored(self, found: list[Stage], example: Staged) -> dict[str, Restored]:
        """The modality of the example, its border left out."""
        last = len(found)
        size = example.clean[last].shape[-3:]
        interpolated = functional.interpolate(
            example.scan, size=size, mode="trilinear", align_corners=False
        )
        images = (interpolated, found[-1].fine, example.clean[last])
        first, second, third = (example.inner(image, last)[:, 0] for image in images)
        return {MODALITIES[example.modality]: Restored(first, second, third)}
