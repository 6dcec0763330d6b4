"""How every session of a cohort is restored, and by what means."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any

from nexusinr import __version__
from nexusinr.cohort.pair import Pair


@dataclass(frozen=True)
class Settings:
    """What the results depend on, besides the scans.

    Attributes:
        model: name of the weights.
        weights: their SHA-256.
        spacing: of the results, mm, one number or three; None: see `pipeline.upsample`.
        register: ``auto``, ``rigid`` or ``none``.
        consistency: 0 ... 1.
        segmentation: whether tissues are wanted.
        dicom: whether DICOM is written as well, from DICOM.
    """

    model: str
    weights: str
    spacing: tuple[float, ...] | None = None
    register: str = "auto"
    consistency: float = 1.0
    segmentation: bool = True
    dicom: bool = False

    def for_upsample(self) -> dict[str, Any]:
        """As options of `pipeline.upsample`."""
        options = asdict(self)
        del options["model"], options["weights"]  # those of the session
        return options

    def digest(self, pair: Pair, inputs: str) -> str:
        """Of all that a result depends on: scans, names, options, weights, version.

        Args:
            pair: the session.
            inputs: digest of its scans.
        """
        stems = {modality: scan.stem for modality, scan in pair.scans.items()}
        values = {"inputs": inputs, "stems": stems, "version": __version__, **asdict(self)}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Means:
    """What a worker may use.

    Attributes:
        device: as for `pipeline.upsample`.
        gpus: GPUs that the workers of this machine share out by their numbers; 0: `device` counts.
        threads: CPU threads of one worker; None: as many as Dask gave it.
        max_memory: GB of one worker; None: what Dask gave it.
    """

    device: str = "auto"
    gpus: int = 0
    threads: int | None = None
    max_memory: float | None = None

    def device_of(self, worker: object) -> str:
        """The device of a worker of this name."""
        return f"cuda:{int(str(worker)) % self.gpus}" if self.gpus else self.device
