"""Opening scans: reading, guessing which is which, and the list of them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trame_server import Server
from trame_server.utils.typed_state import TypedState
from undo_stack import Signal

from nexusinr import modality
from nexusinr.errors import NexusError
from nexusinr.mrml.volumes import add_volume
from nexusinr.reading import sizes_text
from nexusinr.web import sample
from nexusinr.web.incoming import Found, Incoming
from nexusinr.web.state import ROLES, OpenState, ScanRow

if TYPE_CHECKING:
    from nexusinr.volume import Volume

#: The role of a scan that is not used.
UNUSED = ROLES[-1]


@dataclass(eq=False)
class Scan:
    """A scan that was opened: where it is, what it holds, and its node once it is shown."""

    key: str
    name: str
    path: Path
    volume: Volume
    role: str
    node: Any = None


class OpenLogic:
    """Keeps the scans.

    Signals:
        changed: the scans in use, by modality (T1w first).
    """

    changed = Signal(dict)

    def __init__(self, server: Server, scene: Any, incoming: Incoming, folder: Path) -> None:
        self._state = server.state
        self.typed_state = TypedState(server.state, OpenState)
        self._scene = scene
        self._incoming = incoming
        self._folder = folder
        self._scans: list[Scan] = []
        self._told: dict[str, Scan] = {}
        self._keys = count(1)
        self._queue = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def data(self) -> OpenState:
        """What the page shows."""
        return self.typed_state.data

    @property
    def used(self) -> dict[str, Scan]:
        """The scans in use, by modality."""
        return {role: scan for role in ROLES[:-1] for scan in self._scans if scan.role == role}

    async def open_paths(self, paths: Sequence[Path]) -> None:
        """Opens what the user has named on the command line."""
        try:
            found = await asyncio.to_thread(self._incoming.paths, paths)
        except NexusError as error:
            self.refuse(str(error))
        else:
            await self.open(found)

    async def open_sample(self) -> None:
        """Opens the computed head."""
        self._show_busy("Computing a head and scanning it: about ten seconds")
        try:
            paths = await sample.make(self._folder / "sample")
        except NexusError as error:
            self.refuse(str(error))
        else:
            t1w, t2w = paths
            await self.open([Found("Sample T1w", t1w, "T1w"), Found("Sample T2w", t2w, "T2w")])

    def open_soon(self, found: Sequence[Found], problems: Sequence[str]) -> None:
        """As `open`, without waiting for it."""
        task = asyncio.get_running_loop().create_task(self.open(found, problems))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def open(self, found: Sequence[Found], problems: Sequence[str] = ()) -> None:
        """Reads scans and adds them to the list; of two with one role the later one has it.

        Args:
            found: scans.
            problems: sentences about others, which could not be taken.
        """
        problems = list(problems)
        async with self._queue:
            for each in found:
                self._show_busy(f"Reading {each.name}")
                try:
                    self._add(await asyncio.to_thread(self._read, each))
                except NexusError as error:
                    # Uploads lie under names of ours, which mean nothing to the user.
                    problems.append(str(error).replace(each.path.name, each.name, 1))
            self._update(problem=". ".join(problems))

    def refuse(self, message: str) -> None:
        """Says why something cannot be opened."""
        with self._state:
            self.data.busy, self.data.problem = "", message

    def choose(self, key: str, role: str) -> None:
        """Says which modality a scan has; the scan that had it before is left out."""
        for scan in self._scans:
            if scan.key == key:
                scan.role = role
            elif scan.role == role:
                scan.role = UNUSED
        self._update()

    def remove(self, key: str) -> None:
        """Takes a scan off the list."""
        gone = [scan for scan in self._scans if scan.key == key]
        self._scans = [scan for scan in self._scans if scan.key != key]
        self._update()
        for scan in gone:
            self._scene.RemoveNode(scan.node)

    def _read(self, found: Found) -> Scan:
        # With the first scan, so that the program is up sooner.
        from nexusinr.volume import read_volume

        volume = read_volume(found.path)
        role = found.modality or modality.guess(found.name, volume.data)
        return Scan(f"scan{next(self._keys)}", found.name, found.path, volume, role or UNUSED)

    def _add(self, scan: Scan) -> None:
        free = [role for role in ROLES[:-1] if role not in self.used]
        if scan.role == UNUSED and free:
            scan.role = free[0]
            scan.volume = scan.volume.replace(
                notes=(*scan.volume.notes, f"it was not clear that this is a {free[0]} scan: check")
            )
        # The name of the file may be that of the patient; a saved scene goes round.
        scan.node = add_volume(self._scene, scan.volume.data, scan.volume.affine, "scan")
        self._scans.append(scan)
        for other in self._scans[:-1]:
            if other.role == scan.role:
                other.role = UNUSED

    def _update(self, problem: str = "") -> None:
        for scan in self._scans:
            scan.node.SetName(scan.key if scan.role == UNUSED else scan.role)
        with self._state:
            self.data.busy, self.data.problem = "", problem
            self.data.scans = [_row(scan) for scan in self._scans]
            if self.used != self._told:  # otherwise a bad file would cost the results
                self._told = self.used
                self.changed.emit(self.used)

    def _show_busy(self, text: str) -> None:
        with self._state:
            self.data.busy, self.data.problem = text, ""


def _row(scan: Scan) -> ScanRow:
    volume = scan.volume
    lengths = " × ".join(f"{s:.2f}" for s in volume.affine.spacing)
    parts = [volume.affine.orientation, f"{lengths} mm", sizes_text(volume.data.shape)]
    axis = volume.slice_axis
    if axis is not None:
        parts.append(f"slices {volume.thickness[axis]:.2f} mm thick")
    return ScanRow(scan.key, scan.name, scan.role, " · ".join(parts), list(volume.notes))
