"""Volumes in a MRML scene: every voxel keeps its value and its place in patient space."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nexusinr.errors import InputError
from nexusinr.geometry import Affine, Grid
from nexusinr.labels import GREY, TISSUES

WHY = "MRML without Slicer is not installed: pip install 'nexusinr[web]'"
pytest.importorskip("slicer", reason=WHY)

from nexusinr.mrml import volumes  # noqa: E402

TOLERANCE = 0.001  # mm, at the far corners
MOVED = np.array([[0.8, -0.6, 0, 12], [0.6, 0.8, 0, -7], [0, 0, 1.1, 3], [0, 0, 0, 1]])


@st.composite
def sheared(draw: st.DrawFn) -> Affine:
    affine = draw(st.from_type(Affine))
    lean = np.eye(4)
    lean[draw(st.sampled_from((0, 1))), 2] = draw(st.floats(-0.6, 0.6))
    return Affine(affine.matrix @ lean)


def place_of(scene, name, matrix=None, kind="vtkMRMLLinearTransformNode"):
    transform = scene.AddNewNodeByClass(kind, name)
    if matrix is not None:
        transform.SetMatrixTransformToParent(volumes.to_vtk(matrix))
    return transform


@pytest.fixture(scope="module")
def shared_scene(new_app):
    return new_app().scene


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(affine=st.one_of(st.from_type(Affine), sheared()))
def test_values_and_places_come_back_from_any_lattice(shared_scene, affine: Affine):
    data = np.random.default_rng(1).normal(size=(4, 5, 6)).astype(np.float32)
    node = volumes.add_volume(shared_scene, data, affine, "T1w")
    back = volumes.volume_of(node)
    assert back.grid.same_as(Grid((4, 5, 6), affine), TOLERANCE)
    np.testing.assert_array_equal(back.data, data)
    # One voxel, read through MRML itself: i, j, k are not swapped.
    assert node.GetImageData().GetScalarComponentAsFloat(1, 2, 3, 0) == data[1, 2, 3]
    own = volumes.vtkMatrix4x4()
    node.GetIJKToRASMatrix(own)
    axes = Affine(volumes.from_vtk(own))
    assert not axes.is_sheared  # what files can hold; the shear is in the transform
    assert (node.GetParentTransformNode() is not None) == affine.is_sheared


def test_a_linear_transform_is_hardened_on_the_way_out_and_the_node_stays(scene, oblique_volume):
    node = volumes.add_volume(scene, oblique_volume.data, oblique_volume.affine, "T1w")
    outer = place_of(scene, "outer", MOVED)
    inner = place_of(scene, "inner", np.diag((1.0, 1, 1, 1)) + np.eye(4, k=3) * 5)
    inner.SetAndObserveTransformNodeID(outer.GetID())
    node.SetAndObserveTransformNodeID(inner.GetID())
    moved = MOVED @ (np.eye(4) + np.eye(4, k=3) * 5)
    expected = oblique_volume.affine.transformed(moved)
    found = volumes.volume_of(node)
    assert found.grid.same_as(Grid(oblique_volume.data.shape, expected), TOLERANCE)
    found.data[:] = 0
    np.testing.assert_array_equal(volumes.array_of(node), oblique_volume.data)
    assert node.GetParentTransformNode() is inner
    node.SetAndObserveTransformNodeID(None)
    assert volumes.grid_of(node).same_as(oblique_volume.grid, TOLERANCE)


def test_a_transform_that_bends_space_is_refused_in_one_sentence(scene, oblique_volume):
    from vtkmodules.vtkCommonCore import vtkPoints
    from vtkmodules.vtkCommonTransforms import vtkThinPlateSplineTransform

    bent = vtkThinPlateSplineTransform()
    source, target = vtkPoints(), vtkPoints()
    corners = [(0, 0, 0), (50, 0, 0), (0, 50, 0), (0, 0, 50), (30, 30, 30)]
    for index, point in enumerate(corners):
        source.InsertNextPoint(*point)
        target.InsertNextPoint(*(np.array(point) + (index == 4) * 4.0))
    bent.SetSourceLandmarks(source)
    bent.SetTargetLandmarks(target)
    bent.SetBasisToR()
    node = volumes.add_volume(scene, oblique_volume.data, oblique_volume.affine, "DOE^JANE")
    transform = place_of(scene, "bent", kind="vtkMRMLTransformNode")
    transform.SetAndObserveTransformToParent(bent)
    node.SetAndObserveTransformNodeID(transform.GetID())
    with pytest.raises(InputError, match=r"not linear.*harden") as caught:
        volumes.volume_of(node)
    assert "DOE" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_empty_node_and_a_colour_image_are_refused(scene):
    empty = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode")
    with pytest.raises(InputError, match="empty"):
        volumes.volume_of(empty)
    colour = scene.AddNewNodeByClass("vtkMRMLVectorVolumeNode")
    image = volumes.vtkImageData()
    image.SetDimensions(3, 3, 3)
    image.AllocateScalars(3, 3)
    colour.SetAndObserveImageData(image)
    with pytest.raises(InputError, match="3 values a voxel"):
        volumes.volume_of(colour)
    with pytest.raises(ValueError, match="3D and real"):
        volumes.add_volume(scene, np.zeros((3, 3)), Affine(np.eye(4)), "flat")


def test_the_name_of_the_node_does_not_travel(scene):
    node = volumes.add_volume(scene, np.zeros((2, 2, 2)), Affine(np.eye(4)), "DOE^JANE")
    assert volumes.volume_of(node).name == ""
    assert volumes.volume_of(node, "scan").name == "scan"


def test_label_maps_keep_their_values_and_get_the_tissues_colours(scene, head):
    node = volumes.add_labelmap(scene, head.tissues, head.grid.affine, "tissues")
    np.testing.assert_array_equal(volumes.array_of(node), head.tissues)
    colours = node.GetDisplayNode().GetColorNode()
    assert colours.GetColorName(GREY) == "grey matter"
    rgba = [0.0] * 4
    colours.GetColor(GREY, rgba)
    expected = next(t.colour for t in TISSUES if t.value == GREY)
    assert np.allclose(np.array(rgba[:3]) * 255, expected, atol=0.5)
    again = volumes.add_labelmap(scene, head.tissues, head.grid.affine, "tissues")
    assert again.GetDisplayNode().GetColorNode() is colours
    assert again.GetName() != node.GetName()


def test_the_display_is_taken_over(scene, head):
    source = volumes.add_volume(scene, head.scan, head.scan_grid.affine, "T1w")
    target = volumes.add_volume(scene, head.restored, head.grid.affine, "T1w restored")
    shown, display = source.GetDisplayNode(), target.GetDisplayNode()
    shown.SetAutoWindowLevel(False)
    shown.SetWindowLevel(333, 222)
    shown.SetThreshold(17, 650)
    shown.SetApplyThreshold(True)
    shown.SetInterpolate(False)
    shown.SetAndObserveColorNodeID("vtkMRMLColorTableNodeInvertedGrey")
    volumes.copy_display(source, target)
    assert (display.GetWindow(), display.GetLevel()) == (333, 222)
    assert (display.GetLowerThreshold(), display.GetUpperThreshold()) == (17, 650)
    assert display.GetApplyThreshold()
    assert not display.GetInterpolate()
    assert display.GetColorNodeID() == "vtkMRMLColorTableNodeInvertedGrey"
    assert not display.GetAutoWindowLevel()
