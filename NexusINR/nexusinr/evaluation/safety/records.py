"""What was measured, row by row, before anything is judged."""

from __future__ import annotations

from dataclasses import dataclass, field

#: Names of conditions: what a model is given beside the scan that is judged.
NO_MODEL = "any"
ALONE = "alone"
GUIDED = "guided"
LACKING = "guide lacks the lesions"
MISALIGNED = "guide misaligned"


@dataclass(frozen=True)
class Case:
    """One scan restored by one method.

    Attributes:
        method: an interpolation or the name of a model.
        subject: whose head.
        modality: of the scan that is judged, ``T1w`` or ``T2w``.
        condition: see the names above; misaligned guides say how far.
        thickness: of the slices of both scans, mm.
    """

    method: str
    subject: str
    modality: str
    condition: str
    thickness: float


@dataclass(frozen=True)
class Kept:
    """What is left of one lesion: its contrast as a share of that in the truth."""

    case: Case
    size: float
    share: float


@dataclass(frozen=True)
class Invented:
    """Hallucinations in one restored scan, and how much brain they were looked for in."""

    case: Case
    count: int
    litres: float


@dataclass(frozen=True)
class Leaked:
    """How much of a lesion that only the guide has appears in the scan that is judged.

    Both contrasts as shares of the range of their scan; share: one over the other, signed.
    """

    case: Case
    size: float
    share: float


@dataclass(frozen=True)
class Reproduced:
    """How well the slices are reproduced.

    Attributes:
        case: of the scan.
        profile: of the simulated slices; the scan's own is ``gaussian``.
        noise: root mean square of slices less simulated slices, in units of the noise that was
            added; None where none was.
        largest: the largest such difference, as a share of the scan's range.
    """

    case: Case
    profile: str
    noise: float | None
    largest: float


@dataclass(frozen=True)
class Unchanged:
    """PSNR in dB of a scan that was restored on its own lattice."""

    case: Case
    psnr: float


@dataclass
class Records:
    """Everything that was measured."""

    kept: list[Kept] = field(default_factory=list)
    invented: list[Invented] = field(default_factory=list)
    leaked: list[Leaked] = field(default_factory=list)
    reproduced: list[Reproduced] = field(default_factory=list)
    unchanged: list[Unchanged] = field(default_factory=list)
