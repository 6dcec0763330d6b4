"""What was measured, as rows of a CSV that a later run continues."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from nexusinr.evaluation.metrics import Similarity
from nexusinr.evaluation.subjects import data_set

#: The method that all others are measured against.
BASELINE = "trilinear"

BASELINES = ("trilinear", "cubic")

NO_LPIPS = "weights not on disk"

SCORES, OVERLAPS = "scores.csv", "segmentation.csv"

#: Protocol, scans that were given, subject, method.
Name = tuple[str, str, str, str]

#: What a method was given: both scans, or one of them alone.
BOTH = "both"


@dataclass(frozen=True)
class Trial:
    """One method on one degraded subject.

    Attributes:
        protocol: how it was degraded.
        given: BOTH, ``T1w`` or ``T2w``.
        subject: its name.
        method: an interpolation or the name of a model.
        weights: first digits of the SHA-256 of the model's weights; empty for interpolations.
        data: first digits of the SHA-256 of the subject's scans.
    """

    protocol: str
    given: str
    subject: str
    method: str
    weights: str = ""
    data: str = ""

    @property
    def name(self) -> Name:
        """What it is, whatever the weights and the data are at present."""
        return self.protocol, self.given, self.subject, self.method

    @property
    def group(self) -> str:
        """Subjects of one data set."""
        return data_set(self.subject)

    @property
    def label(self) -> str:
        """The protocol and, where it was one alone, the scan that was given."""
        return self.protocol if self.given == BOTH else f"{self.protocol}, {self.given} alone"


@dataclass(frozen=True)
class Score:
    """How close one scan came to its reference; modality is ``T1w`` or ``T2w``."""

    trial: Trial
    modality: str
    value: Similarity

    @property
    def method(self) -> str:
        """Of its trial."""
        return self.trial.method

    @property
    def subject(self) -> str:
        """Of its trial."""
        return self.trial.subject


@dataclass(frozen=True)
class Overlap:
    """One tissue as the segmenter finds it after a method; NaN where it cannot be said."""

    trial: Trial
    segmenter: str
    tissue: str
    dice: float
    hd95: float


_TRIAL = ("protocol", "given", "subject", "method", "weights", "data")


def write_scores(scores: Iterable[Score], path: Path) -> None:
    """One row a score: what was tried, modality, PSNR (dB), SSIM, LPIPS."""
    rows = []
    for score in scores:
        v = score.value
        lpips = NO_LPIPS if v.lpips is None else f"{v.lpips:.5f}"
        named = {"modality": score.modality, "psnr": f"{v.psnr:.4f}", "ssim": f"{v.ssim:.5f}"}
        rows.append({**_as_row(score.trial), **named, "lpips": lpips})
    columns = ("protocol", "given", "subject", "modality", "method", "psnr", "ssim", "lpips")
    write_table(rows, (*columns, "weights", "data"), path)


def read_scores(path: Path) -> list[Score]:
    """What `write_scores` wrote; empty where there is no such file, or one of another kind."""
    found = []
    for row in _rows(path, {*_TRIAL, "modality", "psnr", "ssim", "lpips"}):
        lpips = None if row["lpips"] == NO_LPIPS else float(row["lpips"])
        value = Similarity(float(row["psnr"]), float(row["ssim"]), lpips)
        found.append(Score(_trial(row), row["modality"], value))
    return found


def write_overlaps(overlaps: Iterable[Overlap], path: Path) -> None:
    """One row a tissue: what was tried, the segmenter's digest, Dice (0 ... 1), HD95 (mm)."""
    rows = [
        {
            **_as_row(overlap.trial),
            "segmenter": overlap.segmenter,
            "tissue": overlap.tissue,
            "dice": f"{overlap.dice:.5f}",
            "hd95": f"{overlap.hd95:.4f}",
        }
        for overlap in overlaps
    ]
    columns = ("protocol", "given", "subject", "tissue", "method", "dice", "hd95")
    write_table(rows, (*columns, "segmenter", "weights", "data"), path)


def read_overlaps(path: Path) -> list[Overlap]:
    """What `write_overlaps` wrote; empty where there is no such file, or one of another kind."""
    return [
        Overlap(
            _trial(row), row["segmenter"], row["tissue"], float(row["dice"]), float(row["hd95"])
        )
        for row in _rows(path, {*_TRIAL, "segmenter", "tissue", "dice", "hd95"})
    ]


def _as_row(trial: Trial) -> dict[str, str]:
    return {column: getattr(trial, column) for column in _TRIAL}


def _trial(row: dict[str, str]) -> Trial:
    return Trial(**{column: row[column] for column in _TRIAL})


def write_table(rows: Iterable[dict[str, str]], columns: tuple[str, ...], path: Path) -> None:
    """A CSV that appears whole."""
    partial = path.with_suffix(".partial")
    with partial.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    os.replace(partial, path)


def _rows(path: Path, columns: set[str]) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as stream:
        reader = csv.DictReader(stream)
        return list(reader) if columns <= set(reader.fieldnames or ()) else []
