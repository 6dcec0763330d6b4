"""What page and server exchange over plain HTTP: uploads in pieces, downloads from the disk."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from aiohttp import web
from trame_server import Server

from nexusinr.errors import InputError
from nexusinr.web.incoming import MOST_BYTES, Found, Incoming

if TYPE_CHECKING:
    from nexusinr.web.logic.open import OpenLogic
    from nexusinr.web.logic.take import TakeLogic

ICON = Path(__file__).with_name("static") / "icon.svg"

#: Carries the file's own name, percent-encoded.
NAME = "X-File-Name"


class Transfer:
    """The two routes, ``upload`` and ``download/NAME``.

    The page sends one file after the other and then triggers ``nexusinr_sent``: a series of DICOM
    files is one scan, and is read when it is whole.

    Args:
        server: trame's; not started yet.
        folder: the session's own.
        incoming: where uploads go.
    """

    def __init__(self, server: Server, folder: Path, incoming: Incoming) -> None:
        self._folder, self._incoming = folder, incoming
        self._found: dict[Path, Found] = {}
        self._problems: list[str] = []
        self._logic: tuple[OpenLogic, TakeLogic] | None = None
        self._connected = asyncio.Event()
        server.trigger("nexusinr_sent")(self.sent)

    @property
    def routes(self) -> list[web.AbstractRouteDef]:
        """For the application that serves the page."""
        return [
            web.post("/upload", self._upload),
            web.get("/download/{name}", self._download),
            web.get("/favicon.ico", _icon),
        ]

    def connect(self, opening: OpenLogic, taking: TakeLogic) -> None:
        """Says who opens and gives; what was asked for earlier has waited for them."""
        self._logic = opening, taking
        self._connected.set()

    async def _ends(self) -> tuple[OpenLogic, TakeLogic]:
        await self._connected.wait()
        assert self._logic is not None
        return self._logic

    async def sent(self, problem: str) -> None:
        """The last file has come, or none will, for a reason."""
        found, problems = list(self._found.values()), self._problems
        problems += [*self._incoming.finish(), *filter(None, [problem])]
        self._found, self._problems = {}, []
        opening, _ = await self._ends()
        opening.open_soon(found, problems)

    async def _upload(self, request: web.Request) -> web.Response:
        name = unquote(request.headers.get(NAME, "scan"))
        try:
            with tempfile.TemporaryFile(dir=self._folder) as file:
                size = 0
                async for piece in request.content.iter_chunked(1 << 20):
                    size += len(piece)
                    if size > MOST_BYTES:
                        raise InputError(f"{name}: more than {MOST_BYTES / 1e9:.0f} GB")
                    file.write(piece)
                file.seek(0)
                found = await asyncio.to_thread(self._incoming.upload, name, file)
        except InputError as error:
            self._problems.append(str(error))
        else:
            self._found.update({each.path: each for each in found})
        return web.Response(status=204)

    async def _download(self, request: web.Request) -> web.FileResponse:
        name = request.match_info["name"]
        _, taking = await self._ends()
        try:
            path = await taking.path(name)
        except InputError as error:
            raise web.HTTPNotFound(text=f"{error}\n") from error
        return web.FileResponse(
            path, headers={"Content-Disposition": f'attachment; filename="{name}"'}
        )


async def _icon(_request: web.Request) -> web.FileResponse:
    return web.FileResponse(ICON, headers={"Content-Type": "image/svg+xml"})
