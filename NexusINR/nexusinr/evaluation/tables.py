"""Tables 1 to 5 of the paper, made again on other data."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nexusinr.errors import InputError
from nexusinr.evaluation.metrics import mean_interval
from nexusinr.evaluation.paired import (
    Pick,
    by_subject,
    gains,
    interval,
    lpips,
    methods_of,
    modalities_of,
    psnr,
    ssim,
)
from nexusinr.evaluation.report import FEW
from nexusinr.evaluation.scores import BASELINE, BASELINES, Overlap, Score, write_table

#: What each table shows, and which installed models it takes where none is named: those whose
#: name begins so. The full model is a row of tables 2, 3 and 4.
TITLES = {
    1: "Table 1: methods",
    2: "Table 2: ablation of Nexus-INR",
    3: "Table 3: encoders of Nexus-INR",
    4: "Table 4: decoders of Nexus-INR",
    5: "Table 5: segmentation after restoration",
}
FULL = "ablation-full"
PREFIXES = {
    1: ("",),
    2: ("ablation-",),
    3: (FULL, "encoder-"),
    4: (FULL, "decoder-"),
    5: ("",),
}

#: Name of a column of the paper's table 2, and the entry of a model's configuration behind it.
SWITCHES = {
    "MMF": "multi_modal_fusion",
    "KD-Attn": "cross_attention",
    "SEL": "segmentation_enhanced",
}

#: Figures of tables 1 to 4: name, digits, whether more is better, where it comes from.
FIGURES: tuple[tuple[str, int, bool, Pick], ...] = (
    ("PSNR", 2, True, psnr),
    ("SSIM", 4, True, ssim),
    ("LPIPS", 4, False, lpips),
)

#: A configuration of each model by name, as its card has it.
Configs = Mapping[str, Mapping[str, object]]


@dataclass(frozen=True)
class Cell:
    """One figure: over how many subjects, with its interval; text is what is shown."""

    name: str
    values: Sequence[float]
    text: str
    more_is_better: bool | None = None

    @property
    def mean(self) -> float:
        """NaN where there is no figure."""
        finite = [value for value in self.values if not math.isnan(value)]
        return sum(finite) / len(finite) if finite else math.nan


@dataclass(frozen=True)
class Table:
    """Rows of labels and figures."""

    title: str
    heads: tuple[str, ...]
    rows: Sequence[tuple[tuple[str, ...], list[Cell]]]
    notes: list[str]

    def markdown(self) -> str:
        """Best figure of each column in bold, second best underlined, as in the paper."""
        names = [*self.heads, *(cell.name for cell in self.rows[0][1])]
        lines = [f"## {self.title}", "", _line(names), _line(["---"] * len(names))]
        ranked = [self._ranked(column) for column in range(len(self.rows[0][1]))]
        for labels, cells in self.rows:
            shown = [_marked(cell, best) for cell, best in zip(cells, ranked, strict=True)]
            lines.append(_line([*labels, *shown]))
        return "\n".join([*lines, "", *self.notes]) + "\n"

    def _ranked(self, column: int) -> list[str]:
        """Texts of the best and the second best figure of a column; one of the bounds is none."""
        cells = [cells[column] for labels, cells in self.rows if labels[0] not in BOUNDS]
        sign = -1 if cells[0].more_is_better else 1
        if cells[0].more_is_better is None:
            return []
        known = sorted((c for c in cells if not math.isnan(c.mean)), key=lambda c: sign * c.mean)
        return list(dict.fromkeys(cell.text for cell in known))[:2] if len(known) > 1 else []

    def write(self, path: Path) -> None:
        """PATH.md, and PATH.csv with the mean, both ends of its interval and the count."""
        path.with_suffix(".md").write_text(self.markdown(), encoding="utf-8")
        rows = []
        for labels, cells in self.rows:
            row = dict(zip(self.heads, labels, strict=True))
            for cell in cells:
                known = [value for value in cell.values if not math.isnan(value)]
                mean, low, high = mean_interval(known) if known else (math.nan,) * 3
                row[cell.name] = f"{mean:.5f}"
                row[f"{cell.name} low"], row[f"{cell.name} high"] = f"{low:.5f}", f"{high:.5f}"
                row[f"{cell.name} subjects"] = str(len(known))
            rows.append(row)
        write_table(rows, tuple(rows[0]), path.with_suffix(".csv"))


#: Rows that bound the others and do not compete.
BOUNDS = ("low resolution", "original")


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _marked(cell: Cell, best: Sequence[str]) -> str:
    if best and cell.text == best[0]:
        return f"**{cell.text}**"
    return f"<u>{cell.text}</u>" if cell.text in best[1:] else cell.text


def of_scores(number: int, scores: Sequence[Score], configs: Configs) -> Table:
    """Table 1, 2, 3 or 4 from the scores of one protocol.

    Only subjects that are scored in every modality that is there count, so that all columns are of
    the same subjects.

    Raises InputError where a model has none of the parts that the table compares, and where no
    subject has all its scores.
    """
    modalities = modalities_of(scores)
    complete = _complete(scores, modalities)
    own = [score for score in scores if score.subject in complete]
    if not own:
        raise InputError("no subject has a reference in both scans: table not made")
    heads, named = _labels(number, methods_of(own), configs)
    rows = [(labels, _figures(own, method, modalities)) for labels, method in named]
    count = len(complete)
    text = [
        f"Means over {count} subject{'s' if count > 1 else ''}, protocol {own[0].trial.label}; "
        f"gain: of the mean over both scans over {BASELINE}, dB [95 % bootstrap interval]."
    ]
    if number == 1 and own[0].trial.protocol == "brats":
        text.append(
            "The paper reports a gain of 7.25 dB (T1w) and 7.15 dB (T2w) on BraTS2020; data sets "
            "differ in what there is to gain."
        )
    if count < FEW:
        text.append(f"Fewer than {FEW} subjects: the interval says little of others.")
    return Table(TITLES[number], heads, rows, text)


def _complete(scores: Sequence[Score], modalities: Sequence[str]) -> set[str]:
    there: dict[str, set[str]] = {}
    for score in scores:
        there.setdefault(score.subject, set()).add(score.modality)
    return {subject for subject, found in there.items() if found == set(modalities)}


def _labels(
    number: int, methods: Sequence[str], configs: Configs
) -> tuple[tuple[str, ...], list[tuple[tuple[str, ...], str]]]:
    """Heads of the columns of labels, and each row's labels with its method."""
    models = [method for method in methods if method not in BASELINES]
    heads: tuple[str, ...] = ("Method",)
    rows: list[tuple[tuple[str, ...], str]] = [((method,), method) for method in methods]
    if number == 2:
        on = {m: [bool(_part(configs, m, key)) for key in SWITCHES.values()] for m in models}
        models.sort(key=lambda model: (sum(on[model]), [not switch for switch in on[model]]))
        heads = ("Baseline", *SWITCHES, "Model")
        rows = [(("✓", *("✓" if switch else "" for switch in on[m]), m), m) for m in models]
    elif number in (3, 4):
        part = {3: "encoder", 4: "decoder"}[number]
        heads = (part.capitalize(), "Model")
        rows = [((str(_part(configs, model, part)), model), model) for model in models]
    return heads, rows


def _part(configs: Configs, model: str, key: str) -> object:
    if key not in configs[model]:
        raise InputError(
            f"{model!r} has no {key.replace('_', ' ')} in its configuration: name Nexus-INR models"
        )
    return configs[model][key]


def _figures(scores: Sequence[Score], method: str, modalities: Sequence[str]) -> list[Cell]:
    """Cells of one method; a figure that no method has is left out."""
    cells = []
    for name, digits, more_is_better, pick in FIGURES:
        if all(pick(score.value) is None for score in scores):
            continue
        parts = {m: [s for s in scores if s.modality == m] for m in modalities}
        if len(parts) > 1:
            parts["mean"] = list(scores)
        for label, part in parts.items():
            values = list(by_subject(part, method, pick).values())
            text = f"{mean_interval(values)[0]:.{digits}f}" if values else "-"
            cells.append(Cell(f"{name} {label}", values, text, more_is_better))
    over = gains(scores, method, BASELINE) if method != BASELINE else []
    return [*cells, Cell("gain", over, interval(over, 2, "+"))]


def of_overlaps(overlaps: Sequence[Overlap]) -> Table:
    """Table 5: Dice (%) and HD95 (mm) after every method, means over tissues, then each tissue.

    Raises InputError where no subject has tissues.
    """
    if not overlaps:
        raise InputError("no subject has a map of tissues: there is nothing to overlap with")
    methods = dict.fromkeys(overlap.trial.method for overlap in overlaps)
    tissues = list(dict.fromkeys(overlap.tissue for overlap in overlaps))
    rows: list[tuple[tuple[str, ...], list[Cell]]] = []
    for method in methods:
        own = [overlap for overlap in overlaps if overlap.trial.method == method]
        cells = [_mean_cell("Dice", own, is_dice=True), _mean_cell("HD95", own, is_dice=False)]
        if len(tissues) > 1:
            for tissue in tissues:
                part = [overlap for overlap in own if overlap.tissue == tissue]
                cells.append(_mean_cell(f"Dice, {tissue}", part, is_dice=True))
        rows.append(((method,), cells))
    subjects = len({overlap.trial.subject for overlap in overlaps})
    undefined = sum(math.isnan(overlap.hd95) for overlap in overlaps)
    text = [
        f"One U-Net ({overlaps[0].segmenter}), trained on original images, on {subjects} "
        f"subject{'s' if subjects > 1 else ''}, protocol {overlaps[0].trial.label}. Dice in %, "
        "HD95 in mm; means over tissues and subjects [95 % bootstrap interval over subjects]."
    ]
    if undefined:
        text.append(f"HD95 leaves out {undefined} tissues that were not found at all.")
    return Table(TITLES[5], ("Images",), rows, text)


def _mean_cell(name: str, overlaps: Sequence[Overlap], is_dice: bool) -> Cell:
    """Mean over the tissues of each subject."""
    found: dict[str, list[float]] = {}
    for overlap in overlaps:
        value = 100 * overlap.dice if is_dice else overlap.hd95
        if not math.isnan(value):
            found.setdefault(overlap.trial.subject, []).append(value)
    values = [sum(own) / len(own) for own in found.values()]
    text = interval(values, 1 if is_dice else 2) if values else "-"
    return Cell(name, values, text, is_dice)
