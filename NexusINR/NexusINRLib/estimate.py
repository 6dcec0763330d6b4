"""What a run would make and take, told before it is started."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import qt

from nexusinr.errors import Cancelled, InputError, NexusError
from nexusinr.geometry import Grid
from nexusinr.mrml.volumes import grid_of
from NexusINRLib.exchange import Folder
from NexusINRLib.run import Settings
from NexusINRLib.worker import Worker

#: Milliseconds without a change before the worker is asked.
DELAY = 600

#: The finest spacing that is chosen without being asked for, mm; as the worker has it.
FINEST_DEFAULT = 0.5


def lattice(settings: Settings) -> Grid:
    """The output's lattice without a region, found here: the worker may not be installed yet.

    Raises InputError for nodes and spacings that cannot be used.
    """
    if settings.like is not None:
        return grid_of(settings.like)
    scans = [grid_of(node) for node in settings.scans.values()]
    spacing = settings.spacing
    if spacing is None:
        spacing = max(min(float(grid.spacing.min()) for grid in scans), FINEST_DEFAULT)
    try:
        return scans[0].with_spacing(spacing)
    except ValueError as error:
        raise InputError(str(error)) from error


class Estimator:
    """Asks the worker, once nothing has changed for a moment.

    The scans lie on the disk only while the worker looks at them.

    Args:
        worker: who is asked.
        temporary: folder for temporary files.
        on_result: called with the ``result`` event of an ``estimate``.
        on_error: called instead where the worker refuses.
    """

    def __init__(
        self,
        worker: Worker,
        temporary: str | Path,
        on_result: Callable[[dict[str, Any]], None],
        on_error: Callable[[NexusError], None],
    ) -> None:
        self._worker, self._temporary = worker, temporary
        self._on_result, self._on_error = on_result, on_error
        self._settings: Settings | None = None
        self._asked: int | None = None
        self._folder: Folder | None = None
        self._timer = qt.QTimer()
        self._timer.setSingleShot(True)
        self._timer.interval = DELAY
        self._timer.timeout.connect(self._ask)

    def ask(self, settings: Settings) -> None:
        """Asks for these settings, soon; what was asked before is forgotten."""
        self._forget()
        self._settings = settings
        self._timer.start()

    def stop(self) -> None:
        """Asks for nothing more; nothing of the scans stays on the disk."""
        self._timer.stop()
        self._forget()

    def _forget(self) -> None:
        if self._asked is not None:
            self._worker.cancel(self._asked, at_once=False)
            self._asked = None
        if self._folder is not None:
            self._folder.remove()
            self._folder = None

    def _ask(self) -> None:
        if self._settings is None:
            return
        self._folder = folder = Folder(self._temporary)
        try:
            options = self._settings.options(folder)
        except InputError as error:
            self._forget()
            self._on_error(error)
            return
        self._asked = self._worker.request(
            "estimate",
            lambda event: self._take(folder, event),
            lambda error: self._refuse(folder, error),
            **options,
        )

    def _take(self, folder: Folder, event: dict[str, Any]) -> None:
        if self._is_answered(folder):
            self._on_result(event)

    def _refuse(self, folder: Folder, error: NexusError) -> None:
        if self._is_answered(folder) and not isinstance(error, Cancelled):
            logging.info("NexusINR: no estimate: %s", error)
            self._on_error(error)

    def _is_answered(self, folder: Folder) -> bool:
        """Deletes the scans that were looked at; whether nothing else was asked for since."""
        folder.remove()
        is_last = folder is self._folder
        if is_last:
            self._folder, self._asked = None, None
        return is_last
