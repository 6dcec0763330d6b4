"""What is installed, and installing it. Nothing is ever installed here: who asks is told no."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import Any

import slicer
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def load_requirements(path: str | Path) -> list[Requirement]:
    """The lines of a requirements file."""
    lines = [line.strip() for line in Path(path).read_text().splitlines()]
    return [Requirement(line) for line in lines if line and line[0] not in "#-"]


def pip_check(req: str | Requirement | list[str | Requirement]) -> bool:
    """Whether all of it is installed."""
    given = req.split() if isinstance(req, str) else [req] if isinstance(req, Requirement) else req
    wanted = [r if isinstance(r, Requirement) else Requirement(r) for r in given]
    return all(map(_is_there, wanted))


def pip_ensure(
    requirements: str | Requirement | list[str | Requirement],
    constraints: str | Path | None = None,
    skip_packages: list[str] | None = None,
    prompt_install: bool = True,
    prompt_restart: bool = True,
    requester: str | None = None,
    skip_in_testing: bool = True,
    show_progress: bool = True,
) -> list[str] | None:
    """Asks, and installs what is missing. Raises RuntimeError where the user declines."""
    given = requirements if isinstance(requirements, list) else [requirements]
    missing = [str(r) for r in given if not pip_check(r)]
    if not missing or (skip_in_testing and slicer.app.testingEnabled()):
        return None
    if prompt_install and not slicer.util.confirmOkCancelDisplay(
        f"{len(missing)} Python packages need to be installed.\n\nThis will modify Slicer's Python "
        "environment. Continue?",
        f"{requester} - Install Python Packages",
        detailedText="\n".join(missing),
    ):
        raise RuntimeError("User declined package installation")
    pip_install(missing, constraints=constraints)
    return None


def pip_install(requirements: str | list[str], **options: Any) -> None:
    """Is not to be reached in a test."""
    raise AssertionError(f"a test would have installed {requirements} ({options})")


def _is_there(requirement: Requirement) -> bool:
    if requirement.marker is not None and not requirement.marker.evaluate():
        return True
    try:
        found = importlib.metadata.version(canonicalize_name(requirement.name))
    except importlib.metadata.PackageNotFoundError:
        return False
    return requirement.specifier.contains(found, prereleases=True)
