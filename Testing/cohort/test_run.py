"""Whole cohorts on two workers: results, what is done again and what is not, options."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch

from nexusinr.cli.batch import _Told
from nexusinr.cohort.cluster import Where, connected, read_slurm, sized, slurm_threads
from nexusinr.cohort.folder import opened
from nexusinr.cohort.settings import Means
from nexusinr.cohort.subject import Outcome
from nexusinr.errors import InputError
from nexusinr.models import weights
from nexusinr.models.nexus_inr import NexusINR, NexusINRConfig


def test_results_are_those_of_upsample(undisturbed, cohort, helpers, tiny_model, command, tmp_path):
    anat = cohort / "sub-01" / "anat"
    status, _, err = command(
        "upsample", "--t1w", anat / "sub-01_T1w.nii.gz", "--t2w", anat / "sub-01_T2w.nii.gz",
        "--out", tmp_path, "--model", tiny_model, *helpers.FIXED,
    )  # fmt: skip
    assert (status, err) == (0, "")
    made = undisturbed / "sub-01" / "anat"
    for ours, theirs in (
        ("sub-01_res-4mm_desc-nexusinr_T1w.nii.gz", "t1w_sr.nii.gz"),
        ("sub-01_space-T1w_res-4mm_desc-nexusinr_T2w.nii.gz", "t2w_sr.nii.gz"),
        ("sub-01_space-T1w_res-4mm_desc-nexusinr_dseg.nii.gz", "segmentation.nii.gz"),
    ):
        assert (made / ours).read_bytes() == (tmp_path / theirs).read_bytes()
    figure = undisturbed / "sub-01/figures/sub-01_desc-comparison_T1w.png"
    assert figure.read_bytes() == (tmp_path / "comparison.png").read_bytes()


def test_nothing_is_left_in_the_way(undisturbed):
    assert sorted(p.name for p in undisturbed.iterdir()) == [
        ".bidsignore", ".nexusinr", "dataset_description.json", "failures.csv", "report.html",
        "sub-01", "sub-02", "sub-03",
    ]  # fmt: skip
    assert not list((undisturbed / ".nexusinr").glob("run-*"))
    assert (undisturbed / "failures.csv").read_text() == "subject,session,code,reason\n"


def test_only_what_has_changed_is_done_again(
    undisturbed, cohort, helpers, batch, tiny_model, tmp_path, thick_pair
):
    source, out = tmp_path / "bids", tmp_path / "out"
    shutil.copytree(cohort, source)
    shutil.copytree(undisturbed, out)
    before = helpers.contents(out)
    clock = {p: p.stat().st_mtime_ns for p in out.glob("sub-*/**/*.nii.gz")}

    for path in source.rglob("*.nii.gz"):  # times tell nothing, whichever way the clock goes
        os.utime(path, (0, 0))
    status, told, _ = batch(source, out)
    assert (status, told.count("done before")) == (0, 3)
    assert "3 of 3 sessions are done (3 were before)" in told
    assert helpers.contents(out) == before
    assert {p: p.stat().st_mtime_ns for p in clock} == clock

    helpers.write_scans(source / "sub-02/anat/sub-02", thick_pair, seed=77)
    (out / "sub-03/anat/sub-03_res-4mm_desc-nexusinr_T1w.nii.gz").unlink()
    status, told, _ = batch(source, out)
    assert (status, told.count("done before")) == (0, 1)
    after = helpers.contents(out)
    changed = {name for name in before if before[name] != after[name]}
    assert {"sub-02/anat/sub-02_res-4mm_desc-nexusinr_T1w.nii.gz"} <= changed
    assert all(name.startswith("sub-02/") for name in changed)
    assert after.keys() == before.keys()

    # Another spacing: files of the one before make room for those of this one.
    status, told, _ = batch(source, out, "--participant-label", "01", "--spacing", 5)
    assert (status, told.count("done in")) == (0, 1)
    names = [p.name for p in (out / "sub-01/anat").glob("*.nii.gz")]
    assert len(names) == 3
    assert all("_res-5mm_" in name for name in names)
    status, told, _ = batch(source, out, "--participant-label", "01", "--spacing", 5, "--no-skip")
    assert (status, told.count("done in")) == (0, 1)


def test_other_weights_of_the_same_name(undisturbed, cohort, batch, helpers, tmp_path):
    def save(seed: int) -> None:
        torch.manual_seed(seed)
        config = NexusINRConfig(features=4, growth=4, blocks=1, layers=1, decoder_width=8)
        card = {"name": "other", "architecture": "NexusINR", "version": f"{seed}"}
        network = NexusINR(config)
        for decoder in network.decoder:
            torch.nn.init.normal_(decoder.head.weight, std=0.03)
        weights.save(network, weights.user_folder(), {**card, "config": config.to_dict()})

    one = ("--model", "other", "--participant-label", "01", "--no-segmentation", "--consistency", 0)
    try:
        seen = []
        for seed in (1, 1, 2):
            save(seed)
            status, told, _ = batch(cohort, tmp_path, *one)
            assert status == 0
            seen.append(("done before" in told, helpers.contents(tmp_path)))
        assert [before for before, _ in seen] == [False, True, False]
        image = "sub-01/anat/sub-01_res-4mm_desc-nexusinr_T1w.nii.gz"
        assert seen[0][1] == seen[1][1]
        assert seen[1][1][image] != seen[2][1][image]
        assert not any("dseg" in name for name in seen[2][1])
    finally:
        weights.remove("other")


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (("--scheduler", "tcp://x", "--slurm", "y"), "choose one"),
        (("--scheduler", "tcp://x", "--workers", 2), "--workers"),
        (("--spacing", 500), "a spacing of 500 mm"),
        (("--model", "larger"), "unknown model 'larger'"),
        (("--participant-label", "09"), "no participant 09"),
        (("--device", "tpu"), "'tpu'"),
        (("--slurm", "gone.yaml"), "gone.yaml"),
    ],
)
def test_options_that_cannot_be_used(options, problem, cohort, tiny_model, command, tmp_path):
    fixed = () if "--model" in options else ("--model", tiny_model)
    status, _, err = command("batch", cohort, tmp_path / "out", *fixed, *options)
    assert (status, err.count("\n")) == (2, 1)
    assert problem in err
    assert not (tmp_path / "out").exists()


def test_a_scheduler_that_does_not_answer(cohort, tiny_model, command, tmp_path, monkeypatch):
    monkeypatch.setattr("nexusinr.cohort.cluster.PATIENCE", 1)
    fixed = ("--model", tiny_model, "--scheduler", "tcp://127.0.0.1:9")
    status, _, err = command("batch", cohort, tmp_path / "out", *fixed)
    assert (status, err.count("\n")) == (2, 1)
    assert "no Dask scheduler answers at 'tcp://127.0.0.1:9'" in err


# --- how many workers -------------------------------------------------------------------------


def test_workers_of_this_machine():
    count, means = sized(Where(workers=3), Means("cpu", threads=2))
    assert (count, means.threads) == (3, 2)
    count, means = sized(Where(), Means("cpu"))
    assert count >= 1
    assert 1 <= (means.threads or 0) <= 4
    assert means.device_of(1) == "cpu"


def test_gpus_are_shared_out_by_the_numbers_of_the_workers():
    means = Means("auto", gpus=2)
    assert [means.device_of(name) for name in (0, 1, "2")] == ["cuda:0", "cuda:1", "cuda:0"]


def test_a_slurm_file(tmp_path):
    file = tmp_path / "slurm.yaml"
    file.write_text("cores: 16\nprocesses: 4\nmemory: 64GB\nqueue: gpu\n")
    options = read_slurm(file)
    assert (options["cores"], options["processes"], options["job_cpu"]) == (4, 4, 16)
    assert (options["queue"], slurm_threads(file)) == ("gpu", 4)
    for text, problem in (
        ("cores: 4\n", "at least cores and memory"),
        ("- 1\n", "at least cores and memory"),
        ("cores: many\nmemory: 1GB\n", "whole numbers"),
        ("a: !!python/object/apply:os.system [ls]\n", "cannot be read as YAML"),
    ):
        file.write_text(text)
        with pytest.raises(InputError, match=problem):
            read_slurm(file)


SBATCH = """#!/bin/sh
cp "$1" "$0.$$"
setsid sh "$0.$$" >/dev/null 2>&1 &
echo $! >> "$0.jobs"
echo "Submitted batch job $!"
"""

SCANCEL = """#!/bin/sh
for job in "$@"; do kill -TERM -- -"$job" 2>/dev/null || kill -TERM "$job"; done
"""


def test_jobs_of_slurm(
    cohort, undisturbed, helpers, tiny_model, command, tmp_path, monkeypatch, cluster
):
    """A stand-in for sbatch runs the job scripts, which are those that Slurm would run."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name, text in (("sbatch", SBATCH), ("scancel", SCANCEL)):
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    file = tmp_path / "slurm.yaml"
    file.write_text(
        f"cores: 1\nmemory: 4GB\ninterface: lo\nlocal_directory: {tmp_path}\n"
        "scheduler_options: {dashboard_address: ':0'}\n"
    )
    fixed = ("--model", tiny_model, "--participant-label", "01", "--slurm", file)
    status, _, err = command("batch", cohort, tmp_path / "none", *fixed, *helpers.FIXED)
    assert (status, "no sbatch" in err) == (2, True)
    monkeypatch.setenv("PATH", str(tools), prepend=os.pathsep)
    out = tmp_path / "out"
    status, told, err = command("batch", cohort, out, *fixed, *helpers.FIXED)
    assert (status, told.count("sub-01: done in")) == (0, 1), err
    wanted = helpers.of_subject(helpers.contents(undisturbed), "01")
    assert {n: d for n, d in helpers.contents(out).items() if n.endswith(".gz")} == {
        n: d for n, d in wanted.items() if n.endswith(".gz")
    }
    assert len((tools / "sbatch.jobs").read_text().split()) == 1
    (script,) = tools.glob("sbatch.*[0-9]")
    assert " tls://127.0.0.1:" in script.read_text()
    assert not list((out / ".nexusinr/cache").glob("keys-*"))


def test_how_far_a_run_is_told(capsys):
    shown = []
    told = _Told(lambda *bar: shown.append(bar))
    told.started(2, "http://127.0.0.1:1/status")
    told.came(Outcome("sub-1", "done", seconds=3.2), 1, 4, 30.0)
    told.came(Outcome("sub-2", "failed", 2, "it is 2D"), 2, 4, 20.0)
    assert [(fraction, left) for fraction, _, left in shown] == [(0, None), (0.25, 30), (0.5, 20)]
    assert shown[1][1] == "1 of 4 sessions"
    assert capsys.readouterr().out.splitlines() == [
        "Workers: 2; Dask's dashboard: http://127.0.0.1:1/status",
        "sub-1: done in 3 s",
        "sub-2: failed: it is 2D",
    ]


def test_the_description_of_the_folder(undisturbed, cohort):
    told = json.loads((undisturbed / "dataset_description.json").read_text())
    assert told["DatasetType"] == "derivative"
    assert told["GeneratedBy"][0]["Name"] == "NexusINR"
    linked = undisturbed / told["DatasetLinks"]["source"]
    assert linked.resolve() == Path(cohort).resolve()


def test_what_is_half_made_is_for_the_user_alone(tmp_path):
    with opened(tmp_path / "out") as run, run.staging() as folder:
        assert folder.stat().st_mode & 0o077 == 0


def test_nobody_else_on_this_machine_can_talk_to_the_workers(tmp_path):
    with connected(Where(), 1, tmp_path) as client:
        assert client.scheduler.address.startswith("tls://127.0.0.1:")
        assert client.security.require_encryption
