"""Adapts a copy of the weights to one case, and keeps it only where it restores the case better."""

from __future__ import annotations

import hashlib
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nexusinr.inference.adaptation.learning import loss, psnr, taught
from nexusinr.inference.adaptation.lessons import (
    Case,
    Patches,
    case_of,
    fine_patches,
    places,
)
from nexusinr.inference.adaptation.thickening import (
    PROFILES,
    Lesson,
    Protocol,
    doubled_only,
    lesson,
)
from nexusinr.inference.prepared import PreparedScan
from nexusinr.inference.progress import Progress
from nexusinr.inference.session import Session
from nexusinr.inference.tiles import cancellable
from nexusinr.models import weights
from nexusinr.models.iconet import ICONet
from nexusinr.models.nexus_inr import MODALITIES

#: What of the step is spent before the first lesson: restoring the patches.
PREPARING = 0.4

#: Patches of one lesson: many short steps learn more in the same time than few long ones.
BATCH = 1

#: Of the patches, how many are kept apart: every fifth.
HELD_OUT = 5

#: Adapted weights are used where each scan gains at least so much on the patches kept apart, dB.
LEAST_GAIN = 0.02

#: The longest memory of the moving average of the weights, and the largest gradient.
AVERAGE_DECAY = 0.98
LARGEST_GRADIENT = 1.0


@dataclass(frozen=True)
class Schedule:
    """How long and how a case is adapted to; what ends first ends it.

    Attributes:
        seconds: of learning; the patches are restored before.
        steps: of the optimiser.
        learning_rate: of the optimiser, Adam.
        patches: that are made of the case at most.
        edge: of a patch, in fine voxels, a multiple of 8, at least 24.
        seed: of all randomness: the same number of steps gives the same weights on one device.

    Raises ValueError for another edge: less leaves too little to judge.
    """

    seconds: float = 120.0
    steps: int = 1000
    learning_rate: float = 1e-4
    patches: int = 64
    edge: int = 32
    seed: int = 0

    def __post_init__(self) -> None:
        if self.edge % 8 or self.edge < 24:
            raise ValueError(f"a patch of {self.edge} voxels: give a multiple of 8, 24 or more")


@dataclass(frozen=True)
class Adaptation:
    """What came of it.

    Attributes:
        applied: whether the adapted weights are used.
        reason: why, or why not, in one sentence.
        schedule: what was asked for.
        steps: that were made.
        seconds: of learning.
        before: PSNR of each scan on the patches kept apart with the weights as they were, dB.
        after: with the adapted ones.
        sha256: digest of the adapted weights; None where there are none.
    """

    applied: bool
    reason: str
    schedule: Schedule
    steps: int = 0
    seconds: float = 0.0
    before: dict[int, float] = field(default_factory=dict)
    after: dict[int, float] = field(default_factory=dict)
    sha256: str | None = None

    @property
    def gain(self) -> float:
        """On the patches kept apart, dB, of the scan that gains least."""
        return min(self.after[m] - before for m, before in self.before.items())

    def described(self) -> dict[str, Any]:
        """Plain values for the report."""
        plain: dict[str, Any] = {
            "applied": self.applied,
            "reason": self.reason,
            "learning_rate": self.schedule.learning_rate,
            "seed": self.schedule.seed,
            "most_steps": self.schedule.steps,
            "most_seconds": self.schedule.seconds,
            "steps": self.steps,
            "seconds": round(self.seconds, 1),
            "held_out_psnr_db": {
                MODALITIES[m]: {"before": round(before, 3), "after": round(self.after[m], 3)}
                for m, before in self.before.items()
            },
        }
        if self.before:
            plain["gain_db"] = round(self.gain, 3)
        return {**plain, "adapted_sha256": self.sha256}


def adapt_to(
    session: Session, scans: dict[int, PreparedScan], schedule: Schedule, progress: Progress
) -> tuple[Session, Adaptation]:
    """A session with weights adapted to the scans, or the same one where they are no better.

    Args:
        session: the model; its own weights are left as they are.
        scans: prepared scans by modality.
        schedule: how long.
        progress: told of each step; Cancelled is raised on request, within a layer.
    """
    case = case_of(scans)
    if case is None:
        return session, Adaptation(
            False,
            "the scans are as fine across their slices as within them: nothing to adapt to",
            schedule,
        )
    if isinstance(session.network, ICONet):
        case = doubled_only(case)
    starts = places(case, scans, schedule.edge, schedule.patches, schedule.seed)
    if len(starts) < 2:
        return session, Adaptation(
            False, "the scans are too small to be taught by a part of them", schedule
        )
    edge = schedule.edge
    patches = fine_patches(session, scans, case, starts, edge, progress.part(0, PREPARING))
    apart = -(-len(starts) // HELD_OUT)
    tuning = Tuning(_copy(session), case, patches.part(slice(apart, None)), schedule)
    test = _fixed_lessons(patches.part(slice(apart)), case)
    share = progress.part(PREPARING, 1 - PREPARING)
    with cancellable(tuning.network, share):
        before = psnr(tuning.network, test, case.pupils)
        seconds = tuning.run(share)
        network = tuning.averaged()
        after = psnr(network, test, case.pupils)
    result = _judged(Adaptation(True, "", schedule, tuning.steps, seconds, before, after), network)
    if not result.applied:
        return session, result
    return session.with_network(network, result.sha256), result


def _judged(found: Adaptation, network: nn.Module) -> Adaptation:
    values = dict(vars(found), sha256=_digest(network))
    told = f"{found.gain:+.2f} dB or more on patches that were kept apart"
    if found.gain >= LEAST_GAIN:
        values["reason"] = f"the adapted weights gain: {told}"
    else:
        values["applied"] = False
        values["reason"] = (
            f"the adapted weights gain {found.gain:+.2f} dB in one of the scans, on patches that "
            f"were kept apart, less than {LEAST_GAIN} dB, and are not used"
        )
    return Adaptation(**values)


class Tuning:
    """A network that learns from patches.

    Args:
        network: in float32, on the device of the patches; what `taught` says of it is changed.
        case: how scans of the patches are made.
        patches: to learn from.
        schedule: how long.
    """

    def __init__(
        self, network: nn.Module, case: Case, patches: Patches, schedule: Schedule
    ) -> None:
        self.network, self.schedule, self.steps = network, schedule, 0
        self._case, self._patches, self._choices = case, patches, case.choices()
        self._rng = np.random.default_rng(schedule.seed)
        self._learning = taught(network.requires_grad_(False))
        for parameter in self._learning:
            parameter.requires_grad_(True)
        self._average = [parameter.detach().clone() for parameter in self._learning]

    def run(self, progress: Progress) -> float:
        """Learns for as long as the schedule says; gives the seconds that it took."""
        begun, done = time.monotonic(), 0.0
        # The same steps give the same weights: no kernel is chosen by its speed of the moment.
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True):
            optimiser = torch.optim.Adam(
                self._learning, self.schedule.learning_rate, betas=(0.9, 0.99)
            )
            while done < 1:
                self._step(optimiser)
                elapsed = time.monotonic() - begun
                done = max(self.steps / self.schedule.steps, elapsed / self.schedule.seconds)
                progress.tell(min(done, 1.0))
        return time.monotonic() - begun

    def averaged(self) -> nn.Module:
        """The network, from now on with the moving average of its weights."""
        with torch.no_grad():
            for parameter, average in zip(self._learning, self._average, strict=True):
                parameter.copy_(average)
        return self.network.eval()

    def _step(self, optimiser: torch.optim.Optimizer) -> None:
        optimiser.zero_grad(set_to_none=True)
        loss(self.network, self._drawn(), self._case.pupils).backward()
        torch.nn.utils.clip_grad_norm_(self._learning, LARGEST_GRADIENT)
        optimiser.step()
        self.steps += 1
        decay = min(AVERAGE_DECAY, self.steps / (9 + self.steps))
        for average, parameter in zip(self._average, self._learning, strict=True):
            average.lerp_(parameter.detach(), 1 - decay)

    def _drawn(self) -> Lesson:
        rng = self._rng
        chosen = rng.choice(len(self._patches), min(BATCH, len(self._patches)), replace=False)
        protocol = Protocol(
            self._choices[rng.integers(len(self._choices))],
            PROFILES[rng.integers(len(PROFILES))],
            tuple(axis for axis in range(3) if rng.random() < 0.5),
        )
        return lesson(self._patches.part(chosen.tolist()), self._case, protocol)


def _fixed_lessons(patches: Patches, case: Case) -> Sequence[Lesson]:
    """One of each patch, by turns along every axis and with every profile."""
    ways = itertools.cycle(itertools.product(PROFILES, case.choices()))
    return [
        lesson(patches.part(slice(n, n + 1)), case, Protocol(axes, profile))
        for n, (profile, axes) in zip(range(len(patches)), ways, strict=False)
    ]


def _copy(session: Session) -> nn.Module:
    """The session's network in full precision, with weights of its own."""
    network = weights.build(session.card.architecture, session.card.config)
    network.load_state_dict(session.network.state_dict())
    layout = torch.channels_last_3d
    return network.to(session.device.torch, memory_format=layout).eval()  # type: ignore[call-overload]


def _digest(network: nn.Module) -> str:
    digest = hashlib.sha256()
    state: dict[str, Tensor] = network.state_dict()
    for name, value in sorted(state.items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
