"""`nexusinr view`: the viewer in the browser."""

from __future__ import annotations

import errno
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NoReturn

from typer import Argument, Option

from nexusinr.cli import options
from nexusinr.errors import InputError

#: This machine alone.
LOCAL = "127.0.0.1"

_NO_PLACE = (errno.EACCES, errno.EADDRINUSE, errno.EADDRNOTAVAIL)


def view(
    files: Annotated[
        list[Path] | None,
        Argument(
            metavar="[FILES]...",
            exists=True,
            help="Scans to open: NIfTI, NRRD, MetaImage, DICOM folders, zip archives of these.",
        ),
    ] = None,
    port: Annotated[
        int, Option(min=0, max=65535, metavar="P", help="Where to listen; default: a free one.")
    ] = 0,
    no_browser: Annotated[
        bool, Option("--no-browser", help="Print the address, and open no browser.")
    ] = False,
    host: Annotated[
        str,
        Option(
            metavar="H",
            help="Open the viewer to other machines, at this address of this one; needs --secret. "
            "It is not encrypted: a tunnel (ssh -L PORT:127.0.0.1:PORT) is safer.",
        ),
    ] = LOCAL,
    secret: Annotated[
        str,
        Option(
            metavar="S",
            envvar="NEXUSINR_SECRET",
            help="What the address carries; default: drawn anew. Others can see it in the list of "
            "processes, unless the environment variable is used instead.",
        ),
    ] = "",
    device: options.Device = "auto",
) -> None:
    """Look at scans, restore them and compare, in a browser.

    The first line on stdout is the whole address. Ctrl-C ends the viewer; what was uploaded and
    made in it is removed, unless it was downloaded.
    """
    serve(files or (), port, host, secret, device, open_browser=not no_browser)


def serve(
    files: Sequence[Path],
    port: int = 0,
    host: str = LOCAL,
    secret: str = "",
    device: str = "auto",
    open_browser: bool = True,
) -> None:
    """Runs the viewer until it is interrupted.

    Raises InputError where the web extra is not installed, for a host without a secret, a weak
    secret, and an address that cannot be had.
    """
    # While it starts; later on the server sees to it.
    before = signal.signal(signal.SIGTERM, _leave)
    try:
        with options.needs_extra("web"):
            from nexusinr.web import serve as viewer

            viewer.serve(
                files, port=port, host=host, secret=secret, device=device, open_browser=open_browser
            )
    except OSError as error:
        if error.errno not in _NO_PLACE and not isinstance(error, socket.gaierror):
            raise
        raise InputError(
            f"the viewer cannot listen at {host}, port {port} ({error.strerror}): choose another "
            "--port or --host, or leave them out"
        ) from error
    finally:
        signal.signal(signal.SIGTERM, before)


def _leave(*_: object) -> NoReturn:
    """Ends the process in order: what is open is closed, and the session's folder removed."""
    sys.exit(128 + signal.SIGTERM)
