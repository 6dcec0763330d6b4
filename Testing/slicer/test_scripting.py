"""The module from a script: blocking, with callbacks, a folder of scans; and where results lie."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from nexusinr.errors import Cancelled, InputError

#: Options of a run of a second.
QUICK: dict[str, Any] = {"model": "tiny", "register": "none", "device": "cpu"}


def corners(node) -> np.ndarray:
    """The eight corners of a volume in patient space, transforms included, mm."""
    from nexusinr.mrml.volumes import grid_of

    grid = grid_of(node)
    ends = np.stack(np.meshgrid(*[(-0.5, n - 0.5) for n in grid.shape], indexing="ij"), -1)
    return grid.affine.apply(ends.reshape(-1, 3))


def centre_of_mass(node) -> np.ndarray:
    """Of the intensities, in patient space, mm."""
    from nexusinr.mrml.volumes import affine_of, array_of

    weight = np.clip(array_of(node), 0, None).astype(float)
    index = np.stack(np.meshgrid(*map(np.arange, weight.shape), indexing="ij"), -1)
    return affine_of(node).apply((index * weight[..., None]).sum((0, 1, 2)) / weight.sum())


def put_under(scene, node, matrix: np.ndarray) -> None:
    from nexusinr.mrml.placement import to_vtk

    transform = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    transform.SetMatrixTransformToParent(to_vtk(matrix))
    node.SetAndObserveTransformNodeID(transform.GetID())


MOVED = np.eye(4)
MOVED[:3, :3] = Rotation.from_euler("zx", (30, -12), degrees=True).as_matrix()
MOVED[:3, 3] = 17.3, -40.1, 5.7


@pytest.mark.parametrize("moved", [False, True], ids=["as scanned", "under a linear transform"])
def test_results_lie_where_the_scans_lie(moved, logic, scene, pair, dialogs):
    if moved:
        for node in pair:
            put_under(scene, node, MOVED)
    before = scene.GetNumberOfNodes()
    steps: list[str] = []
    results = logic.upsample(
        *pair, spacing=2, onProgress=lambda share, step, eta: steps.append(step), **QUICK
    )
    assert dialogs.seen == []
    assert steps[-1] == "done"
    assert scene.GetNumberOfNodes() > before
    for modality, scan in zip(("T1w", "T2w"), pair, strict=True):
        restored = results.restored[modality]
        assert restored.IsA("vtkMRMLScalarVolumeNode")
        assert np.abs(corners(restored) - corners(pair[0])).max() < 0.01
        assert np.allclose(restored.GetSpacing(), 2, atol=1e-5)
        assert np.abs(centre_of_mass(restored) - centre_of_mass(scan)).max() < 0.4
    assert results.record["lattice"]["spacing_mm"] == [2, 2, 2]


def test_an_oblique_scan_alone_on_a_lattice_of_any_shape(logic, pair):
    results = logic.upsample(t2Node=pair[1], spacing=(2, 2.5, 4), **QUICK)
    assert set(results.restored) == {"T2w"}
    restored = results.restored["T2w"]
    assert np.allclose(restored.GetSpacing(), (2, 2.5, 4), atol=1e-5)
    assert np.abs(corners(restored)[0] - corners(pair[1])[0]).max() < 0.01
    assert np.abs(centre_of_mass(restored) - centre_of_mass(pair[1])).max() < 0.5
    assert results.segmentation is not None


def test_like_another_volume_and_a_region(logic, scene, pair):
    results = logic.upsample(pair[0], like=pair[1], segmentation=False, **QUICK)
    assert np.abs(corners(results.restored["T1w"]) - corners(pair[1])).max() < 0.01
    assert results.segmentation is None
    region = scene.AddNewNodeByClass("vtkMRMLMarkupsROINode")
    region.SetXYZ(2, 3, 4)
    region.SetRadiusXYZ(10, 8, 6)
    part = logic.upsample(pair[0], spacing=2, roi=region, **QUICK).restored["T1w"]
    low, high = corners(part).min(axis=0), corners(part).max(axis=0)
    assert np.abs(low - (-8, -5, -2)).max() <= 2
    assert np.abs(high - (12, 11, 10)).max() <= 2


def test_display_and_place_are_those_of_the_scan(logic, scene, pair):
    import slicer

    display = pair[0].GetDisplayNode()
    display.SetAutoWindowLevel(False)
    display.SetWindowLevel(321, 123)
    display.SetInterpolate(False)
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    patient = hierarchy.CreateSubjectItem(hierarchy.GetSceneItemID(), "patient")
    study = hierarchy.CreateStudyItem(patient, "study")
    item = hierarchy.GetItemByDataNode(pair[0]) or hierarchy.CreateItem(study, pair[0])
    hierarchy.SetItemParent(item, study)
    restored = logic.upsample(*pair, spacing=2, **QUICK).restored["T1w"]
    shown = restored.GetDisplayNode()
    assert (shown.GetWindow(), shown.GetLevel(), shown.GetInterpolate()) == (321, 123, 0)
    parent = hierarchy.GetItemByDataNode(restored)
    while parent not in (0, hierarchy.GetSceneItemID(), study):
        parent = hierarchy.GetItemParent(parent)
    assert parent == study


def test_with_callbacks(logic, pair, wait):
    told: list[Any] = []
    run = logic.start(*pair, spacing=2, onDone=told.append, onError=told.append, **QUICK)
    assert not run.finished
    wait(lambda: told)
    assert told == [run.results]
    other = logic.start(*pair, spacing=0.4, onDone=told.append, onError=told.append, **QUICK)
    other.cancel()
    wait(lambda: len(told) == 2)
    assert isinstance(told[1], Cancelled)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "no scan is chosen"),
        ({"spacing": 500}, "500"),
        ({"model": "larger"}, "larger"),
        ({"consistency": 3}, "3"),
    ],
)
def test_what_cannot_be_used_is_an_error_of_one_sentence(options, words, logic, pair, dialogs):
    scans = pair if options else ()
    with pytest.raises(InputError, match=words) as error:
        logic.upsample(*scans, **{**QUICK, **options})
    assert "\n" not in str(error.value)
    assert dialogs.seen == []


def test_the_documented_snippets_run(logic, scene, thick_files, tmp_path, wait):
    """Those of the logic's own documentation: one volume, a folder, a callback."""
    import slicer

    snippets = re.findall(r"::\n\n((?: {8}.*\n|\n)+)", type(logic).__doc__ or "")
    assert len(snippets) == 3
    for case in ("sub-1", "sub-2"):
        (tmp_path / case).mkdir()
        for path, name in zip(thick_files, ("T1w", "T2w"), strict=True):
            (tmp_path / case / f"{name}.nii.gz").write_bytes(Path(path).read_bytes())
    one, folder, callback = (re.sub(r"^ {8}", "", s, flags=re.M) for s in snippets)
    names: dict[str, Any] = {"slicer": slicer, "__name__": "snippet"}
    slicer.util.loadVolume(str(thick_files[0]), {"name": "T1"})
    exec(quick(one), names)
    assert names["results"].restored["T1w"].GetScene() is scene
    exec(quick(folder).replace("/data", str(tmp_path)), names)
    written = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*restored*"))
    assert len(written) == 4, written
    slicer.util.loadVolume(str(thick_files[0]), {"name": "T1"})  # the folder's loop cleared it
    exec(quick(callback), names)  # which cancels at its end
    wait(lambda: names["run"].finished)


def quick(code: str) -> str:
    """The same with the tiny model on a coarse lattice."""
    return re.sub(r"spacing=(1\.0|\(0\.8, 0\.8, 0\.8\))", "spacing=4, model='tiny'", code)
