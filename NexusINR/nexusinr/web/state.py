"""What page and logic share: typed, in plain values, one dataclass for each part of the panel.

Keys of the page's state are made of these names, so that a misspelt one is an error in Python.
"""

from __future__ import annotations

from dataclasses import dataclass, field

#: What a scan may be read as; the last one leaves it out.
ROLES = ("T1w", "T2w", "–")

#: Names under which everything, and a picture of the views, are downloaded.
SCENE, SCREEN = "nexusinr.mrb", "screenshot.png"


@dataclass
class ScanRow:
    """One scan of the list, in words."""

    key: str
    name: str
    role: str
    geometry: str
    warnings: list[str]


@dataclass
class OpenState:
    """The list of scans, and what is being read."""

    scans: list[ScanRow] = field(default_factory=list)
    busy: str = "Starting"
    problem: str = ""


@dataclass
class RunState:
    """What is asked for, what it will take, and how far it is.

    `spacing` is one length or three, mm, as typed; an empty text is the model's own choice.
    """

    spacing: str = ""
    model: str = "nexus-inr"
    models: list[str] = field(default_factory=lambda: ["nexus-inr"])
    device: str = "auto"
    keep: float = 1.0
    segmentation: bool = True
    can_run: bool = False
    estimating: bool = False
    estimate: str = ""
    estimate_problem: str = ""
    warnings: list[str] = field(default_factory=list)
    running: bool = False
    percent: float = 0.0
    step: str = ""
    remaining: str = ""
    outcome: str = ""
    problem: str = ""


@dataclass
class TissueRow:
    """One line of the legend; `volume` in words, with its unit."""

    key: str
    name: str
    colour: str
    volume: str
    shown: bool = True


@dataclass
class LookState:
    """What the views show. Opacities and the place of the curtain are 0 to 1."""

    has_scans: bool = False
    has_results: bool = False
    modalities: list[str] = field(default_factory=list)
    show: str = "T1w"
    surface: bool = False
    surface_busy: bool = False
    linked: bool = True
    window: float = 1.0
    level: float = 0.5
    least: float = 0.0
    most: float = 1.0
    overlay: bool = False
    overlay_opacity: float = 0.35
    tissues: list[TissueRow] = field(default_factory=list)
    invented: bool = False
    invented_opacity: float = 0.7
    curtain: bool = False
    curtain_at: float = 0.5
    blink: bool = False
    restored_on_top: bool = False


@dataclass
class LiveState:
    """The live slice: whether it is on, decoding, and in which views (tags) a plane is shown."""

    on: bool = False
    busy: bool = False
    shown: list[str] = field(default_factory=list)
    problem: str = ""


@dataclass
class SliceState:
    """The slider of one slice view, mm along its normal, and where that is in words."""

    low: float = 0.0
    high: float = 1.0
    step: float = 1.0
    at: float = 0.0
    place: str = ""


@dataclass
class FileRow:
    """One file to take away."""

    name: str
    title: str
    icon: str
    size: str


@dataclass
class TakeState:
    """What there is to take away, and whether the scene is being written."""

    files: list[FileRow] = field(default_factory=list)
    busy: bool = False


@dataclass
class PageState:
    """The page itself."""

    tab: str = "open"
    panel: bool = True
    help: bool = False
