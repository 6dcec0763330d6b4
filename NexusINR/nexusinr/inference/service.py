"""What a worker does on request, and what it keeps in between: one session, its last scans."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import SimpleITK as sitk
import torch
from torch import nn

from nexusinr.dicom_out import export
from nexusinr.errors import InputError
from nexusinr.geometry import Affine, Grid
from nexusinr.inference import pipeline, report
from nexusinr.inference.adaptation.tuning import Schedule
from nexusinr.inference.prepared import PreparedScan
from nexusinr.inference.progress import Listener, Progress
from nexusinr.inference.protocol import MAX_PIXELS, packed
from nexusinr.inference.request import Scans, check_memory, check_pair, read_scans, target
from nexusinr.inference.session import Session
from nexusinr.models import weights
from nexusinr.models.nexus_inr import MODALITIES
from nexusinr.resample import covered

Options = dict[str, Any]

DEFAULT_MODEL = "nexus-inr"


class WatchedSession(Session):
    """A session that tells what it has encoded.

    Attributes:
        scans: what was encoded since `begin`, by modality.
        encoded_anew: modalities among them whose encoding was not in memory.
        latest: itself, or the one with weights that the run adapted.
    """

    def __init__(self, model: str, device: str) -> None:
        super().__init__(model, device)
        self._first_device = self.device
        self._seen: WeakValueDictionary[int, Any] = WeakValueDictionary()
        self.begin()

    @property
    def has_moved(self) -> bool:
        """Whether it had to leave the device that it was made for."""
        return self.device is not self._first_device

    def begin(self) -> None:
        """A new run: its scans and its notes are its own."""
        self.scans: dict[int, PreparedScan] = {}
        self.encoded_anew: list[str] = []
        self.latest: Session = self
        self.notes.clear()

    def with_network(self, network: nn.Module, sha256: str | None) -> Session:
        """As any session does; whoever asks about the run's scans later asks this one."""
        self.latest = super().with_network(network, sha256)
        return self.latest

    def encode(self, modality: int, scan: PreparedScan, target: Grid, progress: Progress) -> Any:
        """As any session does."""
        encoded = super().encode(modality, scan, target, progress)
        self.scans[modality] = scan
        if self._seen.get(id(encoded)) is not encoded:
            self._seen[id(encoded)] = encoded
            if MODALITIES[modality] not in self.encoded_anew:
                self.encoded_anew.append(MODALITIES[modality])
        return encoded


@dataclass(frozen=True)
class Pace:
    """How long the parts of a run take: seconds, seconds a scan voxel, seconds an output voxel.

    A model whose first step is not called encoding works on the output's voxels throughout.
    """

    fixed: float
    encoding: float | None
    output: float

    @classmethod
    def of(cls, run: dict[str, Any], scan_voxels: int, before: Pace | None) -> Pace:
        """From the report of a run.

        Args:
            run: the report.
            scan_voxels: that were encoded; 0 where not every scan was: then the pace of encoding
                is that of earlier runs.
            before: what they told.
        """
        times = run["seconds"]
        encoding = sum(t for step, t in times.items() if step.startswith("encoding"))
        fixed = sum(times.get(step, 0.0) for step in ("reading", "registering"))
        output = sum(times.values()) - encoding - fixed
        voxels = int(np.prod(run["lattice"]["shape"], dtype=np.int64))
        known = None if before is None else before.encoding
        return cls(fixed, encoding / scan_voxels if scan_voxels else known, output / voxels)

    def seconds(self, scan_voxels: int, output_voxels: int) -> float | None:
        """Of a run of that size; None where nothing was encoded yet and something has to be."""
        if scan_voxels and self.encoding is None:
            return None
        encoding = (self.encoding or 0.0) * scan_voxels
        return round(self.fixed + encoding + self.output * output_voxels, 1)


class Service:
    """The operations that compute, for one caller at a time.

    Every operation takes checked options (see `protocol`), a progress listener and a function that
    tells whether to stop, and gives the plain values of its result.

    Raises InputError, OutOfMemory and Cancelled as `pipeline.upsample` does.
    """

    def __init__(self) -> None:
        self.torch = str(torch.__version__)
        self._threads = (
            torch.get_num_threads(),
            sitk.ProcessObject.GetGlobalDefaultNumberOfThreads(),
        )
        self._session: WatchedSession | None = None
        self._made_for: object = None
        self._pace: Pace | None = None
        self._scans: dict[int, PreparedScan] = {}
        self._inputs: list[dict[str, Any]] = []
        self._lattice: Grid | None = None

    def upsample(
        self, options: Options, listener: Listener, cancelled: Callable[[], bool]
    ) -> dict[str, Any]:
        """The main job."""
        listener(0.0, "loading the model", None)
        session = self._session_for(options)
        session.begin()
        result = pipeline.upsample(
            **{name: value for name, value in options.items() if name not in _OF_SESSION},
            session=session,
            progress=listener,
            cancelled=cancelled,
        )
        self._scans, self._inputs = session.scans, result.report["inputs"]
        self._lattice = result.grid
        if not _OF_ANOTHER_PACE & options.keys():
            fresh = len(session.encoded_anew) == len(self._scans)
            voxels = sum(scan.whole.grid.voxels for scan in self._scans.values()) * fresh
            self._pace = Pace.of(result.report, voxels, self._pace)
        return {
            "files": {name: str(path) for name, path in result.files.items()},
            "report": result.report,
            "encoded_anew": session.encoded_anew,
        }

    def estimate(
        self, options: Options, listener: Listener, cancelled: Callable[[], bool]
    ) -> dict[str, Any]:
        """What the main job would make and take."""
        watch = Progress(listener, cancelled)
        with watch.step("reading", 0.7):
            scans = read_scans(options.get("t1w"), options.get("t2w"))
            lattice = target(scans, options.get("spacing"), options.get("like"), options.get("roi"))
            check_pair(scans)
            if options.get("dicom"):
                export.check(list(scans.volumes.values()), lattice.grid)
        with watch.step("loading the model", 0.3):
            session = self._session_for(options)
            needed = check_memory(scans, lattice.work, session, options.get("max_memory"))
        watch.finish()
        return {
            "lattice": report.describe_lattice(lattice.grid),
            "voxels": lattice.grid.voxels,
            "memory_gb": round(needed.memory / 1e9, 3),
            "seconds": self._seconds(scans, lattice.work, options),
            "warnings": scans.warnings,
            **_describe(session),
        }

    def plane(
        self, options: Options, listener: Listener, cancelled: Callable[[], bool]
    ) -> dict[str, Any]:
        """A plane through the scans of the last run."""
        if self._session is None or not self._scans:
            raise InputError("there is no scan to cut a plane through: send upsample first")
        i, j = options["size"]
        if i * j > MAX_PIXELS:
            raise InputError(f"a plane of {i} x {j} pixels is too large: at most {MAX_PIXELS}")
        try:
            grid = Grid((i, j, 1), Affine(options["affine"]))
        except ValueError as error:
            raise InputError(str(error)) from error
        watch = Progress(listener, cancelled)
        with watch.step("decoding", 1.0):
            restored = self._session.latest.decode(
                self._scans, grid, watch, options.get("segmentation", True), self._lattice
            )
        watch.finish()
        images = {}
        for modality, scan in self._scans.items():
            values = scan.normalisation.undo(restored.intensity[modality])
            values[~covered(scan.whole.grid, grid)] = scan.normalisation.offset
            images[MODALITIES[modality]] = packed(values)
        if restored.tissues is not None:
            images["segmentation"] = packed(restored.tissues)
        return {"images": images}

    def status(self) -> dict[str, Any]:
        """What is kept. May be called while something is being computed."""
        session = self._session
        kept = {} if session is None else _describe(session)
        return {"torch": self.torch, **kept, "encoded": self._inputs}

    def _session_for(self, options: Options) -> WatchedSession:
        """The session that is kept, or another one instead of it."""
        model, device = options.get("model", DEFAULT_MODEL), options.get("device", "auto")
        threads = options.get("threads")
        wanted = (model, weights.find(model).sha256, device, threads)
        if self._session is None or self._made_for != wanted or self._session.has_moved:
            self._use_threads(threads)
            session = WatchedSession(model, device)
            self._scans, self._inputs, self._pace = {}, [], None
            self._session, self._made_for = session, wanted
            gc.collect()
            if torch.cuda.is_initialized():
                torch.cuda.empty_cache()
        return self._session

    def _use_threads(self, count: int | None) -> None:
        of_torch, of_itk = self._threads if count is None else (count, count)
        torch.set_num_threads(of_torch)
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(of_itk)

    def _seconds(self, scans: Scans, grid: Grid, options: Options) -> float | None:
        if self._pace is None:
            return None
        effort = pipeline.effort(False, options.get("ensemble", 1))
        known = [given["sha256"] for given in self._inputs] if effort == 1 else []
        if options.get("adapt"):  # before it learns, it restores the scans once
            effort, known = effort + 1, []
        new = [v.grid.voxels for v in scans.volumes.values() if v.sha256 not in known]
        plain = self._pace.seconds(sum(new), grid.voxels)
        if plain is None:
            return None
        return round(effort * plain + Schedule().seconds * options.get("adapt", False), 1)


#: Options with which a run tells nothing of how long others take: of a region, for example, more is
#: computed than comes out.
_OF_ANOTHER_PACE = {"roi", "adapt", "ensemble"}

#: Options that make another session necessary, not another run.
_OF_SESSION = ("model", "device", "threads")


def _describe(session: Session) -> dict[str, Any]:
    device = session.device
    return {
        "model": report.describe_model(session),
        "device": {
            "name": device.name,
            "description": device.description,
            "reason": device.reason,
        },
    }
