"""A user's own folders, BIDS and BraTS, trained on from a YAML file through the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from nexusinr.training import phantom
from nexusinr.training.loading import load
from nexusinr.volume import Volume, write_volume

MODELS = {
    "NexusINR": "{features: 4, growth: 4, blocks: 1, layers: 1, decoder_width: 8, "
    "decoder_depth: 1, attention_width: 4, frequencies: 1}",
    "ICONet": "{features: 4, blocks: 1, reach: 1}",
}


@pytest.fixture(scope="module")
def heads() -> list[tuple[Volume, Volume]]:
    """Two phantoms of 6 mm voxels."""
    return [phantom.pair(spacing=6.0, seed=seed)[:2] for seed in range(2)]


def write(path: Path, volume: Volume) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_volume(path, volume.data, volume.affine)


def bids(root: Path, heads: list[tuple[Volume, Volume]]) -> Path:
    """One person with two sessions, one without."""
    for (t1w, t2w), name in zip(
        (*heads, heads[0]), ("sub-01/ses-1", "sub-01/ses-2", "sub-02"), strict=True
    ):
        stem = root / name / "anat" / name.replace("/", "_")
        write(Path(f"{stem}_T1w.nii.gz"), t1w)
        write(Path(f"{stem}_T2w.nii.gz"), t2w)
        write(Path(f"{stem}_dseg.nii.gz"), t1w)
    return root


def brats(root: Path, heads: list[tuple[Volume, Volume]]) -> Path:
    """Names of both years."""
    for (t1w, t2w), name, (first, second) in zip(
        heads, ("case_1", "case-2"), (("_t1", "_t2"), ("-t1n", "-t2w")), strict=True
    ):
        write(root / name / f"{name}{first}.nii.gz", t1w)
        write(root / name / f"{name}{second}.nii.gz", t2w)
        write(root / name / f"{name}_seg.nii.gz", t1w)
    return root


class TestReading:
    def test_bids(self, heads, tmp_path):
        data = load(bids(tmp_path, heads))
        assert [s.name for s in data.subjects] == ["sub-01_ses-1", "sub-01_ses-2", "sub-02"]
        assert all(s.contrasts == (True, True) and s.sharp == (0, 1, 2) for s in data.subjects)
        rest = load(tmp_path, leave_out=("sub-01",))
        assert [s.name for s in rest.subjects] == ["sub-02"]

    def test_brats(self, heads, tmp_path):
        data = load(brats(tmp_path, heads))
        assert sorted(s.name for s in data.subjects) == ["case-2", "case_1"]
        assert all(s.contrasts == (True, True) for s in data.subjects)

    def test_who_trains_may_be_said(self, heads, tmp_path):
        bids(tmp_path, heads)
        (tmp_path / "split.csv").write_text("subject,split\nsub-01,train\nsub-02,test\n")
        assert [s.name for s in load(tmp_path).subjects] == ["sub-01_ses-1", "sub-01_ses-2"]

    def test_where_scans_are_sharp_may_be_said(self, heads, tmp_path):
        bids(tmp_path, heads)
        table = tmp_path / "split.csv"
        table.write_text("subject,split,sharp\nsub-01,train,RS\nsub-02,train,\n")
        found = {s.name: s.sharp for s in load(tmp_path).subjects}
        assert found == {
            "sub-01_ses-1": (0, 2), "sub-01_ses-2": (0, 2), "sub-02": (0, 1, 2),
        }  # fmt: skip
        table.write_text("subject,split,sharp\nsub-01,train,xy\n")
        with pytest.raises(ValueError, match=r"sub-01 is sharp along 'xy'; name axes of R, A, S"):
            load(tmp_path)
        table.write_bytes(b"subject,split\nsub-\xe9,train\n")
        with pytest.raises(ValueError, match=r"split\.csv cannot be read .* CSV in UTF-8"):
            load(tmp_path)
        table.write_text("name,split\nsub-01,train\n")
        with pytest.raises(ValueError, match="needs the columns subject and split"):
            load(tmp_path)

    def test_axes_are_in_one_order_however_they_were_acquired(self, heads, tmp_path):
        """A sagittal T2w scan of the same head gives the same patches."""
        plain = load(bids(tmp_path / "plain", heads)).subjects[0]
        file = bids(tmp_path / "turned", heads) / "sub-01/ses-1/anat/sub-01_ses-1_T2w.nii.gz"
        image = nib.load(file)
        ways = nib.orientations.axcodes2ornt("PSR")
        turn = nib.orientations.ornt_transform(nib.io_orientation(image.affine), ways)
        image.as_reoriented(turn).to_filename(file)
        turned = load(tmp_path / "turned").subjects[0]
        assert torch.equal(turned.images[1], plain.images[1])
        assert turned.grids[1].same_as(plain.grids[1])
        assert turned.contrasts == (True, True)

    def test_an_oblique_t2w_scan_is_left_out(self, heads, tmp_path):
        t1w, t2w = heads[0]
        _, oblique = phantom.acquire(t1w, t2w, 6.0, 6.0, angle=10)
        write(tmp_path / "sub-1/anat/sub-1_T1w.nii.gz", t1w)
        write(tmp_path / "sub-1/anat/sub-1_T2w.nii.gz", oblique)
        assert load(tmp_path).subjects[0].contrasts == (True, False)

    def test_sharp_axes_follow_from_the_header(self, heads, tmp_path):
        t1w, _ = heads[0]
        write(tmp_path / "sub-ms1/anat/sub-ms1_T1w.nii.gz", t1w)
        thick = phantom.acquire(*heads[0], 12.0, 6.0)[0]
        write(tmp_path / "sub-2/anat/sub-2_T1w.nii.gz", thick)
        found = {s.name: s.sharp for s in load(tmp_path).subjects}
        assert found == {"sub-ms1": (0, 1, 2), "sub-2": (0, 1)}

    def test_folders_and_files_that_cannot_be_used(self, tmp_path):
        (tmp_path / "photos").mkdir()
        with pytest.raises(ValueError, match=r"nor sub-\*/anat/ \(BIDS\), nor"):
            load(tmp_path)
        with pytest.raises(ValueError, match="no such folder"):
            load(tmp_path / "nowhere")
        anat = tmp_path / "sub-1" / "anat"
        anat.mkdir(parents=True)
        file = anat / "sub-1_T1w.nii.gz"
        file.write_bytes(b"no image")
        with pytest.raises(ValueError, match=r"sub-1_T1w\.nii\.gz: it cannot be read as NIfTI"):
            load(tmp_path)
        nib.Nifti1Image(np.zeros((4, 4, 4)), np.eye(4)).to_filename(file)
        with pytest.raises(ValueError, match="no voxel is positive"):
            load(tmp_path)
        nib.Nifti1Image(np.ones((4, 4, 4, 2)), np.eye(4)).to_filename(file)
        with pytest.raises(ValueError, match="three dimensions, not 4"):
            load(tmp_path)


@pytest.mark.parametrize(
    ("architecture", "layout", "patch", "validation"),
    [("NexusINR", bids, 8, "sub-02"), ("ICONet", brats, 16, "case_1")],
)
def test_trained_from_a_file_through_the_command_line(
    architecture: str,
    layout: Callable[[Path, list[tuple[Volume, Volume]]], Path],
    patch: int,
    validation: str,
    heads: list[tuple[Volume, Volume]],
    tmp_path: Path,
    command: Callable[..., tuple[int, str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("NEXUSINR_HOME", str(tmp_path / "home"))
    for task in ("nexus_task", "iconet_task"):
        monkeypatch.setattr(f"nexusinr.training.{task}.VALIDATION_SIZE", 16)
    out, packed, config = tmp_path / "run", tmp_path / "data.safetensors", tmp_path / "mine.yaml"
    text = (
        f"architecture: {architecture}\ndata: {layout(tmp_path / 'data', heads)}\nout: {out}\n"
        f"model: {MODELS[architecture]}\npatch: {patch}\nvalidation: [{validation}]\n"
        "device: cpu\nsteps: 2\nvalidate_every: 2\nbatch: 2\n"
    )
    config.write_text(text)
    status, printed, err = command("train", config)
    assert (status, err) == (0, "")
    assert "validation gain_t1w" in printed
    card = json.loads((out / "mine.json").read_text())
    assert (card["architecture"], card["version"]) == (architecture, "2 steps")
    assert command("models", "import", out / "mine.safetensors")[0] == 0
    assert command("train", config, "--pack", packed)[0] == 0
    config.write_text(text.replace(str(tmp_path / "data"), str(packed)).replace("ps: 2", "ps: 3"))
    status, printed, err = command("train", config, "--resume")
    assert (status, err) == (0, "")
    assert "resumed with other values than before: steps (2, now 3)" in printed
    assert json.loads((out / "mine.json").read_text())["version"] == "3 steps"
