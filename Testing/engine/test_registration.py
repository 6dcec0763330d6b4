"""Rigid registration, on an analytic head that can be sampled on any lattice without error."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from nexusinr.geometry import Affine, Grid
from nexusinr.registration import (
    apply,
    disagreement,
    displacement,
    mutual_information,
    rigid,
)
from nexusinr.volume import Volume, read_volume

AXIAL = Grid.from_corner((72, 86, 40), (2.2, 2.2, 4.0), np.eye(3), (-79, -94, -80))


def rigid_matrix(degrees: tuple[float, float, float], shift: tuple[float, float, float]):
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()
    matrix[:3, 3] = shift
    return matrix


def head(grid: Grid, contrast: str, moved: np.ndarray | None = None) -> Volume:
    """An ellipsoid with folds inside, scanned after the head has moved by a rigid transform."""
    index = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), axis=-1)
    p = grid.affine.apply(index)
    if moved is not None:
        back = np.linalg.inv(moved)
        p = p @ back[:3, :3].T + back[:3, 3]
    x, y, z = np.moveaxis(p, -1, 0)
    inside = (x / 65) ** 2 + (y / 80) ** 2 + (z / 62) ** 2 < 1
    folds = np.sin(x / 7 + np.sin(z / 13)) + np.sin(y / 9 + 1) * np.cos(z / 8) + np.sin(x * y / 900)
    fluid = (x / 18) ** 2 + ((y - 5) / 30) ** 2 + ((z - 8) / 15) ** 2 < 1
    tissue = 1 / (1 + np.exp(-3 * folds))
    values = 200 + 150 * tissue if contrast == "T1w" else 420 - 170 * tissue
    values = np.where(fluid, 60 if contrast == "T1w" else 900, values)
    noise = np.random.default_rng(len(contrast) + grid.shape[0]).normal(0, 6, grid.shape)
    return Volume(np.abs(np.where(inside, values, 5) + noise), grid.affine)


def head_points() -> np.ndarray:
    points = np.random.default_rng(1).uniform(-60, 60, (500, 3))
    return points[np.linalg.norm(points, axis=1) < 60]


def error(found: np.ndarray, truth: np.ndarray) -> float:
    """Mean distance over the head of where two transforms put a point, mm."""
    return float(displacement(np.linalg.inv(truth) @ found, head_points()).mean())


def sagittal() -> Grid:
    """Another orientation than the fixed scan: thick slices along left-right, oblique by 10."""
    tilt = Rotation.from_euler("xyz", (10, 4, -6), degrees=True).as_matrix()
    step = tilt[:, [1, 2, 0]] * (1, -1, 1)
    spacing = np.array((2.0, 2.0, 4.5))
    return Grid.from_corner((84, 80, 36), spacing, step, -step @ (np.array((84, 80, 81)) * 1.0))


NEAR = rigid_matrix((2, -1.5, 1.7), (2.0, -1.5, 1.8))  # about 3 degrees and 3 mm
FAR = rigid_matrix((9, -6, 5), (15, -12, 10))  # about 12 degrees and 22 mm


@pytest.mark.parametrize(
    ("grid", "moved"),
    [(AXIAL, NEAR), (sagittal(), NEAR), (AXIAL, FAR)],
    ids=["parallel", "oblique", "far"],
)
def test_a_known_movement_is_found(grid, moved):
    result = rigid(head(AXIAL, "T1w"), head(grid, "T2w", moved))
    assert result.accepted
    assert result.reason == ""
    assert error(result.matrix, np.linalg.inv(moved)) < 0.5
    assert result.mi_after > result.mi_before
    angle = np.degrees(np.arccos((np.trace(moved[:3, :3]) - 1) / 2))
    assert result.rotation_deg == pytest.approx(angle, abs=0.5)
    expected = displacement(np.linalg.inv(moved), head_points())
    assert result.displacement_mean == pytest.approx(expected.mean(), abs=1)
    assert result.displacement_max == pytest.approx(expected.max(), abs=3)


def test_a_sheared_scan_is_registered_too():
    shear = np.array([[2.2, 0.15, 0, -80], [0, 2.2, 0.3, -97], [0, 0, 4, -78], [0, 0, 0, 1]])
    moved = rigid_matrix((0, 0, 2), (3, 0, 0))
    moving = head(Grid((74, 88, 40), Affine(shear)), "T2w", moved)
    result = rigid(head(AXIAL, "T1w"), moving)
    assert result.accepted
    assert error(result.matrix, np.linalg.inv(moved)) < 0.5


def test_scans_that_agree_are_left_as_they_are():
    fixed = head(AXIAL, "T1w")
    result = rigid(fixed, fixed)
    assert not result.accepted
    assert np.array_equal(result.matrix, np.eye(4))
    assert result.reason.startswith("mutual information")
    assert result.displacement_mean < 0.3
    assert disagreement(fixed, head(AXIAL, "T2w")) < 0.3


def test_an_initial_transform_is_refined():
    moved = rigid_matrix((0, 5, 0), (25, 0, 0))
    start = rigid_matrix((0, -4, 0), (-23, 0, 0))
    fixed, moving = head(AXIAL, "T1w"), head(AXIAL, "T2w", moved)
    result = rigid(fixed, moving, start)
    assert error(result.matrix, np.linalg.inv(moved)) < 0.5
    assert np.array_equal(result.matrix, rigid(fixed, moving, start).matrix)  # to the last digit


def test_what_no_patient_does_is_not_accepted():
    turned = rigid_matrix((0, 0, 40), (0, 0, 0))
    fixed, moving = head(AXIAL, "T1w"), head(AXIAL, "T2w", turned)
    result = rigid(fixed, moving, np.linalg.inv(rigid_matrix((0, 0, 39), (0, 0, 0))))
    assert not result.accepted
    assert "rotation of 40 degrees" in result.reason


def test_applying_moves_the_lattice_and_no_intensity():
    moved = rigid_matrix((0, 0, 3), (3, 0, 0))
    moving = head(AXIAL, "T2w", moved)
    result = rigid(head(AXIAL, "T1w"), moving)
    assert result.accepted
    there = apply(result, moving)
    assert there.data is moving.data
    assert np.allclose(there.affine.matrix, result.matrix @ moving.affine.matrix)
    assert there.thickness == moving.thickness


def test_scans_without_overlap_are_refused():
    away = AXIAL.affine.transformed(rigid_matrix((0, 0, 0), (400, 0, 0)))
    with pytest.raises(ValueError, match="do not overlap"):
        rigid(head(AXIAL, "T1w"), head(AXIAL, "T2w").replace(affine=away))


def test_an_initial_transform_that_scales_is_refused():
    with pytest.raises(ValueError, match="not rigid"):
        rigid(head(AXIAL, "T1w"), head(AXIAL, "T2w"), np.diag((1.1, 1, 1, 1)))


def test_mutual_information_of_known_cases():
    random = np.random.default_rng(0)
    x = random.uniform(size=200_000)
    assert mutual_information(x, 1 - x) == pytest.approx(np.log(32), abs=0.02)
    assert mutual_information(x, random.uniform(size=x.size)) < 0.01
    assert mutual_information(x, np.zeros_like(x)) == pytest.approx(0, abs=1e-9)


def test_a_real_pair_whose_headers_disagree(data_folder):
    subject = "mslong03"
    with (data_folder / "alignment.csv").open(newline="") as stream:
        row = next(r for r in csv.DictReader(stream) if r["subject"] == subject)
    truth = np.eye(4)
    truth[:3] = [[float(row[f"m{i}{j}"]) for j in range(4)] for i in range(3)]
    t1w, t2w = (
        read_volume(data_folder / "pairs" / subject / f"{m}.nii.gz") for m in ("T1w", "T2w")
    )
    result = rigid(t1w, t2w)
    assert result.accepted
    assert result.displacement_mean == pytest.approx(float(row["disp_mean_mm"]), abs=0.7)
    assert error(result.matrix, truth) < 1.0


@pytest.mark.parametrize("slices", [1, 2, 3])
def test_a_few_slices_stay_where_their_headers_put_them(slices):
    """Any turn takes so few of them apart: nothing is found, and nothing fails."""
    grid = AXIAL.crop((0, 0, 20), (*AXIAL.shape[:2], 20 + slices))
    found = rigid(head(grid, "T1w"), head(grid, "T2w"))
    assert np.array_equal(found.matrix, np.eye(4))
    assert not found.accepted
    assert found.reason
