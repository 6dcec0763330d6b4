"""The chosen scans: which is which, what they are in words, and what is odd about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import slicer
from slicer.i18n import tr as _

from nexusinr.errors import InputError
from nexusinr.geometry import Affine, Grid
from nexusinr.modality import guess
from nexusinr.mrml.record import REPORT_ROLE
from nexusinr.mrml.scene import nodes_of
from nexusinr.mrml.volumes import array_of, grid_of
from nexusinr.reading import MIN_SIZE, SPACING_RANGE
from NexusINRLib.words import NO_BREAK, product, sentence, voxels

#: Shares of a scan inside the other: below the first they are no pair, below the second it is odd.
LEAST_OVERLAP, USUAL_OVERLAP = 0.1, 0.6

#: An axis is the slice axis where its voxels are this many times longer than the others.
SLICE_RATIO = 1.2

#: Slices closer to a plane of the body than this, in degrees, are not called oblique.
STRAIGHT = 1.0


@dataclass
class Findings:
    """What the panel says of the scans.

    Attributes:
        facts: a sentence for each scan, and how they overlap.
        warnings: what may be wrong; the user decides.
        problem: why nothing can be made of them; None where something can.
    """

    facts: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    problem: str | None = None


class Guesses:
    """Guesses at modalities, by name and by image; kept, as looking at an image takes a while."""

    def __init__(self) -> None:
        self._known: dict[tuple[Any, ...], str | None] = {}

    def by_name(self, node: Any) -> str | None:
        """T1w, T2w or None, by the name, and by the image where the name says nothing."""
        return self._of(node, node.GetName() or "")

    def by_image(self, node: Any) -> str | None:
        """T1w, T2w or None, by the image alone."""
        return self._of(node, "")

    def _of(self, node: Any, name: str) -> str | None:
        image = node.GetImageData()
        key = (node.GetID(), name, 0 if image is None else image.GetMTime())
        if key not in self._known:
            self._known[key] = _guess(node, name)
        return self._known[key]


def _guess(node: Any, name: str) -> str | None:
    by_name = guess(name)
    if by_name is not None:
        return by_name
    try:
        return guess(name, np.asarray(array_of(node), dtype=np.float32))
    except (ImportError, ValueError):  # packages come with the first run; nothing to see in it
        return None


def candidates(scene: Any) -> list[Any]:
    """Scans that were loaded, in order: no label maps, no colour images, no results of ours."""
    return [
        node
        for node in nodes_of(scene, "vtkMRMLScalarVolumeNode")
        if node.GetClassName() == "vtkMRMLScalarVolumeNode"
        and not node.GetHideFromEditors()
        and node.GetImageData() is not None
        and node.GetNodeReferenceID(REPORT_ROLE) is None
    ]


def choose(nodes: Sequence[Any], guesses: Guesses) -> tuple[Any, Any]:
    """The T1w and the T2w scan among volume nodes; None for what is not there.

    Where nothing tells two scans apart, the first one counts as T1w.
    """
    said = [guesses.by_name(node) for node in nodes]
    t1w, t2w = (
        next((node for node, what in zip(nodes, said, strict=True) if what == modality), None)
        for modality in ("T1w", "T2w")
    )
    rest = [node for node, what in zip(nodes, said, strict=True) if what is None]
    few = len(nodes) <= 2  # of more, those that are not known may be anything
    if t1w is None and rest and (few or t2w is None):
        t1w = rest.pop(0)
    if t2w is None and rest and few:
        t2w = rest.pop(0)
    return t1w, t2w


def examine(t1w: Any, t2w: Any, guesses: Guesses) -> Findings:
    """What is to be said of the two scans; either may be None."""
    findings = Findings()
    given = {m: node for m, node in (("T1w", t1w), ("T2w", t2w)) if node is not None}
    if not given:
        findings.problem = _("Choose a T1w volume, a T2w volume or both.")
        return findings
    grids = {}
    for modality, node in given.items():
        try:
            grids[modality] = grid_of(node)
        except InputError as error:
            findings.problem = f"{modality}: {sentence(str(error))}"
            return findings
        findings.facts.append(f"{modality}: {describe(node, grids[modality])}")
        findings.warnings += [f"{modality}: {text}" for text in _odd(node, grids[modality])]
    if t1w is not None and t1w is t2w:
        findings.problem = _("T1w and T2w are the same volume: choose another one or none.")
    elif len(given) == 2:
        _compare(findings, grids["T1w"], grids["T2w"])
        _check_modalities(findings, t1w, t2w, guesses)
    return findings


def describe(node: Any, grid: Grid) -> str:
    """For example ``0.72 × 0.72 × 3 mm, axial slices (LPS), 320 × 320 × 39``."""
    spacing = product(f"{s:.3g}" for s in grid.spacing)
    parts = [f"{spacing}{NO_BREAK}mm", f"{_slices(grid)} ({grid.affine.orientation})"]
    thickness = slice_thickness(node)
    if thickness is not None:
        parts.append(_("{thickness:.3g} mm thick").format(thickness=thickness))
    parts.append(voxels(grid.shape))
    return ", ".join(parts)


def place_in_middle(region: Any, scan: Any) -> None:
    """Makes a region of interest half as long on each side as a scan, around its middle.

    Raises InputError for a scan that is empty or under a transform that is not linear.
    """
    corners = grid_of(scan).corners()
    low, high = corners.min(axis=0), corners.max(axis=0)
    region.SetCenterWorld(*((low + high) / 2))
    region.SetSizeWorld(*((high - low) / 2))


def slice_thickness(node: Any) -> float | None:
    """What the scanner said, in mm; None for a volume that does not come from Slicer's database."""
    instances = (node.GetAttribute("DICOM.instanceUIDs") or "").split()
    database = getattr(slicer, "dicomDatabase", None)
    if not instances or database is None:
        return None
    try:
        return float(database.instanceValue(instances[0], "0018,0050"))
    except ValueError:  # the element is empty
        return None


def _slices(grid: Grid) -> str:
    axis = int(grid.spacing.argmax())
    others = np.delete(grid.spacing, axis)
    if grid.spacing[axis] < SLICE_RATIO * others.max():
        return _("no slices, equal on all sides")
    normal = np.abs(grid.affine.direction[:, axis])
    name = (_("sagittal slices"), _("coronal slices"), _("axial slices"))[int(normal.argmax())]
    tilt = float(np.rad2deg(np.arccos(min(normal.max(), 1.0))))
    if tilt < STRAIGHT:
        return name
    return _("{slices}, oblique by {angle:.0f}°").format(slices=name, angle=tilt)


def _odd(node: Any, grid: Grid) -> list[str]:
    """What is odd about one header."""
    found = []
    low, high = SPACING_RANGE
    if not ((grid.spacing >= low) & (grid.spacing <= high)).all():
        found.append(_("its voxel size is not that of a head scan: check the header."))
    if min(grid.shape) < MIN_SIZE:
        found.append(_("it has fewer than {count} slices.").format(count=MIN_SIZE))
    if grid.affine.is_sheared:
        found.append(_("its slices are sheared (a tilted gantry): the result is straight."))
    if _says_nothing(grid.affine):
        found.append(
            _("its header does not say how it lies in the patient: left and right may be swapped.")
        )
    thickness = slice_thickness(node)
    spacing = float(grid.spacing.max())
    if thickness is not None and abs(thickness - spacing) > 0.05 * spacing:
        found.append(
            _(
                "its slices are {thickness:.3g} mm thick and {spacing:.3g} mm apart; they are "
                "taken as touching."
            ).format(thickness=thickness, spacing=spacing)
        )
    return found


def _says_nothing(affine: Affine) -> bool:
    """No direction and no origin: what readers put where a header is silent."""
    identity = np.abs(np.abs(affine.direction) - np.eye(3)).max() < 1e-9
    return bool(identity and not affine.origin.any())


def _compare(findings: Findings, t1w: Grid, t2w: Grid) -> None:
    overlap = max(t1w.overlap(t2w), t2w.overlap(t1w))
    findings.facts.append(_("Overlap: {share:.0%}").format(share=overlap))
    if overlap < LEAST_OVERLAP:
        distance = float(np.linalg.norm(t1w.centre - t2w.centre))
        findings.problem = _(
            "The two volumes do not overlap (their centres are {distance:.0f} mm apart): check "
            "that both are of one patient and one visit."
        ).format(distance=distance)
    elif overlap < USUAL_OVERLAP:
        findings.warnings.append(
            _("The two volumes overlap by {share:.0%} only.").format(share=overlap)
        )


def _check_modalities(findings: Findings, t1w: Any, t2w: Any, guesses: Guesses) -> None:
    seen = guesses.by_image(t1w), guesses.by_image(t2w)
    if seen == ("T2w", "T1w"):
        findings.warnings.append(_("T1w and T2w look swapped: press Swap or check them."))
    elif seen[0] == "T2w":
        findings.warnings.append(_("The volume chosen as T1w looks like a T2w scan."))
    elif seen[1] == "T1w":
        findings.warnings.append(_("The volume chosen as T2w looks like a T1w scan."))
