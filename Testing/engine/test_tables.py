"""The paper's tables from scores and overlaps that are known, and through the command line."""

from __future__ import annotations

import csv
import math

import numpy as np
import pytest

from nexusinr.errors import InputError
from nexusinr.evaluation.metrics import Similarity
from nexusinr.evaluation.scores import BOTH, Overlap, Score, Trial
from nexusinr.evaluation.tables import of_overlaps, of_scores
from nexusinr.geometry import Affine
from nexusinr.volume import write_volume

#: Gain over trilinear of each method.
METHODS = {"trilinear": 0.0, "cubic": 1.0, "full": 4.0, "plain": 2.0}


def scores(lpips: float | None = None) -> list[Score]:
    """Two subjects with both scans, one with T2w alone (which has to be left out)."""
    return [
        Score(
            Trial("brats", BOTH, subject, method),
            modality,
            Similarity(base + gain + (modality == "T1w"), 0.9 + gain / 100, lpips),
        )
        for subject, base in (("a1", 20.0), ("a2", 24.0), ("b1", 90.0))
        for method, gain in METHODS.items()
        for modality in (("T1w", "T2w") if subject != "b1" else ("T2w",))
    ]


def config(**changes: object) -> dict[str, object]:
    switches = ("multi_modal_fusion", "cross_attention", "segmentation_enhanced")
    return {**dict.fromkeys(switches, True), "encoder": "rdn", "decoder": "mlp", **changes}


CONFIGS = {
    "full": config(),
    "plain": config(multi_modal_fusion=False, cross_attention=False, segmentation_enhanced=False),
}


def lines_of(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_table_1_has_every_method_and_marks_the_best():
    table = of_scores(1, scores(), {}).markdown()
    head, _, *rows = lines_of(table)
    assert head[:4] == ["Method", "PSNR T1w", "PSNR T2w", "PSNR mean"]
    assert head[-1] == "gain"
    by_method = {row[0]: row[1:] for row in rows}
    assert list(by_method) == list(METHODS)
    assert by_method["trilinear"][:3] == ["23.00", "22.00", "22.50"]
    assert by_method["full"][:3] == ["**27.00**", "**26.00**", "**26.50**"]
    assert by_method["plain"][0] == "<u>25.00</u>"
    assert by_method["full"][-1] == "+4.00 [+4.00, +4.00]"
    assert not any("LPIPS" in name for name in head)  # nobody has one
    assert "Means over 2 subjects, protocol brats" in table


def test_less_lpips_is_better():
    made = [
        Score(s.trial, s.modality, Similarity(s.value.psnr, s.value.ssim, 1 / s.value.psnr))
        for s in scores()
    ]
    rows = lines_of(of_scores(1, made, {}).markdown())
    assert next(row for row in rows if row[0] == "full")[7].startswith("**")


def test_table_2_has_check_marks_and_the_baseline_first():
    head, _, *rows = lines_of(of_scores(2, scores(), CONFIGS).markdown())
    assert head[:5] == ["Baseline", "MMF", "KD-Attn", "SEL", "Model"]
    assert [row[:5] for row in rows] == [["✓", "", "", "", "plain"], ["✓"] * 4 + ["full"]]


@pytest.mark.parametrize(("number", "part", "name"), [(3, "encoder", "rdn"), (4, "decoder", "mlp")])
def test_tables_3_and_4_name_the_parts(number, part, name):
    configs = {**CONFIGS, "plain": config(**{part: "other"})}
    head, _, *rows = lines_of(of_scores(number, scores(), configs).markdown())
    assert head[:2] == [part.capitalize(), "Model"]
    assert [row[:2] for row in rows] == [[name, "full"], ["other", "plain"]]


def test_models_without_the_part_are_refused():
    with pytest.raises(InputError, match="'plain' has no encoder"):
        of_scores(3, scores(), {**CONFIGS, "plain": {"features": 32}})


def test_a_table_as_csv_has_intervals(tmp_path):
    of_scores(1, scores(), {}).write(tmp_path / "table1")
    with (tmp_path / "table1.csv").open(newline="") as stream:
        rows = {row["Method"]: row for row in csv.DictReader(stream)}
    row = rows["full"]
    values = [float(row[f"PSNR T1w{end}"]) for end in ("", " low", " high")]
    assert values == [27, 25, 29]
    assert row["PSNR T1w subjects"] == "2"
    assert rows["trilinear"]["gain"] == "nan"
    assert (tmp_path / "table1.md").read_text().startswith("## Table 1: methods")


def test_table_5_means_over_tissues_and_subjects():
    found = {"low resolution": (0.5, 4.0), "ours": (0.7, 2.0), "original": (0.9, 1.0)}
    overlaps = [
        Overlap(Trial("brats", BOTH, subject, method), "unet", tissue, dice + change, distance)
        for subject, change in (("a1", 0.0), ("a2", 0.1))
        for method, (dice, distance) in found.items()
        for tissue, distance in (("grey matter", distance), ("white matter", math.nan))
    ]
    head, _, *rows = lines_of(of_overlaps(overlaps).markdown())
    assert head == ["Images", "Dice", "HD95", "Dice, grey matter", "Dice, white matter"]
    assert [row[0] for row in rows] == list(found)
    assert rows[1][1:3] == ["75.0 [70.0, 80.0]", "2.00 [2.00, 2.00]"]
    assert "leaves out 6 tissues" in of_overlaps(overlaps).markdown()
    with pytest.raises(InputError, match="no subject has a map of tissues"):
        of_overlaps([])


@pytest.fixture
def pairs(tmp_path):
    """One small fine pair with tissues."""
    affine = Affine.from_parts((2, 2, 2), origin=(-25, -29, -23))
    folder = tmp_path / "pairs" / "child01"
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    inside = np.zeros((24, 28, 24), bool)
    inside[3:-3, 3:-3, 3:-3] = True
    for name in ("T1w", "T2w"):
        data = np.where(inside, random.uniform(300, 900, inside.shape), 0).astype(np.float32)
        write_volume(folder / f"{name}.nii.gz", data, affine)
    return tmp_path / "pairs"


def test_a_table_through_the_command_line(command, tiny_model, pairs, tmp_path):
    arguments = ("evaluate", pairs, "--models", tiny_model, "--out", tmp_path / "out")
    status, out, err = command(
        *arguments, "--table", 1, "--only", "t1w", "--protocol", "ratio-1,ratio-2",
        "--device", "cpu",
    )  # fmt: skip
    assert (status, err) == (0, "")
    rows = [row for row in lines_of(out) if row[0] == tiny_model]
    assert len(rows) == 2
    assert (tmp_path / "out" / "table1.csv").is_file()
    assert "protocol ratio-2, T1w alone" in (tmp_path / "out" / "table1-ratio-2.md").read_text()
    # Nothing to restore: what was measured is not changed.
    assert float(rows[0][1].strip("*<u>/")) > 45


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--table", 6), "no table 6"),
        (("--table", 2), "no installed model is named ablation-*"),
        (("--table", 5, "--models", "none"), "no such segmenter"),
        (("--only", "flair"), "--only flair: give t1w or t2w"),
        (("--protocol", "brat"), "no protocol 'brat'"),
        (("--subjects", "nobody.txt"), "'nobody.txt' chooses no subjects"),
    ],
)
def test_bad_options_are_one_line(command, pairs, tmp_path, arguments, said):
    status, _, err = command("evaluate", pairs, "--out", tmp_path / "out", *arguments)
    assert (status, err.count("\n"), said in err) == (2, 1, True), err
    assert not (tmp_path / "out").exists()
