"""The picture of a run, read back: what is where, and how large."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.image import imread
from scipy.spatial.transform import Rotation

from nexusinr.geometry import Affine
from nexusinr.inference import comparison
from nexusinr.inference.comparison import PLANES, draw_comparison
from nexusinr.volume import Volume

HALF = np.array([30.0, 40.0, 25.0])  # half axes of the "head", mm: R-L, A-P, S-I
TURN = Rotation.from_euler("xyz", (10, -8, 12), degrees=True).as_matrix()


def head(affine: Affine, shape: tuple[int, int, int]) -> Volume:
    """A grey ellipsoid around the origin, white to the right, front and top, with a dark spot."""
    points = affine.apply(np.stack(np.indices(shape), axis=-1))
    data = np.where(((points / HALF) ** 2).sum(axis=-1) < 1, 300.0, 0.0)
    data[np.linalg.norm(points + HALF / 2, axis=-1) < 8] = 50
    bright = ((points / HALF > 0.05) | (np.abs(points) < 4)).all(axis=-1)
    return Volume(np.where(bright, data * 2.5, data).astype(np.float32), affine)


def scan(direction: np.ndarray) -> Volume:
    spacing, shape = np.array([1.5, 1.5, 4.0]), (60, 70, 21)
    middle = direction @ (spacing * (np.array(shape) - 1) / 2)
    return head(Affine.from_parts(spacing, direction, -middle), shape)


def fine() -> Volume:
    return head(Affine.from_parts((1, 1, 1), origin=(-40, -50, -35)), (81, 101, 71))


def panels(path, acquired: dict[str, Volume], restored: dict[str, Volume]):
    """The images of the picture by block, row and column, and the view that they show."""
    picture = imread(path)[..., :3].mean(axis=-1)
    heads = {name: volume.data > 0 for name, volume in acquired.items()}
    view = comparison._view(acquired, heads, next(iter(restored.values())).grid)
    layout = comparison._Picture(view, len(acquired))
    found = {}
    for block in range(len(acquired)):
        for row in range(3):
            for column, plane in enumerate(PLANES):
                width, height = view.size(plane.axes[0]), view.size(plane.axes[1])
                left = layout._left(block, column)
                top = layout._top(row) + (layout.height - height) // 2
                found[block, row, column] = picture[top : top + height, left : left + width]
    return found, view


LATTICES = {
    "straight": np.eye(3),
    "flipped": np.diag((-1.0, -1.0, 1.0)),
    "sagittal": np.eye(3)[:, [1, 2, 0]],
    "oblique": TURN,
}


@pytest.mark.parametrize("name", LATTICES)
def test_right_is_left_and_millimetres_are_equal(name, tmp_path):
    acquired, restored = {"T1w": scan(LATTICES[name])}, {"T1w": fine()}
    draw_comparison(acquired, restored, tmp_path / "a.png")
    found, view = panels(tmp_path / "a.png", acquired, restored)
    for (_, row, column), image in found.items():
        image = image.copy()
        for edge in (np.s_[:18], np.s_[-18:], np.s_[:, :18], np.s_[:, -18:]):
            image[edge] = 0  # the letters
        across, down, _ = PLANES[column].axes
        rows, columns = np.nonzero(image > 0.9)
        # The patient's right and front are on the left, the front and top are up.
        assert columns.mean() < image.shape[1] / 2 - 0.15 * HALF[across] / view.pixel
        assert rows.mean() < image.shape[0] / 2 - 0.15 * HALF[down] / view.pixel
        if row == 2:
            rows, columns = np.nonzero(image > 0.15)
            for indices, axis in ((columns, across), (rows, down)):
                size = (np.ptp(indices) + 1) * view.pixel
                assert size == pytest.approx(2 * HALF[axis], abs=5)


def test_thick_slices_are_seen_as_they_are(tmp_path):
    acquired, restored = {"T1w": scan(np.eye(3))}, {"T1w": fine()}
    draw_comparison(acquired, restored, tmp_path / "a.png")
    found, view = panels(tmp_path / "a.png", acquired, restored)
    sagittal = found[0, 0, 1]
    column = sagittal[20:-20, sagittal.shape[1] // 2]
    steps = np.flatnonzero(np.abs(np.diff(column)) > 0.05)
    slices = 4.0 / view.pixel
    assert np.all(np.diff(steps) > 0.8 * slices)


def test_two_modalities_stand_side_by_side(tmp_path):
    acquired = {"T1w": scan(np.eye(3)), "T2w": scan(TURN)}
    restored = {"T1w": fine(), "T2w": fine()}
    draw_comparison(acquired, restored, tmp_path / "a.png")
    found, _ = panels(tmp_path / "a.png", acquired, restored)
    assert len(found) == 18
    assert all(image.max() > 0.9 for image in found.values())
    assert imread(tmp_path / "a.png").shape[1] > comparison.WIDTH[2]


def test_the_same_picture_gives_the_same_bytes(tmp_path):
    acquired, restored = {"T1w": scan(np.eye(3))}, {"T1w": fine()}
    for name in ("a.png", "b.png"):
        draw_comparison(acquired, restored, tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_of_a_region_the_region_is_shown(tmp_path):
    acquired = {"T1w": scan(TURN)}
    region = fine()
    part = region.replace(
        data=region.data[30:60, 40:80, 25:50],
        affine=region.grid.crop((30, 40, 25), (60, 80, 50)).affine,
    )
    draw_comparison(acquired, {"T1w": part}, tmp_path / "a.png")
    heads = {"T1w": acquired["T1w"].data > 0}
    view = comparison._view(acquired, heads, part.grid)
    assert view.high - view.low == pytest.approx([30, 40, 25])


def test_a_region_without_the_other_scan_is_black_there(tmp_path):
    away = scan(np.eye(3))
    matrix = away.affine.matrix.copy()
    matrix[2, 3] += 60
    acquired = {"T1w": scan(np.eye(3)), "T2w": away.replace(affine=Affine(matrix))}
    draw_comparison(acquired, {"T1w": fine(), "T2w": fine()}, tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 1000
