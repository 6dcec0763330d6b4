"""A study: subjects, degraded in known ways, restored by every method, compared with their truth.

Every scan is restored on its own original lattice, the plain interpolations stand beside the
models, and only what the degraded scan covers counts, along axes where the reference is sharp.

What a folder holds already is not computed again: a row of its CSV names the weights and the scans
that it was measured on, so that it stands for the same figure as long as both are unchanged, and a
row whose weights or scans have changed is replaced. No switch is needed for that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Protocol as Interface

import numpy as np
from numpy.typing import NDArray

from nexusinr.errors import InputError
from nexusinr.evaluation import pictures, report
from nexusinr.evaluation.metrics import has_lpips
from nexusinr.evaluation.overlap import dice, hd95
from nexusinr.evaluation.protocol import Protocol
from nexusinr.evaluation.restorations import HIGH, LOW, Array, Restorations, Restore
from nexusinr.evaluation.scores import (
    BASELINES,
    BOTH,
    OVERLAPS,
    SCORES,
    Name,
    Overlap,
    Score,
    Trial,
    read_overlaps,
    read_scores,
    write_overlaps,
    write_scores,
)
from nexusinr.evaluation.subjects import (
    MODALITIES,
    Pair,
    Truths,
    aligned,
    read_tissues,
    read_truths,
)
from nexusinr.labels import TISSUES

REPORT, SUMMARY, PAGES = "scores.md", "summary.png", "pictures"


class Segments(Interface):
    """What a segmenter is to a study (see nexusinr.evaluation.segmenter)."""

    @property
    def digest(self) -> str:
        """Of its weights."""

    def __call__(self, t1w: Array, t2w: Array) -> NDArray[np.uint8]:
        """Tissue values of two scans at 0 ... 1 on one lattice."""


@dataclass(frozen=True)
class Study:
    """What is compared.

    Attributes:
        pairs: the subjects.
        protocols: how they are degraded.
        models: names, each with the digest of its weights.
        only: the one scan that is given (``T1w`` or ``T2w``); None: both.
    """

    pairs: Sequence[Pair]
    protocols: Sequence[Protocol]
    models: Mapping[str, str] = field(default_factory=dict)
    only: str | None = None

    @property
    def methods(self) -> tuple[str, ...]:
        """Interpolations and models."""
        return (*BASELINES, *self.models)

    def trial(self, pair: Pair, protocol: Protocol, method: str) -> Trial:
        """One method on one degraded subject."""
        weights = self.models.get(method, "")
        given = self.only or BOTH
        return Trial(protocol.name, given, pair.subject, method, weights, pair.digest)


@dataclass
class Findings:
    """What a folder holds, and who was left out.

    Attributes:
        scores: by the name of the trial: of weights and data that have changed, the newest.
        overlaps: likewise.
        left_out: subject, protocol and reason, in words.
    """

    scores: dict[Name, list[Score]] = field(default_factory=dict)
    overlaps: dict[Name, list[Overlap]] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, folder: Path) -> Findings:
        """What earlier runs left."""
        found = cls()
        found.add(read_scores(folder / SCORES), read_overlaps(folder / OVERLAPS))
        return found

    def write(self, folder: Path) -> None:
        """For the next run."""
        write_scores((s for rows in self.scores.values() for s in rows), folder / SCORES)
        if self.overlaps:
            overlaps = (o for rows in self.overlaps.values() for o in rows)
            write_overlaps(overlaps, folder / OVERLAPS)

    def has_score(self, trial: Trial) -> bool:
        """Whether a trial needs no repetition; LPIPS may have come within reach since."""
        rows = self.scores_of(trial)
        return bool(rows) and not (has_lpips() and any(s.value.lpips is None for s in rows))

    def has_overlap(self, trial: Trial, segmenter: str) -> bool:
        """Whether a trial was segmented, by this segmenter."""
        return any(overlap.segmenter == segmenter for overlap in self.overlaps_of(trial))

    def scores_of(self, trial: Trial) -> list[Score]:
        """One a modality; none where weights or data have changed since."""
        return [score for score in self.scores.get(trial.name, []) if score.trial == trial]

    def overlaps_of(self, trial: Trial) -> list[Overlap]:
        """One a tissue, likewise."""
        return [overlap for overlap in self.overlaps.get(trial.name, []) if overlap.trial == trial]

    def add(self, scores: Sequence[Score], overlaps: Sequence[Overlap]) -> None:
        """New rows take the place of those that differ in weights or data alone."""
        self.scores.update({score.trial.name: [] for score in scores})
        self.overlaps.update({overlap.trial.name: [] for overlap in overlaps})
        for score in scores:
            self.scores[score.trial.name].append(score)
        for overlap in overlaps:
            self.overlaps[overlap.trial.name].append(overlap)


def evaluate(
    study: Study,
    out: Path,
    restore: Restore | None = None,
    segmenter: Segments | None = None,
    log: Callable[[str], None] = print,
) -> tuple[list[Score], list[Overlap]]:
    """Runs what is missing and leaves tables and pictures in a folder.

    Args:
        study: what is compared.
        out: folder for scores.csv, scores.md, summary.png and a page a subject; scores.csv is
            brought up to date after every subject. An earlier run there is continued.
        restore: runs a model (see Restore); not needed for the plain interpolations alone.
        segmenter: if given, every subject with tissues is segmented after every method as well
            (segmentation.csv).
        log: told what is going on, a line at a time.

    Returns what the folder holds of this study. Raises InputError where no subject can be used.
    """
    if study.models and restore is None:
        raise ValueError("models are to be evaluated, but nothing was given that runs them")
    if segmenter is not None and study.only is not None:
        raise InputError("the segmenter needs both scans: leave --only away")
    out.mkdir(parents=True, exist_ok=True)
    findings = Findings.read(out)
    for pair in study.pairs:
        subject = _Subject(study, pair, restore, segmenter, findings, out)
        for protocol in study.protocols:
            log(f"{pair.subject}, {protocol.name}: {subject.run(protocol)}")
    trials = [
        study.trial(pair, protocol, method)
        for protocol in study.protocols
        for pair in study.pairs
        for method in (LOW, *study.methods, HIGH)
    ]
    scores = [score for trial in trials for score in findings.scores_of(trial)]
    if not scores:
        names = ", ".join(protocol.name for protocol in study.protocols)
        reason = f" ({findings.left_out[0]})" if findings.left_out else ""
        raise InputError(f"no subject can be used with the protocol {names}{reason}")
    text = report.markdown(scores, findings.left_out)
    (out / REPORT).write_text(text, encoding="utf-8")
    pictures.draw_summary(scores, out / SUMMARY)
    return scores, [overlap for trial in trials for overlap in findings.overlaps_of(trial)]


@dataclass
class _Subject:
    """One subject through all protocols: read once, and only where something is missing."""

    study: Study
    pair: Pair
    restore: Restore | None
    segmenter: Segments | None
    findings: Findings
    out: Path

    @cached_property
    def truths(self) -> Truths:
        """Both scans. Raises InputError."""
        return read_truths(self.pair)

    @cached_property
    def aligned(self) -> Truths:
        """Both scans, where their headers may disagree. Raises InputError."""
        return aligned(self.truths)

    def run(self, protocol: Protocol) -> str:
        """What was found, or why there is nothing, in one line."""
        trials = {m: self.study.trial(self.pair, protocol, m) for m in self.study.methods}
        missing = [t for t in trials.values() if not self.findings.has_score(t)]
        unsegmented = self._unsegmented(protocol)
        if not missing and not unsegmented:
            known = {s.modality for t in trials.values() for s in self.findings.scores_of(t)}
            self._leave_out_blurred(protocol, known)
            return "measured before"
        try:
            reason = protocol.refuses(self.truths)
            if reason is not None:
                return self._left_out(protocol, reason)
            truths = self.truths if protocol.across else self.aligned
            images = Restorations(truths, protocol, self.study.only, self.restore)
            said = self._leave_out_blurred(protocol, {MODALITIES[m] for m in images.scored})
            if not images.scored:
                return said
            scores = [s for trial in missing for s in _scores(images, trial)]
            overlaps = self._overlaps(images, unsegmented)
        except InputError as error:
            return self._left_out(protocol, str(error))
        self.findings.add(scores, overlaps)
        self.findings.write(self.out)
        if missing:
            self._draw(protocol, images, [trial.method for trial in missing])
        return _line(scores, overlaps)

    def _leave_out_blurred(self, protocol: Protocol, scored: Set[str]) -> str:
        """Leaves out the scans that are given and cannot be scored; says so where there are any."""
        given = MODALITIES if self.study.only is None else (self.study.only,)
        names = " and ".join(name for name in given if name not in scored)
        if not names:
            return ""
        return self._left_out(protocol, f"its {names} is not sharp along the degraded axis")

    def _left_out(self, protocol: Protocol, reason: str) -> str:
        self.findings.left_out.append(f"{self.pair.subject}, {protocol.name}: {reason}")
        return f"left out, {reason}"

    def _unsegmented(self, protocol: Protocol) -> list[Trial]:
        if self.segmenter is None or self.pair.seg is None:
            return []
        methods = (LOW, *self.study.methods, HIGH)
        trials = [self.study.trial(self.pair, protocol, method) for method in methods]
        digest = self.segmenter.digest
        return [trial for trial in trials if not self.findings.has_overlap(trial, digest)]

    def _overlaps(self, images: Restorations, trials: list[Trial]) -> list[Overlap]:
        """Dice and HD95 of every tissue, as found after each of the trials' methods."""
        if self.segmenter is None or not trials:
            return []
        truth = images.truths[0]
        tissues = read_tissues(self.pair, truth.scan.grid)
        if tissues is None:
            return []
        # Inside the brain, but not labelled: cannot be found wrongly. Around tumours all is known.
        unknown = truth.reference.mask & (tissues == 0) & (not self.pair.tumour)
        named = {t.value: t.name for t in TISSUES if (tissues == t.value).any()}
        found = []
        for trial in trials:
            predicted = self.segmenter(*images.on_t1w_lattice(trial.method))
            predicted[unknown] = 0
            overlap = dice(predicted, tissues, tuple(named))
            distance = hd95(predicted, tissues, truth.scan.affine.spacing, tuple(named))
            found += [
                Overlap(trial, self.segmenter.digest, name, overlap[value], distance[value])
                for value, name in named.items()
            ]
        return found

    def _draw(self, protocol: Protocol, images: Restorations, methods: list[str]) -> None:
        """A page with the methods of earlier runs, too."""
        only = self.study.only
        folder = self.out / PAGES / (protocol.name if only is None else f"{protocol.name}-{only}")
        folder.mkdir(parents=True, exist_ok=True)
        planes = folder / f"{self.pair.subject}.npz"
        before = pictures.read_panels(planes)
        panels = {}
        for m in images.scored:
            modality, plane = MODALITIES[m], pictures.Plane(images.truths[m], images.axes[m])
            panel = before.get(modality)
            if panel is None or panel.data != self.pair.digest:
                panel = plane.panel(images.image(LOW, m), self.pair.digest)
            for method in methods:
                panel.restored[method] = plane.cut(images.image(method, m))
                trial = self.study.trial(self.pair, protocol, method)
                values = {s.modality: s.value.psnr for s in self.findings.scores_of(trial)}
                panel.psnr[method] = values[modality]
            panels[modality] = panel
        pictures.write_panels(panels, planes)
        title = f"{self.pair.subject}, {protocol.name}: {protocol.summary}"
        pictures.draw_page(title, panels, planes.with_suffix(".png"))


def _scores(images: Restorations, trial: Trial) -> list[Score]:
    return [
        Score(
            trial,
            MODALITIES[m],
            images.truths[m].reference.compare(images.image(trial.method, m), images.covered(m)),
        )
        for m in images.scored
    ]


def _line(scores: Sequence[Score], overlaps: Sequence[Overlap]) -> str:
    parts = [f"{s.modality} {s.method} {s.value.psnr:.2f} dB / {s.value.ssim:.4f}" for s in scores]
    for method in dict.fromkeys(overlap.trial.method for overlap in overlaps):
        values = [overlap.dice for overlap in overlaps if overlap.trial.method == method]
        parts.append(f"{method} Dice {np.nanmean(values):.3f}")
    return ", ".join(parts)
