"""Scans on their way to the worker and results on their way back: files in a private folder."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import weakref
from pathlib import Path
from typing import Any

import numpy as np

from nexusinr.geometry import FloatArray
from nexusinr.mrml.placement import from_vtk
from nexusinr.mrml.results import Image
from nexusinr.mrml.volumes import affine_of, array_of, grid_of

PREFIX = "nexusinr-"


class Folder:
    """A folder that only this user can read. It is deleted by `remove`, at the latest at the end.

    On Windows a file that the worker still reads stays; `remove` may be called again.

    File names say nothing of the patient.

    Args:
        parent: where it is made.
    """

    def __init__(self, parent: str | Path) -> None:
        _sweep(Path(parent))
        self.path = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=parent))
        weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)

    def remove(self) -> None:
        """Deletes it with everything inside."""
        shutil.rmtree(self.path, ignore_errors=True)

    def add_scan(self, node: Any, name: str) -> Path:
        """Writes a volume node where it lies in the world, linear transforms included.

        Raises InputError for a node that is empty, has several values a voxel or lies under a
        transform that is not linear, and where the file cannot be written.
        """
        # Needs nibabel, which a fresh Slicer lacks.
        from nexusinr.volume import write_volume

        path = self.path / f"{name}.nii"
        write_volume(path, array_of(node), affine_of(node))
        return path

    def add_lattice(self, node: Any, name: str) -> Path:
        """Writes the lattice of a volume node, not what is in it; raises as `add_scan`."""
        from nexusinr.volume import write_volume

        grid = grid_of(node)
        mark = np.zeros(grid.shape, dtype=np.uint8)
        mark[0, 0, 0] = 1  # an image in which all is the same is refused as empty
        path = self.path / f"{name}.nii"
        write_volume(path, mark, grid.affine)
        return path


def read_image(path: str | Path) -> Image:
    """A result of the worker's, in its own type."""
    import nibabel as nib

    from nexusinr.geometry import Affine

    image = nib.load(path)
    return Image(np.asanyarray(image.dataobj), Affine(image.affine))


def box_of(roi: Any, direction: FloatArray) -> tuple[float, ...]:
    """The smallest box along some axes around a region of interest: R A S, three sizes, mm.

    Args:
        roi: a markups ROI node.
        direction: unit vectors of the axes in patient space, as columns, (3, 3).
    """
    to_world = from_vtk(roi.GetObjectToWorldMatrix())
    size = [0.0, 0.0, 0.0]
    roi.GetSizeWorld(size)
    axes = to_world[:3, :3] / np.linalg.norm(to_world[:3, :3], axis=0)
    sizes = np.abs(direction.T @ axes) @ np.array(size)
    return tuple(float(v) for v in (*to_world[:3, 3], *sizes))


def _sweep(parent: Path) -> None:
    """Deletes folders of processes that are gone: a Slicer that crashed could not do it."""
    for path in parent.glob(f"{PREFIX}*"):
        owner = re.match(rf"{PREFIX}(\d+)-", path.name)
        if owner and not _is_alive(int(owner[1])):
            shutil.rmtree(path, ignore_errors=True)


def _is_alive(process: int) -> bool:
    import psutil

    return bool(psutil.pid_exists(process))
