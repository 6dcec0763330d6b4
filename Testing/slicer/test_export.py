"""Results as DICOM: under the patient and study that the scans have in Slicer's database."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

pytest.importorskip("slicer", reason="slicer-core is not installed: pip install 'nexusinr[web]'")
pytest.importorskip("highdicom", reason="highdicom is not installed: pip install 'nexusinr[dicom]'")

from nexusinr.mrml.placement import to_vtk
from nexusinr.mrml.volumes import add_volume, array_of, grid_of
from nexusinr.reading import LPS_TO_RAS
from nexusinr.volume import Volume, read_volume

PATIENT, STUDY = "4711", generate_uid()


class Database:
    """``slicer.dicomDatabase``: files and values by instance. All series lie in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, scan: Volume) -> str:
        """A series of a scan; its instances as a volume node has them."""
        series, uids = generate_uid(), []
        for k in range(scan.data.shape[2]):
            ds, uid = Dataset(), generate_uid()
            ds.SOPClassUID, ds.SOPInstanceUID, ds.SeriesInstanceUID = MRImageStorage, uid, series
            ds.PatientID, ds.PatientName, ds.StudyInstanceUID = PATIENT, "Doe^Jane", STUDY
            ds.Modality, ds.FrameOfReferenceUID, ds.SeriesNumber = "MR", "1.2.5", 3
            ds.InstanceNumber, ds.SliceThickness = k + 1, float(scan.affine.spacing[2])
            ds.ImagePositionPatient = (LPS_TO_RAS @ scan.affine.apply((0, 0, k))).round(9).tolist()
            directions = (LPS_TO_RAS @ scan.affine.direction[:, :2]).T.ravel()
            ds.ImageOrientationPatient = directions.round(12).tolist()
            ds.PixelSpacing = scan.affine.spacing[[1, 0]].round(9).tolist()
            ds.Columns, ds.Rows, _ = scan.data.shape
            ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
            ds.BitsAllocated = ds.BitsStored = 16
            ds.HighBit, ds.PixelRepresentation = 15, 0
            ds.PixelData = np.rint(scan.data[:, :, k].T).astype("<u2").tobytes()
            ds.file_meta = FileMetaDataset()
            ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
            ds.save_as(self.folder / f"{uid}.dcm", enforce_file_format=True)
            uids.append(str(uid))
        return " ".join(uids)

    def fileForInstance(self, uid: str) -> str:  # noqa: N802 (Slicer's name)
        path = self.folder / f"{uid}.dcm"
        return str(path) if path.exists() else ""

    def instanceValue(self, uid: str, tag: str) -> str:  # noqa: N802 (Slicer's name)
        path = self.fileForInstance(uid)
        if not path:
            return ""
        group, element = tag.split(",")
        header = pydicom.dcmread(path, stop_before_pixels=True)
        return str(header[int(group, 16), int(element, 16)].value)


@pytest.fixture
def database(tmp_path, monkeypatch) -> Database:
    import slicer

    (tmp_path / "database").mkdir()
    made = Database(tmp_path / "database")
    monkeypatch.setattr(slicer, "dicomDatabase", made, raising=False)
    return made


@pytest.fixture
def pair(scene, thick_pair, database) -> tuple[Any, Any]:
    """The scans as the DICOM browser loads them."""
    nodes = []
    for scan, name in zip(thick_pair, ("T1w", "T2w"), strict=True):
        node = add_volume(scene, np.rint(scan.data), scan.affine, name)
        node.SetAttribute("DICOM.instanceUIDs", database.add(scan))
        nodes.append(node)
    return tuple(nodes)


@pytest.fixture
def export(widget, ui, tmp_path, monkeypatch) -> Any:
    """Presses the button; gives the folders that were made."""

    def press() -> list[Path]:
        monkeypatch.setattr(widget.panel.export, "_ask", lambda *_: str(tmp_path / "out"))
        ui.dicomButton.click()
        return sorted((tmp_path / "out").glob("*"))

    return press


def test_results_are_filed_under_patient_and_study(
    ui, chosen, run, export, left_on_disk, dialogs, database
):
    assert not ui.dicomButton.enabled
    assert "4 mm thick" not in ui.warningsLabel.text  # thickness and distance agree
    chosen.spacing = type(chosen.spacing).MM_2_0
    results = run()
    assert ui.dicomButton.enabled
    (folder,) = export()
    assert dialogs.seen == []
    assert sorted(path.name for path in folder.iterdir()) == ["segmentation", "t1w", "t2w"]
    for path in folder.rglob("*.dcm"):
        header = pydicom.dcmread(path, stop_before_pixels=True)
        assert (header.PatientID, header.StudyInstanceUID) == (PATIENT, STUDY)
        assert header.FrameOfReferenceUID == "1.2.5"
        assert not (database.folder / path.name).exists()
    for modality, node in results.restored.items():
        read, grid = read_volume(folder / modality.lower()), grid_of(node)
        low, high = (f(grid.corners(), axis=0) for f in (np.min, np.max))
        assert np.abs(read.grid.corners().min(axis=0) - low).max() < 0.01
        assert np.abs(read.grid.corners().max(axis=0) - high).max() < 0.01
        assert abs(read.data.mean() - array_of(node).mean()) < 0.5
    assert len(export()) == 2  # nothing is replaced
    assert left_on_disk() == []


def test_what_cannot_be_exported_is_told(ui, chosen, pair, run, export, scene, dialogs, errors):
    chosen.spacing = type(chosen.spacing).MM_2_0
    chosen.segmentation = False
    run()
    errors.expected = "does not lie|not in Slicer's database"
    moved = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    moved.SetMatrixTransformToParent(to_vtk(np.eye(4) + np.eye(4, k=3)))  # 1 mm to the right
    pair[0].SetAndObserveTransformNodeID(moved.GetID())
    assert export() == []
    pair[0].SetAndObserveTransformNodeID(None)
    pair[1].SetAttribute("DICOM.instanceUIDs", "1.2.3")
    assert export() == []
    assert ["does not lie" in dialogs.seen[0], "import them again" in dialogs.seen[1]] == [True] * 2


def test_scans_from_elsewhere_are_not_offered(ui, chosen, pair, run):
    pair[0].SetAttribute("DICOM.instanceUIDs", None)
    chosen.spacing = type(chosen.spacing).MM_2_0
    run()
    assert not ui.dicomButton.enabled
