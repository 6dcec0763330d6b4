"""The live slice: planes as views show them, and views that show planes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from nexusinr.geometry import Affine, Grid

WHY = "MRML without Slicer is not installed: pip install 'nexusinr[web]'"
pytest.importorskip("slicer", reason=WHY)

from nexusinr.mrml import comparison, invented, layout, live, placement, volumes  # noqa: E402

SIZE = (200, 160)

#: The views that are looked at.
VIEWS = ("OriginalAxial", "RestoredAxial", "RestoredCoronal")

TILT = Rotation.from_euler("xyz", (20, -35, 50), degrees=True).as_matrix()


def turn(node: Any, rotation: NDArray[np.float64], centre: Any) -> None:
    """Points a slice node: columns screen right, up and normal; centre in mm."""
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = rotation, centre
    node.GetSliceToRAS().DeepCopy(placement.to_vtk(matrix))
    node.UpdateMatrices()


def bare_view(scene: Any, field: tuple[float, float] = (150, 120)) -> Any:
    node = scene.AddNewNodeByClass("vtkMRMLSliceNode", "Bare")
    node.SetLayoutName("Bare")
    node.SetDimensions(*SIZE, 1)
    node.SetFieldOfView(*field, 1)
    return node


@pytest.mark.parametrize("rotation", [np.eye(3), TILT])
def test_a_plane_has_the_pixels_of_the_screen(scene, head, rotation):
    node = bare_view(scene)
    turn(node, rotation, head.grid.centre)
    plane = live.plane_of(node, head.grid)
    assert plane is not None
    index = np.array([(0, 0, 0), (7, 3, 0), (plane.shape[0] - 1, plane.shape[1] - 1, 0)])
    to_screen = np.linalg.inv(placement.from_vtk(node.GetXYToRAS()))
    points = plane.affine.apply(index)
    screen = points @ to_screen[:3, :3].T + to_screen[:3, 3]
    np.testing.assert_allclose(screen, np.rint(screen), atol=1e-6)
    assert (np.rint(screen.min(axis=0)[:2]) >= 0).all()
    assert (np.rint(screen.max(axis=0)[:2]) < SIZE).all()
    # In mm, from where the view looks: pixel (x, y) is -field / 2 + field / size * (x, y).
    mm = (screen[:, :2] * 0.75 - (75, 60)) @ rotation[:, :2].T + head.grid.centre
    np.testing.assert_allclose(points, mm, atol=0.01)
    np.testing.assert_allclose(plane.spacing, (0.75, 0.75, 1))


@pytest.mark.parametrize("shift", [(0, 0), (60, -45)])
def test_what_lies_beside_the_volume_is_left_out(scene, head, shift):
    node = bare_view(scene, (600, 480))
    turn(node, TILT, head.grid.centre + TILT[:, :2] @ shift)
    plane = live.plane_of(node, head.grid)
    assert plane is not None
    x, y = np.meshgrid(*map(np.arange, SIZE), indexing="ij")
    to_ras = placement.from_vtk(node.GetXYToRAS())
    points = np.stack([x, y], -1) @ to_ras[:3, :2].T + to_ras[:3, 3]
    at = head.grid.affine.to_index(points)
    inside = ((at >= -0.5) & (at <= np.array(head.grid.shape) - 0.5)).all(axis=-1)
    first = plane.affine.origin
    start = np.rint(np.linalg.lstsq(to_ras[:3, :2], first - to_ras[:3, 3], rcond=None)[0])
    for axis, (low, size) in enumerate(zip(start, plane.shape, strict=False)):
        kept = np.flatnonzero(inside.any(axis=1 - axis))
        assert low in (kept[0], kept[0] - 1)
        assert low + size - 1 in (kept[-1], kept[-1] + 1)


def test_large_views_get_larger_pixels_over_the_same_part(scene, head):
    node = bare_view(scene)
    turn(node, TILT, head.grid.centre)
    fine, coarse = (live.plane_of(node, head.grid, most) for most in (10**6, 3000))
    assert fine is not None
    assert coarse is not None
    assert 2500 < coarse.voxels <= 3000 < fine.voxels
    np.testing.assert_allclose(coarse.extent, fine.extent, atol=0.01)
    np.testing.assert_allclose(coarse.centre, fine.centre, atol=0.01)
    np.testing.assert_allclose(coarse.corner[:2], fine.corner[:2], atol=0.01)


def test_a_view_that_shows_nothing_wants_nothing(scene, head):
    node = bare_view(scene)
    turn(node, np.eye(3), np.add(head.grid.centre, (0, 0, 500)))
    assert live.plane_of(node, head.grid) is None
    turn(node, np.eye(3), np.add(head.grid.centre, (500, 0, 0)))
    assert live.plane_of(node, head.grid) is None
    turn(node, np.eye(3), head.grid.centre)
    node.SetDimensions(0, 0, 1)
    assert live.plane_of(node, head.grid) is None


def test_the_worker_is_asked_where_the_volume_was_restored(scene, head):
    node = bare_view(scene)
    turn(node, TILT, head.grid.centre)
    sheared = head.grid.affine.matrix @ np.array(
        [[1, 0, 0.2, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    )
    restored = volumes.add_volume(scene, head.restored, Affine(sheared), "restored")
    composite = scene.AddNewNodeByClass("vtkMRMLSliceCompositeNode")
    moved = np.eye(4)
    moved[:3, :3], moved[:3, 3] = Rotation.from_euler("z", 9, degrees=True).as_matrix(), (5, -7, 2)
    transform = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    transform.SetMatrixTransformToParent(placement.to_vtk(moved))
    shear = restored.GetParentTransformNode()
    shear.SetAndObserveTransformNodeID(transform.GetID())
    view = live.LiveSlice(scene, node, composite, restored, made_at=Affine(sheared))
    plane = view.wanted()
    assert plane is not None
    asked = view.request(plane)
    assert asked["size"] == list(plane.shape[:2])
    assert asked["segmentation"] is False
    before = Affine(asked["affine"]).transformed(moved)
    np.testing.assert_allclose(before.matrix, plane.affine.matrix, atol=1e-6)
    view.close()


# --- views ------------------------------------------------------------------------------------


@dataclass
class Bench:
    """A comparison whose restored views are live."""

    app: Any
    comparison: Any
    views: dict[str, Any]
    live: dict[str, Any]
    lattice: Grid
    picture_of: Callable[[Any], NDArray[np.int16]]

    def logic(self) -> Any:
        return self.app.app_logic.GetSliceLogic(self.live["Axial"].slice_node)

    def picture(self, row: str = "Restored", plane: str = "Axial") -> NDArray[np.int16]:
        return self.picture_of(self.views[f"NexusINRT1w{row}{plane}"])


@pytest.fixture(scope="module")
def screen(new_app, head, views_of) -> tuple[Any, dict[str, Any], Any]:
    """A scene with the views, each of 200 x 160 pixels, and the volumes to compare."""
    app = new_app()
    original = volumes.add_volume(app.scene, head.scan, head.scan_grid.affine, "T1w")
    restored = volumes.add_volume(app.scene, head.restored, head.grid.affine, "T1w restored")
    original.GetDisplayNode().SetAutoWindowLevel(False)
    share = np.ones(head.grid.shape, dtype=np.float32)
    shown = invented.add_invented(app.scene, share, head.grid.affine, "T1w invented")
    wanted = [f"NexusINRT1w{view}" for view in VIEWS]
    views = views_of(app, layout.description(["T1w"]), original, *wanted)
    return app, views, comparison.Pair("T1w", original, restored, shown)


@pytest.fixture
def bench(screen, picture_of) -> Iterator[Bench]:
    app, views, pair = screen
    pair.original.GetDisplayNode().SetWindowLevel(1000, 500)
    shown = comparison.Comparison(app.scene, [pair])
    shown.enter()
    slices = live.live_slices(shown)
    named = {view.plane.name: each for view, each in slices.items()}
    yield Bench(app, shown, views, named, volumes.grid_of(pair.restored), picture_of)
    for each in slices.values():
        each.close()
    shown.leave()


def ramp(plane: Grid) -> NDArray[np.float32]:
    """Values that tell where they belong: 0 at the left to 1000 at the right end."""
    values = np.linspace(0, 1000, plane.shape[0], dtype=np.float32)
    return np.broadcast_to(values[:, None, None], plane.shape).copy()


def show(bench: Bench, name: str = "Axial") -> Grid:
    view = bench.live[name]
    plane = view.wanted()
    assert plane is not None
    assert view.show(plane, ramp(plane))
    return plane


def test_the_view_shows_the_plane_pixel_by_pixel(bench):
    plain = bench.picture()
    node = bench.live["Axial"].slice_node
    node.SetFieldOfView(60, 48, 1)  # the head fills it
    turn(node, placement.from_vtk(node.GetSliceToRAS())[:3, :3] @ TILT, bench.lattice.centre)
    plane = show(bench)
    assert plane.shape == (*SIZE, 1)
    expected = np.rint(np.linspace(0, 255, SIZE[0]))
    rows = bench.picture()[5:-5, :, 0]
    assert np.abs(rows - expected).max() <= 2
    assert np.abs(plain - bench.picture()).mean() > 10
    bench.live["Axial"].hide()
    assert np.abs(bench.picture()[5:-5, :, 0] - expected).mean() > 10


def test_only_that_view_shows_it_and_only_as_long_as_it_is_there(bench):
    before = {row: bench.picture(row) for row in ("Original", "Restored")}
    coronal = bench.picture("Restored", "Coronal")
    show(bench)
    assert np.abs(bench.picture() - before["Restored"]).mean() > 10
    np.testing.assert_array_equal(bench.picture("Original"), before["Original"])
    np.testing.assert_array_equal(bench.picture("Restored", "Coronal"), coronal)
    assert bench.live["Axial"].wanted() is None
    node = bench.live["Axial"].slice_node
    offset = node.GetSliceOffset()
    node.SetSliceOffset(offset + 0.5)
    assert bench.live["Axial"].shown is None
    node.SetSliceOffset(offset)
    np.testing.assert_array_equal(bench.picture(), before["Restored"])
    stale = bench.live["Axial"].wanted()
    node.SetSliceOffset(offset + 3)
    assert not bench.live["Axial"].show(stale, ramp(stale))


def test_a_plane_stays_while_zooming_and_a_finer_one_is_wanted(bench):
    plane = show(bench)
    node = bench.live["Axial"].slice_node
    width, height, depth = node.GetFieldOfView()
    node.SetFieldOfView(width / 2, height / 2, depth)
    assert bench.live["Axial"].shown == plane
    finer = bench.live["Axial"].wanted()
    np.testing.assert_allclose(finer.spacing[:2], plane.spacing[:2] / 2)


def test_the_volume_beside_the_plane_is_seen_and_nothing_beyond_the_volume(bench):
    before = bench.picture()
    plane = live.plane_of(bench.live["Axial"].slice_node, bench.lattice)
    part = plane.crop((plane.shape[0] // 2, 0, 0), plane.shape)
    assert bench.live["Axial"].show(part, np.full(part.shape, 2000, dtype=np.float32))
    after = bench.picture()
    changed = (after != before).any(axis=(0, 2))
    first = np.flatnonzero(changed)[0]
    assert changed[first:].mean() > 0.5
    assert not changed[: first - 1].any()
    assert (after[:, changed].max(axis=-1) == 255).any()
    np.testing.assert_array_equal(after[:, 0], before[:, 0])


def test_window_and_level_are_those_of_the_restored_scan(bench):
    show(bench)
    before = bench.picture()
    bench.comparison.pairs["T1w"].original.GetDisplayNode().SetWindowLevel(4000, 2000)
    assert bench.picture().mean() < 0.5 * before.mean()
    bench.live["Axial"].node.GetDisplayNode().SetWindowLevel(1000, 500)
    assert bench.comparison.pairs["T1w"].restored.GetDisplayNode().GetWindow() == 1000


def test_map_curtain_and_blink_are_as_without_it(bench):
    show(bench)
    plain, original = bench.picture(), bench.picture("Original")
    for opacity in (0.5, 1.0):
        bench.comparison.show_invented(opacity)
        covered = bench.picture()
        tinted = np.ptp(covered, axis=-1) > 40
        assert tinted.mean() > 0.2
        if opacity < 1:  # the ramp shows through the map
            lit = covered[80][tinted[80]].sum(axis=-1)
            assert lit[-1] > lit[0] + 50
    bench.comparison.show_invented(0.0)
    np.testing.assert_array_equal(bench.picture(), plain)
    bench.comparison.draw_curtain(0.5)
    np.testing.assert_array_equal(bench.picture(), plain)
    bench.comparison.draw_curtain(None)
    bench.comparison.blink(True)
    np.testing.assert_array_equal(bench.picture(), plain)
    assert np.abs(bench.picture("Original") - original).mean() > 3
    bench.comparison.blink(False)
    np.testing.assert_array_equal(bench.picture("Original"), original)


def test_it_is_nobodys_volume_and_leaves_nothing(bench):
    scene = bench.app.scene
    count, before = scene.GetNumberOfNodes(), bench.picture()
    lowest = bench.logic().GetLowestVolumeSliceSpacing()
    show(bench)
    node = bench.live["Axial"].node
    assert node.GetHideFromEditors()
    assert not node.GetSaveWithScene()
    assert not node.GetDisplayNode().GetSaveWithScene()
    spacing = bench.logic().GetLowestVolumeSliceSpacing()
    assert spacing == lowest  # wheel and slider go by the restored volume
    bench.live["Axial"].close()
    assert scene.GetNumberOfNodes() == count
    np.testing.assert_array_equal(bench.picture(), before)
    assert bench.live["Axial"].composite.GetNumberOfAdditionalLayers() == 0


def test_values_of_another_shape_are_refused(bench):
    plane = bench.live["Axial"].wanted()
    with pytest.raises(ValueError, match="pixels"):
        bench.live["Axial"].show(plane, np.zeros((3, 4, 1), dtype=np.float32))
