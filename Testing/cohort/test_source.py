"""Which sessions are found in a BIDS data set, a BraTS folder and a table, and the plan."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

from nexusinr.cohort import records
from nexusinr.cohort.choice import Candidate, choose
from nexusinr.cohort.cost import Pace, costs
from nexusinr.cohort.folder import Folder
from nexusinr.cohort.pair import Pair, Scan
from nexusinr.cohort.settings import Settings
from nexusinr.cohort.source import find, select
from nexusinr.errors import InputError
from nexusinr.geometry import Affine
from nexusinr.inference.request import estimate, read_scans, target
from nexusinr.inference.session import Session
from nexusinr.volume import Volume, read_outline, write_volume


def touch(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def stems(pair) -> tuple[str | None, str | None]:
    return tuple(None if s is None else s.stem for s in (pair.t1w, pair.t2w))


@pytest.fixture
def tree(tmp_path) -> Path:
    """Sessions, runs, parts, contrast agent, reconstructions; and files that do not count."""
    return touch(
        tmp_path / "bids",
        "sub-01/ses-1/anat/sub-01_ses-1_acq-mprage_run-1_T1w.nii.gz",
        "sub-01/ses-1/anat/sub-01_ses-1_acq-mprage_run-2_T1w.nii.gz",
        "sub-01/ses-1/anat/sub-01_ses-1_acq-mprage_ce-gd_T1w.nii.gz",
        "sub-01/ses-1/anat/sub-01_ses-1_acq-cor_T2w.nii.gz",
        "sub-01/ses-1/anat/sub-01_ses-1_acq-mprage_run-1_T2w.nii",
        "sub-01/ses-2/anat/sub-01_ses-2_rec-norm_T1w.nii.gz",
        "sub-01/ses-2/anat/sub-01_ses-2_T1w.nii.gz",
        "sub-01/ses-3/anat/sub-01_ses-3_part-mag_T2w.nii.gz",
        "sub-01/ses-3/anat/sub-01_ses-3_part-phase_T2w.nii.gz",
        "sub-01/ses-4/func/sub-01_ses-4_task-rest_bold.nii.gz",
        "sub-02/anat/sub-02_T2w.nii.gz",
        "sub-02/anat/sub-02_FLAIR.nii.gz",
        "sub-02/anat/notes_T1w.nii.gz",
        "sub-03/anat/sub-03_FLAIR.nii.gz",
        "derivatives/nexusinr/sub-02/anat/sub-02_desc-nexusinr_T1w.nii.gz",
        "out/sub-02/anat/sub-02_res-1mm_desc-nexusinr_T1w.nii.gz",
    )


def test_sessions_of_a_bids_data_set(tree):
    source = find(tree)
    assert (source.kind, source.root) == ("BIDS", tree.resolve())
    found = {pair.label: stems(pair) for pair in source.pairs}
    assert found == {
        "sub-01_ses-1": (
            "sub-01_ses-1_acq-mprage_run-1",
            "sub-01_ses-1_acq-mprage_run-1",
        ),
        "sub-01_ses-2": ("sub-01_ses-2", None),
        "sub-01_ses-3": (None, "sub-01_ses-3_part-mag"),
        "sub-02": (None, "sub-02"),
        "sub-03": (None, None),
    }
    assert source.pairs[0].folder == "sub-01/ses-1/anat"
    assert source.pairs[0].t2w.path.is_absolute()


def test_ambiguities_are_named(tree):
    notes = {pair.label: pair.notes for pair in find(tree).pairs}
    assert notes["sub-01_ses-1"] == (
        "3 T1w scans: took acq-mprage_run-1, not acq-mprage_run-2, acq-mprage_ce-gd",
        "2 T2w scans: took acq-mprage_run-1, not acq-cor",
    )
    assert notes["sub-01_ses-2"] == ("2 T1w scans: took sub-01_ses-2_T1w.nii.gz, not rec-norm",)
    assert notes["sub-01_ses-3"] == notes["sub-02"] == ()


def test_a_phase_image_alone_is_no_scan():
    phase = Candidate(Path("sub-1_part-phase_T1w.nii"), {"part": "phase"})
    taken, _, notes = choose([phase], [])
    assert (taken, notes) == (None, ("no T1w scan is a magnitude image: it is left out",))


def test_participants_and_sessions(tree):
    pairs = find(tree).pairs
    assert [p.label for p in select(pairs, ["sub-02,03"], [])] == ["sub-02", "sub-03"]
    assert [p.label for p in select(pairs, ["01"], ["ses-2", "3"])] == [
        "sub-01_ses-2",
        "sub-01_ses-3",
    ]
    with pytest.raises(InputError, match="no participant 04, x: there are 01, 02, 03"):
        select(pairs, ["x", "04"], [])
    with pytest.raises(InputError, match="no session 7"):
        select(pairs, [], ["7"])
    with pytest.raises(InputError, match="none of these participants"):
        select(pairs, ["02"], ["1"])


def test_a_brats_folder(tmp_path):
    touch(
        tmp_path,
        "BraTS20_007/BraTS20_007_t1.nii.gz",
        "BraTS20_007/BraTS20_007_t2.nii.gz",
        "BraTS20_007/BraTS20_007_t1ce.nii.gz",
        "BraTS-GLI-1-000/BraTS-GLI-1-000-t1n.nii",
        "empty/readme.txt",
    )
    source = find(tmp_path)
    assert source.kind == "BraTS"
    assert {p.label: list(p.scans) for p in source.pairs} == {
        "sub-BraTSGLI1000": ["T1w"],
        "sub-BraTS20007": ["T1w", "T2w"],
    }
    touch(tmp_path, "BraTS_20007/BraTS_20007_t1.nii.gz")
    with pytest.raises(InputError, match=r"BraTS20_007 and BraTS_20007 would both be written as"):
        find(tmp_path)


def test_a_table_of_pairs(tmp_path):
    table = tmp_path / "pairs.csv"
    table.write_text(
        "﻿t1w,session,subject,t2w\na/b.nii.gz,,sub-7,/c/d.mha\n,ses-2,p_7,series\n", "utf-8"
    )
    source = find(table)
    first, second = source.pairs
    assert (source.kind, source.root) == ("table", tmp_path.resolve())
    assert (first.label, second.label) == ("sub-7", "sub-p7_ses-2")
    assert first.t1w.path == tmp_path.resolve() / "a/b.nii.gz"
    assert first.t2w.path == Path("/c/d.mha")
    assert (second.t1w, second.t2w.stem) == (None, "sub-p7_ses-2")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("subject,t1w\n1,a.nii\n", "does not name the columns session, t2w"),
        ("subject,session,t1w,t2w\n1,,,\n", "line 2 names neither"),
        ("subject,session,t1w,t2w\n1,,a.nii,\n_,,a.nii,\n", "line 3: '_' holds no letter"),
        ("subject,session,t1w,t2w\n1,,a,\n1,,b,\n", "line 2 of pairs.csv and line 3 of pairs.csv"),
        ("subject,session,t1w,t2w\n", "no T1w or T2w scan was found"),
        (b"subject,session,t1w,t2w\n\xff,,a,\n", "cannot be read as a CSV table"),
    ],
)
def test_tables_that_cannot_be_used(text, problem, tmp_path):
    table = tmp_path / "pairs.csv"
    table.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=problem):
        find(table)


def test_what_is_no_cohort(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        find(tmp_path / "nowhere")
    with pytest.raises(InputError, match="no T1w or T2w scan was found"):
        find(tmp_path)


# --- the plan ---------------------------------------------------------------------------------


def test_the_plan_names_sessions_choices_and_cost(cohort, command, tmp_path):
    extra = tmp_path / "bids"
    touch(extra, "sub-03/anat/sub-03_FLAIR.nii.gz", "sub-02/anat/sub-02_T1w.nii.gz")
    for modality in ("T1w", "T2w"):
        for run in (1, 2):
            file = extra / f"sub-01/anat/sub-01_run-{run}_{modality}.nii.gz"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.symlink_to(cohort / f"sub-01/anat/sub-01_{modality}.nii.gz")
    out = tmp_path / "out"
    status, told, err = command("batch", extra, out, "--dry-run", "--workers", 2, "--spacing", 4)
    assert (status, err, out.exists()) == (0, "", False)
    lines = told.splitlines()
    assert lines[0] == (
        "BIDS: 3 subjects, 3 sessions (1 with T1w and T2w, 1 with T1w alone, 1 without either)"
    )
    assert lines[1] == (
        "sub-01: sub-01/anat/sub-01_run-1_T1w.nii.gz + sub-01/anat/sub-01_run-1_T2w.nii.gz -> "
        "13 x 15 x 12 voxels of 4 x 4 x 4 mm"
    )
    assert lines[2:4] == [
        "    2 T1w scans: took run-1, not run-2",
        "    2 T2w scans: took run-1, not run-2",
    ]
    assert lines[4] == (
        "sub-02: sub-02/anat/sub-02_T1w.nii.gz -> sub-02_T1w.nii.gz: the file is empty (0 bytes); "
        "copy or export it again"
    )
    assert lines[5] == "sub-03: no scan -> there is neither a T1w nor a T2w scan of it"
    assert "memory of a worker: " in lines[6]
    assert "on 2 workers" in lines[7]
    assert "measured on" in lines[7]
    assert lines[8] == "2 sessions cannot be restored"


def write_series(folder: Path, scan: Volume, thickness: float) -> None:
    """A DICOM series of headers alone."""
    folder.mkdir()
    direction, spacing = scan.affine.direction * [[-1], [-1], [1]], scan.affine.spacing
    for k in range(scan.grid.shape[2]):
        header = Dataset()
        header.file_meta = FileMetaDataset()
        header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        header.SOPClassUID, header.SOPInstanceUID = MRImageStorage, generate_uid()
        header.SeriesInstanceUID, header.Modality = "1.2.3", "MR"
        header.Columns, header.Rows, _ = scan.grid.shape
        header.PixelSpacing = spacing[[1, 0]].tolist()
        header.ImageOrientationPatient = direction[:, :2].T.ravel().round(9).tolist()
        header.ImagePositionPatient = (scan.affine.apply((0, 0, k)) * (-1, -1, 1)).tolist()
        header.SliceThickness = thickness
        header.save_as(folder / f"{k}.dcm", enforce_file_format=True)


@pytest.fixture
def scans(thick_pair, tmp_path) -> dict[str, tuple[Path, Path]]:
    """Pairs of a T1w scan and an oblique T2w scan as files of every kind."""
    t1w, t2w = thick_pair
    sheared = t1w.affine.matrix.copy()
    sheared[:3, 2] += 0.2 * sheared[:3, 1]
    found = {}
    for name, affine in (("upright.nii.gz", t1w.affine), ("tilted.nii", Affine(sheared))):
        found[name] = tmp_path / f"t1w-{name}", tmp_path / f"t2w-{name}"
        write_volume(found[name][0], t1w.data, affine)
        write_volume(found[name][1], t2w.data, t2w.affine)
    for name in ("t.nrrd", "t.mha"):
        found[name] = tmp_path / f"t1w-{name}", tmp_path / f"t2w-{name}"
        for path, scan in zip(found[name], thick_pair, strict=True):
            write_volume(path, scan.data, scan.affine)
    odd = tmp_path / "metres.nii.gz"
    image = nib.Nifti2Image(t2w.data[..., None], np.diag((1e-3, 1e-3, 1e-3, 1)) @ t2w.affine.matrix)
    image.header.set_xyzt_units("meter")
    image.to_filename(odd)
    return {**found, "metres": (found["t.mha"][0], odd)}


@pytest.mark.parametrize("kind", ["upright.nii.gz", "tilted.nii", "t.nrrd", "t.mha", "metres"])
def test_the_plan_is_what_a_run_takes(kind, scans, tiny_model):
    """Lattice and memory, by headers alone, are those that a run finds once it has read them."""
    t1w, t2w = scans[kind]
    for given in ({"T1w": t1w, "T2w": t2w}, {"T1w": t1w}, {"T2w": t2w}):
        t1, t2 = (Scan(given[m], "s") if m in given else None for m in ("T1w", "T2w"))
        for spacing in (None, (1.5,), (6.0, 5.0, 4.0)):
            (cost,) = costs([Pair("1", "", t1, t2)], Settings(tiny_model, "", spacing))
            read = read_scans(*(given.get(m) for m in ("T1w", "T2w")))
            lattice = target(read, spacing, None, None).work
            needed = estimate(read, lattice, Session(tiny_model, "cpu"))
            assert (cost.memory, cost.oblique) == (needed.memory, needed.oblique)
            assert cost.grid.shape == lattice.shape
            assert cost.grid.affine == lattice.affine


def test_the_plan_knows_the_thickness_of_dicom_slices(thick_pair, tmp_path):
    for thickness in (3.0, 9.0):
        write_series(tmp_path / f"{thickness}", thick_pair[1], thickness)
        outline = read_outline(tmp_path / f"{thickness}")
        assert outline.grid.same_as(thick_pair[1].grid)
        assert outline.thickness[2] == thickness


def test_the_plan_of_a_cohort_is_what_its_run_made(cohort, undisturbed, tiny_model):
    settings = Settings(tiny_model, "", (4.0,), register="none")
    for pair, cost in zip(pairs := find(cohort).pairs, costs(pairs, settings), strict=True):
        made = records.read(Folder(undisturbed), pair.label).report["lattice"]
        assert list(cost.grid.shape) == made["shape"]
        np.testing.assert_allclose(cost.grid.affine.matrix, made["affine"], atol=1e-5)
        assert cost.oblique > 2 * cost.grid.voxels  # the T2w scan is


def test_oblique_scans_take_time_and_memory(thick_pair, tiny_model, tmp_path):
    t1w, t2w = thick_pair
    found = []
    for affine in (Affine.from_parts(t2w.affine.spacing, origin=t2w.affine.origin), t2w.affine):
        paths = tmp_path / "t1w.nii.gz", tmp_path / "t2w.nii.gz"
        write_volume(paths[0], t1w.data, t1w.affine)
        write_volume(paths[1], t2w.data, affine)
        pair = Pair("1", "", *(Scan(path, "s") for path in paths))
        found += costs([pair], Settings(tiny_model, "", (1.0,)))
    parallel, oblique = found
    assert (parallel.grid.shape, parallel.oblique) == (oblique.grid.shape, 0)
    pace = Pace(1e-6, "")
    assert parallel.seconds(pace) == pytest.approx(1e-6 * parallel.grid.voxels)
    assert oblique.seconds(pace) > 2 * parallel.seconds(pace)
    assert oblique.memory - parallel.memory > 50 * parallel.grid.voxels


def test_the_plan_of_some_sessions(tree, command, tmp_path):
    chosen = ("--participant-label", "sub-01", "--session-label", "2,ses-3")
    status, told, err = command("batch", tree, tmp_path / "out", "--dry-run", *chosen)
    assert (status, err) == (0, "")
    heading, *lines = told.splitlines()
    assert heading == "BIDS: 1 subject, 2 sessions (1 with T1w alone, 1 with T2w alone)"
    labels = [line.partition(": ")[0] for line in lines if line.startswith("sub-")]
    assert labels == ["sub-01_ses-2", "sub-01_ses-3"]
    assert lines[-1] == "2 sessions cannot be restored"  # their files are empty


def test_a_finished_cohort_costs_nothing_more(cohort, undisturbed, tiny_model, command):
    fixed = ("--dry-run", "--spacing", 4, "--model", tiny_model)
    status, told, _ = command("batch", cohort, undisturbed, *fixed)
    assert status == 0
    assert told.count("(done)") == 3
    assert "3 are done with this model already" in told
    assert "Time" not in told
