"""The comparison views: rendered offscreen and compared by what is in the pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from nexusinr.errors import InputError
from nexusinr.geometry import Affine
from nexusinr.labels import DEEP_GREY, TISSUES, WHITE

WHY = "MRML without Slicer is not installed: pip install 'nexusinr[web]'"
pytest.importorskip("slicer", reason=WHY)

from nexusinr.mrml import comparison, invented, layout, linking, segmentation, volumes  # noqa: E402

SIZE = (200, 160)


@dataclass
class Bench:
    """A comparison in a scene, and its views on a screen that nobody sees."""

    app: Any
    comparison: Any
    views: dict[str, Any]
    picture_of: Callable[[Any], NDArray[np.int16]]

    def view(self, row: str, plane: str = "Axial", modality: str = "T1w") -> Any:
        return next(v for v in self.comparison.nodes if v.tag == f"NexusINR{modality}{row}{plane}")

    def nodes(self, row: str, plane: str = "Axial") -> tuple[Any, Any]:
        return self.comparison.nodes[self.view(row, plane)]

    def logic(self, row: str, plane: str = "Axial") -> Any:
        return self.app.app_logic.GetSliceLogic(self.nodes(row, plane)[0])

    def picture(self, row: str, plane: str = "Axial") -> NDArray[np.int16]:
        return self.picture_of(self.views[self.view(row, plane).tag])


def pair(scene, head, modality="T1w", share=None) -> Any:
    original = volumes.add_volume(scene, head.scan, head.scan_grid.affine, modality)
    restored = volumes.add_volume(
        scene, head.restored, head.grid.affine, f"{modality} restored 3.0 mm"
    )
    original.GetDisplayNode().SetAutoWindowLevel(False)
    original.GetDisplayNode().SetWindowLevel(900, 450)
    shown = None
    if share is not None:
        shown = invented.add_invented(scene, share, head.grid.affine, f"{modality} invented")
    return comparison.Pair(modality, original, restored, shown)


@pytest.fixture(scope="module")
def screen(new_app, head, views_of) -> tuple[Any, dict[str, Any], Any, Any]:
    """A scene with views of 200 x 160 pixels, the volumes to compare and the tissues.

    As in a viewer, the views show the scan before there are results. The map is 1 in white matter
    and 0 elsewhere.
    """
    app = new_app()
    share = (head.tissues == WHITE).astype(np.float32)
    shown = pair(app.scene, head, share=share)
    views = views_of(app, layout.description(["T1w"]), shown.original)
    tissues = segmentation.add_segmentation(app.scene, head.tissues, head.grid.affine, "tissues")
    tissues.GetDisplayNode().SetVisibility(False)
    return app, views, shown, tissues


@pytest.fixture
def bench(screen, picture_of) -> Iterator[Bench]:
    """Entered, and left again."""
    app, views, shown, tissues = screen
    shown.original.GetDisplayNode().SetWindowLevel(900, 450)
    made = comparison.Comparison(app.scene, [shown], tissues)
    made.enter()
    yield Bench(app, made, views, picture_of)
    made.leave()


def red(picture: NDArray[np.int16]) -> NDArray[np.bool_]:
    """Where there is colour."""
    return np.ptp(picture, axis=-1) > 40


def test_nodes_of_views_are_named_before_anyone_sees_them(new_app):
    """Slicer makes a view for a slice node as soon as it is in the scene, and reads its name."""
    from slicer import vtkMRMLScene

    scene = new_app().scene
    seen: list[tuple[str, str]] = []
    kinds = ("vtkMRMLSliceNode", "vtkMRMLSliceCompositeNode")

    def look(*_: Any) -> None:
        for kind in kinds:
            nodes = [
                scene.GetNthNodeByClass(n, kind) for n in range(scene.GetNumberOfNodesByClass(kind))
            ]
            seen.extend((node.GetLayoutName(), node.GetSingletonTag()) for node in nodes)

    scene.AddObserver(vtkMRMLScene.NodeAddedEvent, look)
    (view, *_) = layout.views_of(["T1w"])
    slice_node, composite_node = layout.view_nodes(scene, view)
    assert set(seen) == {(view.tag, view.tag)}
    assert layout.view_nodes(scene, view) == (slice_node, composite_node)


def test_the_rows_show_scan_and_restored_image_at_the_same_place_and_window(bench):
    original, restored = bench.picture("Original", "Coronal"), bench.picture("Restored", "Coronal")
    assert original.shape == (SIZE[1], SIZE[0], 3)
    lit = [picture[..., 0] > 40 for picture in (original, restored)]
    assert (lit[0] & lit[1]).sum() > 0.8 * (lit[0] | lit[1]).sum()  # the same head
    assert np.abs(original - restored).mean() > 4  # slices of 12 mm against 3 mm
    # Along a plane of the scan the shells are smooth, across them they are in steps of 12 mm.
    edges = [np.abs(np.diff(picture[..., 0], axis=0)).mean() for picture in (original, restored)]
    assert edges[1] > 1.2 * edges[0]


def test_the_head_fills_the_views_and_lies_in_their_middle(bench):
    for plane in ("Axial", "Sagittal", "Coronal"):
        rows, columns = np.nonzero(bench.picture("Restored", plane)[..., 0] > 40)
        for found, size in ((rows, SIZE[1]), (columns, SIZE[0])):
            assert abs(found.min() + found.max() - size) < 0.12 * size
    rows, _ = np.nonzero(bench.picture("Restored", "Axial")[..., 0] > 40)
    assert np.ptp(rows) > 0.8 * SIZE[1]  # the longest side of the head


def test_only_views_that_are_on_the_screen_are_fitted(bench):
    axial, _ = bench.nodes("Restored")
    sagittal, _ = bench.nodes("Restored", "Sagittal")
    before = axial.GetFieldOfView()[0]
    for node in (axial, sagittal):
        node.SetFieldOfView(50, 40, 1)
    sagittal.SetDimensions(2, 2, 1)  # a view that has no size yet would shrink the head in all
    bench.comparison.fit([bench.view("Restored")])
    assert axial.GetFieldOfView()[0] <= before
    assert axial.GetFieldOfView()[0] > 100
    assert sagittal.GetFieldOfView()[0] == 50
    sagittal.SetDimensions(*SIZE, 1)


def test_window_and_level_are_one_for_both_rows(bench):
    before = bench.picture("Restored")
    shown = bench.comparison.pairs["T1w"]
    shown.original.GetDisplayNode().SetWindowLevel(400, 900)
    assert shown.restored.GetDisplayNode().GetWindow() == 400
    assert bench.picture("Restored").mean() < 0.5 * before.mean()
    shown.restored.GetDisplayNode().SetLevel(300)
    assert shown.original.GetDisplayNode().GetLevel() == 300
    bench.comparison.leave()
    shown.original.GetDisplayNode().SetLevel(100)
    assert shown.restored.GetDisplayNode().GetLevel() == 300


def test_scroll_and_zoom_are_linked_and_volumes_are_not(bench):
    from slicer import vtkMRMLSliceNode as Slice

    logic = bench.logic("Original")
    node, composite = bench.nodes("Original")
    other, other_composite = bench.nodes("Restored")
    sagittal, _ = bench.nodes("Restored", "Sagittal")
    before = bench.picture("Restored")
    place = [sagittal.GetSliceToRAS().GetElement(i, 3) for i in range(3)]
    with linking.linked_change(logic, Slice.SliceToRASFlag):
        logic.SetSliceOffset(logic.GetSliceOffset() + 30)
    assert other.GetSliceOffset() == pytest.approx(node.GetSliceOffset())
    assert [sagittal.GetSliceToRAS().GetElement(i, 3) for i in range(3)] == place
    assert np.abs(bench.picture("Restored") - before).mean() > 5
    with linking.linked_change(logic, Slice.FieldOfViewFlag):
        width, height, depth = node.GetFieldOfView()
        node.SetFieldOfView(width / 2, height / 2, depth)
    assert other.GetFieldOfView()[0] == pytest.approx(width / 2)
    assert sagittal.GetFieldOfView()[0] == pytest.approx(width / 2)
    chosen = other_composite.GetBackgroundVolumeID()
    composite.InteractingOn()
    composite.SetInteractionFlags(composite.BackgroundVolumeFlag)
    composite.SetBackgroundVolumeID(chosen)
    composite.InteractingOff()
    sagittal_volume = bench.nodes("Original", "Sagittal")[1].GetBackgroundVolumeID()
    assert sagittal_volume == bench.comparison.pairs["T1w"].original.GetID()
    bench.comparison.link(False)
    with linking.linked_change(logic, Slice.SliceToRASFlag):
        logic.SetSliceOffset(logic.GetSliceOffset() - 20)
    assert other.GetSliceOffset() == pytest.approx(node.GetSliceOffset() + 20)


def test_blinking_shows_the_restored_scan_in_place_and_goes_back(bench):
    before, restored = bench.picture("Original", "Coronal"), bench.picture("Restored", "Coronal")
    bench.comparison.blink(True)
    np.testing.assert_array_equal(bench.picture("Original", "Coronal"), restored)
    bench.comparison.blink(False)
    np.testing.assert_array_equal(bench.picture("Original", "Coronal"), before)


@pytest.mark.parametrize("plane", ["Coronal", "Sagittal"])
def test_a_curtain_shows_the_original_left_and_the_restored_image_right(bench, plane):
    original, restored = bench.picture("Original", plane), bench.picture("Restored", plane)
    bench.comparison.draw_curtain(0.5)
    both = bench.picture("Original", plane)
    middle, near = SIZE[0] // 2, 12
    left, right = np.s_[:, : middle - near], np.s_[:, middle + near :]
    assert np.abs(original[right] - restored[right]).mean() > 2
    assert np.abs(both[left] - original[left]).mean() < 0.1
    assert np.abs(both[right] - restored[right]).mean() < 0.5
    np.testing.assert_array_equal(bench.picture("Restored", plane), restored)
    line = (np.abs(both - (89, 242, 217)) < 60).all(axis=-1)
    rows, columns = np.nonzero(line)
    assert np.ptp(rows) > 0.6 * SIZE[1]
    assert np.abs(columns - middle).max() < near
    part = bench.nodes("Original", plane)[1].GetForegroundVolumeID()
    bench.comparison.pairs["T1w"].original.GetDisplayNode().SetWindow(500)
    display = bench.app.scene.GetNodeByID(part).GetDisplayNode()
    assert display.GetWindow() == 500
    bench.comparison.pairs["T1w"].original.GetDisplayNode().SetWindow(900)
    bench.comparison.draw_curtain(None)
    np.testing.assert_array_equal(bench.picture("Original", plane), original)
    assert bench.nodes("Original", plane)[1].GetForegroundVolumeID() is None
    with pytest.raises(ValueError, match="between 0 and 1"):
        bench.comparison.draw_curtain(1.5)


def test_the_map_and_its_colour_bar_lie_over_the_restored_row_only(bench, head):
    assert not red(bench.picture("Restored")).any()
    bench.comparison.show_invented(1.0)
    picture = bench.picture("Restored")
    assert not red(bench.picture("Original")).any()
    middle = picture[40:120, 40:160]
    share = red(middle).mean()
    assert 0.1 < share < 0.9  # white matter alone is covered
    colour = invented.invented_colours(bench.app.scene)
    rgba = [0.0] * 4
    colour.GetColor(colour.GetNumberOfColors() - 1, rgba)
    top = np.abs(picture - np.array(rgba[:3]) * 255).max(axis=-1) < 12
    assert top.sum() > 100
    corner = picture[110:, 175:]
    assert red(corner).any()  # the bar
    bench.comparison.show_invented(0.0)
    assert not red(bench.picture("Restored")).any()


def test_the_segmentation_lies_over_both_rows_and_lets_the_scan_through(bench):
    below = bench.picture("Restored")
    for opacity in (0.25, 0.5):
        bench.comparison.show_segmentation(opacity)
        assert red(bench.picture("Original")).any()
        y, x = SIZE[1] // 2, SIZE[0] // 2  # in the middle of the deep grey matter
        colour = np.array(TISSUES[DEEP_GREY - 1].colour)
        expected = opacity * colour + (1 - opacity) * below[y, x]
        assert np.abs(bench.picture("Restored")[y, x] - expected).max() < 4
    bench.comparison.show_segmentation(0.0)
    np.testing.assert_array_equal(bench.picture("Restored"), below)


def state_of(scene, layout_node) -> list[Any]:
    composites = scene.GetNodesByClass("vtkMRMLSliceCompositeNode")
    found: list[Any] = [layout_node.GetViewArrangement(), layout_node.GetCurrentLayoutDescription()]
    for index in range(composites.GetNumberOfItems()):
        node = composites.GetItemAsObject(index)
        if not node.GetLayoutName().startswith("NexusINR"):
            found += [getattr(node, f"Get{name}")() for name in comparison.memory.COMPOSITE]
    selection = scene.GetFirstNodeByClass("vtkMRMLSelectionNode")
    found += [getattr(selection, f"Get{name}")() for name in comparison.memory.SELECTION]
    return found


def test_regions_and_tissues_of_another_result_do_not_lie_over_the_views(bench, head):
    bench.comparison.leave()
    scene = bench.app.scene
    tissues = segmentation.add_segmentation(scene, head.tissues, head.grid.affine, "other")
    region = scene.AddNewNodeByClass("vtkMRMLMarkupsROINode")
    region.CreateDefaultDisplayNodes()
    others = [node.GetDisplayNode() for node in (tissues, region)]
    for display in others:
        display.SetVisibility(True)
    bench.comparison.enter()
    bench.comparison.show_segmentation(0)
    assert not any(display.GetVisibility() for display in others)
    assert not red(bench.picture("Original")).any()
    bench.comparison.leave()
    assert all(display.GetVisibility() for display in others)
    for node in (tissues, region):
        scene.RemoveNode(node)


def test_leaving_gives_back_layout_links_and_selection(app, head):
    scene = app.scene
    shown = pair(scene, head)
    layout_node = scene.AddNewNodeByClass("vtkMRMLLayoutNode")
    layout_node.AddLayoutDescription(2, layout.description(["T2w"]).replace("NexusINR", "Own"))
    layout_node.SetViewArrangement(2)
    own = scene.AddNewNodeByClass("vtkMRMLSliceCompositeNode", "Red")
    own.SetLayoutName("Red")
    own.SetLinkedControl(True)
    own.SetBackgroundVolumeID(shown.restored.GetID())
    own.SetForegroundOpacity(0.25)
    selection = scene.GetFirstNodeByClass("vtkMRMLSelectionNode")
    selection.SetActiveVolumeID(shown.original.GetID())
    before = state_of(scene, layout_node)
    count = scene.GetNumberOfNodes()
    made = comparison.Comparison(scene, [shown])
    made.enter(layout_node)
    assert layout_node.GetViewArrangement() == layout.LAYOUTS[1]
    assert layout_node.GetCurrentLayoutDescription() == made.description
    own.SetLinkedControl(False)  # as a front end might do
    own.SetBackgroundVolumeID(None)
    selection.SetActiveVolumeID(shown.restored.GetID())
    made.draw_curtain(0.3)
    assert state_of(scene, layout_node) != before
    made.leave()
    assert state_of(scene, layout_node) == before
    assert not made.entered
    views = layout.views_of(["T1w"])
    assert scene.GetNumberOfNodes() == count + 2 * len(views)  # the curtain is gone
    for view in views:
        assert layout.view_nodes(scene, view)[1].GetBackgroundVolumeID() is None
    made.leave()
    made.enter(layout_node)
    assert scene.GetNumberOfNodes() == count + 2 * len(views)  # the same nodes again
    made.leave()
    assert state_of(scene, layout_node) == before


def test_two_modalities_stand_side_by_side_with_their_own_windows(scene, head):
    shown = [pair(scene, head, modality) for modality in ("T1w", "T2w")]
    made = comparison.Comparison(scene, shown)
    made.enter()
    assert len(made.nodes) == 12
    assert made.description.count("<view ") == 12
    shown[0].original.GetDisplayNode().SetWindow(123)
    assert shown[0].restored.GetDisplayNode().GetWindow() == 123
    assert shown[1].restored.GetDisplayNode().GetWindow() == 900
    for view, (node, composite) in made.nodes.items():
        chosen = next(p for p in shown if p.modality == view.modality)
        expected = chosen.original if view.row == "original" else chosen.restored
        assert composite.GetBackgroundVolumeID() == expected.GetID()
        assert node.GetViewGroup() == layout.VIEW_GROUP
    made.leave()


@pytest.mark.parametrize("modalities", [[], ["T1w", "T1w"], ["T1w", "T2w", "FLAIR"]])
def test_other_sets_of_pairs_are_refused(scene, head, modalities):
    with pytest.raises(ValueError, match="one pair or two"):
        comparison.Comparison(scene, [pair(scene, head, m) for m in modalities])


def test_an_empty_volume_is_refused_before_anything_changes(scene, head):
    empty = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode")
    made = comparison.Comparison(scene, [comparison.Pair("T1w", empty, empty)])
    count = scene.GetNumberOfNodes()
    with pytest.raises(InputError, match="empty"):
        made.enter()
    assert scene.GetNumberOfNodes() == count
    assert not made.entered


def test_views_cut_the_scan_along_its_slices():
    turned = Affine(np.array([[0, 0.1, 3, 0], [-1, 0, 0, 0], [0, -1, 0.3, 0], [0, 0, 0, 1.0]]))
    frame = layout.frame_of(turned)
    assert np.allclose(frame.T @ frame, np.eye(3))
    assert np.linalg.det(frame) > 0
    assert (np.diag(frame) > 0.9).all()  # nearest to right, anterior and superior
    assert np.allclose(frame @ frame.T, np.eye(3))
    normal = layout.slice_axes(layout.PLANES[1], frame)[:, 2]  # sagittal slices are acquired ones
    assert abs(normal @ turned.direction[:, 2]) > 0.999
