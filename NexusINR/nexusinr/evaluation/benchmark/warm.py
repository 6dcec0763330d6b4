"""The main job in a session: the model is loaded, and encodings stay in memory."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from nexusinr.evaluation.benchmark.counting import CountedSteps, Counter, Work
from nexusinr.evaluation.benchmark.heads import Head
from nexusinr.evaluation.benchmark.timing import seconds_of
from nexusinr.geometry import Affine, Grid
from nexusinr.inference.pipeline import upsample
from nexusinr.inference.progress import Listener, Progress
from nexusinr.inference.session import Session

#: The planes: pixels along an edge, that edge in mm, and how they are turned, degrees.
PLANES = (256, 512)
PLANE_EDGE = 256.0
PLANE_ANGLES = (20.0, -15.0, 10.0)

#: How often each is timed; the median counts.
TIMES = 5


@dataclass(frozen=True)
class WarmRun:
    """A run from scans in memory to restored scans in memory.

    Attributes:
        seconds: of the whole.
        encoding: of what is done once a scan.
        decoding: of what is done for a lattice.
        lattice: its shape.
        spacing: of the lattice, mm.
    """

    seconds: float
    encoding: float
    decoding: float
    lattice: tuple[int, int, int]
    spacing: float

    @property
    def network(self) -> float:
        """Seconds from prepared scans to intensities on the lattice."""
        return self.encoding + self.decoding


class Warm:
    """A session that is timed.

    Args:
        session: the model on its device.
        cancelled: asked often; a run then raises Cancelled.
    """

    def __init__(self, session: Session, cancelled: Callable[[], bool]) -> None:
        self.session = session
        self._cancelled = cancelled

    def count(self, head: Head) -> dict[str, Work]:
        """What every step of a run with nothing in memory computes."""
        self.session.forget()
        with Counter() as counter:
            steps = CountedSteps(counter)
            self._upsample(head, float(head.grid.spacing[0]), steps)
        return steps.steps

    def first(self, head: Head, spacing: float) -> WarmRun:
        """A run with nothing of these scans in memory."""
        self.session.forget()
        return self.again(head, spacing)

    def again(self, head: Head, spacing: float) -> WarmRun:
        """A run with what is in memory."""
        return self._upsample(head, spacing, None)

    def plane(self, head: Head, pixels: int) -> float:
        """Seconds for one oblique plane through encoded scans, both modalities and the tissues.

        Args:
            head: the scans.
            pixels: along an edge of the plane.
        """
        scans = {m: self.session.prepare(scan) for m, scan in enumerate(head.scans)}
        plane = plane_through(head.grid, pixels)
        quiet = Progress(cancelled=self._cancelled)

        def cut() -> None:
            self.session.decode(scans, plane, quiet, encoded_for=head.grid)

        cut()
        return statistics.median(seconds_of(cut, self.session.device) for _ in range(TIMES))

    def _upsample(self, head: Head, spacing: float, listener: Listener | None) -> WarmRun:
        t1w, t2w = head.scans
        begun = time.perf_counter()
        result = upsample(
            t1w,
            t2w,
            spacing=spacing,
            session=self.session,
            progress=listener,
            cancelled=self._cancelled,
        )
        seconds = time.perf_counter() - begun  # what it gives has left the device
        steps, names = result.report["seconds"], self.session.engine.steps
        encoding = sum(t for name, t in steps.items() if name.startswith(names.encoding))
        return WarmRun(seconds, encoding, steps[names.decoding], result.grid.shape, spacing)


def plane_through(grid: Grid, pixels: int) -> Grid:
    """An oblique square of PLANE_EDGE, with so many pixels, about the middle of a lattice."""
    direction = (
        grid.affine.direction @ Rotation.from_euler("xyz", PLANE_ANGLES, degrees=True).as_matrix()
    )
    size = PLANE_EDGE / pixels
    middle = np.array((pixels - 1, pixels - 1, 0)) / 2 * size
    affine = Affine.from_parts((size, size, 1), direction, grid.centre - direction @ middle)
    return Grid((pixels, pixels, 1), affine)
