"""`nexusinr evaluate`: fixed experiments on pairs whose truth is known."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from nexusinr.cli import options
from nexusinr.cli.interrupt import until_done
from nexusinr.errors import InputError

if TYPE_CHECKING:
    from nexusinr.evaluation.restorations import Array, Restore
    from nexusinr.evaluation.segmenter import Segmenter
    from nexusinr.evaluation.study import Study
    from nexusinr.geometry import Grid
    from nexusinr.inference.session import Session
    from nexusinr.models.weights import Card
    from nexusinr.volume import Volume

#: Where a segmenter lies that was trained without naming a file for it.
SEGMENTER = "segmenter.safetensors"

TABLES = (1, 2, 3, 4, 5)

#: The protocol that plants lesions; it leaves gates instead of scores.
SAFETY = "safety"


def evaluate(
    pairs: Annotated[
        Path,
        Argument(help="Folder with a folder a subject: T1w.nii.gz and T2w.nii.gz, or as in BraTS."),
    ],
    out: Annotated[
        Path, Option(metavar="DIR", help="For tables and pictures; a run there is continued.")
    ],
    protocol: Annotated[
        list[str] | None,
        Option(
            metavar="NAME[,NAME...]",
            help="brats (default), through-plane-N and orthogonal-N (N in mm), ratio-N and "
            "in-plane-N (N times longer voxels), or all; safety: planted lesions, by itself.",
        ),
    ] = None,
    models: Annotated[
        list[str] | None,
        Option(
            metavar="NAME[,NAME...]",
            help="Default: nexus-inr; all: every installed one; none. NAME+adapt adapts it to "
            "each case first (NAME+adapt-N: for N seconds), NAME+ensemble-N averages N mirrored "
            "restorations, NAME+float32 computes in full precision.",
        ),
    ] = None,
    table: Annotated[
        int | None,
        Option(
            metavar="1...5",
            help="Make this table of the paper as well. Without --models it takes all installed "
            "models (1, 5), or ablation-full and those named ablation-*, encoder-*, decoder-* "
            "(2, 3, 4).",
        ),
    ] = None,
    only: Annotated[
        str | None, Option(metavar="t1w|t2w", help="Give the models this scan alone.")
    ] = None,
    split: Annotated[
        str, Option(help="Subjects of this split count where a split.csv lies beside the pairs.")
    ] = "test",
    subjects: Annotated[
        str | None, Option(metavar="N|FILE", help="The first N, or those listed, one a line.")
    ] = None,
    segmenter: Annotated[
        Path | None, Option(metavar="FILE", help=f"For table 5; default: DIR/{SEGMENTER}.")
    ] = None,
    train_segmenter: Annotated[
        float | None,
        Option(min=0.01, metavar="MINUTES", help="Train it first, on the training subjects."),
    ] = None,
    device: options.Device = "auto",
    threads: options.Threads = None,
) -> None:
    """Degrade fine pairs in a known way, restore them, and compare with the truth.

    Trilinear and cubic B-spline interpolation are scored in the same run.
    """
    if table not in (None, *TABLES):
        raise InputError(f"there is no table {table}: give 1 to 5")

    def work(cancelled: Callable[[], bool]) -> str:
        with options.needs_extra("train"):
            from nexusinr.evaluation import subjects as people
            from nexusinr.evaluation.protocol import parse
            from nexusinr.evaluation.study import Study

        options.use_threads(threads)
        cards = _cards(models, table)
        if protocol == [SAFETY]:
            if table or only or subjects:
                raise InputError("the protocol safety stands alone: no --table, --only, --subjects")
            from nexusinr.evaluation import safety

            safety.evaluate(pairs, list(cards), out, _restorer(device, cancelled), split=split)
            return (out / "safety.md").read_text(encoding="utf-8")
        study = Study(
            people.subjects(pairs, split, subjects),
            parse(protocol or ["brats"]),
            {name: card.sha256[:12] for name, card in cards.items()},
            _modality(only),
        )
        tissues = None
        if table == 5:
            file = segmenter or out / SEGMENTER
            tissues = _segmenter(study, pairs, file, train_segmenter, device, cancelled)
        return _run(study, out, _restorer(device, cancelled), tissues, cards, table)

    message = f"cancelled: what was measured is in {out}, and the same command goes on from there"
    print(until_done(work, message))


def _run(
    study: Study,
    out: Path,
    restore: Restore,
    segmenter: Segmenter | None,
    cards: dict[str, Card],
    table: int | None,
) -> str:
    """The study, and what is printed of it: its table, or else its report."""
    from nexusinr.evaluation import tables
    from nexusinr.evaluation.study import REPORT, evaluate

    scores, overlaps = evaluate(study, out, restore, segmenter, log=_say)
    if table is None:
        return (out / REPORT).read_text(encoding="utf-8")
    printed = []
    configs = {name: card.config for name, card in cards.items()}
    for protocol in study.protocols:
        if table == 5:
            made = tables.of_overlaps([o for o in overlaps if o.trial.protocol == protocol.name])
        else:
            own = [score for score in scores if score.trial.protocol == protocol.name]
            made = tables.of_scores(table, own, configs)
        first = protocol == study.protocols[0]
        made.write(out / (f"table{table}" if first else f"table{table}-{protocol.name}"))
        printed.append(made.markdown())
    return "\n".join(printed)


def _say(line: str) -> None:
    print(line, flush=True)  # a run takes long, and may be watched through a pipe


def _cards(models: list[str] | None, table: int | None) -> dict[str, Card]:
    """Cards of the models that are evaluated, by the method's name. Raises InputError."""
    from nexusinr.evaluation import variants
    from nexusinr.evaluation.tables import PREFIXES
    from nexusinr.models import weights

    named = [name.strip() for entry in models or [] for name in entry.split(",") if name.strip()]
    if named == ["none"]:
        return {}
    if not named and table is None:
        named = [options.DEFAULT_MODEL]
    elif not named or named == ["all"]:
        prefixes = ("",) if table is None or named else PREFIXES[table]
        named = [name for name in weights.available() if name.startswith(prefixes)]
        if not named:
            raise InputError(
                f"no installed model is named {prefixes[-1]}*: train those of table {table} "
                "(training/README.md), or name others with --models"
            )
    return {name: variants.find(name).card for name in named}


def _modality(only: str | None) -> str | None:
    if only is None:
        return None
    known = {"t1w": "T1w", "t2w": "T2w"}
    if only.lower() not in known:
        raise InputError(f"--only {only}: give t1w or t2w")
    return known[only.lower()]


def _segmenter(
    study: Study,
    folder: Path,
    file: Path,
    minutes: float | None,
    device: str,
    cancelled: Callable[[], bool],
) -> Segmenter:
    """A segmenter from its file, trained before where that is asked for."""
    from nexusinr.evaluation import segmenter
    from nexusinr.evaluation.subjects import others
    from nexusinr.inference.device import choose

    name = str(choose(device).torch)
    if minutes is None:
        return segmenter.load(file, name)
    examples = segmenter.read_examples(others(folder, study.pairs))
    trained = segmenter.train(examples, minutes, device=name, log=_say, cancelled=cancelled)
    trained.save(file)
    return trained


def _restorer(device: str, cancelled: Callable[[], bool]) -> Restore:
    """Runs the main job on a degraded pair; a model is loaded when it is first needed."""
    from nexusinr.evaluation import variants
    from nexusinr.inference.pipeline import upsample
    from nexusinr.inference.session import Session

    @cache
    def session(model: str, float32: bool) -> Session:
        found = Session(model, device)
        if float32:
            found.move(found.device.in_float32())
        return found

    def restore(
        t1w: Volume | None, t2w: Volume | None, grid: Grid, model: str
    ) -> tuple[Array | None, Array | None]:
        variant = variants.find(model)
        result = upsample(
            t1w,
            t2w,
            like=grid,
            session=session(variant.card.name, variant.float32),
            adapt=variant.adapt or False,
            ensemble=variant.ensemble,
            register="none",  # the headers of a degraded pair are right
            segmentation=False,
            cancelled=cancelled,
        )
        first, second = (None if scan is None else scan.data for scan in (result.t1w, result.t2w))
        return first, second

    return restore
