"""Results as BIDS has derivatives: names and sidecars.

The restored images lie on the lattice of the T1w scan (of the T2w scan where there is none). That
scan's own image needs no ``space`` entity; the other image and the tissues name it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from nexusinr.cohort.dataset import SOURCE
from nexusinr.cohort.pair import Pair, Scan
from nexusinr.cohort.settings import Settings
from nexusinr.inference import pipeline
from nexusinr.labels import TISSUES
from nexusinr.models.nexus_inr import MODALITIES


class Names:
    """What the files of one session are called within the output folder.

    Args:
        pair: the session.
        spacing: of the lattice, mm, (3,).
    """

    def __init__(self, pair: Pair, spacing: list[float]) -> None:
        self._pair = pair
        self.reference = next(iter(pair.scans))
        self._tail = f"res-{resolution_label(spacing)}_desc-nexusinr"

    def image(self, modality: str) -> str:
        """A restored scan."""
        space = "" if modality == self.reference else f"space-{self.reference}_"
        return self._path(self._pair.scans[modality], f"{space}{self._tail}_{modality}.nii.gz")

    @property
    def tissues(self) -> str:
        """The segmentation."""
        scan = self._pair.scans[self.reference]
        return self._path(scan, f"space-{self.reference}_{self._tail}_dseg.nii.gz")

    @property
    def figure(self) -> str:
        """The comparison."""
        label = self._pair.label
        return f"{label.split('_')[0]}/figures/{label}_desc-comparison_{self.reference}.png"

    @property
    def dicom(self) -> str:
        """The folder of what goes to a PACS."""
        return "/".join((*self._pair.label.split("_"), "dicom"))

    def _path(self, scan: Scan, tail: str) -> str:
        return f"{self._pair.folder}/{scan.stem}_{tail}"


def resolution_label(spacing: list[float]) -> str:
    """For example ``1mm`` or ``0p9x0p9x3mm``: labels hold letters and digits alone."""
    lengths = [f"{round(s, 2):g}".replace(".", "p") for s in spacing]
    return ("x".join(lengths) if len(set(lengths)) > 1 else lengths[0]) + "mm"


def arrange(
    made: Path,
    pair: Pair,
    settings: Settings,
    root: Path,
    report: dict[str, Any],
    stripped: dict[str, bool],
) -> dict[str, Path]:
    """Gives the files of a run their names, and writes what goes with them.

    Args:
        made: folder with the files of `pipeline.upsample`; sidecars are written there.
        pair: the session.
        settings: how it was restored.
        root: folder of the source data set.
        report: of the run.
        stripped: whether each scan shows no skull, by modality.

    Returns where each file is now, by its name within the output folder.
    """
    names = Names(pair, report["lattice"]["spacing_mm"])
    common = _common(pair, settings, root, report)
    files: dict[str, Path] = {}
    for modality, image in zip(MODALITIES, pipeline.IMAGES, strict=True):
        if modality not in pair.scans:
            continue
        name = names.image(modality)
        side = {"Description": f"Restored {modality} scan", **common}
        side["SkullStripped"] = stripped[modality]
        if modality != names.reference:
            side["SpatialReference"] = _uri(root, pair.scans[names.reference].path)
        files[name] = made / image
        files[_beside(name, ".json")] = _json(made, f"{modality}.json", side)
    if (made / pipeline.SEGMENTATION).is_file():
        side = {"Description": "Tissues", **common, "Manual": False}
        side["SpatialReference"] = _uri(root, pair.scans[names.reference].path)
        side["TissueVolumesML"] = report["tissue_volumes_ml"]
        files[names.tissues] = made / pipeline.SEGMENTATION
        files[_beside(names.tissues, ".json")] = _json(made, "dseg.json", side)
        files[_beside(names.tissues, ".tsv")] = _text(made, "dseg.tsv", tissue_table())
    files[names.figure] = made / pipeline.COMPARISON
    series = made / pipeline.DICOM
    for path in sorted(series.rglob("*.dcm")):
        files[f"{names.dicom}/{path.relative_to(series).as_posix()}"] = path
    return files


def tissue_table() -> str:
    """What each value of a segmentation means, as BIDS has it."""
    rows = ["index\tname\tcolor"]
    rows += [f"{t.value}\t{t.name}\t#{bytes(t.colour).hex()}" for t in TISSUES]
    return "\n".join(rows) + "\n"


def _common(pair: Pair, settings: Settings, root: Path, report: dict[str, Any]) -> dict[str, Any]:
    """What every sidecar says. Nothing in it changes from run to run."""
    lengths = " x ".join(f"{s:g}" for s in report["lattice"]["spacing_mm"])
    inputs = [{k: v for k, v in scan.items() if k != "path"} for scan in report["inputs"]]
    return {
        "Sources": [_uri(root, scan.path) for scan in pair.scans.values()],
        "Resolution": f"voxels of {lengths} mm, {report['lattice']['orientation']}",
        "NexusINR": {
            "Notice": report["notice"],
            "Model": report["model"],
            "Options": settings.for_upsample(),
            "Inputs": inputs,
            "Lattice": report["lattice"],
            "Registration": report["registration"],
            "Consistency": report["consistency"],
            "Warnings": report["warnings"],
            "Device": report["device"]["description"],
            "Software": report["software"],
        },
    }


def _uri(root: Path, path: Path) -> str:
    try:
        return f"bids:{SOURCE}:{path.relative_to(root).as_posix()}"
    except ValueError:  # a table may name scans anywhere
        return path.as_uri()


def _beside(name: str, extension: str) -> str:
    return name.removesuffix(".nii.gz") + extension


def _json(folder: Path, name: str, values: dict[str, Any]) -> Path:
    return _text(folder, name, json.dumps(values, indent=2) + "\n")


def _text(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path
