"""DICOM folders: order, geometry, thickness and gap, rescaling, and nothing about the patient."""

from __future__ import annotations

import logging
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import EnhancedMRImageStorage, ExplicitVRLittleEndian, MRImageStorage, generate_uid
from scipy.spatial.transform import Rotation

from nexusinr.dicom import Slice, _stacks, find_stack, read_dicom
from nexusinr.errors import InputError
from nexusinr.geometry import Affine
from nexusinr.volume import Volume, describe, read_volume

PATIENT = "Doe^Jane"
PRIVATE = ("Doe", "Jane", "4711")
COLUMNS, ROWS, SLICES = 8, 6, 7
SPACING = (0.7, 0.9)  # between columns, between rows
STEP = 4.0
OBLIQUE = Rotation.from_euler("xyz", (12, -7, 30), degrees=True).as_matrix()
ORIGIN = np.array((-40.0, 25.0, -60.0))
DATA = np.random.default_rng(0).integers(0, 900, (COLUMNS, ROWS, SLICES)).astype(np.uint16)


def header(storage: str, series: str, number: int = 4) -> Dataset:
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = storage
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    ds.SeriesInstanceUID, ds.StudyInstanceUID = series, "1.2.3"
    ds.SeriesNumber, ds.Modality, ds.PatientName, ds.PatientID = number, "MR", PATIENT, "4711"
    ds.SeriesDescription = f"t1 {PATIENT}"
    ds.Rows, ds.Columns, ds.SamplesPerPixel = ROWS, COLUMNS, 1
    ds.PhotometricInterpretation, ds.PixelRepresentation = "MONOCHROME2", 0
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, 16, 15
    return ds


def place(k: float, direction: np.ndarray = OBLIQUE) -> list[float]:
    return (ORIGIN + direction[:, 2] * STEP * k).round(6).tolist()


def write_series(
    folder: Path,
    *,
    data: np.ndarray = DATA,
    direction: np.ndarray = OBLIQUE,
    order: list[int] | None = None,
    series: str = "1.2.3.4",
    number: int = 4,
    **changes: Any,
) -> None:
    """Write slices of 3 mm with gaps of 1 mm, in files that are named in the wrong order."""
    folder.mkdir(exist_ok=True)
    count = data.shape[2]
    names = np.random.default_rng(1).permutation(count)
    for k in range(count) if order is None else order:
        ds = header(MRImageStorage, series, number)
        ds.ImagePositionPatient = place(k, direction)
        ds.ImageOrientationPatient = direction[:, :2].T.ravel().round(9).tolist()
        ds.PixelSpacing = [SPACING[1], SPACING[0]]
        ds.SliceThickness, ds.SpacingBetweenSlices = 3, STEP
        for name, value in changes.items():
            value = value(k) if callable(value) else value
            if value is None:
                delattr(ds, name)
            else:
                setattr(ds, name, value)
        ds.PixelData = data[:, :, k].T.tobytes()
        ds.save_as(folder / f"{series}-{names[k]:03d}", enforce_file_format=True)


def write_enhanced(
    folder: Path, order: list[int], slopes: list[float] | None = None, thickness: float = 3
) -> None:
    folder.mkdir(exist_ok=True)
    ds = header(EnhancedMRImageStorage, "1.2.3.5")
    ds.NumberOfFrames = len(order)
    measures, plane, shared = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = [SPACING[1], SPACING[0]], thickness
    plane.ImageOrientationPatient = OBLIQUE[:, :2].T.ravel().round(9).tolist()
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [plane]
    ds.SharedFunctionalGroupsSequence = [shared]
    ds.PerFrameFunctionalGroupsSequence = []
    for n, k in enumerate(order):
        frame, position, values = Dataset(), Dataset(), Dataset()
        position.ImagePositionPatient = place(k)
        values.RescaleSlope = slopes[n] if slopes else 2.5
        values.RescaleIntercept, values.RescaleType = -7, "US"
        frame.PlanePositionSequence = [position]
        frame.PixelValueTransformationSequence = [values]
        ds.PerFrameFunctionalGroupsSequence.append(frame)
    ds.PixelData = np.stack([DATA[:, :, k].T for k in order]).tobytes()
    ds.save_as(folder / "frames.dcm", enforce_file_format=True)


def truth(direction: np.ndarray = OBLIQUE) -> Affine:
    flip = np.diag((-1.0, -1.0, 1.0))
    return Affine.from_parts((*SPACING, STEP), flip @ direction, flip @ ORIGIN)


def check(volume: Volume, data: np.ndarray = DATA) -> None:
    np.testing.assert_allclose(volume.data, data, rtol=1e-6)
    ends = [(0, 0, 0), (511, 511, 0), (0, 0, 60)]
    np.testing.assert_allclose(volume.affine.apply(ends), truth().apply(ends), atol=0.01)


class TestSeries:
    def test_oblique_slices_in_any_file_order(self, tmp_path):
        write_series(tmp_path / "scan")
        volume = read_volume(tmp_path / "scan")
        check(volume)
        assert volume.thickness == pytest.approx((*SPACING, 3))
        assert (volume.slice_axis, volume.notes) == (2, ())
        assert describe(volume).endswith("0.70 x 0.90 x 4.00 mm, 8 x 6 x 7, slices 3.00 mm thick")

    def test_nothing_says_who_the_patient_is(self, tmp_path):
        write_series(tmp_path / "scan", SliceThickness=None, SpacingBetweenSlices=5)
        volume = read_volume(tmp_path / "scan")
        assert volume.name == "DICOM series 4"
        assert len(volume.notes) == 2
        for text in (volume.name, *volume.notes, repr(volume)):
            assert "Doe" not in text
            assert "4711" not in text

    @settings(max_examples=8)
    @given(affine=st.from_type(Affine))
    def test_every_orientation(self, affine, tmp_path_factory):
        direction = affine.direction.copy()
        direction[:, 2] = np.cross(direction[:, 0], direction[:, 1])
        folder = tmp_path_factory.mktemp("dicom") / "scan"
        write_series(folder, direction=direction)
        volume = read_volume(folder)
        np.testing.assert_allclose(volume.affine.matrix, truth(direction).matrix, atol=1e-4)
        np.testing.assert_array_equal(volume.data, DATA)

    def test_slices_against_the_normal_are_sorted_along_it(self, tmp_path):
        write_series(
            tmp_path / "scan",
            data=DATA[:, :, ::-1],
            ImagePositionPatient=lambda k: place(SLICES - 1 - k),
        )
        check(read_volume(tmp_path / "scan"))

    def test_rescale_differs_from_slice_to_slice(self, tmp_path):
        write_series(
            tmp_path / "scan", RescaleSlope=lambda k: 0.5 + k, RescaleIntercept=-7, RescaleType="US"
        )
        check(read_volume(tmp_path / "scan"), DATA * (0.5 + np.arange(SLICES)) - 7)

    def test_digest_is_that_of_the_slices_whatever_their_names(self, tmp_path):
        write_series(tmp_path / "scan")
        first = read_volume(tmp_path / "scan").sha256
        files = sorted((tmp_path / "scan").iterdir())
        files[0].rename(files[0].with_name("zzz"))
        (tmp_path / "scan" / "notes.txt").write_text("hello")
        assert read_volume(tmp_path / "scan").sha256 == first
        files[1].write_bytes(files[1].read_bytes()[:-2] + b"\x01\x01")
        assert read_volume(tmp_path / "scan").sha256 != first

    def test_a_tilted_gantry_is_a_sheared_lattice(self, tmp_path):
        shift = OBLIQUE[:, 1]
        write_series(
            tmp_path / "scan",
            ImagePositionPatient=lambda k: (place(k) + shift * k).round(6).tolist(),
        )
        volume = read_volume(tmp_path / "scan")
        assert volume.affine.is_sheared
        there = np.array(place(6) + shift * 6) * (-1, -1, 1)
        np.testing.assert_allclose(volume.affine.apply((0, 0, 6)), there, atol=1e-4)

    @pytest.mark.parametrize("thickness", [None, 0, "", 150])
    def test_no_usable_thickness_is_the_spacing(self, tmp_path, thickness):
        write_series(tmp_path / "scan", SliceThickness=thickness)
        volume = read_volume(tmp_path / "scan")
        assert volume.thickness == pytest.approx((*SPACING, STEP))
        (note,) = volume.notes
        assert "no usable slice thickness: the slice spacing, 4.00 mm" in note

    def test_overlapping_slices(self, tmp_path):
        write_series(tmp_path / "scan", SliceThickness=6)
        assert read_volume(tmp_path / "scan").thickness[2] == 6

    def test_another_spacing_in_the_header(self, tmp_path):
        write_series(tmp_path / "scan", SpacingBetweenSlices=5)
        volume = read_volume(tmp_path / "scan")
        check(volume)
        assert "5.00 mm between slices, their positions 4.00 mm" in volume.notes[0]

    def test_a_little_jitter_is_mentioned(self, tmp_path):
        write_series(tmp_path / "scan", ImagePositionPatient=lambda k: place(k + 0.02 * (k == 3)))
        (note,) = read_volume(tmp_path / "scan").notes
        assert "up to 0.08 mm off an even spacing" in note


class TestFolder:
    def test_the_largest_series_is_read_and_the_choice_is_told(self, tmp_path):
        write_series(tmp_path / "study")
        write_series(tmp_path / "study" / "scout", data=DATA[:, :, :5], series="1.9", number=1)
        volume = read_volume(tmp_path / "study")
        check(volume)
        (note,) = volume.notes
        assert note == (
            "The folder holds 2 stacks of slices (of 5, 7 slices): the largest, DICOM series 4, "
            "was read."
        )

    def test_a_scout_inside_the_series(self, tmp_path):
        write_series(tmp_path / "scan")
        turned = OBLIQUE[:, (1, 2, 0)]
        write_series(tmp_path / "scan" / "scout", data=DATA[:, :, :1], direction=turned)
        volume = read_volume(tmp_path / "scan")
        check(volume)
        assert "(of 7, 1 slices)" in volume.notes[0]

    def test_other_files_do_not_matter(self, tmp_path):
        write_series(tmp_path / "scan")
        (tmp_path / "scan" / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
        (tmp_path / "scan" / ".hidden").write_bytes(b"")
        report = header("1.2.840.10008.5.1.4.1.1.88.11", "1.2.3.4")
        report.save_as(tmp_path / "scan" / "report.dcm", enforce_file_format=True)
        volume = read_volume(tmp_path / "scan")
        check(volume)
        (note,) = volume.notes
        assert note.startswith("1 DICOM files without an image")

    def test_the_same_slice_twice_counts_once(self, tmp_path):
        write_series(tmp_path / "scan")
        file = next((tmp_path / "scan").iterdir())
        (tmp_path / "scan" / "copy").write_bytes(file.read_bytes())
        check(read_volume(tmp_path / "scan"))

    def test_no_number_and_another_modality(self, tmp_path):
        write_series(tmp_path / "scan", SeriesNumber=None, Modality="CT")
        volume = read_volume(tmp_path / "scan")
        assert volume.name == "DICOM series"
        assert volume.notes == ("The series is not an MR scan by its header.",)

    def test_a_whole_study(self, tmp_path):
        for number in range(12):
            data = DATA[:, :, :6] if number != 5 else DATA
            folder = tmp_path / "study" / f"{number}"
            folder.parent.mkdir(exist_ok=True)
            write_series(folder, data=data, series=f"1.2.{number}", number=number)
        ordered, (note,) = find_stack(tmp_path / "study")
        assert [plane.series for plane in ordered] == ["1.2.5"] * SLICES
        assert note.startswith("The folder holds 12 stacks of slices (of 6, 6, 6, 6, 6, 7, 6, ")
        check(read_volume(tmp_path / "study"))


def plane(**changes: Any) -> Slice:
    """A slice as a header gives it."""
    usual = Slice(
        Path("x"), 0, "1", "1.2", 4, "MR", 1, (8, 6), SPACING, np.zeros(3), np.eye(3)[:2], 3, 4,
        one_scale=True,
    )  # fmt: skip
    return replace(usual, **changes)


def stacks_one_by_one(slices: list[Slice]) -> list[list[Slice]]:
    """Every slice compared with the first of every stack."""
    stacks: list[list[Slice]] = []
    for one in slices:
        for first, *_ in stacks:
            if (
                (one.series, one.size) == (first.series, first.size)
                and np.allclose(one.spacing, first.spacing, atol=1e-3)
                and np.allclose(one.directions, first.directions, atol=1e-3)
            ):
                next(s for s in stacks if s[0] is first).append(one)
                break
        else:
            stacks.append([one])
    return sorted(stacks, key=lambda s: (s[0].number is None, s[0].number or 0, s[0].series))


class TestStacks:
    @given(seed=st.integers(0, 2**32 - 1))
    def test_they_are_those_of_comparing_one_by_one(self, seed):
        """Series, numbers, sizes, spacings and directions mixed; some a little apart, some none."""
        random = np.random.default_rng(seed)
        slices = [
            plane(
                series=f"1.{random.integers(3)}",
                number=random.choice([None, 2, 7]),
                size=(8, int(random.integers(6, 8))),
                spacing=(0.7, random.choice([0.9, 0.9006, 0.9014, 1.5, np.nan, np.inf])),
                directions=np.eye(3)[:2] + random.choice([0, 0, 7e-4, 1.4e-3, 1]),
            )
            for _ in range(60)
        ]
        found = [list(map(id, stack)) for stack in _stacks(slices)]
        assert found == [list(map(id, stack)) for stack in stacks_one_by_one(slices)]

    def test_thousands_of_slices_take_no_time(self):
        """Many series of many slices, and one whose slices all lie in other directions."""
        turned = Rotation.from_rotvec(np.outer(np.linspace(0, 3, 2500), (0, 0, 1))).as_matrix()
        slices = [plane(series="1.1", directions=d[:2]) for d in turned]
        slices += [plane(series=f"1.{n % 50 + 2}") for n in range(10_000)]
        begun = time.process_time()
        stacks = _stacks(slices)
        assert time.process_time() - begun < 5
        lengths = sorted(map(len, stacks))
        assert lengths[-50:] == [200] * 50
        assert sum(lengths) == len(slices)
        assert len(stacks) > 1000


class TestEnhanced:
    @pytest.mark.parametrize("order", [range(SLICES), [3, 0, 6, 1, 5, 2, 4]])
    def test_frames_in_any_order(self, tmp_path, order):
        write_enhanced(tmp_path / "scan", list(order))
        volume = read_volume(tmp_path / "scan")
        check(volume, DATA * 2.5 - 7)
        assert volume.thickness == pytest.approx((*SPACING, 3))

    def test_frames_with_different_scales(self, tmp_path):
        write_enhanced(tmp_path / "scan", list(range(SLICES)), [1.0, 2, 3, 4, 5, 6, 7])
        with pytest.raises(InputError, match=r"different rescale slopes.*; export"):
            read_volume(tmp_path / "scan")


class TestBadSeries:
    def refused(self, folder: Path, words: str) -> None:
        with pytest.raises(InputError, match=words) as caught:
            read_volume(folder)
        message = str(caught.value)
        assert message.startswith(f"{folder.name}: ")
        assert "\n" not in message
        assert "Doe" not in message
        assert "; " in message

    def test_a_missing_slice(self, tmp_path):
        write_series(tmp_path / "scan", order=[0, 1, 2, 4, 5, 6])
        self.refused(tmp_path / "scan", r"slices 3 and 4 of 6 are 8\.00 mm apart, the others 4\.00")

    def test_uneven_slices(self, tmp_path):
        write_series(tmp_path / "scan", ImagePositionPatient=lambda k: place(k + 0.02 * k * k))
        self.refused(tmp_path / "scan", r"not evenly spaced: 4\.08 to 4\.88 mm")

    def test_several_images_at_each_place(self, tmp_path):
        write_series(tmp_path / "scan")
        write_series(tmp_path / "scan" / "echo2")
        self.refused(tmp_path / "scan", "14 images of DICOM series 4 lie at 7 places")

    def test_one_slice(self, tmp_path):
        write_series(tmp_path / "scan", order=[2])
        self.refused(tmp_path / "scan", r"one slice \(8 x 6 x 1\)")

    @pytest.mark.parametrize(
        "change",
        [
            {"ImagePositionPatient": None},
            {"PixelSpacing": None},
            {"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]},
            {"ImageOrientationPatient": [1, 0, 0]},
        ],
    )
    def test_no_geometry(self, tmp_path, change):
        write_series(tmp_path / "scan", **change)
        self.refused(tmp_path / "scan", "no DICOM image with a position and a voxel size")

    @pytest.mark.parametrize("spacing", [[0, 1], [-1, 1], [1, 100]])
    def test_voxel_sizes_that_are_none(self, tmp_path, spacing):
        write_series(tmp_path / "scan", PixelSpacing=spacing)
        self.refused(tmp_path / "scan", "its voxel size is")

    def test_pixels_that_are_cut_off(self, tmp_path):
        write_series(tmp_path / "scan")
        file = next((tmp_path / "scan").iterdir())
        file.write_bytes(file.read_bytes()[:-20])
        self.refused(tmp_path / "scan", "pixels of a slice cannot be decoded")

    def test_constant_images(self, tmp_path):
        write_series(tmp_path / "scan", data=np.full_like(DATA, 5))
        self.refused(tmp_path / "scan", "every voxel has the value 5")

    def test_colour(self, tmp_path):
        write_series(tmp_path / "scan", SamplesPerPixel=3)
        self.refused(tmp_path / "scan", "in colour")

    def test_an_empty_folder(self, tmp_path):
        with pytest.raises(InputError, match="give the folder that holds the files"):
            read_dicom(tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"SeriesDescription": "Doe^Jane 4711", "ProtocolName": "Smith", "SeriesNumber": None},
        {"PixelSpacing": None},
        {"Rows": 9},
        {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"},
        {"SOPInstanceUID": "Doe^Jane", "SeriesInstanceUID": "Smith 4711"},
        {"ImageComments": "Doe^Jane", "Modality": "SMITH"},
    ],
)
def test_reading_tells_nothing_about_the_patient(changes, tmp_path, caplog, capfd):
    """Whatever is said of a series, sound or damaged: values, messages, logs and warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of writing such a thing
        write_series(tmp_path / "scan", **changes)
    written = b"".join(file.read_bytes() for file in (tmp_path / "scan").iterdir())
    assert all(word.encode() in written for word in PRIVATE)
    caplog.clear()
    caplog.set_level(logging.DEBUG)
    capfd.readouterr()
    told: list[object] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            scan = read_volume(tmp_path / "scan")
            told += [scan.name, scan.notes, scan, scan.path]
        except InputError as error:
            told += [error, error.__cause__]
    told += [warning.message for warning in caught]
    texts = [*map(str, told), caplog.text, *capfd.readouterr()]
    assert not [word for word in PRIVATE for text in texts if word in text]
