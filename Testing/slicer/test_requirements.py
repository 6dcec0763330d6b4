"""The module asks Slicer for the versions that the package itself asks for."""

from __future__ import annotations

from importlib.metadata import requires
from pathlib import Path

from packaging.requirements import Requirement

FILE = Path(__file__).parents[2] / "NexusINR" / "Resources" / "requirements.txt"


def asked_for(extra: str = "") -> dict[str, Requirement]:
    """What the package needs by name; with an extra, what that adds."""
    found = [Requirement(line) for line in requires("nexusinr")]
    if extra:
        added = [need for need in found if need.marker and need.marker.evaluate({"extra": extra})]
        return {need.name: need for need in added}
    return {need.name: need for need in found if need.marker is None}


def test_the_worker_gets_what_the_package_needs(module):
    from slicer.packaging import load_requirements

    needs = asked_for()
    for line in load_requirements(FILE):
        assert line.specifier == needs[line.name].specifier, line.name


def test_pytorch_is_the_one_that_the_package_needs(module):
    from NexusINRLib.dependencies import TORCH

    assert Requirement(f"torch{TORCH}").specifier == asked_for()["torch"].specifier


def test_the_export_gets_what_the_extra_dicom_has(module):
    from NexusINRLib.dependencies import DICOM

    needs = {name: need.specifier for name, need in asked_for("dicom").items()}
    wanted = Requirement(DICOM)
    assert needs == {wanted.name: wanted.specifier}
