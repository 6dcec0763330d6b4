"""Surfaces made aside are those that Slicer makes."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

WHY = "MRML without Slicer is not installed: pip install 'nexusinr[web]'"
pytest.importorskip("slicer", reason=WHY)

from vtkmodules.vtkFiltersCore import vtkMassProperties  # noqa: E402

from nexusinr.mrml import segmentation, surfaces  # noqa: E402


def volume(surface) -> float:
    """In mm³."""
    measure = vtkMassProperties()
    measure.SetInputData(surface)
    measure.Update()
    return measure.GetVolume()


def faces_outwards(surface) -> float:
    """Share of points whose normal points away from the middle."""
    from vtkmodules.util.numpy_support import vtk_to_numpy

    points = vtk_to_numpy(surface.GetPoints().GetData())
    normals = vtk_to_numpy(surface.GetPointData().GetNormals())
    return float(((points - points.mean(axis=0)) * normals).sum(axis=1).__gt__(0).mean())


@pytest.fixture
def node(scene, head):
    return segmentation.add_segmentation(scene, head.tissues, head.grid.affine, "tissues")


def test_they_are_those_of_slicer(node):
    made = surfaces.surfaces_of(surfaces.labels_of(node))
    assert not surfaces.has_surfaces(node)
    assert node.CreateClosedSurfaceRepresentation()
    inner = node.GetSegmentation()
    assert set(made) == {inner.GetNthSegmentID(at) for at in range(inner.GetNumberOfSegments())}
    for name, surface in made.items():
        theirs = inner.GetSegment(name).GetRepresentation(surfaces.SURFACE)
        assert surface.GetNumberOfPoints() == theirs.GetNumberOfPoints()
        np.testing.assert_allclose(surface.GetBounds(), theirs.GetBounds(), atol=0.5)
        assert volume(surface) == pytest.approx(volume(theirs), rel=0.01)
        assert faces_outwards(surface) == pytest.approx(faces_outwards(theirs), abs=0.1)


def test_they_are_shown_and_the_labels_stay(node, head):
    surfaces.show(node, surfaces.surfaces_of(surfaces.labels_of(node)))
    assert surfaces.has_surfaces(node)
    assert node.GetDisplayNode().GetVisibility3D()
    np.testing.assert_array_equal(segmentation.tissues_of(node, head.grid), head.tissues)


def test_other_threads_go_on_meanwhile(node):
    labels = surfaces.labels_of(node)
    alone = time.perf_counter()
    surfaces.surfaces_of(labels)
    alone = time.perf_counter() - alone
    thread = threading.Thread(target=surfaces.surfaces_of, args=(labels,))
    ticks = 0
    thread.start()
    while thread.is_alive():
        time.sleep(alone / 100)
        ticks += 1
    assert ticks > 10


def test_a_segment_without_voxels_has_none(node):
    node.GetSegmentation().AddEmptySegment("nothing", "nothing")
    assert "nothing" not in surfaces.surfaces_of(surfaces.labels_of(node))
