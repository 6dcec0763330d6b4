"""Pictures of the viewer in each state, for the documentation.

    python Testing/web/screenshots.py FOLDER [T1W T2W] [--spacing MM]

opens the two scans (default: the built-in sample), restores them with the bundled weights and
writes ``viewer-*.png`` into FOLDER. Needs chromium; takes some minutes on a CPU.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

#: Milliseconds that a run may take, and that views take to come to rest.
PATIENCE, REST = 1_800_000, 4_000

#: Keys that switch a state on and off again, and what it is.
STATES = {"s": "tissues", "m": "invented", "c": "curtain", "4": "surfaces"}

#: Width and height of the window, and of a screen of 4K.
SMALL, LARGE = {"width": 1280, "height": 800}, {"width": 3840, "height": 2160}


def take(page: Any, path: Path) -> None:
    """A picture, once nothing changes in it any more."""
    before = b""
    for _ in range(30):
        page.wait_for_timeout(REST)
        page.get_by_text("Making the surfaces").wait_for(state="hidden")
        now = page.screenshot(path=path)
        if now == before:
            return
        before = now


def restore(page: Any, scans: list[Path], spacing: str | None) -> None:
    """From the welcome page to the comparison."""
    if scans:
        page.locator(".nx-card").nth(len(scans) - 1).wait_for()
    else:
        page.get_by_text("Sample", exact=False).first.click()
        page.locator(".nx-card").nth(1).wait_for()
    page.wait_for_timeout(REST)
    page.locator(".nx-tabs").get_by_text("Run", exact=True).click()
    if spacing:
        page.locator(".nx-free input").fill(spacing)
    page.wait_for_timeout(REST)
    page.get_by_role("button", name="Restore").click()
    page.locator(".nx-caption", has_text="T1w restored axial").wait_for()
    page.wait_for_timeout(REST)


def zoom_in(page: Any, caption: str) -> None:
    """Drags the right button downwards over a view, as slowly as a hand."""
    found = page.locator(".nx-caption", has_text=caption)
    box = page.locator(".layout-grid-item").filter(has=found).bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down(button="right")
    for step in range(1, 11):
        page.mouse.move(x, y + 15 * step)
        page.wait_for_timeout(100)
    page.mouse.up(button="right")


def live(page: Any, folder: Path) -> None:
    """A part of a plane, first from the restored volume and then decoded."""
    page.keyboard.press("1")
    page.wait_for_timeout(2 * REST)
    zoom_in(page, "T1w restored axial")
    take(page, folder / "viewer-zoomed.png")
    page.keyboard.press("v")
    page.locator(".nx-live").nth(2).wait_for()
    take(page, folder / "viewer-live.png")
    page.keyboard.press("v")
    page.keyboard.press("f")


def large(page: Any, folder: Path) -> None:
    """One scan and both on a screen of 4K."""
    page.set_viewport_size(LARGE)
    for key, name in (("1", "one"), ("3", "both")):
        page.keyboard.press(key)
        take(page, folder / f"viewer-4k-{name}.png")
    page.set_viewport_size(SMALL)


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("scans", type=Path, nargs="*")
    parser.add_argument("--spacing")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "nexusinr.cli", "view", "--no-browser", *given.scans]
    with sync_playwright() as playwright:
        viewer = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert viewer.stdout is not None
            address = viewer.stdout.readline().strip()
            chromium = shutil.which("chromium") or shutil.which("chromium-browser")
            browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            page = browser.new_page(viewport=SMALL)
            page.set_default_timeout(PATIENCE)
            page.goto(address)
            restore(page, given.scans, given.spacing)
            take(page, given.folder / "viewer-compared.png")
            page.keyboard.press("3")  # both scans
            take(page, given.folder / "viewer-both.png")
            page.keyboard.press("2")  # T2w
            for key, name in STATES.items():
                page.keyboard.press(key)
                take(page, given.folder / f"viewer-{name}.png")
                page.keyboard.press(key)
                page.wait_for_timeout(REST)
            live(page, given.folder)
            large(page, given.folder)
        finally:
            viewer.terminate()
            viewer.wait()


if __name__ == "__main__":
    main()
