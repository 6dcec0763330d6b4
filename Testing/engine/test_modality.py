"""Telling T1w from T2w: by name, by image, and knowing when not to tell."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexusinr.modality import guess
from nexusinr.training import phantom
from nexusinr.volume import read_volume


@pytest.mark.parametrize(
    "name",
    [
        "sub-01_ses-1_T1w.nii.gz", "IXI002-Guys-0828-T1.nii.gz", "BraTS-GLI-00000-000-t1n.nii.gz",
        "BraTS19_2013_2_1_t1ce.nii.gz", "t1_mprage_sag_p2_iso", "AX T1 POST GD", "Sag T1 TSE",
        "study1_T1W", "SagT1w", "3D MPRAGE", "IR-FSPGR", "Sag BRAVO", "T1W_3D_TFE",
    ],
)  # fmt: skip
def test_names_of_t1w_scans(name):
    assert guess(name) == "T1w"


@pytest.mark.parametrize(
    "name",
    [
        "sub-01_T2w.nii.gz", "IXI002-Guys-0828-T2.nii.gz", "BraTS-GLI-00000-000-t2w.nii.gz",
        "t2_tse_tra_512", "T2W_TSE", "AxT2", "Ax FSE", "T2 SPACE sag", "t2.HASTE.cor",
    ],
)  # fmt: skip
def test_names_of_t2w_scans(name):
    assert guess(name) == "T2w"


@pytest.mark.parametrize(
    "name",
    [
        "sub-01_FLAIR.nii.gz", "BraTS-GLI-00000-000-t2f.nii.gz", "Ax T2 FLAIR", "t2_tirm_tra",
        "T2*_gre", "T2 star", "t2star", "sub-01_T2starw_swi", "ep2d_dwi_ADC", "T1map",
        "sub-01_T1w_seg", "localizer T1", "PD_TSE", "t2_dark-fluid",
    ],
)  # fmt: skip
def test_names_of_neither_outweigh_the_image(name, phantoms):
    assert guess(name) is None
    assert guess(name, phantoms["T2w"]) is None


@pytest.mark.parametrize("name", ["", "scan.nii.gz", "patient1", "LT1000", "cat12", "AT2", "T22"])
def test_names_that_say_nothing(name):
    assert guess(name) is None


@given(st.text(max_size=40))
def test_any_name_gets_an_answer(name):
    assert guess(name) in ("T1w", "T2w", None)


@given(st.sampled_from(("T1w", "T2w")), st.text("abcxyz", max_size=8), st.sampled_from("_-. /"))
def test_words_around_do_not_matter(kind, other, separator):
    for name in (f"{kind}{separator}{other}", f"{other}{separator}{kind.lower()}.nii.gz"):
        assert guess(name) == kind


@pytest.fixture(scope="module")
def phantoms() -> dict[str, np.ndarray]:
    """Brains of 3 mm."""
    images, _ = phantom.Phantom(head=False).images(
        phantom.default_grid(3.0), ("T1w", "T2w", "PD"), noise=0.01
    )
    return dict(zip(("T1w", "T2w", "PD"), (image.data for image in images), strict=True))


@pytest.mark.parametrize("step", [(1, 1, 1), (1, 2, 1), (3, 1, 1)])
def test_images_without_a_telling_name(phantoms, step):
    cut = tuple(slice(None, None, n) for n in step)
    for kind in ("T1w", "T2w"):
        assert guess("scan.nii.gz", phantoms[kind][cut]) == kind
        assert guess("T1_on_T2", phantoms[kind][cut].transpose(2, 0, 1)[:, ::-1]) == kind


def test_the_name_comes_first(phantoms):
    assert guess("T2w", phantoms["T1w"]) == "T2w"


def test_images_that_are_unclear(phantoms):
    noise = np.random.default_rng(0).normal(500, 20, (30, 30, 30)).astype(np.float32)
    for image in (phantoms["PD"], noise, phantoms["T2w"] - 1000):
        assert guess("scan", image) is None
    with pytest.raises(ValueError, match="empty"):
        guess("scan", np.zeros((9, 9, 9), np.float32))


def test_real_scans_are_never_taken_for_the_other(data_folder):
    files = sorted(data_folder.glob("pairs/*/T[12]w.nii.gz"))
    files += sorted(data_folder.glob("singles/*.nii.gz"))
    files = files[::3]  # of either kind, adults and infants
    assert files
    said = {file: guess("scan", read_volume(file).data) for file in files}
    wrong = [str(f) for f, kind in said.items() if kind is not None and kind not in f.name]
    assert not wrong
    assert sum(kind is None for kind in said.values()) <= 0.1 * len(said)


def test_names_need_neither_scipy_nor_torch():
    code = (
        "import sys; from nexusinr.modality import guess; assert guess('T1w') == 'T1w';"
        "assert not {'scipy', 'torch', 'SimpleITK'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
