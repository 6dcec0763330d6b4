"""The viewer as one object: scene, views, logic and page, wired together by signals.

For whoever serves it: `create` makes it, `App.routes` are its uploads and downloads, `App.close`
ends the worker.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aiohttp import web
from trame_rca import module as remote_views
from trame_server import Server
from trame_server.utils.typed_state import TypedState
from trame_slicer.core import LayoutManager, SlicerApp
from vtkmodules.vtkCommonCore import vtkObject

from nexusinr.errors import InputError
from nexusinr.inference.protocol import Event
from nexusinr.web.incoming import Incoming
from nexusinr.web.keys import Keys
from nexusinr.web.logic.live import LiveLogic
from nexusinr.web.logic.look import LookLogic
from nexusinr.web.logic.open import OpenLogic, Scan
from nexusinr.web.logic.run import RunLogic
from nexusinr.web.logic.take import TakeLogic
from nexusinr.web.room import Room
from nexusinr.web.state import PageState
from nexusinr.web.transfer import Transfer
from nexusinr.web.ui.page import PageUI
from nexusinr.web.ui.views import register_views
from nexusinr.web.worker import Worker

TITLE = "NexusINR"


class App:
    """One viewer for one user, in as many tabs as they like.

    Args:
        server: trame's; not started yet.
        folder: the session's own.
        device: where to compute.
    """

    def __init__(self, server: Server, folder: Path, device: str = "auto") -> None:
        # VTK says of every view that it has no X server and no window: it needs neither.
        vtkObject.GlobalWarningDisplayOff()
        server.state.trame__title = TITLE
        server.state.trame__favicon = "nexusinr/icon.svg"
        server.enable_module(remote_views)  # views are made later, when pages know their scripts
        slicer = SlicerApp()
        layouts = LayoutManager(slicer.scene, slicer.view_manager, server)
        self.worker = Worker()
        self.room = Room(slicer, layouts)
        register_views(slicer.view_manager, server, self.room)
        incoming = folder / "incoming"
        incoming.mkdir()
        self.open = OpenLogic(server, slicer.scene, Incoming(incoming), folder)
        self.run = RunLogic(server, folder, self.worker, device)
        self.look = LookLogic(server, self.room)
        self.live = LiveLogic(server, self.room, self.worker)
        self.take = TakeLogic(server, self.room, folder)
        self.transfer = Transfer(server, self.open, self.take, folder)
        self.page = PageUI(server, layouts)
        self._state = server.state
        self._page_state = TypedState(server.state, PageState)
        self.keys = Keys(server, self.room, self.look, self.live, self._page_state.data)
        self._wire()

    @property
    def routes(self) -> list[web.AbstractRouteDef]:
        """Uploads and downloads."""
        return self.transfer.routes

    def close(self) -> None:
        """Ends the worker."""
        self.worker.close()

    def _wire(self) -> None:
        ui = self.page
        ui.open.sample_wanted.connect(self.open.open_sample)
        ui.open.role_chosen.connect(self.open.choose)
        ui.open.removed.connect(self.open.remove)
        ui.run.applied.connect(self.run.apply)
        ui.run.cancelled.connect(self.run.cancel)
        ui.look.fit_wanted.connect(self.look.fit)
        ui.look.reset_wanted.connect(self.look.reset_window)
        ui.look.tissue_switched.connect(self.look.show_tissue)
        self.open.changed.connect(self._on_scans)
        self.run.finished.connect(self._on_finished)
        self.room.sized.connect(self.run.begin)
        self.live.gave_up.connect(self._on_gave_up)

    def _on_scans(self, scans: dict[str, Scan]) -> None:
        self.live.use(None)
        self.look.show_scans(scans)
        self.take.offer(None)
        self.run.use(scans)

    async def _on_finished(self, event: Event, scans: dict[str, Scan]) -> None:
        if scans != self.open.used:
            raise InputError("the scans were changed while they were restored: restore them again")
        self.live.use(None)
        await self.look.show_results(event, scans)
        self.live.use(self.look.results)
        self.take.offer(event)
        self._page_state.data.tab = "look"

    def _on_gave_up(self) -> None:
        """Where it is read why."""
        with self._state:  # a task on its own has nobody to send its changes to the page
            self._page_state.data.panel, self._page_state.data.tab = True, "look"


def create(
    server: Any, folder: Path, files: Sequence[Path], *, sample: bool, device: str = "auto"
) -> App:
    """A viewer that opens scans as soon as the server runs.

    Args:
        server: trame's; not started yet.
        folder: the session's own, removed by whoever made it.
        files: scans, folders, archives; checked when they are opened.
        sample: whether to open the computed head.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
    """
    app = App(server, folder, device)
    tasks: set[asyncio.Task[None]] = set()  # which the loop alone would let go

    def start(**_: Any) -> None:
        if files or sample:
            opening = app.open.open_paths(files) if files else app.open.open_sample()
            tasks.add(asyncio.get_running_loop().create_task(opening))

    server.controller.on_server_ready.add(start)
    return app
