"""What tests of several rooms share."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from nexusinr.geometry import Affine
from nexusinr.volume import Volume

# The same examples on every machine and at every run; nothing is written into the working folder.
settings.register_profile(
    "nexusinr", deadline=None, derandomize=True, database=None, max_examples=30
)
settings.load_profile("nexusinr")


@st.composite
def affines(draw: st.DrawFn) -> Affine:
    """Oblique, permuted, flipped and anisotropic lattices, with small and large angles."""
    angle = draw(st.sampled_from((0.0, 1e-7, 1e-3, 0.02, 0.4, 3.0)))
    turn = np.array([draw(st.floats(-1, 1)) for _ in range(3)])
    direction = Rotation.from_rotvec(angle * turn).as_matrix()
    direction = direction[:, draw(st.permutations(range(3)))]
    direction = direction * [draw(st.sampled_from((-1, 1))) for _ in range(3)]
    spacing = [draw(st.floats(0.3, 8)) for _ in range(3)]
    origin = [draw(st.floats(-250, 250)) for _ in range(3)]
    return Affine.from_parts(spacing, direction, origin)


st.register_type_strategy(Affine, affines())


@pytest.fixture
def oblique_volume() -> Volume:
    """A small scan of random intensities: oblique, 0.9 x 0.8 x 4 mm, slices 3 mm thick."""
    direction = Rotation.from_euler("xyz", (10, -20, 5), degrees=True).as_matrix()
    affine = Affine.from_parts((0.9, 0.8, 4.0), direction * (-1, -1, 1), (30.0, -20.0, 10.0))
    data = np.random.default_rng(0).gamma(2, 100, (20, 18, 10)).astype(np.float32)
    return Volume(data, affine, thickness=(0.9, 0.8, 3.0), name="oblique")


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of real scans; tests that need it are skipped where there is none."""
    folder = os.environ.get("NEXUSINR_DATA")
    if not folder:
        pytest.skip("the environment variable NEXUSINR_DATA does not name a folder of real scans")
    if not Path(folder).is_dir():
        pytest.skip(f"NEXUSINR_DATA is {folder!r}, which is not a folder")
    return Path(folder)
