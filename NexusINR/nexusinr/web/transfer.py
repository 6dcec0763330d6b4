"""What page and server exchange over plain HTTP: uploads in pieces, downloads from the disk."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from urllib.parse import unquote

from aiohttp import web
from trame_server import Server

from nexusinr.errors import InputError
from nexusinr.web.incoming import MOST_BYTES, Found
from nexusinr.web.logic.open import OpenLogic
from nexusinr.web.logic.take import TakeLogic

ICON = Path(__file__).with_name("static") / "icon.svg"

#: Carries the file's own name, percent-encoded.
NAME = "X-File-Name"


class Transfer:
    """The two routes, ``upload`` and ``download/NAME``.

    The page sends one file after the other and then triggers ``nexusinr_sent``: a series of DICOM
    files is one scan, and is read when it is whole.
    """

    def __init__(self, server: Server, opening: OpenLogic, taking: TakeLogic, folder: Path) -> None:
        self._open, self._take, self._folder = opening, taking, folder
        self._found: dict[Path, Found] = {}
        self._problems: list[str] = []
        server.trigger("nexusinr_sent")(self.sent)

    @property
    def routes(self) -> list[web.AbstractRouteDef]:
        """For the application that serves the page."""
        return [
            web.post("/upload", self._upload),
            web.get("/download/{name}", self._download),
            web.get("/favicon.ico", _icon),
            web.post("/paraview/", _session),
        ]

    def sent(self, problem: str) -> None:
        """The last file has come, or none will, for a reason."""
        found, problems = list(self._found.values()), self._problems
        problems += [*self._open.incoming.finish(), *filter(None, [problem])]
        self._found, self._problems = {}, []
        self._open.open_soon(found, problems)

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
                found = await asyncio.to_thread(self._open.incoming.upload, name, file)
        except InputError as error:
            self._problems.append(str(error))
        else:
            self._found.update({each.path: each for each in found})
        return web.Response(status=204)

    async def _download(self, request: web.Request) -> web.FileResponse:
        name = request.match_info["name"]
        try:
            path = await self._take.path(name)
        except InputError as error:
            raise web.HTTPNotFound(text=f"{error}\n") from error
        return web.FileResponse(
            path, headers={"Content-Disposition": f'attachment; filename="{name}"'}
        )


async def _session(_request: web.Request) -> web.Response:
    """Where the websocket is: trame's page asks for it as it would ask a launcher of sessions."""
    return web.json_response({"sessionURL": "ws://USE_HOST/ws"})


async def _icon(_request: web.Request) -> web.FileResponse:
    return web.FileResponse(ICON, headers={"Content-Type": "image/svg+xml"})
