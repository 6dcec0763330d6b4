"""Slicer's SampleData module: samples by category, and getting them from where they are."""

# ruff: noqa: N802, N815 (names of Slicer and Qt)

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlparse
from urllib.request import url2pathname

import slicer


@dataclass
class SampleDataSource:
    """One sample; the fields are lists, one entry a file."""

    sampleName: str
    thumbnailFileName: str | None
    uris: list[str]
    fileNames: list[str]
    nodeNames: list[str]
    checksums: list[str]
    loadFileTypes: list[str | None]


class SampleDataLogic:
    """Registers samples."""

    @staticmethod
    def registerCustomSampleDataCategory(category: str, title: str) -> None:
        known = slicer.modules.__dict__.setdefault("sampleDataSourceCategories", {})
        known[category] = {"title": title}

    @staticmethod
    def registerCustomSampleDataSource(
        category: str = "Custom",
        sampleName: str | None = None,
        uris: Any = None,
        fileNames: Any = None,
        nodeNames: Any = None,
        customDownloader: Any = None,
        thumbnailFileName: str | None = None,
        loadFileTypes: Any = None,
        loadFiles: Any = None,
        loadFileProperties: Any = None,
        checksums: Any = None,
    ) -> None:
        fields = [[f] if isinstance(f, str) else f for f in (uris, fileNames, nodeNames, checksums)]
        if len({len(field) for field in fields}) != 1:
            raise ValueError("All fields of sample data source must have the same length")
        for checksum in fields[3]:
            slicer.util.extractAlgoAndDigest(checksum)
        types = [loadFileTypes] * len(fields[0])
        source = SampleDataSource(str(sampleName), thumbnailFileName, *fields, types)
        known = slicer.modules.__dict__.setdefault("sampleDataSources", {})
        known.setdefault(category, []).append(source)


def downloadSample(sampleName: str) -> Any:
    """Loads the sample of a name. Raises KeyError where there is none."""
    for sources in slicer.modules.sampleDataSources.values():
        for source in sources:
            if source.sampleName == sampleName:
                return slicer.util.loadVolume(str(file_of(source)), {"name": source.nodeNames[0]})
    raise KeyError(sampleName)


def file_of(source: SampleDataSource) -> Path:
    """The file of a sample that came with a module. Raises ValueError for one on the network."""
    parts = urlparse(source.uris[0])
    if parts.scheme != "file":
        raise ValueError(f"{source.uris[0]} is not on this computer")
    path = Path(url2pathname(parts.path))
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if source.checksums[0] != f"SHA256:{found}":
        raise ValueError(f"{path} has another checksum: {found}")
    return path
