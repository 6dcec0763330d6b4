"""What a run says of itself: TensorBoard events, and lines for people."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

import torch
from torch import Tensor

from nexusinr.training.task import Restored

#: Steps between two entries.
EVERY = 50

#: Share of the past in a running mean.
MEMORY = 0.98

#: Values of a step that are no loss terms, and where they appear in TensorBoard.
PLACES = {
    "learning_rate": "train/learning_rate",
    "gradient_norm": "train/gradient_norm",
    "skipped": "train/skipped",
    "step_seconds": "time/step",
    "data_share": "time/data_share",
}

#: Errors are shown so much brighter than images.
ERROR_GAIN = 5.0


class Logbook:
    """Running means of what steps report, written every EVERY steps.

    Args:
        folder: for TensorBoard events; None writes none.
        log: takes lines.
    """

    def __init__(self, folder: Path | None, log: Callable[[str], None]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.log = log
        self.writer = None if folder is None else SummaryWriter(str(folder))
        self.means: dict[str, float] = {}

    def __enter__(self) -> Logbook:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.writer is not None:
            self.writer.close()

    def step(self, number: int, values: dict[str, float], seconds: float) -> None:
        """Takes the values of a step; those that are not finite do not count.

        Args:
            number: steps so far.
            values: loss terms and those of PLACES, by name.
            seconds: training time so far.
        """
        for name, value in values.items():
            if math.isfinite(value):
                before = self.means.get(name, value)
                self.means[name] = MEMORY * before + (1 - MEMORY) * value
        if number % EVERY == 0:
            for name, value in self.means.items():
                self._scalar(PLACES.get(name, f"loss/{name}"), value, number)
            terms = sorted(item for item in self.means.items() if item[0] not in PLACES)
            pace = f"{self.means.get('step_seconds', 0):.2f} s/step"
            text = " ".join(f"{name} {value:.4f}" for name, value in terms)
            self.log(f"step {number} {seconds:.0f} s {pace}: {text}")

    def validation(
        self, number: int, gains: dict[str, float], examples: dict[str, Restored]
    ) -> None:
        """Gains over interpolation, dB, by name, and pictures of an example, by modality."""
        for name, value in gains.items():
            self._scalar(f"validation/{name}", value, number)
            self.log(f"step {number} validation {name} {value:.2f} dB")
        for modality, restored in examples.items():
            if self.writer is not None:
                self.writer.add_image(f"validation/{modality}", panels(restored), number)

    def _scalar(self, name: str, value: float, number: int) -> None:
        if self.writer is not None:
            self.writer.add_scalar(name, value, number)


def panels(restored: Restored) -> Tensor:
    """The middle slice of an example, (1, J, 4 K): interpolated, restored, truth, error."""
    images = [restored.interpolated, restored.restored, restored.truth]
    slices = [image[0, image.shape[1] // 2].float().clamp(0, 1).cpu() for image in images]
    error = ((slices[1] - slices[2]).abs() * ERROR_GAIN).clamp(max=1)
    return torch.cat((*slices, error), dim=1)[None]
