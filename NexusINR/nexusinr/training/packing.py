"""All training data as one safetensors file: small enough to travel, read back to the bit.

Images are cropped to what is not air. The float16 intensities that occur in one are numbered in
their order (most scans know a thousand or so), and the differences between neighbours along two
axes, whose bytes are mostly small, are compressed with zlib. So are label maps, as they are.
"""

from __future__ import annotations

import json
import os
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from nexusinr.geometry import Affine, Grid
from nexusinr.training.dataset import LabelMap, Subject, TrainingData

#: What the header says, so that no other safetensors file is taken for one of these.
KIND = "nexusinr training data 1"

#: Effort of zlib, 1 ... 9: more takes twice as long for 2 %.
EFFORT = 6

Box = tuple[slice, slice, slice]


def pack(data: TrainingData, out_file: Path) -> Path:
    """Writes what training draws from, whole or not at all.

    Args:
        data: see `loading.load`.
        out_file: a .safetensors file; the folder that it lies in is made.

    Returns the file. Raises ValueError for another suffix.
    """
    check_name(out_file)
    writer = _Writer()
    subjects = [writer.subject(subject) for subject in data.subjects]
    maps = [writer.label_map(label_map) for label_map in data.label_maps]
    header = {"kind": KIND, "contents": json.dumps({"subjects": subjects, "label_maps": maps})}
    out_file.parent.mkdir(parents=True, exist_ok=True)
    partial = out_file.with_suffix(".partial")
    save_file(writer.tensors, partial, header)
    os.replace(partial, out_file)
    return out_file


def check_name(out_file: Path) -> None:
    """Raises ValueError for a file that could not be told from others afterwards."""
    if out_file.suffix != ".safetensors":
        raise ValueError(f"{out_file.name}: a packed file is called <name>.safetensors")


def load(file: Path) -> TrainingData:
    """Reads a packed file: what loading the folder gives, cropped to the heads.

    Raises ValueError for a file that `pack` did not write.
    """
    try:
        with safe_open(file, framework="pt") as opened:
            header = opened.metadata() or {}
            if header.get("kind") != KIND:
                raise ValueError(f"{file.name}: no packed training data; give a folder, or pack it")
            reader = _Reader({key: opened.get_tensor(key) for key in opened.keys()})  # noqa: SIM118
            contents = json.loads(header["contents"])
            return TrainingData(
                [reader.subject(said) for said in contents["subjects"]],
                [reader.label_map(said) for said in contents["label_maps"]],
            )
    except (OSError, SafetensorError, zlib.error) as error:
        raise ValueError(f"{file.name}: it cannot be read as packed data ({error})") from error


@dataclass
class _Writer:
    """Collects tensors; what describes them is given back as plain values."""

    tensors: dict[str, Tensor] = field(default_factory=dict)

    def subject(self, subject: Subject) -> dict[str, Any]:
        lead = 0 if subject.images[0] is not None else 1
        said: dict[str, Any] = {"name": subject.name, "sharp": subject.sharp, "images": []}
        for modality, (image, grid) in enumerate(zip(subject.images, subject.grids, strict=True)):
            if image is None or grid is None:
                said["images"].append(None)
                continue
            inside = image > 0
            if modality == lead and subject.tissues is not None:
                inside |= subject.tissues > 0
            box = _box(inside)
            own = self._image(image[box].numpy())
            lattice = grid.crop([s.start for s in box], [s.stop for s in box])
            said["images"].append({**own, "affine": lattice.affine.matrix.tolist()})
            if modality == lead and subject.tissues is not None:
                said["tissues"] = self._bytes(subject.tissues[box].numpy())
        return said

    def label_map(self, label_map: LabelMap) -> dict[str, Any]:
        labels = self._bytes(label_map.labels.numpy())
        return {"name": label_map.name, "tissue_of": label_map.tissue_of.tolist(), **labels}

    def _image(self, image: NDArray[np.float16]) -> dict[str, Any]:
        bits = np.ascontiguousarray(image).view(np.uint16)  # in the order of the values: none < 0
        there = np.zeros(2**16, dtype=bool)
        there[bits] = True
        numbers = (np.cumsum(there) - 1).astype(np.uint16)[bits]
        levels = self._add(torch.from_numpy(np.flatnonzero(there).astype(np.uint16).view(np.uint8)))
        low_high = np.stack(_bytes_of(_differences(numbers)))
        return {"levels": levels, **self._bytes(low_high), "shape": image.shape}

    def _bytes(self, array: NDArray[np.uint8]) -> dict[str, Any]:
        compressed = zlib.compress(np.ascontiguousarray(array).tobytes(), EFFORT)
        tensor = torch.from_numpy(np.frombuffer(compressed, np.uint8).copy())
        return {"voxels": self._add(tensor), "shape": array.shape}

    def _add(self, tensor: Tensor) -> str:
        name = f"{len(self.tensors):04}"
        self.tensors[name] = tensor
        return name


@dataclass
class _Reader:
    """The way back."""

    tensors: dict[str, Tensor]

    def subject(self, said: dict[str, Any]) -> Subject:
        found: list[tuple[Tensor, Grid] | None] = [
            None if own is None else (self._image(own), _grid(own)) for own in said["images"]
        ]
        first, second = found
        return Subject(
            name=said["name"],
            images=(first and first[0], second and second[0]),
            grids=(first and first[1], second and second[1]),
            tissues=self._bytes(said["tissues"]) if "tissues" in said else None,
            sharp=tuple(said["sharp"]),
        )

    def label_map(self, said: dict[str, Any]) -> LabelMap:
        table = torch.tensor(said["tissue_of"], dtype=torch.uint8)
        return LabelMap(said["name"], self._bytes(said), table)

    def _image(self, said: dict[str, Any]) -> Tensor:
        shape = tuple(said["shape"])
        low, high = self._bytes({**said, "shape": (2, *shape)}).numpy()
        numbers = _sums((low | high.astype(np.uint16) << 8).astype(np.uint16))
        levels = self.tensors[said["levels"]].numpy().view(np.uint16)
        return torch.from_numpy(levels[numbers].view(np.float16))

    def _bytes(self, said: dict[str, Any]) -> Tensor:
        compressed = self.tensors[said["voxels"]].numpy().tobytes()
        array = np.frombuffer(zlib.decompress(compressed), np.uint8)
        return torch.from_numpy(array.reshape(said["shape"]).copy())


def _grid(said: dict[str, Any]) -> Grid:
    i, j, k = said["shape"]
    return Grid((i, j, k), Affine(said["affine"]))


def _box(inside: Tensor) -> Box:
    """The smallest box around a mask; the whole where it is empty."""
    found = []
    for axis in range(3):
        others = [a for a in range(3) if a != axis]
        there = inside.any(dim=others[1]).any(dim=others[0]).nonzero().flatten().tolist()
        found.append(slice(there[0], there[-1] + 1) if there else slice(0, inside.shape[axis]))
    return found[0], found[1], found[2]


def _differences(numbers: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """Of neighbours along two axes, modulo 2^16, folded so that small ones of either sign are."""
    zero = np.uint16(0)
    steps = np.diff(np.diff(numbers, axis=0, prepend=zero), axis=1, prepend=zero).view(np.int16)
    return ((steps << 1) ^ (steps >> 15)).view(np.uint16)


def _sums(folded: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """The way back from `_differences`."""
    steps = (folded >> 1) ^ (-(folded & 1).astype(np.int16)).view(np.uint16)
    return steps.cumsum(axis=1, dtype=np.uint16).cumsum(axis=0, dtype=np.uint16)


def _bytes_of(values: NDArray[np.uint16]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    return (values & 255).astype(np.uint8), (values >> 8).astype(np.uint8)
