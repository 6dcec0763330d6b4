"""The command line. Parses and prints; the work is done elsewhere and imported when needed.

Exit status: 0 done, 2 bad input or usage (one line on stderr), 3 out of memory, 130 cancelled.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import takewhile
from typing import Annotated

import typer
from typer.main import get_command

import nexusinr
from nexusinr.cli import batch, benchmark, degrade, demo, evaluate, models, train, upsample, view
from nexusinr.cli.console import emit
from nexusinr.errors import Cancelled, InputError, NexusError
from nexusinr.inference import protocol

app = typer.Typer(
    help="Super-resolution of T1w and T2w brain MRI onto any lattice, with tissue segmentation.",
    add_completion=False,
    rich_markup_mode=None,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"nexusinr {nexusinr.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, help="Show the version and end.")
    ] = False,
) -> None:
    """What holds for no command in particular."""


app.command()(upsample.upsample)
app.command()(degrade.degrade)
app.command()(evaluate.evaluate)
app.command()(train.train)
app.command()(batch.batch)
app.add_typer(models.app, name="models")
app.command()(view.view)
app.command()(benchmark.benchmark)
app.command()(demo.demo)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command line (default: the one of the process) and gives its exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        command = get_command(app)
        status = command.main(_joined(given), prog_name="nexusinr", standalone_mode=False)
        return int(status or 0)
    except typer.TyperException as error:
        failure: NexusError = InputError(f"{error.format_message()} (see nexusinr --help)")
    except KeyboardInterrupt:
        failure = Cancelled("cancelled")
    except NexusError as error:
        failure = error
    except (MemoryError, RuntimeError) as error:
        lack = protocol.out_of_memory(error)
        if lack is None:
            raise
        failure = lack
    event = protocol.failure(failure)
    print(f"nexusinr: {event['message']}", file=sys.stderr)
    if "--json" in given:
        emit(event)
    return failure.exit_code


def _joined(arguments: list[str]) -> list[str]:
    """The numbers after `--spacing`, one or three, as one value: typer wants a fixed count."""
    joined, rest = [], list(arguments)
    while rest:
        joined.append(rest.pop(0))
        if joined[-1] == "--spacing":
            numbers = list(takewhile(_is_number, rest[:3]))
            if numbers:
                joined.append(" ".join(numbers))
                del rest[: len(numbers)]
    return joined


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
