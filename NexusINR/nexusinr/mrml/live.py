"""The live slice: the very plane that a view shows, restored at the resolution of the screen.

A front end has one `LiveSlice` for each view of a restored volume. When the view has moved it asks
for the plane that is `wanted`, sends `request` of it to the worker as ``plane``, and gives what
comes back to `show`. The plane is taken away by itself when the view moves on.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from slicer import vtkMRMLSliceCompositeNode as Composite
from vtkmodules.vtkCommonCore import vtkCommand
from vtkmodules.vtkCommonDataModel import vtkImageData

from nexusinr.geometry import Affine, FloatArray, Grid
from nexusinr.mrml.comparison import Comparison
from nexusinr.mrml.layout import View
from nexusinr.mrml.linking import SharedWindow
from nexusinr.mrml.placement import from_vtk, to_vtk
from nexusinr.mrml.scene import new_node
from nexusinr.mrml.volumes import affine_of, copy_display, fill, grid_of

#: Pixels of a plane that a CPU decodes in about a second; larger views get larger pixels.
MOST_PIXELS = 512 * 512

#: mm by which a plane may lie beside that of the view.
TOLERANCE = 0.01

#: Layers of a view over the foreground: the plane, and over it the foreground once more.
_PLANE, _OVER = Composite.Layer_Last, Composite.Layer_Last + 1


def plane_of(slice_node: Any, lattice: Grid, most: int = MOST_PIXELS) -> Grid | None:
    """What a slice view shows of a lattice, as a lattice of one slice.

    Its pixels are those of the screen: i to the right, j up, centres where the view has them. A
    plane of more than `most` pixels gets larger ones, which cover the same part of the screen.

    Args:
        slice_node: of the view; where it looks and how many pixels it has.
        lattice: of the restored volume, in patient space; what lies beside it is left out.
        most: pixels, at least 1.

    Returns a grid of shape (i, j, 1), a slice of 1 mm in the plane of the view; None where the view
    does not show the lattice or has no size.
    """
    to_ras = from_vtk(slice_node.GetXYToRAS())
    width, height = slice_node.GetDimensions()[:2]
    if width < 1 or height < 1:
        return None
    seen = _seen(lattice, to_ras, width, height)
    if seen is None:
        return None
    start, stop = seen
    whole = stop - start
    shrink = max(float(np.sqrt(whole.prod() / most)), 1.0)
    size = np.maximum(whole / shrink + 1e-6, 1).astype(int)
    step = whole / size  # in pixels of the screen
    matrix = np.eye(4)
    matrix[:3, :2] = to_ras[:3, :2] * step
    across = np.cross(matrix[:3, 0], matrix[:3, 1])
    matrix[:3, 2] = across / np.linalg.norm(across)
    matrix[:3, 3] = to_ras[:3, :2] @ (start + step / 2 - 0.5) + to_ras[:3, 3]
    return Grid((int(size[0]), int(size[1]), 1), Affine(matrix))


class LiveSlice:
    """The decoded plane of one view, over the restored volume and under what is laid over that.

    The plane is a volume node of its own in layers of the view that nothing else uses: background,
    foreground and label, which blink, curtain, map and overlay are made of, stay as they are. The
    node is hidden from editors, not saved with the scene, and has the window and level of the
    restored volume.

    Args:
        scene: where the nodes are.
        slice_node: of the view.
        composite: the view's composite node, which has the restored volume as background.
        restored: the restored volume node.
        made_at: affine of the lattice when it was restored, as in the report (``lattice``,
            ``affine``); None: the volume lies where it was. What a later transform of the volume
            does is taken back for the worker.

    Raises InputError for a restored volume node that is empty or under a transform that is not
    linear.
    """

    def __init__(
        self,
        scene: Any,
        slice_node: Any,
        composite: Any,
        restored: Any,
        made_at: Affine | None = None,
    ) -> None:
        self.scene = scene
        self.slice_node, self.composite, self.restored = slice_node, composite, restored
        self.node: Any = None
        self.shown: Grid | None = None
        self._made_at = affine_of(restored) if made_at is None else made_at
        self._lattice = grid_of(restored)
        self._window: SharedWindow | None = None
        self._observed = [
            (observed, observed.AddObserver(vtkCommand.ModifiedEvent, follow))
            for observed, follow in ((slice_node, self._on_view), (composite, self._on_layers))
        ]

    def wanted(self, most: int = MOST_PIXELS) -> Grid | None:
        """The plane to ask for (see `plane_of`); None where it is shown already or not in view."""
        lattice = grid_of(self.restored)
        plane = plane_of(self.slice_node, lattice, most)
        is_shown = self.shown is not None and lattice == self._lattice and plane == self.shown
        return None if is_shown else plane

    def request(self, plane: Grid) -> dict[str, Any]:
        """The options of the worker's ``plane`` for a plane in patient space.

        ``affine`` (four rows of four numbers) in the space in which the scans were restored,
        ``size`` [i, j], ``segmentation`` False.
        """
        back = self._made_at.matrix @ affine_of(self.restored).inverse
        affine = plane.affine.transformed(back).matrix.tolist()
        return {"affine": affine, "size": list(plane.shape[:2]), "segmentation": False}

    def show(self, plane: Grid, values: NDArray[np.float32]) -> bool:
        """Lays a decoded plane into the view, instead of the one before.

        Args:
            plane: what was `wanted`.
            values: its pixels, (i, j, 1), in units of the scan: ``images`` of the answer, unpacked.

        Returns whether it is shown: not where the view has moved out of that plane meanwhile.
        Raises ValueError for values of another shape.
        """
        if values.shape != plane.shape:
            raise ValueError(f"the plane has {plane.shape} pixels, and {values.shape} were given")
        if not self._is_in_view(plane):
            return False
        image = vtkImageData()
        fill(image, values)
        node = self._node()
        was_modifying = node.StartModify()
        node.SetIJKToRASMatrix(to_vtk(plane.affine.matrix))
        node.SetAndObserveImageData(image)
        node.EndModify(was_modifying)
        copy_display(self.restored, node)
        self.shown, self._lattice = plane, grid_of(self.restored)
        self._lay(node)
        return True

    def hide(self) -> None:
        """Takes the plane out of the view; the restored volume is seen again."""
        if self.shown is not None:
            self.shown = None
            self._lay(None)

    def close(self) -> None:
        """Takes the plane out of the view and the scene, and lets go of the view."""
        for observed, tag in self._observed:
            observed.RemoveObserver(tag)
        self._observed = []
        self.hide()
        if self._window is not None:
            self._window.stop()
            self._window = None
        if self.node is not None and self.scene.IsNodePresent(self.node):
            self.scene.RemoveNode(self.node.GetDisplayNode())
            self.scene.RemoveNode(self.node)
        self.node = None

    def _node(self) -> Any:
        if self.node is None:
            self.node = new_node(self.scene, "vtkMRMLScalarVolumeNode", "live slice", hidden=True)
            self.node.SetSaveWithScene(False)
            copy_display(self.restored, self.node)
            display = self.node.GetDisplayNode()
            display.SetSaveWithScene(False)
            self._window = SharedWindow([self.restored.GetDisplayNode(), display])
        return self.node

    def _lay(self, node: Any) -> None:
        was_modifying = self.composite.StartModify()
        self.composite.SetNthLayerVolumeID(_PLANE, None if node is None else node.GetID())
        self.composite.SetNthLayerOpacity(_PLANE, 1.0)
        self._cover()
        self.composite.EndModify(was_modifying)

    def _cover(self) -> None:
        """What lies over the restored volume lies over the plane as well."""
        over = self.composite.GetForegroundVolumeID() if self.shown is not None else None
        if self.composite.GetNthLayerVolumeID(_OVER) != over:
            self.composite.SetNthLayerVolumeID(_OVER, over)
        opacity = self.composite.GetForegroundOpacity()
        if over is not None and self.composite.GetNthLayerOpacity(_OVER) != opacity:
            self.composite.SetNthLayerOpacity(_OVER, opacity)

    def _on_view(self, *_: Any) -> None:
        if self.shown is not None and not self._is_in_view(self.shown):
            self.hide()

    def _on_layers(self, *_: Any) -> None:
        if self.shown is not None:
            self._cover()

    def _is_in_view(self, plane: Grid) -> bool:
        to_slice = np.linalg.inv(from_vtk(self.slice_node.GetSliceToRAS()))
        depth = plane.affine.apply(_ends(plane)) @ to_slice[2, :3] + to_slice[2, 3]
        return bool(np.abs(depth).max() < TOLERANCE)


def live_slices(comparison: Comparison, made_at: Affine | None = None) -> dict[View, LiveSlice]:
    """One for each view of the restored row of a comparison that is entered.

    Close them before the comparison is left. `made_at` as in `LiveSlice`.
    """
    return {
        view: LiveSlice(comparison.scene, *nodes, comparison.pairs[view.modality].restored, made_at)
        for view, nodes in comparison.nodes.items()
        if view.row == "restored"
    }


def _ends(plane: Grid) -> FloatArray:
    """Indices of the pixels at its corners, (4, 3)."""
    i, j, _ = plane.shape
    return np.array([(x, y, 0) for x in (0, i - 1) for y in (0, j - 1)], dtype=np.float64)


def _seen(
    lattice: Grid, to_ras: FloatArray, width: int, height: int
) -> tuple[FloatArray, FloatArray] | None:
    """First pixel (2,) and the one after the last of the smallest box around a lattice's cut."""
    right, top = width - 0.5, height - 0.5
    outline = np.array([(-0.5, -0.5), (right, -0.5), (right, top), (-0.5, top)])
    to_index = lattice.affine.inverse @ to_ras
    for axis, size in enumerate(lattice.shape):
        slope, at = to_index[axis, :2], to_index[axis, 3]
        outline = _cut(outline, slope, at + 0.5)
        outline = _cut(outline, -slope, size - 0.5 - at)
    if len(outline) == 0:
        return None
    start = np.clip(np.floor(outline.min(axis=0) + 0.5), 0, None)
    stop = np.minimum(np.ceil(outline.max(axis=0) + 0.5), (width, height))
    return (start, stop) if (stop > start).all() else None


def _cut(outline: FloatArray, slope: FloatArray, offset: float) -> FloatArray:
    """The part of a convex polygon (n, 2) in which ``slope . point + offset`` is not negative."""
    heights = outline @ slope + offset
    kept = []
    for at, height in enumerate(heights):
        before, point = heights[at - 1], outline[at]
        if (before < 0) != (height < 0):
            kept.append(outline[at - 1] + (point - outline[at - 1]) * before / (before - height))
        if height >= 0:
            kept.append(point)
    return np.array(kept).reshape(-1, 2)
