"""Serving the viewer: the guard at the door, a folder for the session, the address on stdout."""

from __future__ import annotations

import asyncio
import os
import webbrowser
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trame.app import get_server
from trame_client.module.vue3 import www

from nexusinr.web.guard import LOCAL, Guard
from nexusinr.web.incoming import private_folder
from nexusinr.web.viewer import Viewer


def serve(
    files: Sequence[Path] = (),
    *,
    port: int = 0,
    host: str = LOCAL,
    secret: str = "",
    device: str = "auto",
    sample: bool = False,
    open_browser: bool = True,
) -> None:
    """Runs a viewer until it is interrupted; nothing of the session is left behind.

    The first line on stdout is the whole address.

    Args:
        files: scans, folders of DICOM series, zip archives.
        port: 0 takes a free one.
        host: the address to bind; another than this machine's own needs a secret.
        secret: what the address carries; empty: one is drawn.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        sample: whether to open the computed head, where no files are given.
        open_browser: whether to show the page in the user's browser.

    Raises InputError for a host without a secret and for a secret that is too short.
    """
    guard = Guard(host, secret, pages=(Path(www) / "index.html",))
    os.environ["TRAME_ARGS"] = "--server"  # the command line is ours, not trame's
    os.environ.setdefault("WSLINK_WS_COMPRESS", "0")  # pictures are compressed already
    server = get_server(client_type="vue3")

    def bind(web_server: Any) -> None:
        guard.protect(web_server.app)
        web_server.app.add_routes(viewer.routes)

    def announce(**_: Any) -> None:
        address = guard.address(server.port)
        print(address, flush=True)
        if open_browser:
            webbrowser.open(address)

    def begin(**_: Any) -> None:
        tasks.append(asyncio.get_running_loop().create_task(load()))

    async def load() -> None:
        try:
            app = await viewer.load()
        except Exception as error:
            problems.append(error)
            await server.stop()
        else:
            await app.begin(files, sample=sample)

    tasks: list[asyncio.Task[None]] = []  # which the loop alone would let go
    problems: list[Exception] = []
    with private_folder() as folder:
        viewer = Viewer(server, folder, device)
        server.controller.on_server_bind.add(bind)
        server.controller.on_server_ready.add(announce)
        server.controller.on_server_ready.add(begin)
        try:
            server.start(
                port=port,
                host=host,
                timeout=0,
                open_browser=False,
                show_connection_info=False,
                disable_logging=True,
            )
        finally:
            viewer.close()
    for problem in problems:
        raise problem
