"""The output folder: files appear whole and together, or not at all."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar

from nexusinr.errors import InputError


class OutputFolder:
    """Collects files in a hidden folder inside the output folder; `publish` moves them out.

    Used as a context manager. Whatever is not published is removed, and so is an output folder
    that was made for nothing.

    Raises InputError on entering where the folder cannot be made or written, and on leaving where
    a file in it could not be written.
    """

    _entered: ClassVar[set[OutputFolder]] = set()

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._made: list[Path] = []
        self._hidden: Path | None = None

    @classmethod
    def discard_all(cls) -> None:
        """Removes what every folder still in use has collected: the process is about to end."""
        for folder in list(cls._entered):
            folder._discard()

    def __enter__(self) -> OutputFolder:
        self._entered.add(self)
        try:
            for folder in reversed((self.path, *self.path.parents)):
                if not folder.exists():
                    folder.mkdir()
                    self._made.append(folder)
            self._hidden = Path(tempfile.mkdtemp(prefix=".nexusinr-", dir=self.path))
        except OSError as error:
            self._discard()
            raise InputError(self._refusal(error)) from error
        return self

    def file(self, name: str) -> Path:
        """Where to write a file, or a folder of files, until it is published."""
        assert self._hidden is not None
        return self._hidden / name

    def write_json(self, name: str, values: dict[str, Any]) -> None:
        """Writes plain values as JSON."""
        self.file(name).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")

    def publish(self, instead_of: Iterable[str] = ()) -> dict[str, Path]:
        """Moves every file, and every folder as a whole, to its place; where each is, by name.

        Args:
            instead_of: names that an earlier run may have left and that are to go, so that the
                files in the folder are of one run.
        """
        assert self._hidden is not None
        files = sorted(self._hidden.iterdir())
        for name in set(instead_of) - {file.name for file in files}:
            self._take_away(name)
        for file in files:
            if file.is_dir():  # which cannot replace another one
                self._take_away(file.name)
            os.replace(file, self.path / file.name)
        return {file.name: self.path / file.name for file in files}

    def _take_away(self, name: str) -> None:
        """Moves what has that name to what is removed in the end."""
        assert self._hidden is not None
        if os.path.lexists(self.path / name):
            os.replace(self.path / name, self._hidden / f"old {name}")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._discard()
        if isinstance(error, OSError):
            raise InputError(self._refusal(error)) from error

    def _discard(self) -> None:
        self._entered.discard(self)
        if self._hidden is not None:
            shutil.rmtree(self._hidden, ignore_errors=True)
        for folder in reversed(self._made):
            try:
                folder.rmdir()
            except OSError:  # it holds the results
                return

    def _refusal(self, error: OSError) -> str:
        why = (error.strerror or str(error)).lower()
        return f"{self.path}: cannot write there ({why}); choose another output folder"
