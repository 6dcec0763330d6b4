"""The packages that the worker needs: what is missing, installed with consent only."""

from __future__ import annotations

import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import slicer
from slicer.i18n import tr as _

#: Versions of torch that the package is tested with.
TORCH = ">=2.4,<3"

#: What writes DICOM segmentations; not needed before something is exported.
DICOM = "highdicom>=0.28"

REQUESTER = "NexusINR"


class Dependencies:
    """Packages from a requirements file, and torch by the PyTorch extension.

    Args:
        requirements: the file; torch is not in it.
    """

    def __init__(self, requirements: str | Path) -> None:
        self._requirements = requirements

    def missing(self) -> list[str]:
        """Names of what is not installed; quick, and imports nothing of it."""
        from slicer.packaging import load_requirements, pip_check

        missing = [str(r) for r in load_requirements(self._requirements) if not pip_check(r)]
        return missing if _torch_version() else [*missing, f"torch{TORCH}"]

    def install(self) -> None:
        """Asks, then installs what is missing; returns when it is there.

        Raises RuntimeError where the user declines, where there is no PyTorch extension, and where
        the installation fails: one sentence with what to do.
        """
        from slicer.packaging import load_requirements, pip_ensure

        try:
            pip_ensure(load_requirements(self._requirements), requester=REQUESTER)
            if not _torch_version():
                _install_torch()
        except subprocess.CalledProcessError as error:
            raise RuntimeError(
                _(
                    "The Python packages could not be installed (pip ended with status {status}). "
                    "Check the network connection and press Apply again."
                ).format(status=error.returncode)
                + " "
                + self.offline()
            ) from error
        missing = self.missing()
        if missing:
            raise RuntimeError(
                _(
                    "Python packages are still missing: {names}. Press Apply again and accept."
                ).format(names=", ".join(missing))
                + " "
                + self.offline()
            )

    def ensure_dicom(self) -> None:
        """Asks, then installs what the export to DICOM needs; raises as `install`."""
        from slicer.packaging import pip_ensure

        try:
            pip_ensure([DICOM], requester=REQUESTER)
        except subprocess.CalledProcessError as error:
            raise RuntimeError(
                _("{package} could not be installed: check the network connection.").format(
                    package=DICOM
                )
            ) from error

    def offline(self) -> str:
        """How to install everything on a computer without a network, with wheels from another."""
        wanted = f'-r "{self._requirements}" "torch{TORCH}"'
        return _(
            "Without a network: on a computer with the same system and Python run “pip download "
            "-d wheels {wanted}”, bring the folder wheels here and run “PythonSlicer -m pip "
            "install --no-index --find-links wheels {wanted}”."
        ).format(wanted=wanted)

    def repair(self) -> None:
        """Asks, then installs torch anew; raises as `install`.

        Files that are in use cannot be replaced: nothing in Slicer may have imported torch.
        """
        question = _(
            "PyTorch will be removed from Slicer's Python and installed again. This downloads up "
            "to 3 GB and takes some minutes. Continue?"
        )
        if not slicer.util.confirmOkCancelDisplay(question, REQUESTER):
            raise RuntimeError(_("Nothing was changed: PyTorch is as it was."))
        try:
            _pytorch_utils().uninstallTorch()
        except subprocess.CalledProcessError as error:
            raise RuntimeError(
                _("PyTorch could not be removed. Restart Slicer and press Repair before Apply.")
            ) from error
        self.install()


def _torch_version() -> str | None:
    """From its metadata: torch itself must not be imported in Slicer's process."""
    try:
        return version("torch")
    except PackageNotFoundError:
        return None


def _pytorch_utils() -> object:
    try:
        from PyTorchUtils import PyTorchUtilsLogic
    except ModuleNotFoundError as error:
        raise RuntimeError(
            _(
                "The PyTorch extension is missing. Install it in the Extensions Manager, restart "
                "Slicer and try again."
            )
        ) from error
    return PyTorchUtilsLogic()


def _install_torch() -> None:
    installed = _pytorch_utils().installTorch(askConfirmation=True, torchVersionRequirement=TORCH)
    if installed is None:
        raise RuntimeError(_("PyTorch was not installed. Press Apply again and accept."))
