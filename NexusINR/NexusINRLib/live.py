"""The live slice: what the views of restored scans show is decoded by the warm worker."""

from __future__ import annotations

from typing import Any

import qt
import vtk
from slicer.i18n import tr as _
from slicer.util import VTKObservationMixin

from nexusinr.errors import Cancelled, InputError, NexusError
from nexusinr.geometry import Affine, Grid
from nexusinr.inference.protocol import MAX_PIXELS, Event, unpacked
from nexusinr.mrml.comparison import Comparison
from nexusinr.mrml.layout import View
from nexusinr.mrml.live import MOST_PIXELS, LiveSlice, live_slices
from NexusINRLib.words import sentence
from NexusINRLib.worker import Worker

#: Milliseconds without a movement before a CPU starts; a GPU follows the hand.
REST = 250


class Live(VTKObservationMixin):
    """Follows the views of a comparison. One plane is asked for at a time; the newest wins.

    Args:
        ui: the panel's widgets by name.
        worker: who decodes.
    """

    def __init__(self, ui: Any, worker: Worker) -> None:
        VTKObservationMixin.__init__(self)
        self._ui, self._worker = ui, worker
        self._slices: dict[View, LiveSlice] = {}
        self._record: dict[str, Any] = {}
        self._most = MOST_PIXELS
        self._asked: tuple[int, Grid] | None = None
        self._timer = qt.QTimer()
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self._ask)

    def start(self, comparison: Comparison, record: dict[str, Any]) -> None:
        """From here on the restored row shows decoded planes.

        Args:
            comparison: that is shown.
            record: the report of the run that it shows.
        """
        self._record = record
        if not self._is_warm():
            self._give_up(_no_scans())
            return
        on_cpu = record["device"]["name"] == "cpu"
        self._most = MOST_PIXELS if on_cpu else MAX_PIXELS
        self._timer.interval = REST if on_cpu else 0
        self._slices = live_slices(comparison, Affine(record["lattice"]["affine"]))
        for live in self._slices.values():
            self.addObserver(live.slice_node, vtk.vtkCommand.ModifiedEvent, self._on_view)
        self._say(_("Views are sharpened where they stand still.") if on_cpu else "")
        self._ask()

    def stop(self) -> None:
        """Shows the plain restored volume again."""
        self._timer.stop()
        self.removeObservers()
        slices, self._slices = self._slices, {}
        for live in slices.values():
            live.close()
        self._drop()
        if slices:
            self._say("")

    def _give_up(self, reason: str) -> None:
        self.stop()
        self._ui.liveCheckBox.checked = False
        self._say(reason)

    def _say(self, text: str) -> None:
        self._ui.liveLabel.text = text
        self._ui.liveLabel.visible = bool(text)

    def _is_warm(self) -> bool:
        """Whether the worker has the scans in memory that were restored then, as they were."""
        return self._worker.warm is not None and _run_of(self._worker.warm) == _run_of(self._record)

    # --- one plane after the other ------------------------------------------------------------

    def _on_view(self, caller: Any, event: Any) -> None:
        self._timer.start()

    def _ask(self) -> None:
        if self._slices and not self._is_warm():
            self._give_up(_no_scans())
            return
        wanted = [(live, live.wanted(self._most)) for live in self._slices.values()]
        missing = [(live, plane) for live, plane in wanted if plane is not None]
        if self._asked is not None:
            if all(plane != self._asked[1] for _, plane in missing):
                self._worker.cancel(self._asked[0], at_once=False)
        elif missing:
            live, plane = missing[0]
            id = self._worker.request(
                "plane",
                lambda event: self._take(plane, event),
                lambda error: self._refuse(plane, error),
                **live.request(plane),
            )
            self._asked = id, plane

    def _is_answer(self, plane: Grid) -> bool:
        """Whether this was asked for last; something else may be asked for then."""
        is_answer = self._asked is not None and self._asked[1] is plane
        if is_answer:
            self._asked = None
        return is_answer

    def _take(self, plane: Grid, event: Event) -> None:
        if not self._is_answer(plane):
            return
        for view, live in self._slices.items():
            # Another run may have ended since it was asked for.
            if self._is_warm() and live.wanted(self._most) == plane:
                live.show(plane, unpacked(event["images"][view.modality]))
        self._ask()

    def _refuse(self, plane: Grid, error: NexusError) -> None:
        if not self._is_answer(plane):
            return
        if isinstance(error, Cancelled) and self._worker.running:  # the view has moved on
            self._ask()
        elif isinstance(error, InputError):  # another model was loaded meanwhile
            self._give_up(_no_scans())
        else:
            self._give_up(sentence(str(error)))

    def _drop(self) -> None:
        if self._asked is not None:
            self._worker.cancel(self._asked[0], at_once=False)
            self._asked = None


def _no_scans() -> str:
    return _(
        "The live slice is off: the scans of this result are not in memory any more. Press Apply "
        "to restore them again."
    )


def _run_of(report: dict[str, Any]) -> tuple[Any, ...]:
    """What decides on a plane's values: the scans, how they were moved, and the weights."""
    inputs = {scan["modality"]: scan["sha256"] for scan in report["inputs"]}
    return inputs, report["registration"], report["model"]
