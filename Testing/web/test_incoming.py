"""Uploads of every kind, and of people who mean no good."""

from __future__ import annotations

import io
import stat
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given
from hypothesis import strategies as st

from nexusinr.errors import InputError
from nexusinr.geometry import Affine
from nexusinr.volume import read_volume, write_volume
from nexusinr.web import archive
from nexusinr.web.incoming import Found, Incoming, private_folder

PATIENT = "Doe^Jane"


@pytest.fixture
def incoming(tmp_path) -> Incoming:
    return Incoming(tmp_path)


@pytest.fixture(scope="module")
def images(oblique_file, tmp_path_factory) -> dict[str, bytes]:
    """One scan in every format, by file name."""
    folder = tmp_path_factory.mktemp("formats")
    volume = read_volume(oblique_file)
    for name in ("t1.nii", "t1.nii.gz", "t1.nrrd", "t1.mha"):
        write_volume(folder / name, volume.data, volume.affine)
    sitk.WriteImage(sitk.ReadImage(folder / "t1.mha"), folder / "t1.mhd")
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.fixture(scope="module")
def oblique_file(tmp_path_factory) -> Path:
    data = np.random.default_rng(0).integers(1, 900, (12, 10, 8)).astype(np.float32)
    path = tmp_path_factory.mktemp("scan") / "scan.nii"
    write_volume(path, data, Affine.from_parts((1, 1, 3)))
    return path


def zipped(files: dict[str | zipfile.ZipInfo, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as packed:
        for name, content in files.items():
            packed.writestr(name, content)
    return stream.getvalue()


def left_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


# --- what is taken ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["t1.nii", "t1.nii.gz", "t1.nrrd", "t1.mha"])
def test_an_image_is_kept_under_another_name(incoming, images, tmp_path, oblique_file, name):
    [found] = incoming.upload(f"{PATIENT} {name}", io.BytesIO(images[name]))
    assert (found.name, found.modality) == (f"{PATIENT} {name}", "T1w")
    assert left_in(tmp_path) == [f"scan-1{name[2:]}"]
    assert found.path == tmp_path / f"scan-1{name[2:]}"
    assert np.array_equal(read_volume(found.path).data, read_volume(oblique_file).data)
    assert PATIENT not in read_volume(found.path).name


@pytest.mark.parametrize("order", [("t1.mhd", "t1.raw"), ("t1.raw", "t1.mhd")])
def test_header_and_voxels_of_a_metaimage_come_in_any_order(incoming, images, order, oblique_file):
    first, second = order
    assert incoming.upload(first, io.BytesIO(images[first])) == []
    [found] = incoming.upload(second, io.BytesIO(images[second]))
    assert not incoming.finish()
    assert found.name == "t1.mhd"
    assert np.array_equal(read_volume(found.path).data, read_volume(oblique_file).data)


def test_half_a_metaimage_is_told_and_given_up(incoming, images, tmp_path):
    incoming.upload("t1.mhd", io.BytesIO(images["t1.mhd"]))
    incoming.upload("t2.raw", io.BytesIO(images["t1.raw"]))
    assert incoming.finish() == [
        "t1.mhd: its data file 't1.raw' is missing; upload both",
        "t2.raw: its header file (.mhd) is missing; upload both",
    ]
    assert incoming.finish() == left_in(tmp_path) == []


def test_slices_one_by_one_make_series(incoming, slices, tmp_path):
    files = {**slices("1.2.3", f"t1 {PATIENT}"), **slices("1.2.4", "t2 tse", number=8)}
    found = {
        scan for name, data in files.items() for scan in incoming.upload(name, io.BytesIO(data))
    }
    assert found == {
        Found("DICOM series 7", tmp_path / "series-1", "T1w"),
        Found("DICOM series 8", tmp_path / "series-2", "T2w"),
    }
    assert all(read_volume(scan.path).data.shape == (8, 6, 5) for scan in found)
    assert not any("Doe" in name for name in left_in(tmp_path))


def test_the_same_slices_later_are_another_series(incoming, slices):
    for number in (1, 2):
        for name, data in slices("1.2.3", "t1").items():
            [found] = incoming.upload(name, io.BytesIO(data))
        assert incoming.finish() == []
        assert found.path.name == f"series-{number}"
        assert read_volume(found.path).data.shape == (8, 6, 5)


def test_an_archive_of_everything(incoming, images, slices, tmp_path):
    files = {
        **slices("1.2.3", "t1"), **slices("1.2.4", "flair"),
        "a/t1.mhd": images["t1.mhd"], "b/t1.raw": images["t1.raw"], "a/t1.raw": images["t1.raw"],
        "T2w.nii.gz": images["t1.nii.gz"], "readme.txt": b"hello", "DICOMDIR": b"", "e.nii": b"",
        "__MACOSX/._T2w.nii.gz": b"x", "folder/": b"",
    }  # fmt: skip
    found = incoming.upload("study.zip", io.BytesIO(zipped(files)))
    assert {(scan.name, scan.modality) for scan in found} == {
        ("DICOM series 7", None), ("DICOM series 7", "T1w"), ("T2w.nii.gz", "T2w"),
        ("t1.mhd", "T1w"),
    }  # fmt: skip
    for scan in found:
        assert read_volume(scan.path).data.any()
    assert not list(tmp_path.glob("*.zip"))


def test_paths_stay_where_they_are(incoming, images, slices, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    for name, data in {**slices("1.2.3", "t1"), "more/t2.nii": images["t1.nii"]}.items():
        file = elsewhere / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    series = elsewhere / PATIENT
    image = elsewhere / "more" / "t2.nii"
    expected = [Found("DICOM series 7", series, "T1w"), Found("t2.nii", image, "T2w")]
    before = left_in(tmp_path)
    assert incoming.paths([series, image]) == expected
    assert incoming.paths([image.parent, str(image)]) == expected[1:]
    assert left_in(tmp_path) == before


def test_paths_that_have_to_be_sorted(incoming, slices, tmp_path):
    study = tmp_path / "study"
    study.mkdir()
    files = {**slices("1.2.3", "t1"), **slices("1.2.4", "t2")}
    for k, data in enumerate(files.values()):
        (study / str(k)).write_bytes(data)
    packed = tmp_path / "study.zip"
    packed.write_bytes(zipped(files))
    for paths in ([study], [packed], sorted(study.iterdir())):
        found = incoming.paths(paths)
        assert sorted(str(scan.modality) for scan in found) == ["T1w", "T2w"]
        assert all(read_volume(scan.path).data.shape == (8, 6, 5) for scan in found)


@pytest.mark.parametrize("name", ["nothing.nii.gz/nothing", "."])
def test_paths_that_lead_nowhere(incoming, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"no such file or folder; |holds no scan; "):
        incoming.paths([name])


# --- what is refused --------------------------------------------------------------------------


def refused(incoming: Incoming, name: str, data: bytes, folder: Path) -> str:
    before = left_in(folder)
    with pytest.raises(InputError) as caught:
        incoming.upload(name, io.BytesIO(data))
    assert left_in(folder) == before
    message = str(caught.value)
    assert message.isprintable()
    assert message.count(name.split("/")[-1]) == 1
    return message


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("virus.exe", b"MZ" + bytes(500), "none of the files that are taken"),
        ("t1.nii", b"", "empty"),
        ("scan.dcm", bytes(128) + b"DICM" + bytes(9), "without an image"),
        ("t1.nhdr", b"NRRD0004\ndata file: /etc/passwd\n\n", "none of the files"),
        ("t1.nrrd", b"NRRD0004\ndata file: /etc/passwd\n\n", "in another file"),
        ("t1.nrrd", b"NRRD0004\r  DataFile : /etc/passwd\r\n\r\n", "in another file"),
        ("t1.nrrd", b"NRRD0004\ntype: short\n", "no end"),
        ("t1.mha", b"NDims = 3\n ElementDataFile = t1.raw\n", "in another file"),
        ("t1.mhd", b"ElementDataFile : /etc/passwd\nElementDataFile = LOCAL\n", "more than one"),
        ("t1.mhd", b"ElementDataFile = ../t1.raw\n", "no plain file name"),
        ("t1.mhd", b"ElementDataFile = C:\\t1.raw\n", "no plain file name"),
        ("t1.mhd", b"ElementDataFile = LIST 2\n", "no plain file name"),
        ("t1.mhd", b"NDims = 3\n", "names no data"),
        ("study.zip", b"PK\x03\x04 or not", "not a whole zip"),
        ("study.zip", zipped({"a.txt": b"no scan"}), "holds no scan"),
        ("study.zip", zipped({"../t1.nii": b"x"}), "above its own folder"),
        ("study.zip", zipped({"a\\..\\..\\t1.nii": b"x"}), "above its own folder"),
        ("study.zip", zipped({"/etc/t1.nii": b"x"}), "absolute"),
        ("study.zip", zipped({"C:t1.nii": b"x"}), "absolute"),
        ("study.zip", zipped({"t1.nii": bytes(10**7)}), "times its size"),
        ("study.zip", zipped({"t1.nii": b"x"}, zipfile.ZIP_LZMA), "rare way"),
        ("study.zip", zipped({"in.zip": zipped({"t1.nii": b"x"})}), "holds no scan"),
    ],
)
def test_uploads_that_are_refused(incoming, tmp_path, name, data, reason):
    assert reason in refused(incoming, name, data, tmp_path)


def test_links_in_archives_are_refused(incoming, tmp_path):
    for kind in (stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR):
        member = zipfile.ZipInfo("t1.nii")
        member.external_attr = (kind | 0o777) << 16
        assert "link or a device" in refused(
            incoming, "a.zip", zipped({member: b"/etc/passwd"}), tmp_path
        )


def test_encrypted_archives_are_refused(incoming, tmp_path):
    packed = bytearray(zipped({"t1.nii": b"x"}))
    packed[packed.index(b"PK\x01\x02") + 8] |= 1
    assert "password" in refused(incoming, "a.zip", bytes(packed), tmp_path)


def test_a_damaged_member_is_noticed(incoming, tmp_path):
    noise = np.random.default_rng(0).bytes(5000)
    packed = bytearray(zipped({"t1.nii": noise}, zipfile.ZIP_STORED))
    packed[2000] ^= 1
    assert "not a whole zip" in refused(incoming, "a.zip", bytes(packed), tmp_path)


def test_a_name_that_is_no_text_is_noticed(incoming, tmp_path):
    """In front of the file, and declared as UTF-8; the list at the end has it right."""
    packed = bytearray(zipped({"é.nii": b"x"}))
    packed[packed.index("é".encode())] = 0xBF
    assert "not a whole zip" in refused(incoming, "a.zip", bytes(packed), tmp_path)


@pytest.mark.parametrize("error", [EOFError, NotImplementedError, UnicodeDecodeError])
def test_what_goes_wrong_with_the_reader_is_no_damage(error, tmp_path):
    own = error("utf-8", b"x", 0, 1, "why") if error is UnicodeDecodeError else error()
    path = tmp_path / "a.zip"
    path.write_bytes(zipped({"t1.nii": b"x"}))

    def read():
        with archive.unpacking(path, 1000) as files:
            next(files)
            raise own

    with pytest.raises(error):
        read()


def test_archives_that_lie_about_their_size(incoming, tmp_path):
    packed = bytearray(zipped({"t1.nii": bytes(10**7)}))
    for mark, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        struct.pack_into("<I", packed, packed.index(mark) + offset, 1000)
    assert "not a whole zip" in refused(incoming, "a.zip", bytes(packed), tmp_path)


def test_archives_of_too_many_files(incoming, tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "MOST_FILES", 3)
    packed = zipped({f"{k}.nii": b"x" for k in range(4)})
    assert "4 files" in refused(incoming, "a.zip", packed, tmp_path)


def test_uploads_share_their_room(tmp_path, images):
    data = images["t1.nii"]
    incoming = Incoming(tmp_path, most_bytes=2 * len(data) + 10)
    packed = zipped({f"{k}.nii": data for k in range(3)}, zipfile.ZIP_STORED)
    assert "no more room" in refused(incoming, "a.zip", packed, tmp_path)
    for _ in range(2):
        incoming.upload("a.nii", io.BytesIO(data))
    assert "no more room" in refused(incoming, "b.nii", data, tmp_path)
    assert len(left_in(tmp_path)) == 2


def test_an_upload_that_breaks_off_leaves_nothing(incoming, tmp_path):
    class Lost(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            return super().read(size) or self.fail()

        def fail(self) -> bytes:
            raise ConnectionResetError

    with pytest.raises(InputError, match="cannot be read or kept"):
        incoming.upload("t1.nii", Lost(b"x" * 300))
    assert left_in(tmp_path) == []


def tried(folder: Path, name: str, data: bytes) -> tuple[list[Found], str]:
    """An upload by any name: the scans, or else why not."""
    try:
        return Incoming(folder).upload(name, io.BytesIO(data)), ""
    except InputError as error:
        return [], str(error)


@given(name=st.text(max_size=120), end=st.sampled_from([".nii", ".mhd", ".raw", ".zip", ".nrrd"]))
def test_no_name_leads_out_of_the_folder(name, end):
    with private_folder() as folder:
        inside = folder / "session"
        inside.mkdir()
        found, message = tried(inside, name + end, b"ElementDataFile = t1.raw\n")
        assert message.isprintable()
        assert all(len(scan.name) <= 80 and scan.name.isprintable() for scan in found)
        assert list(folder.iterdir()) == [inside]
        assert left_in(inside) == ([] if message else [f"scan-1{end}"])


NAMES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1)


@given(members=st.dictionaries(NAMES, st.binary(max_size=60), max_size=4))
def test_no_archive_leads_out_of_the_folder(members):
    with private_folder() as folder:
        inside = folder / "session"
        inside.mkdir()
        _, message = tried(inside, "a.zip", zipped(members))
        assert not message or message.startswith("a.zip: ")
        assert list(folder.iterdir()) == [inside]


@given(places=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=6))
def test_damage_to_an_archive_is_an_input_error(places, packed):
    data = bytearray(packed)
    for place, value in places:
        data[place % len(data)] = value
    with private_folder() as folder:
        found, message = tried(folder, "a.zip", bytes(data))
        assert bool(found) != message.startswith("a.zip: ")


@pytest.fixture(scope="module")
def packed(images) -> bytes:
    return zipped({"t1.nii.gz": images["t1.nii.gz"], "b/t1.mha": images["t1.mha"]})


# --- the folder -------------------------------------------------------------------------------


def test_the_folder_is_private_and_goes(tmp_path):
    with private_folder() as folder:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        (folder / "below").mkdir()
        (folder / "below" / "scan").write_bytes(b"x")
    assert not folder.exists()
