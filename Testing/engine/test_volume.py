"""Writing and reading scans: positions to 0.01 mm in every format; whole files or none."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import example, given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from nexusinr.errors import InputError
from nexusinr.geometry import Affine, Grid
from nexusinr.volume import Volume, describe, read_volume, write_volume

SHAPE = (7, 6, 5)
FORMATS = (".nii", ".nii.gz", ".nrrd", ".mha")
DATA = np.random.default_rng(0).uniform(1, 1000, SHAPE).astype(np.float32)
PLAIN = Affine.from_parts((0.9, 0.8, 4.0), np.diag((-1.0, -1.0, 1.0)), (30, -20, 10))

#: Half a turn but for a hair: a float32 quaternion is 2 mm off there.
NEARLY_HALF_A_TURN = Affine.from_parts(
    (0.5, 0.5, 6.0), Rotation.from_rotvec((0, 0, np.pi - 3e-4)).as_matrix(), (-120, 200, 33)
)


def distance(first: Affine, second: Affine) -> float:
    """Largest distance in mm between the voxels of two lattices, 512 voxels wide."""
    ends = np.array([(i, j, k) for i in (0, 511) for j in (0, 511) for k in (0, 60)])
    return float(np.linalg.norm(first.apply(ends) - second.apply(ends), axis=1).max())


class TestRoundTrip:
    @pytest.mark.parametrize("extension", FORMATS)
    @given(affine=st.from_type(Affine))
    @example(affine=NEARLY_HALF_A_TURN)
    def test_positions_and_values(self, extension, affine):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"scan{extension}"
            write_volume(path, DATA, affine)
            volume = read_volume(path)
            assert [p.name for p in Path(folder).iterdir()] == [path.name]
            image = sitk.ReadImage(str(path))
        np.testing.assert_array_equal(volume.data, DATA)
        assert distance(volume.affine, affine) < 0.01
        for index in ((0, 0, 0), (6, 0, 0), (0, 5, 0), (0, 0, 4), (6, 5, 4)):
            there = np.array(image.TransformIndexToPhysicalPoint(index)) * (-1, -1, 1)
            np.testing.assert_allclose(there, volume.affine.apply(index), atol=0.01)
            assert image[index] == volume.data[index]

    @given(affine=st.from_type(Affine), shear=st.floats(0.02, 0.5))
    def test_a_sheared_lattice_survives_in_nifti(self, affine, shear):
        matrix = affine.matrix.copy()
        matrix[:3, 2] += shear * affine.spacing[2] * affine.direction[:, 0]
        bent = Affine(matrix)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "scan.nii"
            write_volume(path, DATA, bent)
            volume = read_volume(path)
            header = nib.load(path).header
            with pytest.raises(InputError, match=r"right angles.*nii\.gz"):
                write_volume(path.with_suffix(".nrrd"), DATA, bent)
            assert len(list(Path(folder).iterdir())) == 1
        assert distance(volume.affine, bent) < 0.01
        assert volume.affine.is_sheared
        assert (int(header["sform_code"]), int(header["qform_code"])) == (1, 0)
        assert volume.notes == ()

    def test_the_header_says_millimetres_in_both_forms(self, tmp_path, oblique_volume):
        path = tmp_path / "scan.nii.gz"
        write_volume(path, oblique_volume.data, oblique_volume.affine)
        header = nib.load(path).header
        assert header.get_xyzt_units()[0] == "mm"
        assert (int(header["sform_code"]), int(header["qform_code"])) == (1, 1)
        qform = Affine(header.get_qform())
        assert distance(qform, oblique_volume.affine) < 0.1
        assert read_volume(path).grid.same_as(oblique_volume.grid)

    @pytest.mark.parametrize("extension", FORMATS)
    @pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.int64, bool, np.float64])
    def test_stored_types(self, tmp_path, extension, dtype):
        path = tmp_path / f"labels{extension}"
        data = (np.arange(210).reshape(SHAPE) % 2).astype(dtype)
        write_volume(path, data, PLAIN)
        stored = sitk.GetArrayFromImage(sitk.ReadImage(str(path))).dtype
        assert stored == {bool: np.uint8, np.float64: np.float32}.get(dtype, dtype)
        np.testing.assert_array_equal(read_volume(path).data, data)

    @pytest.mark.parametrize("extension", FORMATS)
    def test_equal_images_give_equal_bytes(self, tmp_path, extension):
        first, second = tmp_path / f"a{extension}", tmp_path / f"b{extension}"
        write_volume(first, DATA, PLAIN)
        write_volume(second, DATA, PLAIN)
        assert first.read_bytes() == second.read_bytes()
        if extension == ".nii.gz":
            assert first.read_bytes()[3:8] == bytes(5)  # no name, no time

    def test_real_scans(self, data_folder):
        path = data_folder / "pairs" / "mslong01_s1" / "T1w.nii.gz"
        volume, image = read_volume(path), nib.load(path)
        np.testing.assert_array_equal(volume.affine.matrix, image.affine)
        np.testing.assert_array_equal(volume.data, image.get_fdata(dtype=np.float32))
        assert describe(volume) == "LPS, 0.72 x 0.72 x 3.00 mm, 320 x 320 x 39"
        assert (volume.slice_axis, volume.name, volume.notes) == (2, "T1w", ())
        assert volume.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


class TestWriting:
    def test_a_full_disk_leaves_what_was_there(self, tmp_path):
        """In a process of its own that may write 64 kB a file, which stands for a full disk."""
        script = (
            "import resource, sys, numpy as np\n"
            "from pathlib import Path\n"
            "from nexusinr.errors import InputError\n"
            "from nexusinr.geometry import Affine\n"
            "from nexusinr.volume import write_volume\n"
            "data = np.random.default_rng(0).random((40, 40, 40), dtype=np.float32)\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))\n"
            "for name in sys.argv[2:]:\n"
            "    try:\n"
            "        write_volume(Path(sys.argv[1]) / name, data, Affine(np.eye(4)))\n"
            "    except InputError as error:\n"
            "        print(error)\n"
        )
        names = [f"scan{extension}" for extension in FORMATS]
        (tmp_path / names[0]).write_bytes(b"before")
        result = subprocess.run(
            [sys.executable, "-c", script, tmp_path, *names],
            capture_output=True,
            text=True,
            check=True,
        )
        lines = result.stdout.splitlines()
        assert len(lines) == len(names)
        for line, name in zip(lines, names, strict=True):
            assert line.startswith(f"{name}: it cannot be written (")
            assert line.endswith("the free space on the disk")
        assert [p.name for p in tmp_path.iterdir()] == [names[0]]
        assert (tmp_path / names[0]).read_bytes() == b"before"

    def test_a_target_that_is_a_folder(self, tmp_path):
        (tmp_path / "scan.nii").mkdir()
        with pytest.raises(InputError, match=r"^scan\.nii: it cannot .*\(Is a directory\)"):
            write_volume(tmp_path / "scan.nii", DATA, PLAIN)
        assert [p.name for p in tmp_path.iterdir()] == ["scan.nii"]

    def test_a_folder_that_is_missing(self, tmp_path):
        with pytest.raises(InputError, match=r"^scan\.nii: the folder '.*none' does not exist"):
            write_volume(tmp_path / "none" / "scan.nii", DATA, PLAIN)

    def test_a_folder_that_takes_no_files(self):
        with pytest.raises(InputError, match=r"^scan\.nii: it cannot be written \("):
            write_volume("/proc/scan.nii", DATA, PLAIN)

    def test_a_format_that_is_not_written(self, tmp_path):
        with pytest.raises(InputError, match=r"^scan\.png: images are written as \.nii"):
            write_volume(tmp_path / "scan.png", DATA, PLAIN)

    @pytest.mark.parametrize("data", [DATA[0], DATA[None], DATA.astype(complex)])
    def test_data_that_is_no_volume(self, tmp_path, data):
        with pytest.raises(ValueError, match="only real 3D images"):
            write_volume(tmp_path / "scan.nii", data, PLAIN)


class TestVolume:
    def test_thickness_is_the_spacing_unless_given(self, oblique_volume):
        plain = Volume(DATA, PLAIN)
        assert plain.thickness == pytest.approx((0.9, 0.8, 4))
        assert oblique_volume.thickness == (0.9, 0.8, 3)

    @pytest.mark.parametrize("thickness", [(1, 1, 0), (1, -1, 1), (1, 1, np.nan), (1, 1), ()])
    def test_refuses_a_thickness_that_is_none(self, thickness):
        with pytest.raises(ValueError, match="three positive lengths"):
            Volume(DATA, PLAIN, thickness=thickness)

    def test_refuses_data_that_is_not_3d(self):
        with pytest.raises(ValueError, match="three axes, not 2"):
            Volume(DATA[0], PLAIN)

    def test_data_is_float32_and_the_grid_fits(self):
        volume = Volume(DATA.astype(np.float64), PLAIN)
        assert volume.data.dtype == np.float32
        assert volume.grid == Grid(SHAPE, PLAIN)

    @pytest.mark.parametrize(
        ("spacing", "thickness", "axis"),
        [
            ((1, 1, 4), None, 2),
            ((5, 0.5, 0.6), None, 0),
            ((1, 1, 1), None, None),
            ((0.859, 0.86, 0.861), None, None),
            ((1, 1, 1.2), None, 2),
            ((1, 1, 1.19), None, None),
            ((0.5, 0.5, 0.5), (0.5, 2, 0.5), 1),
            ((3, 3, 1), None, None),
        ],
    )
    def test_slice_axis(self, spacing, thickness, axis):
        volume = Volume(DATA, Affine.from_parts(spacing), thickness=thickness)
        assert volume.slice_axis == axis

    def test_replace_keeps_what_is_not_named(self, oblique_volume):
        moved = oblique_volume.affine.transformed(np.diag((-1, -1, 1, 1)))
        other = oblique_volume.replace(affine=moved, name="moved")
        assert (other.thickness, other.name) == ((0.9, 0.8, 3), "moved")
        assert other.data is oblique_volume.data
        assert oblique_volume.name == "oblique"
        finer = oblique_volume.grid.with_spacing(1)
        data = np.zeros(finer.shape)
        resampled = oblique_volume.replace(data=data, affine=finer.affine)
        assert resampled.thickness == pytest.approx((1, 1, 1))
        thick = oblique_volume.replace(data=data, affine=finer.affine, thickness=(1, 1, 2))
        assert thick.thickness == (1, 1, 2)

    def test_describe(self, oblique_volume):
        assert describe(Volume(DATA, PLAIN)) == "LPS, 0.90 x 0.80 x 4.00 mm, 7 x 6 x 5"
        line = "LPS, 0.90 x 0.80 x 4.00 mm, 20 x 18 x 10, slices 3.00 mm thick"
        assert describe(oblique_volume) == line
        assert repr(oblique_volume) == f"Volume({line})"
