"""The live slice: restored views decoded as they are seen, by the worker that restored them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from trame_server import Server
from trame_server.utils.typed_state import TypedState
from undo_stack import Signal

from nexusinr.errors import Cancelled, InputError, NexusError
from nexusinr.geometry import Affine, Grid
from nexusinr.inference.protocol import MAX_PIXELS, Event, unpacked
from nexusinr.mrml.live import MOST_PIXELS, LiveSlice
from nexusinr.mrml.results import Results
from nexusinr.web.room import Room
from nexusinr.web.state import LiveState
from nexusinr.web.worker import Worker

#: Seconds without a move until a CPU decodes; a GPU does so while views move.
PAUSE = 0.3

FORGOTTEN = (
    "The worker no longer holds these scans (it was asked about other scans or another model, or "
    "was started anew): restore them again."
)


class LiveLogic:
    """While it is on, the planes of the restored views on the screen follow the views.

    One plane is decoded at a time, and where that takes long, one that no view wants any more is
    cancelled.

    Signals:
        gave_up: it was switched off; the state says why.
    """

    gave_up = Signal()

    def __init__(self, server: Server, room: Room, worker: Worker) -> None:
        self._state = server.state
        self.typed_state = TypedState(server.state, LiveState)
        self._room = room
        self._worker = worker
        self._record: dict[str, Any] = {}
        self._following: asyncio.Task[None] | None = None
        self._asked: Grid | None = None
        self._moved = asyncio.Event()
        self.typed_state.bind_changes({self.typed_state.name.on: self._on_switched})
        room.moved.connect(self._on_moved)
        room.fitted.connect(self._on_moved)

    @property
    def data(self) -> LiveState:
        """What the page shows."""
        return self.typed_state.data

    def use(self, results: Results | None) -> None:
        """Another run to look at, or none; it is switched off for that."""
        self._stop()
        self._record = {} if results is None else results.record
        with self._state:
            self.data.on, self.data.problem = False, ""

    def _on_switched(self, on: bool) -> None:
        self._stop()
        if on and self._record:
            self.data.problem = ""
            self._room.go_live(Affine(self._record["lattice"]["affine"]))
            self._following = asyncio.get_running_loop().create_task(self._follow())
            self._moved.set()

    def _stop(self) -> None:
        if self._following is not None:
            self._following.cancel()
            self._following = None
        self._room.end_live()
        self._tell(busy=False)

    @property
    def _is_quick(self) -> bool:
        """Whether planes come about as fast as views move."""
        return str(self._record["device"]["name"]) != "cpu"

    @property
    def _most(self) -> int:
        return MAX_PIXELS if self._is_quick else MOST_PIXELS

    def _seen(self) -> Iterator[tuple[str, LiveSlice]]:
        """Modality and live slice of the views on the screen."""
        for view in self._room.views:
            if view in self._room.live:
                yield view.modality, self._room.live[view]

    def _wanted(self) -> list[Grid]:
        planes = [each.wanted(self._most) for _, each in self._seen()]
        return [plane for plane in planes if plane is not None]

    # --- following the views ------------------------------------------------------------------

    def _on_moved(self) -> None:
        if self._following is None:
            return
        self._moved.set()
        if not self._is_quick and self._asked is not None and self._asked not in self._wanted():
            self._worker.cancel("plane")
        if self.data.shown != self._shown():  # what has moved on is not called live any more
            self._tell(busy=bool(self.data.busy))

    async def _follow(self) -> None:
        try:
            while True:
                await self._moved.wait()
                await self._rest()
                with suppress(Cancelled):  # no view wants that plane any more
                    await self._decode_all()
                self._tell(busy=False)
        except NexusError as error:
            self._give_up(str(error))
        except Exception:
            self._give_up("Something went wrong that was not foreseen; the log tells more.")
            raise

    async def _rest(self) -> None:
        """Until the views are at rest, where a plane takes longer than a move."""
        self._moved.clear()
        while not self._is_quick:
            await asyncio.sleep(PAUSE)
            if not self._moved.is_set():
                return
            self._moved.clear()

    async def _decode_all(self) -> None:
        """The planes of all views in turn, as long as none of them moves."""
        while not self._moved.is_set() and (planes := self._wanted()):
            self._tell(busy=True)
            self._asked = planes[0]
            try:
                self._show(planes[0], await self._decode(planes[0]))
            finally:
                self._asked = None

    async def _decode(self, plane: Grid) -> Event:
        status = await self._worker.request("status")
        scans, held = self._record["inputs"], status["encoded"]
        if [scan["sha256"] for scan in scans] != [scan["sha256"] for scan in held] or (
            status["model"]["sha256"] != self._record["model"]["sha256"]
        ):
            raise InputError(FORGOTTEN)
        options = next(each for _, each in self._seen()).request(plane)
        return await self._worker.request("plane", **options)

    def _show(self, plane: Grid, event: Event) -> None:
        """In every view that looks at that plane."""
        for modality, each in self._seen():
            if each.wanted(self._most) == plane:
                each.show(plane, unpacked(event["images"][modality]))

    def _shown(self) -> list[str]:
        return [view.tag for view, each in self._room.live.items() if each.shown is not None]

    def _tell(self, busy: bool) -> None:
        with self._state:
            self.data.busy, self.data.shown = busy, self._shown()

    def _give_up(self, problem: str) -> None:
        self._following = None  # it is the one that ends here
        self._stop()
        with self._state:
            self.data.on, self.data.problem = False, problem
        self.gave_up.emit()
