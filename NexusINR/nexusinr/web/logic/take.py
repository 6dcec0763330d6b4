"""Taking away: files of the run, a picture of the screen, everything as one scene."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from trame_server import Server
from trame_server.utils.typed_state import TypedState

from nexusinr.errors import InputError
from nexusinr.inference.protocol import Event
from nexusinr.web.picture import save_screen
from nexusinr.web.room import Room
from nexusinr.web.state import SCENE, SCREEN, FileRow, TakeState

#: Seconds in which pages get to know that the scene is being written.
TOLD = 0.1

#: Titles and icons of what a run writes, in the order of the page.
TITLES: dict[str, tuple[str, str]] = {
    "t1w_sr.nii.gz": ("Restored T1w", "mdi-brain"),
    "t2w_sr.nii.gz": ("Restored T2w", "mdi-brain"),
    "segmentation.nii.gz": ("Tissues", "mdi-palette-outline"),
    "report.json": ("Report", "mdi-file-document-outline"),
    "comparison.png": ("Comparison", "mdi-image-outline"),
}


class TakeLogic:
    """Knows every file that may be taken; nothing else can be."""

    def __init__(self, server: Server, room: Room, folder: Path) -> None:
        self._state = server.state
        self.typed_state = TypedState(server.state, TakeState)
        self._room = room
        self._folder = folder
        self._files: dict[str, Path] = {}

    @property
    def data(self) -> TakeState:
        """What the page shows."""
        return self.typed_state.data

    def offer(self, event: Event | None) -> None:
        """The files of a run; None: there is no run any more."""
        files = {} if event is None else event["files"]
        self._files = {name: Path(files[name]) for name in TITLES if name in files}
        with self._state:
            self.data.files = [
                FileRow(name, *TITLES[name], _size(path)) for name, path in self._files.items()
            ]

    async def path(self, name: str) -> Path:
        """Where a file to take lies; screen and scene are written when they are asked for.

        Raises InputError for any other name.
        """
        if name == SCREEN and self._room.views:
            return save_screen(self._room, self._folder / SCREEN)
        if name == SCENE and self._room.views:
            return await self._save_scene()
        if name in self._files:
            return self._files[name]
        raise InputError(f"there is no {name!r} to take: open scans, or restore them, first")

    async def _save_scene(self) -> Path:
        """Nothing else goes on meanwhile, as MRML is written in the thread of the views."""
        path = self._folder / SCENE
        path.unlink(missing_ok=True)
        with self._state:
            self.data.busy = True
        await asyncio.sleep(TOLD)
        try:
            written = self._room.slicer.io_manager.write_scene(path)
        finally:
            with self._state:
                self.data.busy = False
        if not written:
            raise InputError("the scene could not be written: see whether the disk is full")
        return path


def _size(path: Path) -> str:
    size: Any = path.stat().st_size
    return f"{size / 1e6:.1f} MB" if size > 1e5 else f"{size / 1e3:.0f} kB"
