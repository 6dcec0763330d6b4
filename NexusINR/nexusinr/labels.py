"""The tissues that the segmentation tells apart, and how other label sets map onto them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Code:
    """A word of a coded vocabulary, as DICOM writes it: value, vocabulary, meaning."""

    value: str
    scheme: str
    meaning: str


_STRUCTURE = Code("123037004", "SCT", "Anatomical Structure")
_ALTERED = Code("49755003", "SCT", "Morphologically Altered Structure")


@dataclass(frozen=True)
class Tissue:
    """One class.

    Attributes:
        value: in label maps.
        name: for people.
        colour: for display, RGB 0-255.
        code: what it is, as in DICOM PS3.16 CID 7153 (central nervous system).
        category: what kind of thing that is.
    """

    value: int
    name: str
    colour: tuple[int, int, int]
    code: Code
    category: Code = _STRUCTURE


#: Value 0 is everything that is not one of these (air, skull, scalp, dura).
TISSUES: tuple[Tissue, ...] = (
    Tissue(
        1,
        "cerebrospinal fluid",
        (70, 130, 230),
        Code("65216001", "SCT", "Cerebrospinal Fluid"),
    ),
    Tissue(2, "grey matter", (128, 174, 128), Code("389081007", "SCT", "Gray Matter")),
    Tissue(3, "white matter", (240, 230, 160), Code("389080008", "SCT", "White Matter")),
    Tissue(
        4,
        "deep grey matter",
        (200, 120, 170),
        Code("223151", "FMA", "Subcortical gray matter"),
    ),
    Tissue(5, "lesion", (216, 60, 60), Code("52988006", "SCT", "Lesion"), _ALTERED),
)

#: Number of classes of the segmentation, background included.
CLASSES = len(TISSUES) + 1

CSF, GREY, WHITE, DEEP_GREY, LESION = (t.value for t in TISSUES)

# FreeSurfer ids (left;right) of each tissue. Brain-stem and ventral diencephalon look like and are
# counted as white matter; cerebellar cortex as grey matter.
_FREESURFER: dict[int, tuple[int, ...]] = {
    CSF: (4, 43, 5, 44, 14, 15, 24, 31, 63, 72, 136, 163, 137, 164, 213, 221),
    GREY: (3, 42, 8, 47, 17, 53, 18, 54, 80, 172, 173, 174, *range(1000, 1036), *range(2000, 2036)),
    WHITE: (2, 41, 7, 46, 16, 28, 60, 77, 85, 170, 171, 192, 251, 252, 253, 254, 255),
    DEEP_GREY: (9, 48, 10, 49, 11, 50, 12, 51, 13, 52, 26, 58),
    LESION: (25, 57, 78, 79),
}


def from_freesurfer(labels: NDArray[np.generic]) -> NDArray[np.uint8]:
    """FreeSurfer / SAMSEG ids, any shape, to tissue values of TISSUES; unknown ids become 0."""
    ids = np.asarray(labels).astype(np.int64)
    table = np.zeros(max(int(ids.max(initial=0)), 2035) + 1, dtype=np.uint8)
    for tissue, members in _FREESURFER.items():
        table[list(members)] = tissue
    return table[np.clip(ids, 0, None)]
