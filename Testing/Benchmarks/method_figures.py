"""Figures of method.md: two drawings of the networks, two pictures of a real run.

    nexusinr demo --no-view
    python Testing/Benchmarks/method_figures.py demo-output

reads what `nexusinr demo` has left in its folder, and writes into Resources/Docs.
"""

from __future__ import annotations

import itertools
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch
from numpy.typing import NDArray

from nexusinr import Volume, read_volume
from nexusinr.acquisition import Profile, acquisition_between, profile_matrix
from nexusinr.inference.pipeline import REPORT
from nexusinr.resample import interpolate

DOCS = Path(__file__).resolve().parents[2] / "Resources" / "Docs"

#: Of a slice in the first figure, fine voxels.
THICKNESS = 4

T1W, T2W, BOTH = "#2b7bba", "#c2552d", "#5b5b5b"


def main() -> None:
    """Makes all four."""
    folder = Path(sys.argv[1])
    report = json.loads((folder / REPORT).read_text(encoding="utf-8"))
    profile = report["consistency"]["T1w"]["profile"]
    mpl.rcParams.update({"font.size": 9, "svg.hashsalt": "nexusinr", "savefig.dpi": 110})
    scan, fine = (read_volume(folder / name) for name in ("t1w.nii.gz", "t1w_sr.nii.gz"))
    for name, figure in {
        "acquisition": acquisition(scan, fine),
        "invented": invented(scan, fine, profile),
        "nexus-inr": nexus_inr(),
        "iconet": iconet(),
    }.items():
        path = DOCS / f"{name}.png"
        figure.savefig(path, bbox_inches="tight", metadata={"Software": None})
        print(path)


# --- pictures of a run --------------------------------------------------------------------------


def acquisition(scan: Volume, fine: Volume) -> plt.Figure:
    """What slices weigh, and one line through the head: scan, interpolation, restored."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3), width_ratios=(1, 1.5))
    targets = 5 * THICKNESS
    centres = np.arange(5) * THICKNESS + (THICKNESS - 1) / 2
    for kind, style in (("gaussian", "-"), ("box", ":")):
        weights, _ = profile_matrix(centres, targets, THICKNESS, kind)
        for n in (1, 2, 3):
            label = f"{kind} profile" if n == 1 else None
            left.plot(np.arange(targets) + 0.5, weights[n], style, color=f"C{n}", label=label)
    for corner in range(0, targets + 1, THICKNESS):
        left.axvline(corner, color="0.85", zorder=0)
    left.set(xlabel="mm (fine voxels of 1 mm, slices of 4 mm)", ylabel="weight")
    left.set(xlim=(2, 18), ylim=(0, 0.33))
    left.set_title("Three slices: rows of A")
    left.legend(ncols=2, loc="upper center", fontsize=7)
    _draw_line(right, scan, fine)
    figure.tight_layout()
    return figure


def _draw_line(axes: Axes, scan: Volume, fine: Volume) -> None:
    """Intensities along the slice axis, through the middle of the head."""
    i, j, _ = np.array(fine.data.shape) // 2
    z = fine.affine.origin[2] + fine.affine.spacing[2] * np.arange(fine.data.shape[2])
    where = scan.affine.to_index(fine.affine.apply((i, j, 0))).round().astype(int)
    slices = scan.data[where[0], where[1]]
    edges = scan.grid.corner[2] + scan.affine.spacing[2] * np.arange(slices.size + 1)
    axes.stairs(slices, edges, color="0.7", fill=True, alpha=0.5, label="measured, slice by slice")
    axes.plot(z, interpolate(scan, fine.grid)[i, j], "--", color=BOTH, label="interpolated")
    axes.plot(z, fine.data[i, j], color=T1W, label="restored")
    middle = fine.grid.centre[2]
    axes.set(xlim=(middle - 30, middle + 30), xlabel="mm, upwards", ylabel="T1w intensity")
    axes.set_title("A line through the head: the means of the slices are kept")
    axes.legend(fontsize=7)


def invented(scan: Volume, fine: Volume, profile: Profile) -> plt.Figure:
    """A coronal plane: interpolated, restored, their difference, and what contradicts the scan."""
    start = interpolate(scan, fine.grid)
    model = acquisition_between(scan.grid, fine.grid, np.array(scan.thickness), profile)

    def contradiction(image: NDArray[np.float32]) -> NDArray[np.float32]:
        again = model.forward(torch.from_numpy(np.ascontiguousarray(image))).numpy()
        return interpolate(scan.replace(data=np.abs(scan.data - again)), fine.grid)

    j = fine.data.shape[1] // 2
    most = float(np.percentile(fine.data, 99.8))
    pictures = {
        "interpolated": (start, "gray", (0, most)),
        "restored": (fine.data, "gray", (0, most)),
        "restored - interpolated": (fine.data - start, "RdBu_r", (-most / 4, most / 4)),
        "|scan - A interpolated|": (contradiction(start), "magma", (0, most / 8)),
        "|scan - A restored|": (contradiction(fine.data), "magma", (0, most / 8)),
    }
    figure, rooms = plt.subplots(1, 5, figsize=(13, 3.1))
    for axes, (title, (data, colours, limits)) in zip(rooms, pictures.items(), strict=True):
        plane: NDArray[np.float32] = data[:, j].T
        axes.imshow(plane, colours, origin="lower", vmin=limits[0], vmax=limits[1])
        axes.set_title(title, fontsize=9)
        axes.axis("off")
    figure.tight_layout()
    return figure


# --- drawings -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Box:
    """A step in a drawing: its middle, and what it says."""

    x: float
    y: float
    text: str
    colour: str = BOTH
    width: float = 1.9
    height: float = 0.62


def _draw(boxes: dict[str, Box], arrows: list[tuple[str, str]], size: tuple[float, float]):
    """Boxes and the arrows between them, by name; the longer distance says from which side."""
    figure, axes = plt.subplots(figsize=size)
    for box in boxes.values():
        corner = box.x - box.width / 2, box.y - box.height / 2
        axes.add_patch(
            FancyBboxPatch(
                corner,
                box.width,
                box.height,
                boxstyle="round,pad=0.02,rounding_size=0.08",
                facecolor=mpl.colors.to_rgba(box.colour, 0.12),
                edgecolor=box.colour,
            )
        )
        axes.text(box.x, box.y, box.text, ha="center", va="center", fontsize=7.5)
    for name, other in arrows:
        a, b = boxes[name], boxes[other]
        sideways = abs(b.x - a.x) >= (a.width + b.width) / 2
        step = np.sign((b.x - a.x, b.y - a.y)) / 2
        ends = [
            (box.x + sign * step[0] * box.width, box.y)
            if sideways
            else (box.x, box.y + sign * step[1] * box.height)
            for box, sign in ((a, 1), (b, -1))
        ]
        axes.annotate("", ends[1], ends[0], arrowprops={"arrowstyle": "->", "color": "0.35"})
    axes.set_aspect("equal")
    axes.axis("off")
    axes.autoscale_view()
    return figure


def nexus_inr() -> plt.Figure:
    """One scan's way and the other's, and where they meet."""
    boxes: dict[str, Box] = {}
    arrows: list[tuple[str, str]] = []
    for name, y, colour in (("T1w", 3.0, T1W), ("T2w", 0.0, T2W)):
        up = 0.55
        boxes |= {
            f"{name} scan": Box(0, y, f"{name} scan\non its own lattice", colour),
            f"{name} shared": Box(2.6, y + up, "shared encoder\n(anatomy)", colour),
            f"{name} specific": Box(2.6, y - up, "specific encoder\n(contrast)", colour),
            f"{name} read": Box(5.2, y, "read at target points\n(and around them)", colour, 2.2),
            f"{name} fuse": Box(10.3, y, "residual\nfusion", colour, 1.1),
            f"{name} tissues": Box(12.1, y, "tissues,\nfused back", colour, 1.3),
            f"{name} decode": Box(13.9, y, "decoder\n+ position", colour, 1.3),
            f"{name} keep": Box(16.2, y, "+ interpolation,\nkeep the measured", colour, 2.1),
        }
        steps = ["read", "fuse", "tissues", "decode", "keep"]
        arrows += [(f"{name} scan", f"{name} {kind}") for kind in ("shared", "specific")]
        arrows += [(f"{name} {kind}", f"{name} read") for kind in ("shared", "specific")]
        arrows += [(f"{name} {a}", f"{name} {b}") for a, b in itertools.pairwise(steps)]
    boxes["attend"] = Box(7.8, 1.5, "attention between\nthe two scans", BOTH, 1.9)
    for name in ("T1w", "T2w"):
        arrows += [(f"{name} read", "attend"), ("attend", f"{name} fuse")]
    return _draw(boxes, arrows, (13, 4))


def iconet() -> plt.Figure:
    """Two stages, each with its two branches."""
    boxes = {"scan": Box(0, 0, "scan", T1W, 0.9)}
    arrows = []
    before = "scan"
    for stage, x in ((1, 0.0), (2, 6.6)):
        names = [f"{kind} {stage}" for kind in ("clean", "fine", "fusion", "clean image", "image")]
        clean, fine, fusion, clean_image, image = names
        boxes |= {
            clean: Box(x + 2, 0.75, "reconstruction\nbranch", T2W, 1.4),
            fine: Box(x + 2, -0.75, "super-resolution\nbranch", T1W, 1.4),
            fusion: Box(x + 3.9, 0, "gates between\nthe two", BOTH, 1.3),
            clean_image: Box(x + 5.5, 0.75, "clean image", T2W, 1.3),
            image: Box(x + 5.5, -0.75, "image, thick\naxes doubled", T1W, 1.3),
        }
        arrows += [(before, clean), (before, fine), (clean, fusion), (fine, fusion)]
        arrows += [(fusion, clean_image), (fusion, image), (clean_image, image)]
        before = image
    return _draw(boxes, arrows, (12, 2.6))


if __name__ == "__main__":
    main()
