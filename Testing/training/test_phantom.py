"""The procedural head: reproducible, independent of the lattice, and plausible."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation

from nexusinr.geometry import Affine, Grid
from nexusinr.labels import CSF, DEEP_GREY, GREY, LESION, WHITE
from nexusinr.training.anatomy.parts import Part
from nexusinr.training.phantom import (
    FULL_SCALE,
    TISSUE_TABLE,
    Modality,
    Phantom,
    acquire,
    default_grid,
    pair,
    signal_table,
)

SEED = 0


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return Phantom(SEED)


@pytest.fixture(scope="module")
def parts(phantom: Phantom) -> NDArray[np.uint8]:
    """Fine labels of the whole head, 2 mm."""
    return phantom.labels(default_grid(2.0))


def test_the_same_seed_gives_the_same_pair() -> None:
    first, second = (pair(spacing=2.0, shape=(20, 24, 16), seed=SEED) for _ in range(2))
    for a, b in zip(first[:2], second[:2], strict=True):
        assert np.array_equal(a.data, b.data)
        assert a.affine == b.affine
    assert np.array_equal(first[2], second[2])


def test_another_seed_gives_another_brain() -> None:
    grid = default_grid(3.0)
    first, second = (Phantom(seed).tissues(grid) for seed in (SEED, SEED + 1))
    both = (first > 0) & (second > 0)
    assert 0.45 < (first == second)[both].mean() < 0.9


@settings(max_examples=8, deadline=None)
@given(
    turn=st.tuples(*[st.floats(-40, 40)] * 3),
    spacing=st.tuples(*[st.floats(0.6, 4.0)] * 3),
    seed=st.integers(0, 100),
)
def test_a_point_has_one_label_on_every_lattice(
    phantom: Phantom,
    turn: tuple[float, float, float],
    spacing: tuple[float, float, float],
    seed: int,
) -> None:
    direction = Rotation.from_euler("xyz", turn, degrees=True).as_matrix()
    origin = np.random.default_rng(seed).uniform(-40, 20, 3)
    grid = Grid((13, 9, 11), Affine.from_parts(spacing, direction, origin))
    centres = grid.affine.apply(np.stack(np.indices(grid.shape), axis=-1))
    agree = phantom.labels(grid) == phantom.labels_at(centres)
    assert agree.mean() > 0.995  # a few lie on a boundary, within rounding


def test_a_crop_of_the_lattice_is_a_crop_of_the_image(phantom: Phantom) -> None:
    grid = default_grid(1.0, (24, 20, 16))
    whole = phantom.image(grid, "T2w", bias=0.1)
    part = phantom.image(grid.crop((5, 3, 4), (20, 15, 12)), "T2w", bias=0.1)
    assert np.abs(whole.data[5:20, 3:15, 4:12] - part.data).max() < 0.1 * FULL_SCALE
    assert np.abs(whole.data[5:20, 3:15, 4:12] - part.data).mean() < 0.01


def test_blocks_leave_no_seams(phantom: Phantom) -> None:
    grid = default_grid(2.0, (70, 8, 8))
    far = grid.crop((60, 0, 0), (70, 8, 8))
    assert np.array_equal(phantom.labels(grid)[60:], phantom.labels(far))


def test_volumes_are_those_of_an_adult(parts: NDArray[np.uint8]) -> None:
    millilitres = np.bincount(parts.ravel(), minlength=len(Part)) * 8 / 1000
    tissue = np.zeros(len(TISSUE_TABLE))
    for row in TISSUE_TABLE:
        tissue[row.tissue] += millilitres[row.part]
    assert 560 < tissue[GREY] + tissue[DEEP_GREY] < 800
    assert 400 < tissue[WHITE] < 600
    assert 150 < tissue[CSF] < 450
    assert 8 < millilitres[Part.VENTRICLE] < 60
    assert 20 < tissue[DEEP_GREY] < 45
    assert 90 < millilitres[Part.CEREBELLAR_CORTEX] + millilitres[Part.CEREBELLAR_WHITE] < 170


def test_the_head_has_all_its_parts(parts: NDArray[np.uint8]) -> None:
    expected = set(Part) - {Part.OEDEMA, Part.TUMOUR, Part.NECROSIS, Part.LESION}
    assert expected <= {Part(int(value)) for value in np.unique(parts)}


def test_the_cortex_is_a_folded_ribbon(phantom: Phantom) -> None:
    grid = default_grid(1.0, (132, 60, 60))
    labels = phantom.labels(grid)
    cortex = labels == Part.CORTEX
    # Twice the distance from the middle of a sheet to its surface is its thickness.
    inside = ndimage.distance_transform_edt(cortex)
    ridge = cortex & (inside == ndimage.maximum_filter(inside, 3))
    assert 2.0 < 2 * float(np.median(inside[ridge])) < 4.5
    # Fluid enters the hemispheres: much of it lies well below their smooth hull.
    brain = ndimage.binary_closing(np.isin(labels, [Part.CORTEX, Part.WHITE_MATTER]), iterations=5)
    depth = ndimage.distance_transform_edt(brain)
    assert ((labels == Part.FLUID) & (depth > 6)).sum() > 0.01 * cortex.sum()


def test_the_midline_separates_the_hemispheres(phantom: Phantom) -> None:
    points = np.array([(x, y, 50.0) for x in (-0.8, 0.0, 0.8) for y in range(-50, 30, 4)])
    among = {Part(int(value)) for value in phantom.labels_at(points)}
    assert among & {Part.FLUID, Part.DURA}
    assert Part.WHITE_MATTER not in among


@pytest.mark.parametrize(
    ("modality", "order"),
    [
        ("T1w", (Part.WHITE_MATTER, Part.CORTEX, Part.FLUID)),
        ("T2w", (Part.FLUID, Part.CORTEX, Part.WHITE_MATTER)),
        ("FLAIR", (Part.CORTEX, Part.WHITE_MATTER, Part.VENTRICLE)),
        ("PD", (Part.CORTEX, Part.WHITE_MATTER, Part.BONE)),
    ],
)
def test_contrast_order(phantom: Phantom, modality: Modality, order: tuple[Part, ...]) -> None:
    grid = default_grid(1.5, (112, 40, 20))
    image = phantom.image(grid, modality).data
    labels = phantom.labels(grid)
    means = [float(image[labels == part].mean()) for part in order]
    assert means[0] > 1.1 * means[1]
    assert means[1] > 1.1 * means[2]


def test_signals_follow_the_equation_of_the_sequence() -> None:
    table = {row.part: row for row in TISSUE_TABLE}
    signal = signal_table("T2w")

    def spin_echo(part: Part) -> float:
        row = table[part]
        return float(row.pd * (1 - np.exp(-4500 / row.t1)) * np.exp(-100 / row.t2))

    for part in (Part.CORTEX, Part.WHITE_MATTER, Part.FAT):
        expected = spin_echo(part) / spin_echo(Part.FLUID)
        assert signal[part] / signal[Part.FLUID] == pytest.approx(expected, rel=1e-5)
    assert len(table) == len(TISSUE_TABLE) == len(Part)


def test_a_voxel_is_the_mean_of_its_eight_parts(phantom: Phantom) -> None:
    fine = default_grid(1.0, (40, 40, 24))
    coarse = fine.with_spacing(2.0)
    pure = signal_table("T1w")[phantom.labels(fine)]
    expected = pure.reshape(20, 2, 20, 2, 12, 2).mean(axis=(1, 3, 5))
    image = phantom.image(coarse, "T1w", texture=0.0).data
    assert np.abs(image - expected).mean() < 0.05
    values = np.unique(signal_table("T1w"))
    between = np.abs(image[..., None] - values).min(-1) > 1
    assert 0.2 < between.mean() < 0.95


def _around_lesions(phantom: Phantom) -> list[Grid]:
    """A lattice of 0.5 mm around each lesion."""
    search = Grid.from_corner((80, 100, 46), (1.5,) * 3, np.eye(3), (-60, -90, -6))
    found, count = ndimage.label(phantom.tissues(search) == LESION, np.ones((3, 3, 3)))
    middles = ndimage.center_of_mass(found > 0, found, range(1, count + 1))
    centres = search.affine.apply(np.array(middles).reshape(-1, 3))
    size = (28, 28, 28)
    return [Grid.from_corner(size, (0.5,) * 3, np.eye(3), centre - 7) for centre in centres]


def test_lesions_measure_3_to_10_mm() -> None:
    grids = _around_lesions(Phantom(SEED, lesions=5))
    assert len(grids) == 5
    for grid in grids:
        lesion = Phantom(SEED, lesions=5).labels(grid) == Part.LESION
        voxels = np.argwhere(lesion) * 0.5
        across = np.linalg.norm(voxels[:, None] - voxels[None], axis=-1).max() + 0.5
        assert 3 <= across <= 10.5


def test_lesions_are_bright_on_t2w_and_dark_on_t1w() -> None:
    phantom = Phantom(SEED, lesions=5)
    for grid in _around_lesions(phantom):
        labels = phantom.labels(grid)
        (t1w, t2w), tissues = phantom.images(grid)
        lesion, white = labels == Part.LESION, labels == Part.WHITE_MATTER
        assert (tissues[lesion] == LESION).all()
        assert t2w.data[lesion].mean() > 1.4 * t2w.data[white].mean()
        assert t1w.data[lesion].mean() < 0.85 * t1w.data[white].mean()


def test_without_lesions_there_are_none() -> None:
    assert not _around_lesions(Phantom(SEED, lesions=0))


def test_a_tumour_has_core_rim_and_oedema() -> None:
    labels = Phantom(SEED, lesions=0, tumour=True).labels(default_grid(2.0, (70, 84, 64)))
    millilitres = np.bincount(labels.ravel(), minlength=len(Part)) * 8 / 1000
    assert 0.5 < millilitres[Part.NECROSIS] < millilitres[Part.TUMOUR] < 30
    assert millilitres[Part.OEDEMA] > 1


def test_without_a_head_only_the_inside_of_the_skull_is_left() -> None:
    grid = default_grid(3.0)
    whole, bare = Phantom(SEED).labels(grid), Phantom(SEED, head=False).labels(grid)
    outside = [Part.SKIN, Part.FAT, Part.MUSCLE, Part.BONE, Part.MARROW, Part.VITREOUS]
    assert not np.isin(bare, outside).any()
    assert np.isin(whole, outside).any()
    assert np.array_equal(whole[bare > 0], bare[bare > 0])


def test_texture_belongs_to_patient_space(phantom: Phantom) -> None:
    grid = default_grid(1.0, (24, 24, 24))
    shifted = grid.crop((4, 0, 2), (24, 24, 24))
    plain, textured = (phantom.image(grid, texture=t).data for t in (0.0, 1.0))
    inside = plain > 0
    relative = textured[inside] / plain[inside]
    assert 0.01 < relative.std() < 0.05
    again = phantom.image(shifted).data
    assert np.allclose(again, textured[4:, :, 2:], rtol=0.02, atol=1)


def test_noise_and_bias_have_the_given_size(phantom: Phantom) -> None:
    grid = default_grid(2.0, (32, 32, 32))
    plain = phantom.image(grid, "T2w", texture=0)
    noisy = phantom.image(grid, "T2w", texture=0, noise=0.02)
    bright = plain.data > 200
    assert (noisy.data - plain.data)[bright].std() == pytest.approx(0.02 * FULL_SCALE, rel=0.1)
    shaded = phantom.image(grid, "T2w", texture=0, bias=0.2)
    ratio = shaded.data[bright] / plain.data[bright]
    assert 0.6 < ratio.min() < ratio.max() < 1.4
    assert ratio.std() > 0.01


def test_the_pair_covers_the_whole_head() -> None:
    t1w, t2w, tissues = pair(spacing=4.0)
    assert t1w.data.shape == t2w.data.shape == tissues.shape == (45, 55, 48)
    assert t1w.grid.same_as(t2w.grid)
    assert t1w.data.min() >= 0
    assert t1w.data.max() <= FULL_SCALE
    for axis in (0, 1):  # nothing of the brain is cut off; at the front, back and sides no head
        assert tissues.take([0, -1], axis).max() == 0
        assert np.median(t1w.data.take([0, -1], axis)) < 0.03 * FULL_SCALE
    assert tissues[:, :, -1].max() == 0


def test_a_small_phantom_is_quick() -> None:
    pair(spacing=4.0, seed=SEED)
    start = time.process_time()
    pair(spacing=4.0, shape=(48, 48, 48), seed=SEED)
    assert time.process_time() - start < 3  # about half a second on an idle core


def test_acquire_gives_two_oblique_scans_of_thick_slices() -> None:
    t1w, t2w, _ = pair(spacing=2.0, shape=(64, 72, 56), seed=SEED, noise=0.0)
    axial, coronal = acquire(t1w, t2w, t1w_thickness=4.0, t2w_thickness=6.0)
    assert axial.slice_axis == 2
    assert coronal.slice_axis == 1
    assert axial.thickness[2] == 4.0
    assert coronal.thickness[1] == 6.0
    normal = coronal.affine.direction[:, 1]
    assert 3 < np.degrees(np.arccos(abs(normal @ t2w.affine.direction[:, 1]))) < 12
    middle = tuple(slice(n // 4, -(n // 4)) for n in coronal.data.shape)
    fine = tuple(slice(n // 4, -(n // 4)) for n in t2w.data.shape)
    assert coronal.data[middle].mean() == pytest.approx(t2w.data[fine].mean(), rel=0.15)
    assert axial.data.std() < t1w.data.std()


def test_bad_requests_are_refused(phantom: Phantom) -> None:
    grid = default_grid(4.0, (4, 4, 4))
    with pytest.raises(ValueError, match="unknown modality 'T9w'"):
        phantom.image(grid, "T9w")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="noise is not negative, unlike -1"):
        phantom.image(grid, noise=-1.0)
    with pytest.raises(ValueError, match=r"\(5, 2\)"):
        phantom.labels_at(np.zeros((5, 2)))
    with pytest.raises(ValueError, match="5000 lesions find no room"):
        Phantom(SEED, lesions=5000)
