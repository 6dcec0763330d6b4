"""What tests of several rooms share."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from nexusinr.geometry import Affine
from nexusinr.volume import Volume, write_volume

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


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> Iterator[str]:
    """The name of small random weights, in the user's folder of models for as long as tests run."""
    import torch

    from nexusinr.models import weights
    from nexusinr.models.nexus_inr import NexusINR, NexusINRConfig

    torch.manual_seed(0)
    config = NexusINRConfig(features=8, growth=8, blocks=1, layers=2, decoder_width=32)
    network = NexusINR(config)
    for decoder in network.decoder:  # a fresh one predicts nothing: what it reads would not matter
        torch.nn.init.normal_(decoder.head.weight, std=0.03)
    card = {"name": "tiny", "architecture": "NexusINR", "version": "0", "config": config.to_dict()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEXUSINR_HOME", str(tmp_path_factory.mktemp("home")))
        weights.save(network, weights.user_folder(), card)
        yield "tiny"


def head_at(points: np.ndarray, contrast: int) -> np.ndarray:
    """Intensities (...) of a smooth, skull-stripped "head" at points (..., 3), mm.

    An ellipsoid with half axes of 20, 24 and 18 mm around the origin; contrast 0 or 1.
    """
    x, y, z = np.moveaxis(np.asarray(points), -1, 0)
    depth = 1 - (x / 20) ** 2 - (y / 24) ** 2 - (z / 18) ** 2
    waves = np.sin(x / 3) * np.cos(y / 4) + np.sin(z / 3 + x / 7)
    value = 400 + (120, -90)[contrast] * waves + (60, 100)[contrast] * np.cos(y / 3)
    return np.where(depth > 0, value, 0).astype(np.float32)


def scan_of_head(affine: Affine, shape: tuple[int, int, int], contrast: int) -> Volume:
    """The head at the voxel centres of a lattice."""
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    return Volume(head_at(affine.apply(index), contrast), affine)


@pytest.fixture(scope="session")
def thick_pair() -> tuple[Volume, Volume]:
    """A T1w scan with axial slices, 2 x 2 x 4 mm, and an oblique coronal T2w scan, 2 x 5 x 2 mm."""
    turned = Rotation.from_euler("xz", (6, 6), degrees=True).as_matrix()
    t1w = Affine.from_parts((2, 2, 4), origin=(-25, -29, -22))
    t2w = Affine.from_parts((2, 5, 2), turned, turned @ (-26, -30, -23))
    return scan_of_head(t1w, (26, 30, 12), 0), scan_of_head(t2w, (27, 13, 24), 1)


@pytest.fixture(scope="session")
def thick_files(thick_pair, tmp_path_factory) -> tuple[Path, Path]:
    """The same as two files."""
    folder = tmp_path_factory.mktemp("thick")
    paths = folder / "t1w.nii.gz", folder / "t2w.nii.gz"
    for path, scan in zip(paths, thick_pair, strict=True):
        write_volume(path, scan.data, scan.affine)
    return paths


@pytest.fixture
def command(capfd) -> Callable[..., tuple[int, str, str]]:
    """Runs a command line in this process: exit status, stdout, stderr."""
    from nexusinr.cli import main

    def run(*arguments: object) -> tuple[int, str, str]:
        capfd.readouterr()
        status = main([str(argument) for argument in arguments])
        return status, *capfd.readouterr()

    return run


@pytest.fixture
def stand_in_gpu(monkeypatch) -> Iterator[Any]:
    """A torch device, ``meta``, that stands for a GPU where there is none: shapes, but no numbers.

    What comes back to the CPU is one everywhere. While the test runs, every operation is refused
    that a GPU would refuse: tensors of two devices or, in products, of two precisions; and values
    that the CPU would have to wait for.
    """
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    moves = ("_to_copy", "copy_", "index", "index_put_", "_has_compatible_shallow_copy_type")
    products = ("mm", "convolution", "_embedding_bag", "linear")

    class Strict(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            name = func.name().removeprefix("aten::").split(".")[0]
            tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
            devices = {t.device.type for t in tensors if t.dim() or t.is_meta}
            assert len(devices) < 2 or name in moves, f"{name} of tensors on {devices}"
            precisions = {t.dtype for t in tensors if t.is_floating_point()}
            product = name.removeprefix("add").removeprefix("badd").removeprefix("b") in products
            assert len(precisions) < 2 or not product, f"{name} of {precisions}"
            return func(*args, **(kwargs or {}))

    device = torch.device("meta")
    numbers, autocast = torch.Tensor.cpu, torch.autocast
    monkeypatch.setattr(
        torch.Tensor,
        "cpu",
        lambda self: torch.ones_like(self, device="cpu") if self.is_meta else numbers(self),
    )
    monkeypatch.setattr(
        torch,
        "autocast",
        lambda kind, *a, **k: nullcontext() if kind == "meta" else autocast(kind, *a, **k),
    )
    with Strict():
        yield device
