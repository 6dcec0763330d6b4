"""`nexusinr models`: the weights that there are."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from typer import Argument

from nexusinr.errors import InputError

app = typer.Typer(
    help="List, verify, import and remove model weights.",
    invoke_without_command=True,
    rich_markup_mode=None,
)


@app.callback()
def default(context: typer.Context) -> None:
    """List, verify, import and remove model weights; without a command: list."""
    if context.invoked_subcommand is None:
        list_models()


@app.command("list")
def list_models() -> None:
    """Name, version, kind and origin of every model."""
    from nexusinr.models import weights

    cards = weights.available()
    width = max((len(name) for name in cards), default=0)
    for card in cards.values():
        origin = "bundled" if card.is_bundled else "imported"
        print(f"{card.name:<{width}}  {card.version}  {card.architecture}  {origin}")
    if not cards:
        print(f"no models: import one (they are kept in {weights.user_folder()})")


@app.command()
def verify(
    name: Annotated[str | None, Argument(help="One model; default: all.")] = None,
) -> None:
    """Check weights: the file's SHA-256, and the results of a small case on this machine."""
    from nexusinr.models import check_case, weights

    cards = weights.available().values() if name is None else [weights.find(name)]
    problems = []
    for card in cards:
        try:
            network, _ = weights.load(card.name)  # checks the SHA-256
            has_case = check_case.compare(card.name, card.details, network)
        except InputError as error:
            problems.append(str(error))
        else:
            case = "check case repeated" if has_case else "no check case in its card"
            print(f"{card.name}: as it should be (SHA-256 {card.sha256}; {case})")
    if problems:
        raise InputError("; ".join(problems))


@app.command("import")
def import_file(
    file: Annotated[Path, Argument(help="A .safetensors file with its card inside.")],
) -> None:
    """Add weights of your own."""
    from nexusinr.models import weights

    card = weights.import_weights(file)
    print(f"{card.name} {card.version}: use it with --model {card.name}")


@app.command()
def remove(name: Annotated[str, Argument(help="An imported model.")]) -> None:
    """Delete imported weights."""
    from nexusinr.models import weights

    weights.remove(name)
    print(f"{name}: removed")
