"""The PyTorch extension: it is asked, and installs nothing."""

# ruff: noqa: N802 (names of Slicer and Qt)

from __future__ import annotations

import importlib.metadata
from typing import Any

import slicer


class PyTorchUtilsLogic:
    """Installs torch where the user agrees."""

    @staticmethod
    def torchInstalled() -> bool:
        try:
            importlib.metadata.version("torch")
        except importlib.metadata.PackageNotFoundError:
            return False
        return True

    def installTorch(
        self,
        askConfirmation: bool = False,
        forceComputationBackend: str | None = None,
        torchVersionRequirement: str | None = None,
        torchvisionVersionRequirement: str | None = None,
    ) -> Any:
        """The module torch, or None where the user declines."""
        if askConfirmation and not slicer.util.confirmOkCancelDisplay(
            "PyTorch will be downloaded and installed using light-the-torch (ltt install torch)."
        ):
            return None
        raise AssertionError("a test would have installed torch")

    def uninstallTorch(
        self,
        askConfirmation: bool = False,
        forceComputationBackend: str | None = None,
    ) -> None:
        raise AssertionError("a test would have removed torch")
