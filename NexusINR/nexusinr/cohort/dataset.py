"""The output folder as a BIDS derivative data set: what it says of itself."""

from __future__ import annotations

import json
import os
from pathlib import Path

from nexusinr import __version__
from nexusinr.cohort.folder import Folder, write_whole

BIDS_VERSION = "1.10.0"

#: Name of the source data set in BIDS URIs.
SOURCE = "source"

HOMEPAGE = "https://github.com/NexusINR/SlicerNexusINR"

#: Names within the folder that are not those of BIDS, as .bidsignore has them.
IGNORED = ("report.html", "failures.csv", "figures/", "dicom/")


def describe(folder: Folder, root: Path) -> None:
    """Writes dataset_description.json and .bidsignore.

    Args:
        folder: of the derivatives.
        root: folder of the source data set.
    """
    values = {
        "Name": "NexusINR: T1w and T2w scans restored on fine lattices",
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "NexusINR", "Version": __version__, "CodeURL": HOMEPAGE}],
        "DatasetLinks": {SOURCE: Path(os.path.relpath(root, folder.path)).as_posix()},
    }
    texts = {
        "dataset_description.json": json.dumps(values, indent=2),
        ".bidsignore": "\n".join(IGNORED),
    }
    for name, text in texts.items():
        write_whole(folder.path / name, f"{text}\n".encode())
