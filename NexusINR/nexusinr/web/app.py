"""The viewer behind its page: scene, views and logic, wired together and to the page by signals."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

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
from nexusinr.web.ui.page import PageUI
from nexusinr.web.ui.views import register_views
from nexusinr.web.worker import Worker


class App:
    """One viewer for one user, in as many tabs as they like.

    Args:
        server: trame's.
        page: what is seen of it.
        incoming: where uploads go.
        folder: the session's own.
        device: where to compute.
    """

    def __init__(
        self, server: Server, page: PageUI, incoming: Incoming, folder: Path, device: str
    ) -> None:
        # VTK says of every view that it has no X server and no window: it needs neither.
        vtkObject.GlobalWarningDisplayOff()
        slicer = SlicerApp()
        layouts = LayoutManager(
            slicer.scene,
            slicer.view_manager,
            server,
            virtual_node=page.views,
            is_virtual_node_initialized=True,
        )
        self.worker = Worker()
        self.room = Room(slicer, layouts)
        register_views(slicer.view_manager, server, self.room)
        self.open = OpenLogic(server, slicer.scene, incoming, folder)
        self.run = RunLogic(server, folder, self.worker, device)
        self.look = LookLogic(server, self.room)
        self.live = LiveLogic(server, self.room, self.worker)
        self.take = TakeLogic(server, self.room, folder)
        self._state = server.state
        self._page_state = TypedState(server.state, PageState)
        self.keys = Keys(server, self.room, self.look, self.live, self._page_state.data)
        self._wire(page)

    async def begin(self, files: Sequence[Path], *, sample: bool) -> None:
        """Opens what there is to open at once.

        Args:
            files: scans, folders, archives; checked here.
            sample: whether to open the computed head, where no files are given.
        """
        if files:
            await self.open.open_paths(files)
        elif sample:
            await self.open.open_sample()
        else:
            await self.open.open([])

    def close(self) -> None:
        """Ends the worker."""
        self.worker.close()

    def _wire(self, page: PageUI) -> None:
        page.open.sample_wanted.connect(self.open.open_sample)
        page.open.role_chosen.connect(self.open.choose)
        page.open.removed.connect(self.open.remove)
        page.run.applied.connect(self.run.apply)
        page.run.cancelled.connect(self.run.cancel)
        page.look.fit_wanted.connect(self.look.fit)
        page.look.reset_wanted.connect(self.look.reset_window)
        page.look.tissue_switched.connect(self.look.show_tissue)
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
        with self._state:
            self._page_state.data.tab = "look"

    def _on_gave_up(self) -> None:
        """Where it is read why."""
        with self._state:  # a task on its own has nobody to send its changes to the page
            self._page_state.data.panel, self._page_state.data.tab = True, "look"
