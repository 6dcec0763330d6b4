"""Original and restored scans side by side: one call to enter, one to leave."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from slicer import vtkMRMLSliceCompositeNode as Composite

from nexusinr.mrml import memory
from nexusinr.mrml.curtain import Curtain
from nexusinr.mrml.framing import Frame, point_views
from nexusinr.mrml.layout import LAYOUTS, View, description, view_nodes, views_of
from nexusinr.mrml.linking import SharedWindow
from nexusinr.mrml.scene import nodes_of
from nexusinr.mrml.volumes import copy_display

#: Linked views share scroll and zoom, but each row keeps its own volumes.
OWN_VOLUMES = (
    Composite.BackgroundVolumeFlag
    | Composite.ForegroundVolumeFlag
    | Composite.ForegroundOpacityFlag
)
ALL_FLAGS = 0xFFFFFFFF


@dataclass(frozen=True, eq=False)
class Pair:
    """The volume nodes of one modality.

    Attributes:
        modality: ``T1w`` or ``T2w``.
        original: the scan.
        restored: what was made of it.
        invented: the map to lay over the restored scan (`add_invented`), if there is one.
    """

    modality: str
    original: Any
    restored: Any
    invented: Any = None


class Comparison:
    """The views that compare scans with what was made of them.

    Original and restored scans in axial, sagittal and coronal planes along the slices of the first
    scan (see `layout.description`). Views scroll and zoom together, and the two images of a
    modality share window and level. `leave` gives back the layout, links, selection and
    segmentation display that were there before.

    Args:
        scene: where everything is.
        pairs: one modality or two.
        segmentation: a segmentation node to outline in all views.

    Raises ValueError for no pair, more than two, or twice the same modality.
    """

    def __init__(self, scene: Any, pairs: Sequence[Pair], segmentation: Any = None) -> None:
        modalities = [pair.modality for pair in pairs]
        if len(pairs) not in LAYOUTS or len(set(modalities)) != len(pairs):
            raise ValueError(
                f"one pair or two of different modality are compared, not {modalities}"
            )
        self.scene = scene
        self.pairs = {pair.modality: pair for pair in pairs}
        self.segmentation = segmentation
        self.nodes: dict[View, tuple[Any, Any]] = {}
        self.blinked = False
        self._memory = memory.Memory()
        self._frame: Frame | None = None
        self._windows: dict[str, SharedWindow] = {}
        self._curtains: dict[str, Curtain] = {}

    @property
    def description(self) -> str:
        """The layout's XML, for front ends without a layout node."""
        return description(list(self.pairs))

    @property
    def entered(self) -> bool:
        """Whether the views are set up."""
        return bool(self.nodes)

    def enter(self, layout_node: Any = None) -> None:
        """Sets the views up and, where there is a layout node, shows them.

        Call `fit` again once the views have their size on the screen.

        Raises InputError for a volume node that is empty or under a transform that is not linear.
        """
        if self.entered:
            return
        self._frame = Frame.around_head(next(iter(self.pairs.values())).original)
        self._remember(layout_node)
        self.nodes = {view: view_nodes(self.scene, view) for view in views_of(list(self.pairs))}
        for pair in self.pairs.values():
            copy_display(pair.original, pair.restored)
            displays = [pair.original.GetDisplayNode(), pair.restored.GetDisplayNode()]
            self._windows[pair.modality] = SharedWindow(displays)
            self._curtains[pair.modality] = Curtain(self.scene, pair.restored)
        self._show_volumes()
        self.link(True)
        for node in self._laid_over():
            if node is not self.segmentation:
                node.GetDisplayNode().SetVisibility(False)
        if layout_node is not None:
            self._switch(layout_node)
        self.fit()

    def leave(self) -> None:
        """Gives back what was there before; the volumes keep the window they have now."""
        if not self.entered:
            return
        for window in self._windows.values():
            window.stop()
        for curtain in self._curtains.values():
            curtain.remove()
        for _, composite in self.nodes.values():
            composite.SetBackgroundVolumeID(None)
            composite.SetForegroundVolumeID(None)
            composite.SetLinkedControl(False)
        self.nodes = {}
        self.blinked = False
        self._memory.restore(self.scene)

    def fit(self, views: Collection[View] | None = None) -> None:
        """Turns views along the first scan's slices and fits the head into them at one scale.

        Args:
            views: those that are on the screen; None: all.
        """
        assert self._frame is not None, "enter first"
        shown = self.nodes if views is None else views
        point_views(self._frame, [(self.nodes[view][0], view.plane) for view in shown])

    def link(self, on: bool) -> None:
        """Whether the views scroll and zoom together, at once."""
        link_views((composite for _, composite in self.nodes.values()), on)

    def blink(self, restored: bool) -> None:
        """Shows the restored scan in the place of the original one, or the original one again."""
        self.blinked = restored
        self._show_volumes()

    def draw_curtain(self, at: float | None) -> None:
        """In the original's views, shows the restored scan right of a line; None: no longer.

        Args:
            at: 0 (left end of the head) ... 1 (right end).

        Raises ValueError for another position.
        """
        if at is not None and not 0 <= at <= 1:
            raise ValueError(f"a curtain hangs between 0 and 1, not at {at:g}")
        assert self._frame is not None, "enter first"
        for view, (slice_node, composite) in self.nodes.items():
            if view.row == "original":
                curtain = self._curtains[view.modality]
                part = None if at is None else curtain.part(view.plane, self._frame, at)
                _lay_over(composite, part, 1.0)
                curtain.draw_edge(slice_node, part)
                for display in curtain.displays():
                    self._windows[view.modality].add(display)

    def show_invented(self, opacity: float) -> None:
        """Lays the map of what was invented over the restored row; 0 takes it away."""
        for view, (_, composite) in self.nodes.items():
            if view.row == "restored":
                shown = self.pairs[view.modality].invented if opacity > 0 else None
                _lay_over(composite, shown, opacity)

    def show_segmentation(self, opacity: float) -> None:
        """Lays the segmentation over all slice views, outlines twice as strong; 0 hides it."""
        if self.segmentation is not None:
            display = self.segmentation.GetDisplayNode()
            display.SetVisibility(True)
            display.SetVisibility2D(opacity > 0)
            display.SetOpacity2DFill(opacity)
            display.SetOpacity2DOutline(min(2 * opacity, 1.0))

    def _remember(self, layout_node: Any) -> None:
        keep = self._memory.keep_class
        if layout_node is not None:
            self._memory.keep(layout_node, memory.LAYOUT)
        keep(self.scene, "vtkMRMLSliceCompositeNode", memory.COMPOSITE)
        keep(self.scene, "vtkMRMLSelectionNode", memory.SELECTION)
        for node in self._laid_over():
            shown = memory.SEGMENTATION if node is self.segmentation else memory.SHOWN
            self._memory.keep(node.GetDisplayNode(), shown)

    def _laid_over(self) -> list[Any]:
        """What Slicer lays over every view: tissues of any result, and boxes of regions."""
        kinds = ("vtkMRMLSegmentationNode", "vtkMRMLMarkupsROINode")
        nodes = [node for kind in kinds for node in nodes_of(self.scene, kind)]
        return [node for node in nodes if node.GetDisplayNode() is not None]

    def _switch(self, layout_node: Any) -> None:
        number = LAYOUTS[len(self.pairs)]
        if layout_node.IsLayoutDescription(number):
            layout_node.SetLayoutDescription(number, self.description)
        else:
            layout_node.AddLayoutDescription(number, self.description)
        layout_node.SetViewArrangement(number)

    def _show_volumes(self) -> None:
        for view, (_, composite) in self.nodes.items():
            pair = self.pairs[view.modality]
            restored = view.row == "restored" or self.blinked
            composite.SetBackgroundVolumeID((pair.restored if restored else pair.original).GetID())


def link_views(composites: Iterable[Any], on: bool) -> None:
    """Whether the views of some composite nodes scroll and zoom together, at once."""
    for composite in composites:
        composite.SetInteractionFlagsModifier(ALL_FLAGS & ~OWN_VOLUMES)
        composite.SetDoPropagateVolumeSelection(False)
        composite.SetHotLinkedControl(on)
        composite.SetLinkedControl(on)


def _lay_over(composite: Any, node: Any, opacity: float) -> None:
    # The flag tells colour bars that layers change; views are not linked by it.
    composite.SetInteractionFlags(Composite.ForegroundVolumeFlag)
    composite.SetForegroundVolumeID(None if node is None else node.GetID())
    composite.SetForegroundOpacity(opacity if node is not None else 0.0)
    composite.SetInteractionFlags(0)
