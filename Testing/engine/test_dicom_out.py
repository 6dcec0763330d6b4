"""DICOM for a PACS: valid, filed with its source, in the same place, with the same intensities."""

from __future__ import annotations

import logging
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import EnhancedMRImageStorage, ExplicitVRLittleEndian, MRImageStorage
from scipy.spatial.transform import Rotation

from nexusinr.dicom_out import export
from nexusinr.dicom_out.derived import Derivation, new_uid
from nexusinr.dicom_out.export import RestoredScan
from nexusinr.errors import InputError
from nexusinr.geometry import Affine, FloatArray, Grid
from nexusinr.inference.service import Service
from nexusinr.labels import TISSUES
from nexusinr.volume import Volume, read_volume

pytest.importorskip("highdicom", reason="highdicom is not installed: pip install 'nexusinr[dicom]'")

FLIP = np.diag((-1.0, -1.0, 1.0))  # LPS to RAS
PRIVATE = ("Doe", "Jane", "4711", "Smith")
DERIVATION = Derivation("tiny", "0.3", "ab" * 32, "For research.")
TURN = Rotation.from_euler("xyz", (12, -7, 30), degrees=True).as_matrix()


# --- input ------------------------------------------------------------------------------------


def header(**changes: Any) -> Dataset:
    """A header as scanners write them; None takes an element away."""
    values = {
        "SOPClassUID": MRImageStorage, "SOPInstanceUID": new_uid(), "SeriesInstanceUID": "1.2.4",
        "StudyInstanceUID": "1.2.3", "FrameOfReferenceUID": "1.2.5", "Modality": "MR",
        "SeriesNumber": 7, "PatientName": "Doe^Jane", "PatientID": "4711", "PatientSex": "F",
        "PatientBirthDate": "19700101", "ReferringPhysicianName": "Smith^A", "StudyID": "S1",
        "StudyDate": "20200102", "StudyTime": "101112", "AccessionNumber": "A1",
        "SeriesDescription": "t1 Doe^Jane", "PatientIdentityRemoved": "NO",
        "Manufacturer": "Scanners", "StationName": "MR2", "PatientPosition": "HFS",
        "BodyPartExamined": "BRAIN", "ScanningSequence": ["GR", "IR"], "SequenceVariant": "MP",
        "RepetitionTime": 2300, "EchoTime": 2.98, "FlipAngle": 0, "MagneticFieldStrength": 3,
        "WindowCenter": [400, 500], "WindowWidth": [800, 1000], "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2", "PixelRepresentation": 0,
        "BitsAllocated": 16, "BitsStored": 16, "HighBit": 15, **changes,
    }  # fmt: skip
    ds = Dataset()
    with pydicom.config.disable_value_validation():
        for name, value in values.items():
            if value is not None:
                setattr(ds, name, value)
    ds.private_block(0x29, "SCANNERS", create=True).add_new(1, "LO", "Doe^Jane")
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPInstanceUID = ds.get("SOPInstanceUID", new_uid())
    return ds


def plane_of(affine: Affine, k: int) -> dict[str, Any]:
    return {
        "ImagePositionPatient": (FLIP @ affine.apply((0, 0, k))).round(9).tolist(),
        "ImageOrientationPatient": (FLIP @ affine.direction[:, :2]).T.ravel().round(12).tolist(),
        "PixelSpacing": affine.spacing[[1, 0]].round(9).tolist(),
        "SliceThickness": float(affine.spacing[2].round(6)),
    }


def write_source(folder: Path, scan: Volume, **changes: Any) -> Volume:
    """The scan as a series, one file a slice, and as it is read."""
    folder.mkdir(parents=True)
    for k in range(scan.data.shape[2]):
        ds = header(**{**plane_of(scan.affine, k), "InstanceNumber": k + 1, **changes})
        ds.Columns, ds.Rows, _ = scan.data.shape
        ds.PixelData = np.rint(scan.data[:, :, k].T).astype("<u2").tobytes()
        with pydicom.config.disable_value_validation():
            ds.save_as(folder / f"{k}.dcm", enforce_file_format=True)
    return read_volume(folder)


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Volume:
    affine = Affine.from_parts((0.9, 0.8, 4.0), FLIP @ TURN, (30.0, -20.0, 10.0))
    data = np.random.default_rng(0).gamma(2, 100, (8, 7, 6)).astype(np.float32)
    return write_source(tmp_path_factory.mktemp("dicom") / "scan", Volume(data, affine))


def image_on(grid: Grid) -> Volume:
    """Real numbers below and above 0 on a lattice."""
    data = np.random.default_rng(1).normal(50, 300, grid.shape)
    return Volume(data.astype(np.float32), grid.affine)


def tissues_on(grid: Grid) -> np.ndarray:
    return np.random.default_rng(2).integers(0, 6, grid.shape).astype(np.uint8)


# --- output -----------------------------------------------------------------------------------


def files_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def headers_in(folder: Path) -> list[Dataset]:
    return [pydicom.dcmread(file) for file in files_in(folder)]


def check_valid(folder: Path) -> None:
    """Nothing for dciodvfy to call an error; for it no file is one of no use."""
    program = shutil.which("dciodvfy")
    if program is None:
        pytest.skip("dciodvfy is not installed (Debian and Ubuntu: apt install dicom3tools)")
    for file in files_in(folder):
        done = subprocess.run([program, "-new", file], capture_output=True, text=True)
        said = done.stdout + done.stderr
        assert "MRImage" in said or "Segmentation" in said
        assert "Error" not in said, f"{file.name}: {said}"


def pixel_places(ds: Dataset, position: Any, directions: Any, spacing: Any) -> FloatArray:
    """RAS of every pixel, (rows, columns, 3), from the header alone."""
    row, column = np.reshape(np.array(directions, float), (2, 3))
    down, along = (float(s) for s in spacing)
    i, j = np.meshgrid(np.arange(ds.Columns), np.arange(ds.Rows))
    there = np.array(position, float) + i[..., None] * along * row + j[..., None] * down * column
    return there @ FLIP


def index_of(places: FloatArray, grid: Grid) -> tuple[np.ndarray, ...]:
    """The voxels at these places, which have to be within 0.01 mm of their centres."""
    index = np.rint(grid.affine.to_index(places)).astype(int)
    assert np.linalg.norm(grid.affine.apply(index) - places, axis=-1).max() < 0.01
    return tuple(np.moveaxis(index, -1, 0))


def check_images(folder: Path, restored: Volume) -> None:
    """Every pixel of the series is the voxel that was at its place."""
    grid, seen = restored.grid, np.zeros(restored.data.shape, int)
    tolerance = np.ptp(restored.data) / 20000
    for ds in headers_in(folder):
        where = index_of(
            pixel_places(ds, ds.ImagePositionPatient, ds.ImageOrientationPatient, ds.PixelSpacing),
            grid,
        )
        seen[where] += 1
        values = ds.pixel_array * float(ds.RescaleSlope) + float(ds.RescaleIntercept)
        assert np.abs(values - restored.data[where]).max() < tolerance
    assert (seen == 1).all()


def check_tissues(file: Path, tissues: np.ndarray, grid: Grid) -> None:
    """Every pixel of every segment is a voxel of its tissue, and none is left out."""
    ds, found = pydicom.dcmread(file), np.zeros(tissues.shape, np.uint8)
    (shared,) = ds.SharedFunctionalGroupsSequence
    directions = shared.PlaneOrientationSequence[0].ImageOrientationPatient
    spacing = shared.PixelMeasuresSequence[0].PixelSpacing
    frames = ds.pixel_array.reshape(-1, ds.Rows, ds.Columns)
    for frame, groups in zip(frames, ds.PerFrameFunctionalGroupsSequence, strict=True):
        position = groups.PlanePositionSequence[0].ImagePositionPatient
        where = index_of(pixel_places(ds, position, directions, spacing), grid)
        number = groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        found[where] += frame * np.uint8(number)
    np.testing.assert_array_equal(found, tissues)


def export_to(folder: Path, scan: Volume, restored: Volume, **options: Any) -> Path:
    scans = [RestoredScan("T1w", scan, restored, **options)]
    export.write(folder, scans, tissues_on(restored.grid), DERIVATION)
    return folder


SHEAR = np.array([[1, 0, 0.3], [0, 1, -0.2], [0, 0, 1]]) @ np.diag((1, 1, 1 / 1.063))
LATTICES = {
    "axial": Affine.from_parts((1, 1, 1), np.diag((-1, -1, 1)), (20, 20, -20)),
    "sagittal": Affine.from_parts((0.9, 0.9, 5), [[0, 0, 1], [-1, 0, 0], [0, -1, 0]]),
    "coronal slices along j": Affine.from_parts((1, 4, 1)),
    "oblique": Affine.from_parts((0.7, 1.3, 2.9), TURN @ TURN, (-3, 5, 7)),
    "left-handed": Affine.from_parts((1, 2, 3), TURN @ np.diag((1, 1, -1))),
    "gantry-like": Affine.from_parts((1, 1, 3), TURN @ SHEAR / np.linalg.norm(SHEAR, axis=0)),
}  # fmt: skip


@pytest.mark.parametrize("name", LATTICES)
def test_voxels_stay_where_they_are(name, source, tmp_path):
    grid = Grid((6, 5, 7), LATTICES[name])
    restored = image_on(grid)
    out = export_to(tmp_path / "out", source, restored)
    check_images(out / "t1w", restored)
    check_tissues(out / "segmentation" / "0001.dcm", tissues_on(grid), grid)
    check_valid(out)
    again = read_volume(out / "t1w")
    assert again.affine.is_sheared == (name == "gantry-like")
    np.testing.assert_allclose(
        again.data,
        restored.data[
            index_of(again.affine.apply(np.moveaxis(np.indices(again.data.shape), 0, -1)), grid)
        ],
        atol=np.ptp(restored.data) / 20000,
    )


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(affine=st.from_type(Affine))
def test_voxels_stay_in_every_lattice(affine, source, tmp_path_factory):
    grid = Grid((5, 4, 6), affine)
    restored = image_on(grid)
    out = export_to(tmp_path_factory.mktemp("out") / "dicom", source, restored)
    check_images(out / "t1w", restored)
    check_tissues(out / "segmentation" / "0001.dcm", tissues_on(grid), grid)
    check_valid(out)


def test_other_programs_read_the_series_as_a_volume(source, tmp_path):
    restored = image_on(source.grid.with_spacing((1.1, 0.9, 1.5)))
    out = export_to(tmp_path / "out", source, restored)
    image = sitk.ReadImage([str(file) for file in files_in(out / "t1w")])
    size = np.array(image.GetSize())
    for corner in np.ndindex(2, 2, 2):
        index = (np.array(corner) * (size - 1)).tolist()
        place = FLIP @ np.array(image.TransformIndexToPhysicalPoint(index))
        where = index_of(place, restored.grid)
        assert image[index] == pytest.approx(restored.data[where], abs=0.1)


# --- headers ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def written(source, tmp_path_factory) -> Path:
    restored = image_on(source.grid.with_spacing(2))
    return export_to(tmp_path_factory.mktemp("out") / "dicom", source, restored)


SAME = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyID",
    "StudyDate", "AccessionNumber", "ReferringPhysicianName", "FrameOfReferenceUID",
    "PatientIdentityRemoved",
)  # fmt: skip


def test_everything_is_filed_with_its_source(written, source):
    original = headers_in(source.path)[0]
    for ds in headers_in(written):
        assert {name: ds[name].value for name in SAME} == {n: original[n].value for n in SAME}
        scanner = ds.ContributingEquipmentSequence[0]
        assert (scanner.Manufacturer, scanner.StationName) == ("Scanners", "MR2")
        assert ds.Manufacturer == "NexusINR"
        assert not any(element.tag.is_private for element in ds)
        assert "Doe" not in ds.SeriesDescription


def test_uids_and_numbers_are_new(written, source):
    images, (tissues,) = headers_in(written / "t1w"), headers_in(written / "segmentation")
    uids = {ds.SOPInstanceUID for ds in (*headers_in(source.path), *images, tissues)}
    assert len(uids) == len(files_in(source.path)) + len(images) + 1
    assert len({ds.SeriesInstanceUID for ds in images}) == 1
    assert len({"1.2.4", images[0].SeriesInstanceUID, tissues.SeriesInstanceUID}) == 3
    assert (images[0].SeriesNumber, tissues.SeriesNumber) == (1007, 2007)
    assert [ds.InstanceNumber for ds in images] == list(range(1, len(images) + 1))
    assert [file.name for file in files_in(written / "t1w")][:2] == ["0001.dcm", "0002.dcm"]
    normal = np.cross(*np.reshape(images[0].ImageOrientationPatient, (2, 3)).astype(float))
    along = [np.array(ds.ImagePositionPatient, float) @ normal for ds in images]
    assert (np.diff(along) > 0).all()


def test_the_series_says_what_it_is_and_of_what(written, source):
    originals = {ds.SOPInstanceUID for ds in headers_in(source.path)}
    for ds in headers_in(written / "t1w"):
        assert list(ds.ImageType[:2]) == ["DERIVED", "SECONDARY"]
        assert {item.ReferencedSOPInstanceUID for item in ds.SourceImageSequence} == originals
        assert {item.ReferencedSOPClassUID for item in ds.SourceImageSequence} == {MRImageStorage}
        for words in ("super-resolution", "tiny 0.3", "ab" * 32):
            assert words in ds.DerivationDescription
        assert ds.ImageComments == "For research."
        assert (ds.WindowCenter, ds.WindowWidth) == (400, 800)
        assert (ds.RepetitionTime, ds.EchoTime, ds.FlipAngle) == (2300, 2.98, 0)
        assert float(ds.SliceThickness) == float(ds.SpacingBetweenSlices) == 2


def test_segments_are_the_coded_tissues_on_the_restored_series(written):
    (ds,) = headers_in(written / "segmentation")
    for tissue, segment in zip(TISSUES, ds.SegmentSequence, strict=True):
        assert (segment.SegmentNumber, segment.SegmentLabel) == (tissue.value, tissue.name)
        (kind,) = segment.SegmentedPropertyTypeCodeSequence
        (category,) = segment.SegmentedPropertyCategoryCodeSequence
        found = (kind.CodeValue, kind.CodingSchemeDesignator, category.CodeValue)
        assert found == (tissue.code.value, tissue.code.scheme, tissue.category.value)
        (algorithm,) = segment.SegmentationAlgorithmIdentificationSequence
        assert "ab" * 32 in algorithm.AlgorithmParameters
    images = {image.SOPInstanceUID: image for image in headers_in(written / "t1w")}
    (series,) = ds.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == next(iter(images.values())).SeriesInstanceUID
    for frame in ds.PerFrameFunctionalGroupsSequence:
        (image,) = frame.DerivationImageSequence[0].SourceImageSequence
        place = images[image.ReferencedSOPInstanceUID].ImagePositionPatient
        assert place == frame.PlanePositionSequence[0].ImagePositionPatient


def test_no_tissue_at_all(source, tmp_path):
    restored = image_on(source.grid)
    nothing = np.zeros(source.grid.shape, np.uint8)
    export.write(tmp_path, [RestoredScan("T1w", source, restored)], nothing, DERIVATION)
    check_valid(tmp_path)
    assert not pydicom.dcmread(tmp_path / "segmentation" / "0001.dcm").pixel_array.any()


def test_a_scan_that_was_moved_is_in_the_other_frame_of_reference(source, tmp_path):
    other = write_source(
        tmp_path / "t2w", source, FrameOfReferenceUID="1.2.6", StudyInstanceUID="1.2.9"
    )
    restored = image_on(source.grid)
    for moved, frame in ((False, "1.2.6"), (True, "1.2.5")):
        out = tmp_path / str(moved)
        scans = [
            RestoredScan("T1w", source, restored),
            RestoredScan("T2w", other, restored, moved=moved),
        ]
        export.write(out, scans, None, DERIVATION)
        images = headers_in(out / "t2w")
        assert {ds.FrameOfReferenceUID for ds in images} == {frame}
        assert {ds.StudyInstanceUID for ds in images} == {"1.2.9"}
        assert {len(ds.SourceImageSequence) for ds in images} == {2 * source.data.shape[2]}
        assert not (out / "segmentation").exists()


def test_an_enhanced_source(source, tmp_path):
    ds = header(
        SOPClassUID=EnhancedMRImageStorage, WindowCenter=None, WindowWidth=None,
        RepetitionTime=None, EchoTime=None, ScanningSequence=None, SequenceVariant=None,
    )  # fmt: skip
    ds.Columns, ds.Rows, ds.NumberOfFrames = source.data.shape
    shared, echo, timing = Dataset(), Dataset(), Dataset()
    echo.EffectiveEchoTime, timing.RepetitionTime = 98.5, 5000
    shared.MREchoSequence, shared.MRTimingAndRelatedParametersSequence = [echo], [timing]
    ds.SharedFunctionalGroupsSequence, ds.PerFrameFunctionalGroupsSequence = [shared], []
    for k in range(ds.NumberOfFrames):
        frame, window, groups = Dataset(), Dataset(), [Dataset() for _ in range(3)]
        for name, value in plane_of(source.affine, k).items():
            place = {"ImagePositionPatient": 0, "ImageOrientationPatient": 1}.get(name, 2)
            setattr(groups[place], name, value)
        window.WindowCenter, window.WindowWidth = 300, 600
        frame.PlanePositionSequence, frame.PlaneOrientationSequence = groups[:1], groups[1:2]
        frame.PixelMeasuresSequence, frame.FrameVOILUTSequence = groups[2:], [window]
        ds.PerFrameFunctionalGroupsSequence.append(frame)
    ds.PixelData = np.rint(source.data.transpose(2, 1, 0)).astype("<u2").tobytes()
    (tmp_path / "scan").mkdir()
    ds.save_as(tmp_path / "scan" / "frames.dcm", enforce_file_format=True)
    scan = read_volume(tmp_path / "scan")
    out = export_to(tmp_path / "out", scan, image_on(scan.grid))
    check_valid(out)
    check_images(out / "t1w", image_on(scan.grid))
    image = headers_in(out / "t1w")[0]
    assert (image.RepetitionTime, image.EchoTime, image.WindowWidth) == (5000, 98.5, 600)
    (reference,) = image.SourceImageSequence
    assert reference.ReferencedSOPInstanceUID == ds.SOPInstanceUID
    assert "ReferencedFrameNumber" not in reference


BARE = dict.fromkeys((
    "FrameOfReferenceUID", "SeriesNumber", "PatientSex", "PatientBirthDate", "StudyID",
    "StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName", "Manufacturer",
    "PatientPosition", "BodyPartExamined", "ScanningSequence", "SequenceVariant",
    "RepetitionTime", "EchoTime", "WindowCenter", "WindowWidth", "PatientIdentityRemoved",
))  # fmt: skip
WILD = {
    "SpecificCharacterSet": "ISO_IR 192", "PatientName": "Doe Jäne Müller", "PatientSex": "female",
    "PatientBirthDate": "1970", "StudyTime": "noon", "PatientAge": "about 50", "StudyDate": "",
    "SeriesNumber": -3, "ProtocolName": "Doe " * 30, "BodyPartExamined": "the head",
    "RepetitionTime": "2300.00000000000001", "WindowWidth": None, "InversionTime": None,
}  # fmt: skip


@pytest.mark.parametrize("changes", [BARE, WILD], ids=["bare", "wild"])
def test_headers_that_lack_or_break_things(changes, source, tmp_path, caplog, capfd, recwarn):
    caplog.set_level(logging.DEBUG, "highdicom")
    caplog.set_level(logging.DEBUG, "pydicom")
    scan = write_source(tmp_path / "scan", source, **changes)
    recwarn.clear()
    out = export_to(tmp_path / "out", scan, image_on(scan.grid))
    check_valid(out)
    names = {str(ds.PatientName) for ds in headers_in(out)}
    assert names == {str(changes.get("PatientName", "Doe^Jane"))}
    assert len({ds.FrameOfReferenceUID for ds in headers_in(out)}) == 1
    texts = [caplog.text, *capfd.readouterr(), *(str(warning.message) for warning in recwarn)]
    texts += [str(file.relative_to(tmp_path)) for file in files_in(out)]
    assert not [word for word in PRIVATE for text in texts if word in text]


# --- what cannot be written -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"Modality": "CT"}, "scan: its modality is 'CT', and only MR series"),
        ({"StudyInstanceUID": None}, "scan: its header lacks StudyInstanceUID"),
        ({"SOPInstanceUID": None}, "scan: its header lacks SOPInstanceUID"),
        ({"PatientID": "4712"}, "the two series have different patient IDs"),
    ],
)
def test_series_that_cannot_be_continued(changes, problem, source, tmp_path):
    scan = write_source(tmp_path / "scan", source, **changes)
    with pytest.raises(InputError, match=problem) as error:
        export.check([source, scan], source.grid)
    assert "\n" not in str(error.value)
    assert "471" not in str(error.value)


def test_files_that_have_changed_meanwhile(source, tmp_path):
    scan = write_source(tmp_path / "scan", source)
    write_source(tmp_path / "other", source, PatientID="4712")
    (tmp_path / "other" / "3.dcm").replace(tmp_path / "scan" / "3.dcm")
    with pytest.raises(InputError, match="scan: its files have changed since they were read"):
        export_to(tmp_path / "out", scan, image_on(scan.grid))
    assert not (tmp_path / "out").exists()


def test_no_highdicom(source, monkeypatch):
    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(InputError, match=r"pip install 'nexusinr\[dicom\]'"):
        export.check([source], source.grid)


def test_an_estimate_refuses_what_a_run_would(thick_files):
    options = {"t1w": str(thick_files[0]), "dicom": True}
    with pytest.raises(InputError, match=r"t1w\.nii\.gz: it is no DICOM folder"):
        Service().estimate(options, lambda *told: None, lambda: False)


# --- the whole way ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pair(thick_pair, tmp_path_factory) -> tuple[Path, Path]:
    """Both scans as DICOM, in one study and frame of reference."""
    folder = tmp_path_factory.mktemp("study")
    for name, scan in zip(("t1w", "t2w"), thick_pair, strict=True):
        write_source(folder / name, scan, SeriesInstanceUID=new_uid())
    return folder / "t1w", folder / "t2w"


@pytest.fixture
def upsample(command, tiny_model, pair):
    def run(*options: object, t1w: object = pair[0]) -> tuple[int, str, str]:
        return command(
            "upsample", "--t1w", t1w, "--model", tiny_model, "--spacing", "2.5", *options
        )

    return run


def test_from_series_to_series(upsample, pair, tmp_path, caplog):
    caplog.set_level(logging.DEBUG, "highdicom")
    caplog.set_level(logging.DEBUG, "pydicom")
    out = tmp_path / "out"
    status, told, errors = upsample("--t2w", pair[1], "--out", out, "--dicom", "--register", "none")
    assert (status, errors) == (0, "")
    folder = out / "derived_dicom"
    assert str(folder) in told.splitlines()
    check_valid(folder)
    for name in ("t1w", "t2w"):
        check_images(folder / name, read_volume(out / f"{name}_sr.nii.gz"))
    labels = nib.load(out / "segmentation.nii.gz")
    grid = Grid(labels.shape, Affine(labels.affine))
    check_tissues(folder / "segmentation" / "0001.dcm", np.asarray(labels.dataobj), grid)
    texts = [told, caplog.text, *(str(file.relative_to(out)) for file in files_in(out))]
    texts.append((out / "report.json").read_text())
    assert not [word for word in PRIVATE for text in texts if word in text]


def test_one_run_replaces_another(upsample, pair, tmp_path):
    assert upsample("--out", tmp_path, "--dicom")[0] == 0
    first = {file.name for file in files_in(tmp_path / "derived_dicom" / "t1w")}
    assert upsample("--out", tmp_path, "--dicom", "--roi", "0", "0", "0", "20", "20", "20")[0] == 0
    assert {file.name for file in files_in(tmp_path / "derived_dicom" / "t1w")} < first
    earlier = tmp_path / "derived_dicom" / "t1w"
    status, _, errors = upsample("--out", tmp_path, t1w=earlier)
    assert (status, errors.count("\n")) == (2, 1)
    assert "t1w: this scan lies in derived_dicom" in errors
    assert upsample("--out", tmp_path)[0] == 0
    assert not (tmp_path / "derived_dicom").exists()


def test_input_that_is_no_dicom(upsample, thick_files, tmp_path):
    status, out, errors = upsample("--out", tmp_path / "out", "--dicom", t1w=thick_files[0])
    assert (status, out, errors.count("\n")) == (2, "", 1)
    assert "t1w.nii.gz: it is no DICOM folder" in errors
    assert list(tmp_path.iterdir()) == []
