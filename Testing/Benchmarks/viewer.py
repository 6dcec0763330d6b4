"""How long the viewer takes: to the first picture, and for one step of scrolling.

    python Testing/Benchmarks/viewer.py T1W [T2W] [--runs N] [--steps N] [--size WxH]

starts ``nexusinr view`` and a real headless Chromium, and prints JSON: for each run the seconds
from the start of the command to its address, to the first picture in a view, and to pictures in all
of them (the browser is up by then, as a user's is); for each scroll step the milliseconds from the
key to the view's next picture. The viewer's processor time up to the pictures, and of a step, says
more on a machine that is busy with other things. The first run is cold where nothing of the viewer
was read from the disk before.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
from playwright.sync_api import sync_playwright

#: Milliseconds until the browser gives up, and that a view rests between two steps.
PATIENCE, REST = 300_000, 700

#: How many views have a picture that is more than one colour, and how many there are.
SHOWN = """() => {
    const images = [...document.querySelectorAll('.layout-grid-item img')];
    const canvas = Object.assign(document.createElement('canvas'), { width: 16, height: 16 });
    const context = canvas.getContext('2d', { willReadFrequently: true });
    const has_picture = image => {
        if (image.naturalWidth < 64) return false;
        context.drawImage(image, 0, 0, 16, 16);
        const values = context.getImageData(0, 0, 16, 16).data.filter((_, at) => at % 4 < 3);
        return Math.max(...values) - Math.min(...values) > 20;
    };
    return [images.filter(has_picture).length, images.length];
}"""

#: Presses a key and waits for the next picture of the view under the mouse, ms.
STEP = """key => new Promise(done => {
    const image = document.querySelector('.layout-grid-item img');
    const start = performance.now();
    image.addEventListener('load', () => done(performance.now() - start), { once: true });
    document.dispatchEvent(new KeyboardEvent('keydown', { key, bubbles: true }));
})"""


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser()
    parser.add_argument("scans", type=Path, nargs="+")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--size", default="1280x800")
    given = parser.parse_args()
    width, height = map(int, given.size.split("x"))
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        runs = [
            measure(
                browser.new_page(viewport={"width": width, "height": height}),
                given.scans,
                given.steps,
            )
            for _ in range(given.runs)
        ]
    steps = sorted(ms for run in runs for ms in run["steps_ms"])
    result = {
        "machine": {"processor": platform.processor(), "cpus": os.cpu_count(), "size": given.size},
        **{
            name: [run[name] for run in runs]
            for name in ("address_s", "first_picture_s", "all_pictures_s", "all_pictures_cpu_s")
        },
        "scroll_step_cpu_ms": [run["step_cpu_ms"] for run in runs],
        "scroll_step_ms": {
            "median": round(statistics.median(steps), 1),
            "p90": round(steps[int(0.9 * (len(steps) - 1))], 1),
            "worst": round(steps[-1], 1),
        },
    }
    print(json.dumps(result, indent=2))


def measure(page: Any, scans: list[Path], steps: int) -> dict[str, Any]:
    """One viewer, from its start to its end."""
    page.set_default_timeout(PATIENCE)
    command = [sys.executable, "-m", "nexusinr.cli", "view", "--no-browser", *map(str, scans)]
    start = time.perf_counter()
    viewer = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    processor = psutil.Process(viewer.pid).cpu_times
    try:
        assert viewer.stdout is not None
        address = viewer.stdout.readline().strip()
        served = time.perf_counter() - start
        page.goto(address)
        page.wait_for_function(f"({SHOWN})()[0] > 0", polling=50)
        first = time.perf_counter() - start
        page.wait_for_function(f"(([done, all]) => done == all)(({SHOWN})())", polling=50)
        shown, shown_cpu = time.perf_counter() - start, sum(processor()[:2])
        page.locator(".layout-grid-item").first.hover()
        page.wait_for_timeout(10 * REST)  # the worker starts and estimates meanwhile
        times, before = [], sum(processor()[:2])
        for at in range(steps):
            times.append(page.evaluate(STEP, "ArrowUp" if at % 10 < 5 else "ArrowDown"))
            page.wait_for_timeout(REST)
        steps_cpu = sum(processor()[:2]) - before
    finally:
        viewer.terminate()
        viewer.wait()
        page.close()
    return {
        "address_s": round(served, 2),
        "first_picture_s": round(first, 2),
        "all_pictures_s": round(shown, 2),
        "all_pictures_cpu_s": round(shown_cpu, 2),
        "steps_ms": times,
        "step_cpu_ms": round(1000 * steps_cpu / max(steps, 1), 1),
    }


if __name__ == "__main__":
    main()
