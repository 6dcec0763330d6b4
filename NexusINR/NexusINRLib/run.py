"""One run: what is wanted, sent to the worker; what comes back, put into the scene."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nexusinr.errors import Cancelled, InputError, NexusError
from nexusinr.mrml.results import Results, add_results
from nexusinr.mrml.segmentation import show_surfaces
from nexusinr.mrml.volumes import grid_of
from NexusINRLib.exchange import Folder, box_of, read_image
from NexusINRLib.worker import Worker

#: Result files by what they hold.
IMAGES = {"T1w": "t1w_sr.nii.gz", "T2w": "t2w_sr.nii.gz"}
TISSUES = "segmentation.nii.gz"


@dataclass(frozen=True)
class Settings:
    """What is wanted.

    Attributes:
        t1w: volume node of the T1w scan, or None.
        t2w: volume node of the T2w scan, or None; one of the two at least.
        spacing: mm along the axes of the T1w scan (T2w where there is none), one number or three;
            None: the finest of the scans, isotropic, not under 0.5 mm.
        like: volume node whose lattice is taken over instead.
        roi: markups ROI node; only this part is made.
        model: name of the weights.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        register: ``auto``, ``rigid`` or ``none``.
        consistency: 0 ... 1, how much of what was measured is kept.
        segmentation: whether tissues are wanted.
        surfaces: whether they are shown in 3D, too.
    """

    t1w: Any = None
    t2w: Any = None
    spacing: float | tuple[float, float, float] | None = None
    like: Any = None
    roi: Any = None
    model: str = "nexus-inr"
    device: str = "auto"
    register: str = "auto"
    consistency: float = 1.0
    segmentation: bool = True
    surfaces: bool = False

    @property
    def scans(self) -> dict[str, Any]:
        """The scans' nodes by modality."""
        given = {"T1w": self.t1w, "T2w": self.t2w}
        return {modality: node for modality, node in given.items() if node is not None}

    def options(self, folder: Folder) -> dict[str, Any]:
        """Options of a request; scans go into the folder.

        Raises InputError for nodes that cannot be used.
        """
        if not self.scans:
            raise InputError("no scan is chosen: choose a T1w volume, a T2w volume or both")
        files = {m.lower(): folder.add_scan(node, m.lower()) for m, node in self.scans.items()}
        spacing = list(self.spacing) if isinstance(self.spacing, tuple) else self.spacing
        return {
            **files,
            "spacing": spacing,
            "like": None if self.like is None else folder.add_lattice(self.like, "like"),
            "roi": None if self.roi is None else list(self._box()),
            "model": self.model,
            "device": self.device,
            "register": self.register,
            "consistency": self.consistency,
            "segmentation": self.segmentation,
        }

    def _box(self) -> tuple[float, ...]:
        lattice = self.like or next(iter(self.scans.values()))
        return box_of(self.roi, grid_of(lattice).affine.direction)


class Run:
    """A run on its way; the worker takes runs one after the other.

    Nothing of it stays, in the scene or on the disk, unless it is done.

    Args:
        settings: what is wanted; the scans are written at once and may change afterwards.
        scene: where the results go.
        worker: who does it.
        temporary: folder for temporary files.
        on_progress: called with a share 0 ... 1, a step in words, and seconds to go or None.
        on_done: called with the results.
        on_error: called instead where it fails or is cancelled (nexusinr.errors.Cancelled).

    Attributes:
        results: the nodes, once it is done.
        error: why it is not, once it has failed.

    Raises InputError for nodes that cannot be used.
    """

    def __init__(
        self,
        settings: Settings,
        scene: Any,
        worker: Worker,
        temporary: str | Path,
        on_progress: Callable[[float, str, float | None], None] | None = None,
        on_done: Callable[[Results], None] | None = None,
        on_error: Callable[[NexusError], None] | None = None,
    ) -> None:
        self.results: Results | None = None
        self.error: NexusError | None = None
        self._settings, self._scene, self._worker = settings, scene, worker
        self._on_progress, self._on_done, self._on_error = on_progress, on_done, on_error
        self._is_abandoned = False
        # Nodes may be removed while it runs.
        self._sources = {modality: node.GetID() for modality, node in settings.scans.items()}
        self._folder = Folder(temporary)
        try:
            options = settings.options(self._folder)
        except BaseException:
            self._folder.remove()
            raise
        options["out"] = self._folder.path / "out"
        self._id = worker.request("upsample", self._finish, self._fail, self._tell, **options)

    @property
    def finished(self) -> bool:
        """Whether it is done, has failed or was cancelled."""
        return self.results is not None or self.error is not None

    def cancel(self) -> None:
        """Stops it; `on_error` is told within a second."""
        self._worker.cancel(self._id)

    def abandon(self) -> None:
        """Stops it, and tells nobody any more: its scene is about to close."""
        self._is_abandoned = True
        self._on_progress = self._on_done = self._on_error = None
        self.cancel()

    def _tell(self, event: dict[str, Any]) -> None:
        if self._on_progress is not None:
            self._on_progress(event["fraction"], event["step"], event["eta_s"])

    def _finish(self, event: dict[str, Any]) -> None:
        if self._is_abandoned:  # and done before it could be stopped
            self._fail(Cancelled("cancelled: the scene was closed"))
            return
        try:
            self.results = self._add(event)
        except NexusError as error:
            self._fail(error)
        except Exception as error:
            logging.exception("NexusINR: the results could not be read")
            self._fail(NexusError(f"the results could not be put into the scene ({error})"))
        else:
            self._folder.remove()
            if self._on_done is not None:
                self._on_done(self.results)

    def _add(self, event: dict[str, Any]) -> Results:
        files = event["files"]
        images = {m: read_image(files[name]) for m, name in IMAGES.items() if name in files}
        tissues = read_image(files[TISSUES]) if TISSUES in files else None
        nodes = {m: self._scene.GetNodeByID(id) for m, id in self._sources.items()}
        sources = {m: node for m, node in nodes.items() if node is not None}
        results = add_results(self._scene, event["report"], images, tissues, sources)
        if self._settings.surfaces and results.segmentation is not None:
            show_surfaces(results.segmentation)
        return results

    def _fail(self, error: NexusError) -> None:
        self.error = error
        self._folder.remove()
        if self._on_error is not None:
            self._on_error(error)
