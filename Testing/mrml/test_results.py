"""Results stand beside their scan, say where they come from, and survive saving."""

from __future__ import annotations

import json

import numpy as np
import pytest

from nexusinr.geometry import Affine, Grid

WHY = "MRML without Slicer is not installed: pip install 'nexusinr[web]'"
pytest.importorskip("slicer", reason=WHY)

from nexusinr.mrml import hierarchy, record, segmentation, tables, volumes  # noqa: E402

SHEAR = np.array([[1, 0.3, 0, -20], [0, 1.2, 0.2, -25], [0.1, 0, 3, -12], [0, 0, 0, 1]])


@pytest.mark.parametrize(
    ("spacing", "name"),
    [
        ((1, 1, 1), "T1w restored 1.0 mm"),
        ((0.75, 0.7501, 0.75), "T1w restored 0.75 mm"),
        ((0.9, 0.9, 3), "T1w restored 0.9 × 0.9 × 3.0 mm"),
    ],
)
def test_names_say_modality_and_spacing(spacing, name):
    grid = Grid((2, 2, 2), Affine.from_parts(spacing))
    assert hierarchy.restored_name("T1w", grid) == name


def patient(scene, node):
    """A study of a patient with one scan, as the DICOM browser makes it."""
    tree = hierarchy.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    study = tree.CreateStudyItem(tree.CreateSubjectItem(tree.GetSceneItemID(), "DOE^JANE"), "Head")
    tree.CreateItem(study, node)
    return tree, study


@pytest.fixture
def results(scene, head):
    """A scan of a patient and what was made of it: restored volume and tissues."""
    scan = volumes.add_volume(scene, head.scan, head.scan_grid.affine, "T1w")
    name = hierarchy.restored_name("T1w", head.grid)
    restored = volumes.add_volume(scene, head.restored, head.grid.affine, name)
    tissues = segmentation.add_segmentation(
        scene, head.tissues, head.grid.affine, "T1w tissues", reference=restored
    )
    return scan, restored, tissues


def test_results_stand_under_the_study_of_their_scan(scene, results):
    scan, restored, tissues = results
    tree, study = patient(scene, scan)
    assert hierarchy.place_results(scene, [restored, tissues], scan) == study
    for node in (scan, restored, tissues):
        assert tree.GetItemParent(tree.GetItemByDataNode(node)) == study
        assert "DOE" not in node.GetName()
    assert tree.GetItemAttribute(tree.GetItemByDataNode(restored), "DICOM.Modality") == "MR"


def test_a_scan_without_a_patient_keeps_its_results_at_the_root(scene, results):
    scan, restored, _ = results
    folder = hierarchy.place_results(scene, [restored], scan)
    tree = hierarchy.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    assert tree.GetItemParent(folder) == tree.GetSceneItemID()
    assert tree.GetItemParent(tree.GetItemByDataNode(restored)) == folder
    second = hierarchy.place_results(scene, [restored], scan)
    assert tree.GetItemName(second) != tree.GetItemName(folder)
    assert tree.GetItemByDataNode(scan) != tree.GetInvalidItemID()


def test_the_record_says_what_was_done_and_names_no_file(scene, results, report):
    scan, restored, tissues = results
    text = record.add_record(scene, report, [restored, tissues], [scan])
    for node in (restored, tissues):
        attributes = {n: node.GetAttribute(n) for n in node.GetAttributeNames()}
        assert attributes["NexusINR.Notice"] == "derived, not for primary diagnosis"
        assert attributes["NexusINR.Model"] == "nexus-inr 1.2"
        assert attributes["NexusINR.WeightsSHA256"] == "b" * 64
        assert json.loads(attributes["NexusINR.Inputs"]) == {"T1w": "a" * 64}
        assert json.loads(attributes["NexusINR.Residual"]) == {"T1w": 0.75}
        assert "DOE" not in str(attributes)
        assert node.GetNodeReference(record.SOURCE_ROLE) is scan
        assert record.record_of(node)["consistency"] == report["consistency"]
    assert "DOE" not in text.GetText()
    assert "path" not in record.record_of(restored)["inputs"][0]
    assert report["inputs"][0]["path"].startswith("/scans")  # the caller's own report stays
    assert record.record_of(scan) is None


def test_the_table_holds_volumes_and_residuals(scene, report):
    table = tables.add_table(scene, report).GetTable()
    rows = [
        tuple(table.GetValue(r, c).ToString() for c in range(3))
        for r in range(table.GetNumberOfRows())
    ]
    assert [table.GetColumnName(c) for c in range(3)] == ["quantity", "value", "unit"]
    assert ("grey matter", "612.25", "mL") in rows
    assert ("T1w residual", "0.75", "scan units") in rows
    assert len(rows) == 4


def test_everything_survives_an_mrb_file(app, new_app, results, head, report, tmp_path):
    scan, restored, tissues = results
    patient(app.scene, scan)
    slanted = volumes.add_volume(app.scene, head.scan, Affine(SHEAR), "slanted")
    made = [restored, tissues, slanted, tables.add_table(app.scene, report)]
    text = record.add_record(app.scene, report, made, [scan])
    hierarchy.place_results(app.scene, [*made, text], scan)
    assert app.io_manager.write_scene(tmp_path / "results.mrb")

    other = new_app()
    assert other.io_manager.load_scene(tmp_path / "results.mrb")
    found = {n: other.scene.GetFirstNodeByName(n) for n in (x.GetName() for x in [scan, *made])}
    back = found[restored.GetName()]
    assert volumes.grid_of(back).same_as(head.grid, 0.01)
    np.testing.assert_array_equal(volumes.array_of(back), head.restored)
    sheared = Grid(head.scan.shape, Affine(SHEAR))
    assert volumes.grid_of(found["slanted"]).same_as(sheared, 0.01)
    np.testing.assert_array_equal(
        segmentation.tissues_of(found["T1w tissues"], head.grid), head.tissues
    )
    assert back.GetAttribute("NexusINR.Notice") == "derived, not for primary diagnosis"
    assert back.GetNodeReference(record.SOURCE_ROLE) is found["T1w"]
    assert record.record_of(back)["warnings"] == ["σ was guessed"]
    table = found["NexusINR measures"].GetTable()
    assert table.GetValueByName(0, "value").ToDouble() == 612.25
    tree = hierarchy.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(other.scene)
    assert tree.GetItemName(tree.GetItemParent(tree.GetItemByDataNode(back))) == "Head"
