"""Cohorts of DICOM series: results for a PACS, and no name of a patient anywhere else."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pydicom
import pytest

pytest.importorskip("highdicom", reason="highdicom is not installed: pip install 'nexusinr[dicom]'")

SERIES = Path(__file__).parents[1] / "engine" / "test_dicom_out.py"

#: What a scanner writes of a patient there.
PRIVATE = ("Doe", "Jane", "4711")


@pytest.fixture(scope="module")
def write_source():
    """Writes a series as a scanner does, full of names."""
    spec = importlib.util.spec_from_file_location("dicom_series", SERIES)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.write_source


def test_from_series_to_series(write_source, thick_pair, batch, helpers, tmp_path, cohort, caplog):
    write_source(tmp_path / "series", thick_pair[0])
    nifti = f"{cohort}/sub-01/anat/sub-01_T1w.nii.gz"
    table, out = tmp_path / "pairs.csv", tmp_path / "out"
    table.write_text(f"subject,session,t1w,t2w\na,1,series,\nb,,{nifti},\n")
    status, told, err = batch(table, out, "--dicom")
    assert (status, err) == (1, "")
    assert "sub-a_ses-1: done" in told
    assert "sub-b: failed: " in told

    made = out / "sub-a" / "ses-1" / "dicom"
    assert sorted(p.name for p in made.iterdir()) == ["segmentation", "t1w"]
    slices = sorted((made / "t1w").iterdir())
    assert len(slices) > 4
    assert str(pydicom.dcmread(slices[0]).PatientName) == "Doe^Jane"
    assert "not named as BIDS" not in told

    own = [p for p in out.rglob("*") if p.is_file() and made not in p.parents]
    assert any(p.suffix == ".json" for p in own)
    texts = [told, caplog.text, *(p.read_bytes().decode("latin-1") for p in own)]
    assert not [word for word in PRIVATE for text in texts if word in text]
