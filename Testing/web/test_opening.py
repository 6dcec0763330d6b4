"""Scans that are dropped on the page, and folders that are chosen, in a real browser."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest


@pytest.fixture
def page(first) -> Any:
    """Without scans."""
    first.open_tab("Open")
    cards = first.page.locator(".nx-card")
    while cards.count():
        count = cards.count()
        cards.first.get_by_label("Remove").click()
        cards.nth(count - 1).wait_for(state="detached")
    return first.page


@pytest.fixture
def study(tmp_path, slices) -> Path:
    """Two DICOM series in folders of their own."""
    for name, data in {**slices("1.2.3", "t1"), **slices("1.2.4", "t2 tse", number=8)}.items():
        path = tmp_path / "study" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return tmp_path / "study"


def drag(page: Any, *paths: Path) -> Callable[[str], None]:
    """Files hanging over the page; gives what sends the next event of the mouse."""
    session = page.context.new_cdp_session(page)
    data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}

    def send(kind: str) -> None:
        session.send("Input.dispatchDragEvent", {"type": kind, "x": 800, "y": 400, "data": data})

    send("dragEnter")
    send("dragOver")
    return send


def test_dropped_files_are_opened(page, first, thick_files):
    send = drag(page, *thick_files)
    page.locator(".nx-drop.nx-over").wait_for()
    first.shot("14-dragged")
    send("drop")
    page.locator(".nx-card").nth(1).wait_for()
    assert page.locator(".nx-drop.nx-over").count() == 0
    names = [card.inner_text().splitlines()[0] for card in page.locator(".nx-card").all()]
    assert names == [path.name for path in thick_files]
    assert first.pixels("T2w original axial").std() > 5


def test_the_invitation_goes_when_files_are_dragged_away(page):
    files = page.evaluate_handle(
        "() => { const data = new DataTransfer(); data.items.add(new File(['x'], 'x.nii'));"
        "return data; }"
    )
    over = page.locator(".nx-drop.nx-over")
    page.dispatch_event("body", "dragenter", {"dataTransfer": files})
    over.wait_for()
    inner = page.locator(".nx-panel").element_handle()
    page.dispatch_event("body", "dragleave", {"dataTransfer": files, "relatedTarget": inner})
    assert over.count() == 1  # it has only gone on to another part of the page
    page.dispatch_event("body", "dragleave", {"dataTransfer": files})
    over.wait_for(state="detached")
    text = page.evaluate_handle("() => new DataTransfer()")
    page.dispatch_event("body", "dragenter", {"dataTransfer": text})
    assert over.count() == 0  # nothing to open


@pytest.mark.parametrize("way", ["drop", "choose"])
def test_a_dicom_folder_is_opened(page, study, way):
    if way == "drop":
        drag(page, study)("drop")
    else:
        with page.expect_file_chooser() as chooser:
            page.locator(".nx-panel").get_by_text("DICOM folder").click()
        chooser.value.set_files(study)
    page.locator(".nx-card").nth(1).wait_for()
    cards = [card.inner_text() for card in page.locator(".nx-card").all()]
    names = [card.splitlines()[0] for card in cards]
    assert sorted(zip(names, roles(page), strict=True)) == [
        ("DICOM series 7", "T1w"),
        ("DICOM series 8", "T2w"),
    ]
    assert all("slices 3.00 mm thick" in card for card in cards)
    assert "Doe" not in page.locator("body").inner_text()


def roles(page: Any) -> list[str]:
    return page.locator(".nx-card .v-btn--active").all_inner_texts()


def test_the_sample_is_opened_and_its_roles_can_be_changed(page, first):
    page.locator(".nx-panel").get_by_text("Sample", exact=True).click()
    cards = page.locator(".nx-card")
    cards.nth(1).wait_for()
    assert roles(page) == ["T1w", "T2w"]
    plain = first.pixels("T1w original axial")
    assert plain.std() > 5
    first.shot("15-sample")
    for button in (cards.nth(1).get_by_text("T1w"), cards.nth(0).get_by_text("T2w")):
        button.click()
        page.locator(".nx-card .v-btn--active", has_text=button.inner_text()).wait_for()
    wait_for_change(first, "T1w original axial", plain)
    assert roles(page) == ["T2w", "T1w"]
    first.shot("16-roles-changed")


def wait_for_change(tab: Any, name: str, picture: np.ndarray) -> None:
    for _ in range(100):
        if np.abs(tab.glance(name) - picture).mean() > 1:
            return
        tab.page.wait_for_timeout(200)
    raise AssertionError(f"{name} does not change")
