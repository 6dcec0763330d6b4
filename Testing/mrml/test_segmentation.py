"""Tissues as a segmentation: values, names, colours and codes are kept."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from nexusinr.geometry import Affine, Grid
from nexusinr.labels import GREY, LESION, TISSUES, WHITE

WHY = "MRML without Slicer is not installed: pip install 'nexusinr[web]'"
pytest.importorskip("slicer", reason=WHY)

from nexusinr.mrml import segmentation, volumes  # noqa: E402

SHEAR = np.array([[1, 0.3, 0, -20], [0, 1.2, 0.2, -25], [0.1, 0, 3, -12], [0, 0, 0, 1]])


@pytest.fixture
def node(scene, head):
    return segmentation.add_segmentation(scene, head.tissues, head.grid.affine, "T1w tissues")


def test_segments_are_the_tissues_that_occur(node, head):
    found = node.GetSegmentation()
    present = [t for t in TISSUES if (head.tissues == t.value).any()]
    assert LESION not in [t.value for t in present]
    assert found.GetNumberOfSegments() == len(present) == 4
    for tissue in present:
        segment = found.GetSegment(tissue.name)
        assert segment.GetName() == tissue.name
        assert segment.GetLabelValue() == tissue.value
        assert np.allclose(np.array(segment.GetColor()) * 255, tissue.colour, atol=0.5)


def test_codes_are_those_of_slicers_own_lists():
    why = "Slicer's lists of codes are not installed: pip install 'nexusinr[web]'"
    trame_slicer = pytest.importorskip("trame_slicer", reason=why)
    folder = Path(trame_slicer.__file__).parent / "resources" / "terminologies"
    terms = json.loads(
        (folder / "SegmentationCategoryTypeModifier-DICOM-Master.term.json").read_text()
    )
    listed = {
        (category["CodeValue"], kind["CodeValue"]): kind["CodeMeaning"]
        for category in terms["SegmentationCodes"]["Category"]
        for kind in category["Type"]
    }
    for tissue in TISSUES:
        context, category, kind, *_ = segmentation.terminology(tissue).split("~")
        assert context == terms["SegmentationCategoryTypeContextName"]
        (_, group, _), (scheme, code, meaning) = category.split("^"), kind.split("^")
        if scheme == "SCT" and tissue.value != LESION:
            assert listed[group, code] == meaning


def test_a_segment_carries_its_code_where_slicer_looks_for_it(node, app):
    from slicer import vtkSlicerTerminologyEntry
    from vtkmodules.vtkCommonCore import reference

    tissue = next(t for t in TISSUES if t.value == WHITE)
    value, parsed = reference(""), vtkSlicerTerminologyEntry()
    segment = node.GetSegmentation().GetSegment(tissue.name)
    assert segment.GetTag(segmentation.vtkSegment.GetTerminologyEntryTagName(), value)
    assert "SCT^389080008^White Matter" in str(value)
    assert app.terminologies_logic.DeserializeTerminologyEntry(str(value), parsed)
    assert parsed.GetTypeObject().GetCodeMeaning() == "White Matter"


def test_the_array_comes_back_on_its_own_lattice(node, head):
    np.testing.assert_array_equal(segmentation.tissues_of(node, head.grid), head.tissues)


def test_the_array_comes_back_on_other_lattices(node, head):
    moved = Affine(head.grid.affine.matrix[:, [2, 0, 1, 3]])
    order = Grid(tuple(head.grid.shape[a] for a in (2, 0, 1)), moved)
    np.testing.assert_array_equal(
        segmentation.tissues_of(node, order), head.tissues.transpose(2, 0, 1)
    )
    part = head.grid.crop((-3, 4, 5), (20, 80, 30))
    found = segmentation.tissues_of(node, part)
    np.testing.assert_array_equal(found[3:, :68], head.tissues[:20, 4:, 5:30])
    assert not found[:3].any()
    assert not found[:, 68:].any()


def test_transforms_above_the_segmentation_are_in_the_array(scene, head):
    node = segmentation.add_segmentation(scene, head.tissues, head.grid.affine, "tissues")
    shift = np.eye(4)
    shift[:3, 3] = head.grid.affine.matrix[:3, 0] * 2  # by two voxels along i
    transform = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    transform.SetMatrixTransformToParent(volumes.to_vtk(shift))
    node.SetAndObserveTransformNodeID(transform.GetID())
    found = segmentation.tissues_of(node, head.grid)
    np.testing.assert_array_equal(found[2:], head.tissues[:-2])


def test_a_sheared_lattice_keeps_its_tissues(scene, head):
    grid = Grid(head.grid.shape, Affine(SHEAR))
    node = segmentation.add_segmentation(scene, head.tissues, grid.affine, "tissues")
    np.testing.assert_array_equal(segmentation.tissues_of(node, grid), head.tissues)


def test_segments_of_the_user_are_left_out_and_renamed_ones_are_known(node, head):
    found = node.GetSegmentation()
    found.GetSegment("grey matter").SetName("GM")
    found.AddEmptySegment("mine", "mine")
    labels = segmentation.tissues_of(node, head.grid)
    np.testing.assert_array_equal(labels == GREY, head.tissues == GREY)


def test_the_reference_geometry_is_that_of_the_volume(scene, head):
    volume = volumes.add_volume(scene, head.restored, head.grid.affine, "restored")
    node = segmentation.add_segmentation(
        scene, head.tissues, head.grid.affine, "tissues", reference=volume
    )
    assert node.GetNodeReference(node.GetReferenceImageGeometryReferenceRole()) is volume
    name = segmentation.vtkSegmentationConverter.GetReferenceImageGeometryParameterName()
    with_volume = node.GetSegmentation().GetConversionParameter(name)
    alone = segmentation.add_segmentation(scene, head.tissues, head.grid.affine, "tissues")
    geometry = segmentation.vtkOrientedImageData()
    for text in (with_volume, alone.GetSegmentation().GetConversionParameter(name)):
        assert segmentation.vtkSegmentationConverter.DeserializeImageGeometry(text, geometry)
        assert geometry.GetDimensions() == head.grid.shape
        matrix = segmentation.vtkMatrix4x4()
        geometry.GetImageToWorldMatrix(matrix)
        assert np.allclose(segmentation.from_vtk(matrix), head.grid.affine.matrix, atol=1e-4)


def test_surfaces_enclose_their_tissue(node, head):
    segmentation.show_surfaces(node)
    surface = node.GetClosedSurfaceInternalRepresentation("deep grey matter")
    assert surface.GetNumberOfPolys() > 100
    centre = (np.array(surface.GetBounds()[::2]) + surface.GetBounds()[1::2]) / 2
    assert np.abs(centre - head.grid.centre).max() < 3
    assert node.GetDisplayNode().GetVisibility3D()
