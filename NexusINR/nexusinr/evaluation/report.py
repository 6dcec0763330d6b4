"""The report of a run: means of every method, and what one gains over the other."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from nexusinr.evaluation import protocol as protocols
from nexusinr.evaluation.paired import (
    by_subject,
    gains,
    interval,
    lpips,
    methods_of,
    modalities_of,
    psnr,
    ssim,
)
from nexusinr.evaluation.scores import BASELINES, NO_LPIPS, Score

#: Fewer subjects than this make an interval that promises too much.
FEW = 5


def markdown(scores: Sequence[Score], left_out: Sequence[str] = (), title: str = "") -> str:
    """A section a protocol: means with their 95 % bootstrap intervals, for all and by data set."""
    lines = [f"# {title or 'Evaluation'}", ""]
    for label in dict.fromkeys(score.trial.label for score in scores):
        own = [score for score in scores if score.trial.label == label]
        summary = protocols.find(own[0].trial.protocol).summary
        lines += [f"## {label}: {summary}", "", *section(own)]
    lines += notes(scores)
    if left_out:
        lines += ["", "Left out:", "", *(f"- {reason}" for reason in left_out)]
    return "\n".join(lines) + "\n"


def section(scores: Sequence[Score]) -> list[str]:
    """The tables of one protocol, as lines."""
    groups = list(dict.fromkeys(score.trial.group for score in scores))
    lines: list[str] = []
    if len(groups) > 1:
        lines += [*_table(scores, "all"), ""]
    for group in groups:
        lines += [*_table([s for s in scores if s.trial.group == group], group), ""]
    return lines + _between_models(scores)


def notes(scores: Sequence[Score]) -> list[str]:
    """How the figures are to be read, as lines."""
    lines = [
        "Mean [95 % bootstrap interval over subjects]. PSNR in dB and SSIM inside the head, where "
        "the degraded scan reaches and along axes in which the reference is sharp; gains in dB, "
        "subject by subject."
    ]
    if len({score.subject for score in scores}) < FEW:
        lines.append(
            f"Intervals of fewer than {FEW} subjects say how much these differ, not how much "
            "others would."
        )
    if any(score.value.lpips is None for score in scores):
        lines.append(f"LPIPS: {NO_LPIPS}.")
    return lines


def _table(scores: Sequence[Score], group: str) -> list[str]:
    count = len({score.subject for score in scores})
    perceived = any(score.value.lpips is not None for score in scores)
    heads = ["scan", "method", "PSNR", "over trilinear", "over cubic", "SSIM"]
    heads += ["LPIPS"] if perceived else []
    lines = [f"### {group} ({count} subject{'s' if count > 1 else ''})", ""]
    lines += [_line(heads), _line(["---"] * len(heads))]
    for modality in modalities_of(scores):
        rows = [score for score in scores if score.modality == modality]
        for method in methods_of(rows):
            over = [
                "" if method == other else interval(gains(rows, method, other), 2, "+")
                for other in BASELINES
            ]
            cells = [
                modality,
                method,
                interval(list(by_subject(rows, method, psnr).values()), 2),
                *over,
                interval(list(by_subject(rows, method, ssim).values()), 4),
            ]
            if perceived:
                cells.append(interval(list(by_subject(rows, method, lpips).values()), 4))
            lines.append(_line(cells))
    return lines


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _between_models(scores: Sequence[Score]) -> list[str]:
    models = [method for method in methods_of(scores) if method not in BASELINES]
    if len(models) < 2:
        return []
    lines = [
        "### Between models, subject by subject",
        "",
        "| scan | first | second | PSNR, first less second | SSIM, first less second "
        "| first better |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for modality in modalities_of(scores):
        rows = [score for score in scores if score.modality == modality]
        for first, second in combinations(models, 2):
            found = gains(rows, first, second)
            if not found:
                continue
            cells = [
                modality,
                first,
                second,
                interval(found, 2, "+"),
                interval(gains(rows, first, second, ssim), 4, "+"),
                f"{sum(g > 0 for g in found)} of {len(found)}",
            ]
            lines.append(_line(cells))
    return [*lines, ""]
