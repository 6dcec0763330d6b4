"""What a run leaves in a scene: whole or not at all, found again, and the map of what it added."""

from __future__ import annotations

import numpy as np
import pytest

WHY = "MRML without Slicer is not installed: pip install 'nexusinr[web]'"
pytest.importorskip("slicer", reason=WHY)

from nexusinr.mrml import invented, results, tables, volumes  # noqa: E402


@pytest.fixture
def scan(scene, head):
    node = volumes.add_volume(scene, head.scan, head.scan_grid.affine, "DOE^JANE T1")
    node.GetDisplayNode().SetAutoWindowLevel(False)
    node.GetDisplayNode().SetWindowLevel(321, 123)
    return node


def add(scene, head, report, sources):
    images = {"T1w": results.Image(head.restored, head.grid.affine)}
    tissues = results.Image(head.tissues.astype(np.float32), head.grid.affine)
    return results.add_results(scene, report, images, tissues, sources)


def test_results_are_shown_as_the_scan_and_found_by_their_report(scene, head, report, scan):
    made = add(scene, head, report, {"T1w": scan})
    node = made.restored["T1w"]
    assert node.GetName() == "T1w restored 3.0 mm"
    assert node.GetDisplayNode().GetWindow() == 321
    np.testing.assert_array_equal(volumes.array_of(node), head.restored)
    assert made.segmentation.GetSegmentation().GetNumberOfSegments() == 4
    found = results.results_of(made.report)
    assert found is not None
    assert found.restored == made.restored
    assert found.originals == {"T1w": scan}
    assert found.segmentation is made.segmentation
    assert found.record["model"] == report["model"]
    assert [pair.original for pair in found.pairs()] == [scan]
    again = add(scene, head, report, {"T1w": scan})
    other = results.results_of(again.report)
    assert other is not None
    assert other.restored["T1w"] is not node  # the results of two runs are kept apart


def test_a_scan_that_was_removed_leaves_nothing_to_compare(scene, head, report, scan):
    made = add(scene, head, report, {"T1w": scan})
    scene.RemoveNode(scan)
    found = results.results_of(made.report)
    assert found is not None
    assert found.pairs() == []
    scene.RemoveNode(made.restored["T1w"])
    assert results.results_of(made.report) is None


def test_a_run_that_fails_halfway_leaves_no_node(scene, head, report, scan):
    count = scene.GetNumberOfNodes()
    del report["model"]
    with pytest.raises(KeyError, match="model"):
        add(scene, head, report, {"T1w": scan})
    left = [scene.GetNthNode(i).GetName() for i in range(count, scene.GetNumberOfNodes())]
    # The tissues' colours and terminologies are of the scene, not of the run.
    assert not [name for name in left if "restored" in name or "Tissues" in name], left


def test_the_map_is_0_where_the_scan_says_it_and_1_where_it_does_not(scene, head, scan):
    shown = invented._resliced(scan, np.eye(4), head.scan.shape)
    np.testing.assert_allclose(shown, head.scan, rtol=1e-5)
    low, high = np.percentile(head.scan, invented.RANGE)
    changed = head.scan.copy()
    changed[30, 40, 7] += 0.25 * (high - low)
    restored = volumes.add_volume(scene, changed, head.scan_grid.affine, "restored")
    share = invented.share_invented(scan, restored)
    assert share[30, 40, 7] == pytest.approx(0.25, abs=1e-4)
    share[30, 40, 7] = 0
    assert share.max() < 1e-5


def test_the_map_follows_a_scan_that_registration_moved(scene, head, scan):
    moved = np.eye(4)
    moved[:3, 3] = (5, -3, 2)
    affine = head.scan_grid.affine.transformed(moved)
    restored = volumes.add_volume(scene, head.scan, affine, "restored")
    assert invented.share_invented(scan, restored, moved).max() < 1e-4
    assert invented.share_invented(scan, restored).max() > 0.1


def test_maps_belong_to_their_restored_volume_and_are_made_once(scene, head, report, scan):
    made = add(scene, head, report, {"T1w": scan})
    with_map = results.with_invented(scene, made)
    node = with_map.invented["T1w"]
    assert node.GetNodeReference(results.RESTORED_ROLE) is made.restored["T1w"]
    assert with_map.pairs()[0].invented is node
    found = results.results_of(made.report)
    assert found is not None
    assert results.with_invented(scene, found).invented == {"T1w": node}


def test_where_the_t2w_scan_was_moved_the_transform_is_kept(scene, head, report, scan):
    matrix = np.eye(4)
    matrix[0, 3] = 4.5
    report["registration"] = {"mode": "auto", "applied": True, "matrix_ras": matrix.tolist()}
    add(scene, head, report, {"T1w": scan})
    node = scene.GetFirstNodeByName("T2w onto T1w")
    assert node.GetMatrixTransformToParent().GetElement(0, 3) == 4.5


def test_the_time_is_a_row_of_the_table(report):
    report["seconds"] = {"reading": 1.25, "decoding": 30.0}
    assert tables.rows_of(report)[-1] == ("time", 31.2, "s")
