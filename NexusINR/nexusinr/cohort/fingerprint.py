"""The content of the scans of a session, as one digest."""

from __future__ import annotations

import hashlib
from pathlib import Path

from nexusinr.cohort.pair import Pair
from nexusinr.errors import InputError
from nexusinr.models.weights import sha256


def fingerprint(pair: Pair) -> str:
    """SHA-256 over every file of the scans, hexadecimal. Neither names nor times count.

    Raises InputError for a file that is not there or cannot be read.
    """
    digest = hashlib.sha256()
    for modality, scan in pair.scans.items():
        digest.update(f"{modality} {_digest(scan.path)}\n".encode())
    return digest.hexdigest()


def _digest(path: Path) -> str:
    try:
        if not path.is_dir():
            return sha256(path)
        files = sorted(sha256(file) for file in path.rglob("*") if file.is_file())
    except OSError as error:
        reason = "there is no such file or folder" if not path.exists() else error.strerror
        raise InputError(f"{path.name}: it cannot be read ({reason}); check the path") from error
    return hashlib.sha256("".join(files).encode()).hexdigest()
