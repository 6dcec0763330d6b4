"""The table and the picture of models of several sizes."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest

from nexusinr.models.nexus_inr import NexusINR, NexusINRConfig

SCRIPT = Path(__file__).parents[1] / "Benchmarks" / "size_curve.py"


@pytest.fixture(scope="module")
def script() -> dict:
    return runpy.run_path(str(SCRIPT))


def test_multiply_adds_are_those_of_the_convolutions(script):
    """One dense block of one layer, two encoders: counted by hand."""
    config = NexusINRConfig(features=4, growth=2, blocks=1, layers=1)
    convolutions = 27 * (4 + 16 + 4 * 2 + 16)
    mixing = (4 + 2) * 4 + 4 * 4
    network = NexusINR(config)
    voxels = script["EDGE"] ** 3
    conditioning = 6 * 32 + 32 * 8
    expected = 2 * (convolutions + mixing + conditioning / voxels)
    assert script["multiply_adds"](network) == pytest.approx(expected)


def test_rows_in_the_order_of_size(script, tmp_path, monkeypatch, capsys):
    for name, features in (("large", 8), ("small", 4)):
        folder = tmp_path / name
        folder.mkdir()
        config = NexusINRConfig(features=features, growth=4, blocks=1, layers=1)
        gains = {"gain_t1w": features / 10, "gain_t2w": -0.25}
        training = {"steps": 400, "validation_gain_over_trilinear_db": gains}
        card = {"config": config.to_dict(), "training": training}
        (folder / f"{name}.json").write_text(json.dumps(card))
    picture = tmp_path / "curve.png"
    options = [str(tmp_path / name) for name in ("large", "small")]
    monkeypatch.setattr(sys, "argv", ["size_curve.py", *options, "--out", str(picture)])
    script["main"]()
    rows = capsys.readouterr().out.splitlines()[2:]
    assert [row.split("`")[1] for row in rows] == ["small", "large"]
    assert [row.split(" | ")[-1] for row in rows] == ["+0.40 / -0.25 |", "+0.80 / -0.25 |"]
    assert picture.read_bytes().startswith(b"\x89PNG")
