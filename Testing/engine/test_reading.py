"""Readers: what odd headers lead to, and one clear sentence for every bad file."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import re
import tempfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexusinr.errors import InputError
from nexusinr.geometry import Affine
from nexusinr.volume import Volume, read_volume, write_volume

SHAPE = (7, 6, 5)
FORMATS = (".nii", ".nii.gz", ".nrrd", ".mha")
DATA = np.random.default_rng(0).uniform(1, 1000, SHAPE).astype(np.float32)
PLAIN = Affine.from_parts((0.9, 0.8, 4.0), np.diag((-1.0, -1.0, 1.0)), (30, -20, 10))


def distance(first: Affine, second: Affine) -> float:
    """Largest distance in mm between the voxels of two lattices, 512 voxels wide."""
    ends = np.array([(i, j, k) for i in (0, 511) for j in (0, 511) for k in (0, 60)])
    return float(np.linalg.norm(first.apply(ends) - second.apply(ends), axis=1).max())


def nifti(
    path: Path, data: np.ndarray = DATA, affine: np.ndarray = PLAIN.matrix, **fields: Any
) -> Path:
    """Write a NIfTI file, then put values into its header that nibabel would not write."""
    plain = path.with_name(path.name.removesuffix(".gz"))
    nib.Nifti1Image(data, affine, dtype=data.dtype).to_filename(plain)
    content = bytearray(plain.read_bytes())
    header = nib.Nifti1Header(bytes(content[:348]), check=False)
    for name, value in fields.items():
        if np.ndim(value):
            header[name][: len(value)] = value
        else:
            header[name] = value
    content[:348] = header.binaryblock
    plain.unlink()
    path.write_bytes(gzip.compress(content, 1) if path.name.endswith(".gz") else bytes(content))
    return path


def nrrd(path: Path, data: np.ndarray = DATA, **fields: str) -> Path:
    header = {
        "type": "float",
        "dimension": "3",
        "sizes": "7 6 5",
        "endian": "little",
        "encoding": "raw",
        "space": "left-posterior-superior",
        "space directions": "(1,0,0) (0,1,0) (0,0,3)",
        "space origin": "(1,2,3)",
    } | {name.replace("_", " "): value for name, value in fields.items()}
    lines = [f"{name}: {value}" for name, value in header.items() if value]
    path.write_bytes("\n".join(["NRRD0004", *lines, "", ""]).encode() + data.tobytes("F"))
    return path


def metaimage(path: Path, data: np.ndarray = DATA, **fields: str) -> Path:
    header = {
        "ObjectType": "Image",
        "NDims": "3",
        "BinaryData": "True",
        "BinaryDataByteOrderMSB": "False",
        "CompressedData": "False",
        "TransformMatrix": "1 0 0 0 1 0 0 0 1",
        "Offset": "1 2 3",
        "ElementSpacing": "1 1 3",
        "DimSize": "7 6 5",
        "ElementType": "MET_FLOAT",
        "ElementDataFile": "LOCAL",
    } | fields
    text = "".join(f"{name} = {value}\n" for name, value in header.items() if value)
    path.write_bytes(text.encode() + (data.tobytes("F") if "LOCAL" in text else b""))
    return path


class TestNiftiHeader:
    def read(self, folder: Path, **fields: Any) -> Volume:
        return read_volume(nifti(folder / "scan.nii", **fields))

    @pytest.mark.parametrize("name", ["scan.nii", "scan.nii.gz", "SCAN.NII", "S.CAN.NII.GZ"])
    def test_name_and_digest(self, tmp_path, name):
        path = tmp_path / name
        write_volume(path, DATA, PLAIN)
        volume = read_volume(str(path))
        assert volume.name == name[: name.lower().index(".nii")]
        assert volume.path == path
        assert volume.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
        np.testing.assert_array_equal(volume.data, DATA)

    def test_sform_and_qform_that_disagree(self, tmp_path):
        codes = {"sform_code": 1, "qform_code": 1}
        assert self.read(tmp_path, **codes, qoffset_x=30.05).notes == ()
        volume = self.read(tmp_path, **codes, qoffset_x=33)
        assert volume.affine.origin[0] == 30
        (note,) = volume.notes
        assert "disagree by up to 3.00 mm; the sform is used" in note

    def test_qform_alone(self, tmp_path):
        volume = self.read(tmp_path, sform_code=0, qform_code=1, qoffset_x=33)
        assert volume.affine.origin[0] == 33
        assert volume.notes == ()

    def test_a_qform_that_is_no_rotation(self, tmp_path):
        bad = {"quatern_b": 2, "qform_code": 1}
        (note,) = self.read(tmp_path, **bad, sform_code=1).notes
        assert "not a rotation" in note
        with pytest.raises(InputError, match="header is not valid"):
            self.read(tmp_path, **bad, sform_code=0)

    def test_no_orientation(self, tmp_path):
        volume = self.read(tmp_path, sform_code=0, qform_code=0)
        np.testing.assert_allclose(volume.affine.spacing, (0.9, 0.8, 4), rtol=1e-6)
        (note,) = volume.notes
        assert "does not say how the image lies" in note

    def test_voxel_size_that_is_not_the_affines(self, tmp_path):
        volume = self.read(tmp_path, pixdim=(1, 0.9, 0.8, 3), qform_code=0)
        assert volume.affine.spacing[2] == 4
        (note,) = volume.notes
        assert "0.9 x 0.8 x 3 mm and an affine with 0.9 x 0.8 x 4 mm" in note

    @pytest.mark.parametrize(
        ("unit", "code", "factor"), [("metres", 1, 1e-3), ("micrometres", 3, 1e3)]
    )
    def test_units(self, tmp_path, unit, code, factor):
        scale = np.diag((factor, factor, factor, 1))
        volume = self.read(tmp_path, affine=scale @ PLAIN.matrix, xyzt_units=code)
        np.testing.assert_allclose(volume.affine.matrix, PLAIN.matrix, rtol=1e-6, atol=1e-6)
        (note,) = volume.notes
        assert note == f"The header's unit is {unit}: converted to millimetres."

    def test_unknown_unit_is_millimetres(self, tmp_path):
        volume = self.read(tmp_path, xyzt_units=0)
        assert distance(volume.affine, PLAIN) < 0.01
        assert volume.notes == ()

    def test_intensity_scale(self, tmp_path):
        data = (DATA * 10).astype(np.int16)
        volume = self.read(tmp_path, data=data, scl_slope=0.5, scl_inter=-7)
        np.testing.assert_allclose(volume.data, data * 0.5 - 7, rtol=1e-6)

    def test_rounding_noise_in_the_affine(self, tmp_path):
        noise = np.zeros((4, 4))
        noise[:3, :3] = np.random.default_rng(1).uniform(-1e-7, 1e-7, (3, 3))
        volume = self.read(tmp_path, affine=PLAIN.matrix + noise)
        assert (volume.notes, volume.affine.is_sheared) == ((), False)

    def test_what_nibabel_mends_is_not_printed(self, tmp_path, caplog):
        volume = self.read(tmp_path, sform_code=-3, qform_code=1)
        np.testing.assert_array_equal(volume.data, DATA)
        assert caplog.records == []

    def test_a_single_frame_is_a_volume(self, tmp_path):
        volume = self.read(tmp_path, data=DATA[..., None])
        np.testing.assert_array_equal(volume.data, DATA)

    @pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
    @pytest.mark.parametrize("order", "<>")
    def test_both_versions_and_byte_orders(self, tmp_path, kind, order):
        header = kind.header_class(endianness=order)
        header.set_data_dtype(np.float32)
        kind(DATA, PLAIN.matrix, header).to_filename(tmp_path / "scan.nii.gz")
        volume = read_volume(tmp_path / "scan.nii.gz")
        np.testing.assert_array_equal(volume.data, DATA)
        assert volume.data.dtype == np.dtype(np.float32)
        assert distance(volume.affine, PLAIN) < 0.01


class TestItkHeader:
    def test_right_anterior_superior_is_not_mirrored(self, tmp_path):
        volume = read_volume(nrrd(tmp_path / "scan.nrrd", space="right-anterior-superior"))
        np.testing.assert_allclose(volume.affine.matrix[:3, 3], (1, 2, 3))
        assert (volume.affine.orientation, volume.notes) == ("RAS", ())

    def test_sheared_directions_are_kept(self, tmp_path):
        path = nrrd(tmp_path / "scan.nrrd", space_directions="(1,0,0) (0.5,2,0) (0,0,3)")
        volume = read_volume(path)
        np.testing.assert_allclose(volume.affine.matrix[:3, 1], (-0.5, -2, 0))
        assert volume.affine.is_sheared

    def test_no_orientation_or_no_voxel_size(self, tmp_path):
        bare = {"space": "", "space_directions": "", "space_origin": ""}
        (note,) = read_volume(nrrd(tmp_path / "a.nrrd", **bare, spacings="1 2 3")).notes
        assert "does not say how the image lies" in note
        notes = read_volume(nrrd(tmp_path / "b.nrrd", **bare)).notes
        assert notes[0] == "The header gives no voxel size: 1 mm is taken."

    def test_one_frame_is_a_volume(self, tmp_path):
        path = nrrd(
            tmp_path / "scan.nrrd",
            dimension="4",
            sizes="7 6 5 1",
            space_directions="(1,0,0) (0,1,0) (0,0,3) none",
            kinds="domain domain domain list",
        )
        np.testing.assert_array_equal(read_volume(path).data, DATA)
        path = metaimage(
            tmp_path / "scan.mha",
            NDims="4",
            DimSize="7 6 5 1",
            ElementSpacing="1 1 3 1",
            Offset="1 2 3 0",
            TransformMatrix="1 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1",
        )
        volume = read_volume(path)
        np.testing.assert_array_equal(volume.data, DATA)
        np.testing.assert_allclose(volume.affine.origin, (-1, -2, 3))

    @pytest.mark.parametrize("extension", [".nhdr", ".mhd"])
    def test_detached_data(self, tmp_path, extension):
        header, data = tmp_path / f"scan{extension}", tmp_path / "scan.raw"
        if extension == ".mhd":
            metaimage(header, ElementDataFile="scan.raw")
        else:
            nrrd(header, data=DATA[:0], data_file="scan.raw")
        with pytest.raises(InputError, match=r"its data file 'scan\.raw' is missing"):
            read_volume(header)
        data.write_bytes(DATA.tobytes("F")[:-100])
        with pytest.raises(InputError, match="need 840 bytes and the file has room for 740"):
            read_volume(header)
        data.write_bytes(DATA.tobytes("F"))
        volume = read_volume(header)
        np.testing.assert_array_equal(volume.data, DATA)
        first = volume.sha256
        data.write_bytes((DATA + 1).tobytes("F"))
        assert read_volume(header).sha256 != first


BAD: dict[str, tuple[Callable[[Path], Path], str]] = {}


def bad(words: str) -> Callable[[Callable[[Path], Path]], Callable[[Path], Path]]:
    """Register a maker of a bad input and what the sentence about it says (a pattern)."""

    def register(make: Callable[[Path], Path]) -> Callable[[Path], Path]:
        BAD[make.__name__] = (make, words)
        return make

    return register


def bad_header(name: str, words: str, **fields: Any) -> None:
    BAD[name] = (lambda folder: nifti(folder / "scan.nii.gz", **fields), words)


def bad_nrrd(name: str, words: str, **fields: Any) -> None:
    BAD[name] = (lambda folder: nrrd(folder / "scan.nrrd", **fields), words)


def bad_metaimage(name: str, words: str, **fields: Any) -> None:
    BAD[name] = (lambda folder: metaimage(folder / "scan.mha", **fields), words)


def bad_file(name: str, words: str, file: str, content: Callable[[], bytes]) -> None:
    def make(folder: Path) -> Path:
        (folder / file).write_bytes(content())
        return folder / file

    BAD[name] = (make, words)


def written(extension: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"scan{extension}"
        write_volume(path, DATA, PLAIN)
        return path.read_bytes()


WRITTEN = {extension: written(extension) for extension in (".nii", ".nii.gz", ".nrrd", ".mha")}


def flipped_byte() -> bytes:
    content = bytearray(WRITTEN[".nii.gz"])
    content[len(content) // 2] ^= 0xFF
    return bytes(content)


def vector_image(folder: Path, dtype: Any) -> Path:
    data = np.zeros(SHAPE, dtype=dtype)
    nib.Nifti1Image(data, PLAIN.matrix).to_filename(folder / "scan.nii.gz")
    return folder / "scan.nii.gz"


bad_header("zero spacing", "voxel size is 0.9 x 0 x 4 mm", pixdim=(1, 0.9, 0, 4))
bad_header("negative spacing", "voxel size is 0.9 x -0.8 x 4 mm", pixdim=(1, 0.9, -0.8, 4))
bad_header("spacing not finite", "voxel size is 0.9 x nan x 4 mm", pixdim=(1, 0.9, np.nan, 4))
bad_header("spacing of 100 mm", "voxel size is 0.9 x 0.8 x 100 mm", pixdim=(1, 0.9, 0.8, 100))
bad_header("metres that are not", "voxel size is 900 x .*unit is metres", xyzt_units=1)
bad_header(
    "affine of 100 mm",
    "voxel size is 100 x 100 x 100 mm",
    srow_x=(100, 0, 0, 0),
    srow_y=(0, 100, 0, 0),
    srow_z=(0, 0, 100, 0),
    sform_code=1,
)
bad_header("singular affine", "affine is singular", srow_x=(0, 0, 0, 0), sform_code=1)
bad_header("affine not finite", "not finite", srow_x=(np.nan, 0, 0, 0), sform_code=1)
bad_header("2D", r"it is 2D: one slice \(7 x 6\)", dim=(2, 7, 6, 1, 1))
bad_header("one slice", r"it is 2D: one slice \(7 x 6 x 1\)", dim=(3, 7, 6, 1))
bad_header("two slices", r"only 2 slices \(2 x 7 x 6\)", dim=(3, 2, 7, 6))
bad_header("4D", r"holds 2 images \(7 x 6 x 5 x 2\)", data=np.stack([DATA, DATA], -1))
bad_header("no voxels", "declares 7 x 0 x 5 voxels", dim=(3, 7, 0, 5))
bad_header("too many voxels", "declares 30000 x 30000 x 30000", dim=(3, 30000, 30000, 30000))
bad_header("more voxels than bytes", "need 4000000352 bytes", dim=(3, 1000, 1000, 1000))
bad_header("unknown type", r"unknown data type \(code 77\)", datatype=77)
bad_header("scale not finite", "header is not valid", scl_slope=1, scl_inter=np.inf)
bad_header("offset not finite", "truncated or its header is damaged", vox_offset=np.nan)
bad_header("pair of files", "not a NIfTI image", magic=b"ni1")
bad_header("constant", "every voxel has the value 3", data=np.full(SHAPE, 3, np.int16))
bad_header(
    "many NaN",
    r"5 of its 210 voxels \(2.4%\)",
    data=np.where(np.arange(210).reshape(SHAPE) < 5, np.nan, DATA),
)
bad_header("all NaN", r"210 of its 210 voxels", data=np.full(SHAPE, np.nan, np.float32))

bad_file("empty file", r"empty \(0 bytes\)", "scan.nii.gz", bytes)
bad_file("empty nrrd", r"empty \(0 bytes\)", "scan.nrrd", bytes)
bad_file("text as nii", "not a NIfTI image", "scan.nii", lambda: b"hello\n" * 200)
bad_file("short text as nii", "not a NIfTI image", "scan.nii", lambda: b"hello")
bad_file(
    "text as gz", r"not compressed \(.*incorrect header", "scan.nii.gz", lambda: b"hello\n" * 200
)
bad_file("zipped text", "not a NIfTI image", "scan.nii.gz", lambda: gzip.compress(b"hello"))
bad_file("text as nrrd", "not a NRRD image", "scan.nrrd", lambda: b"hello\n" * 20)
bad_file("text as mha", "not a MetaImage", "scan.mha", lambda: b"hello\n" * 20)
bad_file("picture", r"its name does not end in \.nii", "scan.png", lambda: b"\x89PNG\r\n")
bad_file("no ending", r"its name does not end in \.nii", "scan", lambda: b"hello")
bad_file("DICOM file", "single DICOM file; give the folder", "1.dcm", lambda: bytes(128) + b"DICM")
bad_file("damaged gz", "damaged", "scan.nii.gz", flipped_byte)
bad_file("half a gz", r"truncated \(its \d+ bytes", "scan.nii.gz", lambda: WRITTEN[".nii.gz"][:400])
bad_file("gz without its end", "truncated", "scan.nii.gz", lambda: WRITTEN[".nii.gz"][:-4])
bad_file(
    "half a nii",
    "need 1192 bytes and the file has room for 700: it is truncated",
    "scan.nii",
    lambda: WRITTEN[".nii"][:700],
)
bad_file("half a nrrd", "truncated", "scan.nrrd", lambda: WRITTEN[".nrrd"][:-200])
bad_file("half a mha", "truncated", "scan.mha", lambda: WRITTEN[".mha"][:-200])


@bad("voxels are colours")
def colours(folder: Path) -> Path:
    return vector_image(folder, [("R", "u1"), ("G", "u1"), ("B", "u1")])


@bad("voxels are complex numbers")
def complex_numbers(folder: Path) -> Path:
    return vector_image(folder, np.complex64)


@bad("no such file or folder")
def missing(folder: Path) -> Path:
    return folder / "scan.nii.gz"


@bad("no DICOM image")
def folder_without_dicom(folder: Path) -> Path:
    (folder / "inner").mkdir()
    (folder / "inner" / "notes.txt").write_text("hello")
    return folder / "inner"


bad_nrrd("nrrd of absurd size", "room for 840", sizes="1000 1000 1000")
bad_nrrd("nrrd as text", "encoding, 'ascii', is neither", encoding="ascii")
bad_nrrd(
    "nrrd of colours",
    "colours, vectors",
    data=np.repeat(DATA, 3),
    dimension="4",
    sizes="3 7 6 5",
    kinds="RGB-color domain domain domain",
    space_directions="none (1,0,0) (0,1,0) (0,0,3)",
)
bad_nrrd(
    "nrrd of no spacing",
    "voxel size is 1 x 0 x 3 mm",
    spacings="1 0 3",
    space="",
    space_directions="",
    space_origin="",
)
bad_nrrd(
    "nrrd of parallel axes",
    "affine is singular",
    space_directions="(1,0,0) (1,0,0) (0,0,3)",
)

bad_metaimage("metaimage of absurd size", "room for 840", DimSize="1000 1000 1000")
bad_metaimage("flat metaimage", "it is 2D: one slice", DimSize="42 5 1")
bad_metaimage("place not finite", "'Offset' as 'nan 2 3', which is not all", Offset="nan 2 3")
bad_metaimage("negative edge", "voxel size is 1 x -1 x 3 mm", ElementSpacing="1 -1 3")
bad_metaimage("words", "'ElementSpacing' as '1 one 3', which is not", ElementSpacing="1 one 3")
bad_metaimage("few numbers", "'Offset' as '1 2', which should be 3 numbers", Offset="1 2")
bad_metaimage("many axes", "'NDims' as '99'", NDims="99")
bad_metaimage("two numbers of axes", "'NDims' twice", ObjectType="Image\nNDims = 79")
bad_metaimage("metaimage as text", "has no BinaryData = True", BinaryData="False")


@bad("declares 700 bytes of packed data and there are")
def metaimage_of_wrong_length(folder: Path) -> Path:
    content = re.sub(rb"(?<=CompressedDataSize = )\d+", b"700", WRITTEN[".mha"])
    (folder / "scan.mha").write_bytes(content)
    return folder / "scan.mha"


class TestBadInput:
    @pytest.mark.parametrize("name", BAD)
    def test_one_sentence_says_what_and_what_to_do(self, tmp_path, name, capfd):
        make, words = BAD[name]
        path = make(tmp_path)
        with pytest.raises(InputError, match=words) as caught:
            read_volume(path)
        message = str(caught.value)
        assert message.startswith(f"{path.name}: ")
        assert "\n" not in message
        assert str(tmp_path) not in message
        assert message.rpartition(";")[2].split()[0] in {
            "check",
            "copy",
            "correct",
            "export",
            "give",
            "replace",
            "split",
        }
        assert caught.value.exit_code == 2
        assert capfd.readouterr() == ("", "")

    @pytest.mark.parametrize("extension", [".nii", ".nrrd", ".mha"])
    @given(
        place=st.integers(0, 350),
        change=st.sampled_from(("set", "insert", "delete")),
        text=st.one_of(st.binary(min_size=1, max_size=4), st.sampled_from((b"-1", b"99", b"nan"))),
    )
    def test_a_damaged_header_is_read_or_refused(self, extension, place, change, text):
        content = WRITTEN[extension]
        after = place if change == "insert" else place + len(text)
        middle = b"" if change == "delete" else text
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"scan{extension}"
            path.write_bytes(content[:place] + middle + content[after:])
            with contextlib.suppress(InputError):
                volume = read_volume(path)
                assert np.isfinite(volume.data).all()
                assert (volume.affine.spacing <= 20).all()

    @pytest.mark.parametrize(
        "name", ["more voxels than bytes", "nrrd of absurd size", "metaimage of absurd size"]
    )
    def test_absurd_sizes_are_refused_before_memory_is_taken(self, tmp_path, name):
        path = BAD[name][0](tmp_path)
        tracemalloc.start()
        with pytest.raises(InputError):
            read_volume(path)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 20e6

    def test_a_few_voxels_that_are_not_finite_are_mended(self, tmp_path):
        data = np.random.default_rng(0).uniform(1, 9, (20, 20, 20)).astype(np.float32)
        inner, edge, alone = (5, 6, 7), (0, 0, 19), (10, 10, 10)
        data[9:12, 9:12, 9:12] = np.inf
        data[inner], data[edge] = np.nan, -np.inf
        write_volume(tmp_path / "scan.nii", data, PLAIN)
        volume = read_volume(tmp_path / "scan.nii")
        around = data[4:7, 5:8, 6:9]
        assert volume.data[inner] == pytest.approx(np.median(around[np.isfinite(around)]))
        corner = data[:2, :2, 18:]
        assert volume.data[edge] == pytest.approx(np.median(corner[np.isfinite(corner)]))
        assert volume.data[alone] == 0
        untouched = np.isfinite(data)
        np.testing.assert_array_equal(volume.data[untouched], data[untouched])
        assert np.isfinite(volume.data).all()
        (note,) = volume.notes
        assert note.startswith("29 of 8000 voxels were not finite")
