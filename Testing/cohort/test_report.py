"""The derivatives as BIDS sees them, and the cohort report in a real browser."""

from __future__ import annotations

import base64
import csv
import io
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
from bids.layout import BIDSLayout
from bidsschematools.schema import load_schema
from PIL import Image

from nexusinr.cohort import records, report
from nexusinr.cohort.derivatives import Names, resolution_label
from nexusinr.cohort.flags import flags
from nexusinr.cohort.folder import Folder
from nexusinr.cohort.pair import Pair, Scan
from nexusinr.cohort.records import Record
from nexusinr.cohort.validation import invalid_names

CHROMIUM = Path("/usr/bin/chromium")

# --- derivatives ------------------------------------------------------------------------------


def test_names_are_those_of_bids_derivatives(undisturbed, tmp_path):
    assert invalid_names(undisturbed) == []
    made = tmp_path / "sub-01" / "anat"
    made.mkdir(parents=True)
    for name in ("sub-01_desc-nexusinr_res-1mm_T1w.nii.gz", "sub-02_desc-nexusinr_T1w.nii.gz"):
        (made / name).touch()
    assert len(invalid_names(tmp_path)) == 2


def test_pybids_reads_them(undisturbed):
    layout = BIDSLayout(undisturbed, validate=False, is_derivative=True)
    assert layout.get_subjects() == ["01", "02", "03"]
    (t2w,) = layout.get(subject="01", suffix="T2w", extension=".nii.gz")
    entities = t2w.get_entities()
    assert (entities["space"], entities["res"], entities["desc"]) == ("T1w", "4mm", "nexusinr")
    told = t2w.get_metadata()
    assert told["Sources"] == [
        "bids:source:sub-01/anat/sub-01_T1w.nii.gz",
        "bids:source:sub-01/anat/sub-01_T2w.nii.gz",
    ]
    assert told["SpatialReference"] == told["Sources"][0]
    assert told["Resolution"] == "voxels of 4 x 4 x 4 mm, RAS"
    assert told["SkullStripped"] is True
    assert len(told["NexusINR"]["Model"]["sha256"]) == 64
    assert [len(scan["sha256"]) for scan in told["NexusINR"]["Inputs"]] == [64, 64]


def required(*rules: str) -> set[str]:
    """Fields that a sidecar has to have by these rules of the BIDS validator."""
    known = load_schema().rules.sidecars.derivatives.common_derivatives
    levels = ((name, level) for rule in rules for name, level in known[rule].fields.items())
    return {n for n, v in levels if (v if isinstance(v, str) else v["level"]) == "required"}


def test_sidecars_have_what_bids_requires(undisturbed):
    """By rules that the validator applies to such files."""
    anat = undisturbed / "sub-01/anat"
    always, elsewhere = ("ImageDerivativeResEntity",), ("SpatialReferenceNonStandard",)
    for name, rules, least in (
        ("sub-01_res-4mm_desc-nexusinr_T1w", (*always, "ImageDerivatives"), 2),
        ("sub-01_space-T1w_res-4mm_desc-nexusinr_T2w",
         (*always, *elsewhere, "ImageDerivatives"), 3),
        ("sub-01_space-T1w_res-4mm_desc-nexusinr_dseg",
         (*always, *elsewhere, "SegmentationCommon"), 2),
    ):  # fmt: skip
        wanted = required(*rules)
        assert len(wanted) == least
        assert wanted <= json.loads((anat / f"{name}.json").read_text()).keys()
    assert {"Name", "BIDSVersion"} <= json.loads(
        (undisturbed / "dataset_description.json").read_text()
    ).keys()


def test_sidecars_hold_no_paths_of_this_machine(undisturbed):
    texts = [path.read_text() for path in undisturbed.glob("sub-*/anat/*.json")]
    assert len(texts) == 9
    assert not any(str(undisturbed.parents[2]) in text for text in texts)


def test_tissues_are_explained(undisturbed):
    stem = undisturbed / "sub-01/anat/sub-01_space-T1w_res-4mm_desc-nexusinr_dseg"
    rows = [line.split("\t") for line in Path(f"{stem}.tsv").read_text().splitlines()]
    assert rows[0] == ["index", "name", "color"]
    assert rows[3] == ["3", "white matter", "#f0e6a0"]
    values = np.unique(np.asarray(nib.load(f"{stem}.nii.gz").dataobj))
    assert set(values) <= {0, *(int(row[0]) for row in rows[1:])}


def test_names_follow_the_reference_scan():
    path = Path("/x.nii.gz")
    both = Pair("1", "a", Scan(path, "sub-1_ses-a_acq-x"), Scan(path, "sub-1_ses-a_run-2"))
    names = Names(both, [0.859, 0.859, 0.859])
    assert names.image("T1w") == (
        "sub-1/ses-a/anat/sub-1_ses-a_acq-x_res-0p86mm_desc-nexusinr_T1w.nii.gz"
    )
    assert names.image("T2w") == (
        "sub-1/ses-a/anat/sub-1_ses-a_run-2_space-T1w_res-0p86mm_desc-nexusinr_T2w.nii.gz"
    )
    alone = Names(replace(both, t1w=None), [1, 1, 3.5])
    assert alone.image("T2w").endswith("sub-1_ses-a_run-2_res-1x1x3p5mm_desc-nexusinr_T2w.nii.gz")
    assert "_run-2_space-T2w_res-" in alone.tissues
    assert resolution_label([2.0, 2.0, 2.0]) == "2mm"


# --- flags and tables -------------------------------------------------------------------------


def done(subject: str, white: float = 400.0, warnings: tuple[str, ...] = ()) -> Record:
    told = {
        "lattice": {"spacing_mm": [1, 1, 1]},
        "consistency": {"T1w": {"after": 2.0}},
        "registration": {"mode": "none"},
        "tissue_volumes_ml": {"white matter": white, "lesion": white / 10},
        "seconds": {"decoding": 5.0},
        "warnings": list(warnings),
        "model": {"name": "tiny", "version": "0", "sha256": "f" * 64},
    }
    return Record(subject, "", "done", report=told, contrast={"T1w": 200.0})


EVIL = '<script>document.title="taken"</script>'


@pytest.fixture
def cohort_of_ten() -> list[Record]:
    many = [done(f"{n:02d}", 400 + n) for n in range(9)]
    return [
        *many,
        done("20", 900),
        done("21", 404.5, ("the two scans overlap by 50% only",)),
        Record("22", "2", "failed", code=2, reason=f"{EVIL}.nii: it is 2D, one slice"),
        Record("23", "", "moving"),
    ]


def test_what_stands_out_is_flagged(cohort_of_ten):
    found = flags(cohort_of_ten)
    assert [flag.kind for flag in found[:9]] == ["ok"] * 9
    assert [flag.kind for flag in found[9:]] == ["check", "check", "failed", "failed"]
    assert found[9].reasons == ("white matter: 900 mL stand out (median of the cohort: 404 mL)",)
    few = flags(cohort_of_ten[6:10])
    assert [flag.kind for flag in few] == ["ok"] * 4


def test_failures_as_a_table(cohort_of_ten):
    rows = list(csv.DictReader(io.StringIO(report.failures(cohort_of_ten))))
    assert [(r["subject"], r["session"], r["code"]) for r in rows] == [
        ("sub-22", "ses-2", "2"),
        ("sub-23", "", "1"),
    ]
    assert "it is 2D" in rows[0]["reason"]


def test_records_survive_the_disk_and_damage_is_no_record(cohort_of_ten, tmp_path):
    folder = Folder(tmp_path)
    folder.records.mkdir(parents=True)
    for record in cohort_of_ten:
        records.write(folder, f"sub-{record.subject}", record)
    assert records.read_all(folder) == cohort_of_ten
    (folder.records / "sub-00.json").write_text('{"subject": "00"')
    assert records.read(folder, "sub-00") is None
    assert len(records.read_all(folder)) == len(cohort_of_ten) - 1


def test_pictures_show_the_scans(undisturbed):
    record = records.read(Folder(undisturbed), "sub-01")
    image = Image.open(io.BytesIO(base64.b64decode(record.thumbnail)))
    pixels = np.asarray(image)
    assert pixels.shape == (132, 4 * 132 + 3 * 2)
    tiles = [pixels[:, n * 134 : n * 134 + 132] for n in range(4)]
    assert all(tile.std() > 20 for tile in tiles)
    assert (
        abs(tiles[0].astype(float) - tiles[1]).mean()
        < abs(tiles[0].astype(float) - tiles[2]).mean()
    )


# --- the report in a browser ------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser() -> Iterator:
    api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    if not CHROMIUM.exists():
        pytest.skip(f"there is no {CHROMIUM}")
    options = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=options)
        yield browser
        browser.close()


@pytest.fixture
def opened(browser, tmp_path):
    """Opens a page without network; gives it, and what went wrong or was asked for outside."""

    def go(html: str) -> SimpleNamespace:
        file = tmp_path / "report.html"
        file.write_text(html, encoding="utf-8")
        page = browser.new_page(viewport={"width": 1600, "height": 900})
        asked, errors = [], []
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: errors.append(message.text))
        page.goto(file.as_uri())
        return SimpleNamespace(page=page, asked=asked, errors=errors, uri=file.as_uri())

    return go


def shown(page) -> list[str]:
    rows = page.locator("tbody tr:visible td.label:nth-child(2)")
    return rows.all_inner_texts()


def test_the_page_sorts_and_filters(opened, cohort_of_ten):
    view = opened(report.html(cohort_of_ten))
    page = view.page
    first = shown(page)
    assert first[:4] == ["22", "23", "20", "21"]  # what a person has to look at
    page.click("th:has-text('White matter') button")
    assert shown(page) == [*(f"{n:02d}" for n in range(5)), "21", *("05", "06", "07", "08"), "20",
                           "22", "23"]  # fmt: skip
    page.click("th:has-text('White matter') button")
    assert shown(page)[:2] == ["20", "08"]
    assert shown(page)[-2:] == ["22", "23"]  # without a number they stay last
    assert page.locator("th[aria-sort]").inner_text().startswith("White matter")
    page.click("th:has-text('Subject') button")
    assert shown(page) == sorted(first)
    page.click("nav button:has-text('failed')")
    assert shown(page) == ["22", "23"]
    page.click("nav button:has-text('all')")
    assert len(shown(page)) == len(cohort_of_ten)
    assert page.locator("nav").inner_text().split() == [
        "13", "all", "2", "failed", "2", "to", "check", "9", "in", "order",
    ]  # fmt: skip
    assert (view.errors, [u for u in view.asked if u != view.uri]) == ([], [])
    page.close()


def test_hostile_names_stay_text(opened, cohort_of_ten):
    view = opened(report.html(cohort_of_ten))
    assert view.page.title() == "NexusINR: cohort report"
    assert EVIL in view.page.locator("tr[data-kind=failed] >> nth=0").inner_text()
    # Even were one to slip in, the page runs no script but its own.
    view = opened(report.html(cohort_of_ten).replace("<nav ", f"{EVIL}<nav ", 1))
    assert view.page.title() == "NexusINR: cohort report"
    assert any("Content Security Policy" in error for error in view.errors)
    view.page.close()


def test_the_report_of_a_run(browser, undisturbed):
    page = browser.new_page(viewport={"width": 1600, "height": 900})
    page.goto((undisturbed / "report.html").as_uri())
    assert shown(page) == ["01", "02", "03"]
    assert page.locator("td.picture img").count() == 3
    assert page.evaluate("[...document.images].every((i) => i.complete && i.naturalWidth > 400)")
    overflow = "document.documentElement.scrollWidth > window.innerWidth"
    assert not page.evaluate(overflow)
    target = page.locator("td.picture a").first.get_attribute("href")
    assert (undisturbed / target).is_file()
    told = json.loads((undisturbed / ".nexusinr/records/sub-01.json").read_text())
    residual = 100 * told["report"]["consistency"]["T2w"]["after"] / told["contrast"]["T2w"]
    cell = page.locator("tbody tr:has(td.label:text-is('01')) td.number").nth(2)
    assert float(cell.get_attribute("data-value")) == pytest.approx(residual)
    page.close()
