"""The reading room: the scene, the views on the screen, and what they show. Knows no page."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from slicer import (
    vtkMRMLInteractionNode,
    vtkMRMLModelSliceDisplayableManager,
    vtkMRMLSliceNode,
)
from trame_slicer.core import LayoutManager, SlicerApp
from trame_slicer.views import AbstractView, SliceView
from undo_stack import Signal
from vtkmodules.vtkCommonCore import vtkCommand

from nexusinr.geometry import Affine
from nexusinr.labels import CSF, TISSUES
from nexusinr.mrml import surfaces
from nexusinr.mrml.comparison import Comparison, Pair, link_views
from nexusinr.mrml.framing import Frame, point_views
from nexusinr.mrml.layout import View, view_nodes
from nexusinr.mrml.linking import linked_change
from nexusinr.mrml.live import LiveSlice, live_slices
from nexusinr.web.layouts import SURFACE, Arrangement

#: Seconds after the last view has got another size until the head is fitted into the views.
SETTLED = 0.05

#: Fluid lies around everything else: in 3D it is a veil.
VEIL = 0.15


class Room:
    """Shows scans, then scans and what was made of them.

    Signals:
        window_changed: the modality whose window or level has changed.
        fitted: the views have their place and size.
        sized: the page has said how large they are; pictures are on their way.
        moved: a live view has moved, zoomed or turned.
    """

    window_changed = Signal(str)
    fitted = Signal()
    sized = Signal()
    moved = Signal()

    def __init__(self, slicer: SlicerApp, layouts: LayoutManager) -> None:
        self.slicer = slicer
        self.scene = slicer.scene
        self.comparison: Comparison | None = None
        self.live: dict[View, LiveSlice] = {}
        self.linked = True
        self._layouts = layouts
        self._scans: dict[str, Any] = {}
        self._frame: Frame | None = None
        self._arrangement: Arrangement | None = None
        self._observed: list[tuple[Any, int]] = []
        self._observed_views: list[tuple[Any, int]] = []
        self._places: dict[str, float] = {}
        self._is_placed = False  # whether the places are worth keeping
        self._timer: asyncio.TimerHandle | None = None
        # The left button is for window and level, as at any workstation.
        interaction = slicer.app_logic.GetInteractionNode()
        interaction.SetCurrentInteractionMode(vtkMRMLInteractionNode.AdjustWindowLevel)

    # --- what is shown ------------------------------------------------------------------------

    def show_scans(self, scans: Mapping[str, Any]) -> None:
        """Shows volume nodes by modality, with nothing made of them yet."""
        self._leave()
        self._places.clear()
        self._is_placed = False
        self._scans = dict(scans)
        self._frame = Frame.around_head(next(iter(scans.values()))) if scans else None
        self._observe_windows()

    def prepare(self) -> None:
        """Makes the views that results will need; call before results are in the scene.

        They show the scans at first: a view draws below all else what it was given first, and that
        must not be the tissues.
        """
        everything = Arrangement(tuple(self._scans), restored=True)
        self._layouts.register_layout(everything.name, everything.layout())
        for view in everything.views:
            self._nodes(view)[1].SetBackgroundVolumeID(self._scans[view.modality].GetID())

    def show_results(self, pairs: Sequence[Pair], segmentation: Any) -> None:
        """Shows the scans with what was made of them, in views that were prepared."""
        self._leave()
        self.comparison = Comparison(self.scene, pairs, segmentation)
        self.comparison.enter()
        self.comparison.link(self.linked)
        self.comparison.show_segmentation(0.0)
        self._frame = Frame.around_head(pairs[0].original)
        if segmentation is not None:
            segmentation.GetDisplayNode().SetSegmentOpacity3D(TISSUES[CSF - 1].name, VEIL)

    def _leave(self) -> None:
        self.end_live()
        if self.comparison is not None:
            self.comparison.leave()
            self.comparison = None

    def arrange(self, modalities: Sequence[str], surface: bool = False) -> None:
        """Puts views on the screen; the slices stay where they are."""
        self._remember_places()
        restored = self.comparison is not None
        wanted = Arrangement(tuple(modalities), restored, surface and restored)
        self._arrangement = wanted
        self._layouts.register_layout(wanted.name, wanted.layout(), lazy_initialization=True)
        self._layouts.set_layout(wanted.name)
        self._part_views()
        if not restored:
            for view in wanted.views:
                self._nodes(view)[1].SetBackgroundVolumeID(self._scans[view.modality].GetID())
        self.link(self.linked)
        self._fit()

    def redraw(self) -> None:
        """Draws slice views anew: that a layer's opacity alone has changed goes unnoticed."""
        for view in self.slicer.view_manager.get_slice_views():
            view.schedule_render()

    def _part_views(self) -> None:
        """Has each slice view drawn anew for changes of its own alone.

        Each slice is a model too, to be seen in 3D, and views follow the models of all others.
        """
        views = self.slicer.view_manager.get_slice_views()
        logics = [self.slicer.app_logic.GetSliceLogic(view.get_view_node()) for view in views]
        for view, own in zip(views, logics, strict=True):
            manager = view.get_displayable_manager_by_class(vtkMRMLModelSliceDisplayableManager)
            for logic in logics:
                if logic is not own:
                    manager.RemoveDisplayableNode(logic.GetSliceModelNode())

    # --- the views ----------------------------------------------------------------------------

    @property
    def views(self) -> list[View]:
        """The slice views on the screen."""
        return [] if self._arrangement is None else self._arrangement.views

    @property
    def arrangement(self) -> Arrangement | None:
        """What is on the screen."""
        return self._arrangement

    def adopt(self, view: AbstractView) -> None:
        """A view that was made: whenever its size on the screen changes, the head is fitted.

        It belongs to the page and not to the scene that is taken away.
        """
        view.get_view_node().SetSaveWithScene(False)
        view.interactor().AddObserver(vtkCommand.WindowResizeEvent, self._on_resize)

    def fit(self) -> None:
        """Centres the head in the views at one scale; the slices stay where they are."""
        self._remember_places()
        self._fit()

    def _fit(self) -> None:
        if self._frame is None or not self.views:
            return
        if self.comparison is not None:
            self.comparison.fit(self.views)
        else:
            point_views(self._frame, [(self._nodes(v)[0], v.plane) for v in self.views])
        for view in self.views:
            place = None if self.linked else self._places.get(view.tag)
            place = self._places.get(view.plane.name) if place is None else place
            if place is not None:
                self._nodes(view)[0].SetSliceOffset(place)
        self._is_placed = True
        self.fitted.emit()

    def link(self, on: bool) -> None:
        """Whether views scroll and zoom together."""
        self.linked = on
        if self.comparison is not None:
            self.comparison.link(on)
        else:
            link_views((self._nodes(view)[1] for view in self.views), on)

    def scroll(self, tag: str, steps: int) -> None:
        """Moves a view, and those linked with it, by slices of its own volume."""
        view = self.slicer.view_manager.get_view(tag)
        if isinstance(view, SliceView):
            self.scroll_to(view, view.get_slice_value() + steps * view.get_slice_step())

    def scroll_to(self, view: SliceView, offset: float) -> None:
        """Moves a view, and those linked with it, to a place along its normal, mm."""
        logic = self.slicer.app_logic.GetSliceLogic(view.get_view_node())
        with linked_change(logic, vtkMRMLSliceNode.SliceToRASFlag):
            logic.SetSliceOffset(offset)

    def _nodes(self, view: View) -> tuple[Any, Any]:
        return view_nodes(self.scene, view)

    def _remember_places(self) -> None:
        """Slice offsets by view, and by plane for views to come: of the first where they differ."""
        if self._is_placed:
            for view in reversed(self.views):
                place = self._nodes(view)[0].GetSliceOffset()
                self._places[view.tag] = self._places[view.plane.name] = place

    def _on_resize(self, *_: Any) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(SETTLED, self._on_sized)

    def _on_sized(self) -> None:
        self.fit()
        self.sized.emit()

    # --- live slices --------------------------------------------------------------------------

    def go_live(self, made_at: Affine) -> None:
        """Restored views can show planes of their own (`live`) and tell when they move.

        Args:
            made_at: the lattice when it was restored.
        """
        self.end_live()
        if self.comparison is None:
            return
        self.live = live_slices(self.comparison, made_at)
        for each in self.live.values():
            node = each.slice_node
            tag = node.AddObserver(vtkCommand.ModifiedEvent, lambda *_: self.moved.emit())
            self._observed_views.append((node, tag))

    def end_live(self) -> None:
        """They show the restored volumes again."""
        for node, tag in self._observed_views:
            node.RemoveObserver(tag)
        self._observed_views = []
        for each in self.live.values():
            each.close()
        self.live = {}

    # --- window and level ---------------------------------------------------------------------

    def window_of(self, modality: str) -> tuple[float, float]:
        """Window and level of a modality, in its own units."""
        display = self._scans[modality].GetDisplayNode()
        return display.GetWindow(), display.GetLevel()

    def set_window(self, modality: str, window: float, level: float) -> None:
        """Sets them for the scan and what was made of it."""
        display = self._scans[modality].GetDisplayNode()
        display.SetAutoWindowLevel(False)
        display.SetWindowLevel(max(window, 1e-6), level)

    def reset_window(self, modality: str) -> None:
        """Finds both in the scan's own values."""
        self._scans[modality].GetDisplayNode().SetAutoWindowLevel(True)

    def range_of(self, modality: str) -> tuple[float, float]:
        """The least and the largest value of a scan."""
        low, high = self._scans[modality].GetImageData().GetScalarRange()
        return float(low), float(high)

    def _observe_windows(self) -> None:
        for display, tag in self._observed:
            display.RemoveObserver(tag)
        self._observed = []
        for modality, node in self._scans.items():

            def tell(_display: Any, _event: str, modality: str = modality) -> None:
                self.window_changed.emit(modality)

            display = node.GetDisplayNode()
            self._observed.append((display, display.AddObserver(vtkCommand.ModifiedEvent, tell)))

    # --- tissues ------------------------------------------------------------------------------

    def show_tissue(self, key: str, on: bool) -> None:
        """Shows or hides one tissue, in slices and in 3D."""
        if self.comparison is not None and self.comparison.segmentation is not None:
            self.comparison.segmentation.GetDisplayNode().SetSegmentVisibility(key, on)

    async def make_surfaces(self) -> None:
        """Surfaces of the tissues, unless they are there; and a look at them from the front."""
        node = None if self.comparison is None else self.comparison.segmentation
        if node is None:
            return
        made = {}
        if not surfaces.has_surfaces(node):
            made = await asyncio.to_thread(surfaces.surfaces_of, surfaces.labels_of(node))
        if not self.scene.IsNodePresent(node):
            return
        surfaces.show(node, made)
        view = self.slicer.view_manager.get_view(SURFACE)
        if view is not None:
            view.reset_view()
