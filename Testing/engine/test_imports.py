"""What importing costs: the light parts of the package never pull in the heavy libraries."""

from __future__ import annotations

import subprocess
import sys

import pytest

import nexusinr

#: What `nexusinr --help` has no time for.
HEAVY = ("SimpleITK", "matplotlib", "monai", "nibabel", "numpy", "pydicom", "scipy", "torch")


def packages_loaded_by(module: str) -> set[str]:
    """Top-level names of all that a fresh interpreter has loaded after importing the module."""
    code = f"import sys, {module}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "module",
    [
        "nexusinr.volume",
        "nexusinr.registration",
        "nexusinr.acquisition",
        "nexusinr.intensity",
    ],
)
def test_scans_and_physics_load_no_torch(module: str) -> None:
    assert "torch" not in packages_loaded_by(module)


@pytest.mark.parametrize("module", ["nexusinr", "nexusinr.cli", "nexusinr.errors"])
def test_the_front_door_loads_nothing_heavy(module: str) -> None:
    assert packages_loaded_by(module).isdisjoint(HEAVY)


@pytest.mark.parametrize("module", ["nexusinr.geometry", "nexusinr.labels"])
def test_lattices_and_labels_need_numpy_only(module: str) -> None:
    beyond = packages_loaded_by(module) - packages_loaded_by("numpy") - sys.stdlib_module_names
    assert beyond == {"nexusinr"}


def test_the_check_sees_torch_where_it_is_loaded() -> None:
    assert "torch" in packages_loaded_by("nexusinr.models.encoders")


@pytest.mark.parametrize("name", nexusinr.__all__)
def test_every_public_name_leads_somewhere(name: str) -> None:
    assert name in dir(nexusinr)
    assert getattr(nexusinr, name) is not None


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'upsmaple'"):
        _ = nexusinr.upsmaple
