"""The viewer as it starts: a page at once, and behind it the application as soon as it is loaded.

Slicer's libraries take about as long to load as a browser takes for the page: both go on together.
"""

from __future__ import annotations

import asyncio
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from aiohttp import web
from trame_rca import module as remote_views
from trame_server import Server

from nexusinr.web.incoming import Incoming
from nexusinr.web.transfer import Transfer
from nexusinr.web.ui.page import PageUI

if TYPE_CHECKING:
    from nexusinr.web.app import App

TITLE = "NexusINR"


class Viewer:
    """Made before the server starts.

    Args:
        server: trame's; not started yet.
        folder: the session's own, removed by whoever made it.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
    """

    def __init__(self, server: Server, folder: Path, device: str = "auto") -> None:
        self._server, self._folder, self._device = server, folder, device
        self._app: App | None = None
        server.state.trame__title = TITLE
        server.state.trame__favicon = "nexusinr/icon.svg"
        server.enable_module(remote_views)  # views are made later, when pages know their scripts
        uploads = folder / "incoming"
        uploads.mkdir()
        self._incoming = Incoming(uploads)
        self._transfer = Transfer(server, folder, self._incoming)
        self._page = PageUI(server)

    @property
    def routes(self) -> list[web.AbstractRouteDef]:
        """Uploads and downloads."""
        return self._transfer.routes

    async def load(self) -> App:
        """Makes the application; call once the server runs."""
        module = await asyncio.to_thread(import_module, "nexusinr.web.app")
        with self._server.state:
            self._app = module.App(
                self._server, self._page, self._incoming, self._folder, self._device
            )
        self._transfer.connect(self._app.open, self._app.take)
        return self._app

    def close(self) -> None:
        """Ends the worker."""
        if self._app is not None:
            self._app.close()
