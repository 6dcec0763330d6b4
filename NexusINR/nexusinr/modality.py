"""Which scan is which: T1w or T2w, by the words of its name, else by its intensities."""

from __future__ import annotations

import re
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Modality = Literal["T1w", "T2w"]

#: What a scan is weighted by: BIDS, BraTS (t1n, t1c, ...) and the consoles of the scanners.
_WEIGHTED: tuple[tuple[Modality, str], ...] = (
    ("T1w", r"t1(w|wi|n|c|ce|gd|km|post|pre)?"),
    ("T2w", r"t2(w|wi)?"),
)

#: Sequences that stand for a weighting where the name says no more.
_SEQUENCES: tuple[tuple[Modality, str], ...] = (
    ("T1w", r"mprage|mpr|spgr|fspgr|bravo|tfe|vibe|mdeft"),
    ("T2w", r"tse|fse|haste|ssfse"),
)

#: Words of images that are neither, whatever else their name says: T2 FLAIR, T2*, T1 maps.
_NEITHER = re.compile(
    r"flair|tirm|fluid|t2f|stir|pd|pdw|proton|dwi|dti|trace|adc|fa|swi|swan|gre|hemo|medic|star|"
    r"t2star|t2s|t[12]rho|t[12]?map|mapping|bold|fmri|epi|asl|pwi|perf|cbf|cbv|tof|mra|mrv|angio|"
    r"fieldmap|mp2rage|inv[12]|phase|loc|localizer|scout|survey|ct|pet|mask|seg|dseg|label|labels"
)

#: A head is about this long along every axis, mm: enough to tell brain from scalp without a header.
_HEAD = 170.0

#: Deeper than this, mm, in a head of that size lie neither scalp nor bone.
_DEEP = 20.0

#: Samples along each axis that are enough to judge a scan by.
_SAMPLES = 64

#: `intensity.skewness` of the deep head: T1w below the first, T2w above the second. Of 43 real
#: scans T1w reach -0.56 to -0.07 and T2w 0.17 to 0.82; between the two limits nothing is said.
_T1W_BELOW, _T2W_ABOVE = -0.15, 0.4


def guess(name: str, data: NDArray[np.float32] | None = None) -> Modality | None:
    """T1w, T2w, or None where that is not sure.

    Words of the name count as a whole, in any case: T1w, t1n, MPRAGE, SPGR, T2, TSE, ... FLAIR, PD,
    diffusion, T2*, maps and masks are neither. A name that says nothing leaves it to the image:
    fluid is the dark tail of a T1w and the bright tail of a T2w scan, in adults and infants alike.
    That takes for granted that it is one of the two: a FLAIR without a name looks like a T1w scan.

    Args:
        name: of a file, a series or a node.
        data: its intensities, (i, j, k), finite, on any lattice.

    Raises ValueError for data that is not 3D, not finite or constant.
    """
    words = _words(name)
    if any(_NEITHER.fullmatch(word) for word in words):
        return None
    for kinds in (_WEIGHTED, _SEQUENCES):
        said: set[Modality] = {
            kind for kind, pattern in kinds for word in words if re.fullmatch(pattern, word)
        }
        if len(said) == 1:
            return said.pop()
        if said:
            break  # both, as in "T2 on T1"
    return None if data is None else _by_image(data)


def _words(name: str) -> list[str]:
    """Lower-case words of a name; ``AxT2*_gre`` has ax, t2, star and gre."""
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name.replace("*", " star "))
    return re.findall(r"[a-z0-9]+", name.lower())


def _by_image(data: NDArray[np.float32]) -> Modality | None:
    from scipy import ndimage

    from nexusinr.intensity import foreground, skewness

    data = data[tuple(slice(None, None, max(1, n // _SAMPLES)) for n in data.shape)]
    head = foreground(data)
    pitch = _HEAD / (np.ptp(np.argwhere(head), axis=0) + 1)
    rimmed = np.pad(head, 1)  # a head that is cut off ends there
    depth = ndimage.distance_transform_edt(rimmed, sampling=pitch)[1:-1, 1:-1, 1:-1]
    deep = data[depth > _DEEP]
    if deep.size < _SAMPLES or np.percentile(deep, 5) < 0:  # nothing to see, or Hounsfield units
        return None
    skew = skewness(deep)
    if skew < _T1W_BELOW:
        return "T1w"
    return "T2w" if skew > _T2W_ABOVE else None
