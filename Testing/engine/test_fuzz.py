"""A few damaged inputs for every reader; Testing/Benchmarks/fuzz.py runs many, with limits."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("aiohttp", reason="uploads need the extra web: pip install 'nexusinr[web]'")

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "Benchmarks"))

from fuzz_cases import READERS, Broken, Reader, outcome
from fuzz_seeds import images, series

from nexusinr.errors import InputError


@pytest.mark.parametrize("name", READERS)
@settings(max_examples=40)
@given(seed=st.integers(0, 2**32 - 1))
def test_damage_is_refused_in_one_sentence_or_does_no_harm(name, seed):
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setenv("NEXUSINR_HOME", folder)
        damaged = READERS[name].make(Random(seed), Path(folder))
        assert outcome(READERS[name], damaged, Path(folder)) in ("read", "refused")


@pytest.mark.parametrize("kind", ["nifti", "nrrd", "metaimage"])
def test_undamaged_images_are_read(kind, tmp_path):
    """Otherwise nothing but the first check of a reader would ever be reached."""
    for number, files in enumerate(images()[kind]):
        folder = tmp_path / str(number)
        folder.mkdir()
        for name, content in files.items():
            (folder / name).write_bytes(content)
        READERS["NIfTI"].read(folder / next(iter(files)))


def test_undamaged_series_are_read_unless_deflated(tmp_path):
    refused = []
    for number, files in enumerate(series()):
        folder = tmp_path / str(number)
        folder.mkdir()
        for name, content in files.items():
            (folder / name).write_bytes(content)
        try:
            READERS["DICOM"].read(folder)
        except InputError:
            refused.append(number)
    assert refused == [2]


def broken(what: str, folder: Path) -> None:
    """A reader that does not keep its promise."""
    match what:
        case "writes":
            (folder.parent / "beside").write_text("x")
        case "rambles":
            raise InputError("x" * 5000)
        case "tells":
            raise InputError("the scan of Janette cannot be read; try another")
        case "crashes":
            raise KeyError(what)


@pytest.mark.parametrize(
    ("what", "error"),
    [("writes", Broken), ("rambles", Broken), ("tells", Broken), ("crashes", KeyError)],
)
def test_a_broken_promise_is_noticed(what, error, tmp_path):
    folder = tmp_path / "case"
    folder.mkdir()
    reader = Reader(lambda random, folder: folder, lambda folder: broken(what, folder))
    with pytest.raises(error):
        outcome(reader, folder, folder)
