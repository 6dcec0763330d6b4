"""Restoring: what it will take, doing it in the worker, and stopping it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import Any

from trame_server import Server
from trame_server.utils.typed_state import TypedState
from undo_stack import Signal

from nexusinr.errors import Cancelled, InputError, NexusError
from nexusinr.inference.protocol import Event
from nexusinr.reading import sizes_text
from nexusinr.web.logic.open import Scan
from nexusinr.web.state import RunState
from nexusinr.web.worker import Worker

#: Seconds without another change until a run is estimated.
PAUSE = 0.6


class RunLogic:
    """Asks the worker.

    Signals:
        finished: the result event of a run, and the scans that it was made of, by modality.
    """

    finished = Signal(dict, dict)

    def __init__(self, server: Server, folder: Path, worker: Worker, device: str) -> None:
        self._state = server.state
        self.typed_state = TypedState(server.state, RunState)
        self.data.device = device
        self._folder = folder
        self._worker = worker
        self._scans: dict[str, Scan] = {}
        self._numbers = count(1)
        self._estimating: asyncio.Task[None] | None = None
        self._may_estimate = False
        name = self.typed_state.name
        asked = (name.spacing, name.model, name.device, name.keep, name.segmentation)
        self.typed_state.bind_changes({asked: self._on_asked})

    @property
    def data(self) -> RunState:
        """What the page shows."""
        return self.typed_state.data

    def use(self, scans: Mapping[str, Scan]) -> None:
        """Other scans, by modality."""
        self._scans = dict(scans)
        self.data.can_run = bool(scans)
        self.data.outcome = self.data.problem = self.data.estimate = ""
        self._estimate_soon()

    def begin(self) -> None:
        """There is something to be seen: the worker may start, which takes much of a machine."""
        if not self._may_estimate:
            self._may_estimate = True
            self._estimate_soon()

    async def apply(self) -> None:
        """Restores the scans as asked for."""
        if self.data.running or not self._scans:
            return
        scans = dict(self._scans)
        if self._estimating is not None:
            self._estimating.cancel()
        with self._state:
            self._show(running=True, percent=0.0, step="starting", remaining="")
            self.data.outcome = self.data.problem = ""
        try:
            out = self._folder / f"run{next(self._numbers)}"
            options = {**self._options(scans), "out": out}
            event = await self._worker.request("upsample", self._on_progress, **options)
            self._on_progress({"fraction": 1.0, "step": "showing", "eta_s": None})
            await self.finished.async_emit(event, scans)
        except Cancelled:
            self._end(outcome="Cancelled; nothing was written.")
        except NexusError as error:
            self._end(problem=_sentence(error))
        except BaseException:
            self._end(problem="Something went wrong that was not foreseen; the log tells more.")
            raise
        else:
            self._end(outcome=_outcome(event))
            self._estimate_soon()

    def cancel(self) -> None:
        """Stops what is running."""
        self.data.step = "stopping"
        self._worker.cancel("upsample")

    def _options(self, scans: Mapping[str, Scan]) -> dict[str, Any]:
        return {
            **{role.lower(): scan.path for role, scan in scans.items()},
            "spacing": lengths(self.data.spacing),
            "model": self.data.model,
            "device": self.data.device,
            "consistency": float(self.data.keep),
            "segmentation": bool(self.data.segmentation),
        }

    # --- the estimate -------------------------------------------------------------------------

    def _on_asked(self, *_: Any) -> None:
        self._estimate_soon()

    def _estimate_soon(self) -> None:
        if self._estimating is not None:
            self._estimating.cancel()
        if self._may_estimate and self._scans and not self.data.running:
            self._estimating = asyncio.get_running_loop().create_task(self._estimate())

    async def _estimate(self) -> None:
        await asyncio.sleep(PAUSE)
        with self._state:
            self.data.estimating = True
        text, problem, warnings = "", "", []
        try:
            models = await self._worker.request("models")
            event = await self._worker.request("estimate", **self._options(self._scans))
        except Cancelled:
            pass
        except NexusError as error:
            problem = _sentence(error)
        else:
            text, warnings = _estimate_text(event), _of_the_pair(event["warnings"])
            self.data.models = [model["name"] for model in models["models"]]
        finally:
            with self._state:
                self.data.estimating = False
        with self._state:
            self.data.estimate, self.data.estimate_problem = text, problem
            self.data.warnings = warnings

    # --- progress -----------------------------------------------------------------------------

    def _on_progress(self, event: Event) -> None:
        eta = event["eta_s"]
        with self._state:
            self._show(
                running=True,
                percent=100 * event["fraction"],
                step=event["step"],
                remaining="" if eta is None else f"{time_text(eta)} left",
            )

    def _end(self, outcome: str = "", problem: str = "") -> None:
        with self._state:
            self._show(running=False, percent=0.0, step="", remaining="")
            self.data.outcome, self.data.problem = outcome, problem

    def _show(self, *, running: bool, percent: float, step: str, remaining: str) -> None:
        self.data.running, self.data.percent = running, round(percent, 1)
        self.data.step, self.data.remaining = step, remaining


def _of_the_pair(warnings: list[str]) -> list[str]:
    """Those that are not of one scan, which the list of scans shows."""
    return [text for text in warnings if not text.startswith(("T1w: ", "T2w: "))]


def lengths(text: str) -> float | list[float] | None:
    """A spacing as typed: one length, three, or nothing. Raises InputError for anything else."""
    words = re.split(r"[\s×x,;]+", text.replace("mm", "").strip())
    try:
        numbers = [float(word) for word in words if word]
    except ValueError:
        numbers = []
        words = [text]
    if not any(words):
        return None
    if len(numbers) not in (1, 3):
        raise InputError(
            f"a spacing of {text.strip()!r} is not understood: give 1 or 3 numbers, mm"
        )
    return numbers[0] if len(numbers) == 1 else numbers


def time_text(seconds: float) -> str:
    """In words that fit the length."""
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} min"


def _sentence(error: NexusError) -> str:
    text = str(error)
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")


def _estimate_text(event: Event) -> str:
    lattice = event["lattice"]
    spacing = " × ".join(f"{s:.2f}" for s in lattice["spacing_mm"])
    parts = [
        f"{sizes_text(tuple(lattice['shape']))} voxels of {spacing} mm",
        f"{event['memory_gb']:.1f} GB of memory",
    ]
    if event["seconds"] is not None:
        parts.append(f"about {time_text(event['seconds'])}")
    return f"{', '.join(parts)}, on {event['device']['description']}."


def _outcome(event: Event) -> str:
    seconds = sum(event["report"]["seconds"].values())
    known = len(event["report"]["inputs"]) - len(event["encoded_anew"])
    reused = " The scans had been encoded before." if known and not event["encoded_anew"] else ""
    return f"Restored in {time_text(seconds)}.{reused}"
