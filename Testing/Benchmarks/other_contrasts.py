"""Fine pairs of other contrasts than T1w and T2w, synthesised from label maps, to be evaluated.

    python Testing/Benchmarks/other_contrasts.py OUT
    nexusinr evaluate OUT --protocol brats --models nexus-inr,iconet --out RESULTS

Takes the label maps of the data set in NEXUSINR_DATA and writes a folder for every pairing of
contrasts and map: `T1w.nii.gz` has what stands in the first slot, `T2w.nii.gz` the second. The
anatomies are among those that the weights were trained on, the contrasts are not: training draws
them at random, or about those of T1w and T2w.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from nexusinr.geometry import Affine
from nexusinr.volume import read_volume, write_volume

#: Ids of the label maps by tissue; all else is drawn at random.
TISSUES = {
    "white": (1, 5),
    "grey": (2, 6),
    "deep": (7, 8, 9, 10, 14, 15, 18, 19),
    "stem": (13,),
    "csf": (3, 4, 11, 12, 16, 21),
    "lesion": (17,),
    "vessel": (20, 25),
    "plexus": (23, 24),
}

#: Typical intensities, 0 ... 1, in the order of TISSUES.
CONTRASTS = {
    "t1w": (0.85, 0.55, 0.68, 0.75, 0.18, 0.50, 0.40, 0.45),
    "t2w": (0.38, 0.55, 0.45, 0.42, 0.95, 0.80, 0.15, 0.80),
    "flair": (0.48, 0.62, 0.55, 0.52, 0.08, 0.95, 0.12, 0.40),
    "t1w-gadolinium": (0.82, 0.56, 0.67, 0.74, 0.18, 0.90, 0.98, 0.95),
    "pd": (0.60, 0.78, 0.68, 0.63, 0.85, 0.90, 0.30, 0.82),
}

#: What stands in the slots of the T1w and of the T2w scan; the first is what training is about.
PAIRINGS = (
    ("t1w", "t2w"),
    ("t1w", "flair"),
    ("flair", "t2w"),
    ("t1w-gadolinium", "t2w"),
    ("t1w-gadolinium", "flair"),
    ("t1w", "pd"),
    ("pd", "t2w"),
)

#: Edge of what is taken of a map, mm; how many maps.
EDGE, MAPS = 128, 2

#: Blur, in voxels, and share of the noise that makes texture.
BLUR, TEXTURE = 0.5, 0.03


def render(labels: NDArray[np.int64], contrast: str, seed: int) -> NDArray[np.float32]:
    """An image (I, J, K) of a label map, 0 ... 1000, as one contrast shows it."""
    generator = np.random.default_rng(seed)
    means = generator.uniform(0.1, 0.9, 256)
    means[0] = 0
    for ids, value in zip(TISSUES.values(), CONTRASTS[contrast], strict=True):
        means[list(ids)] = value
    grain = ndimage.gaussian_filter(generator.standard_normal(labels.shape), 0.8)
    field = ndimage.zoom(generator.normal(1, 0.08, (3, 3, 3)), np.array(labels.shape) / 3, order=1)
    image = (means[labels] + TEXTURE * grain / grain.std() * (labels > 0)) * field
    return 1000 * ndimage.gaussian_filter(image, BLUR).clip(0).astype(np.float32)


def brain(labels: NDArray[np.float32]) -> NDArray[np.int64]:
    """The part of a map around the middle of the cerebral white matter."""
    middle = ndimage.center_of_mass(labels == 1)
    start = [max(round(m) - EDGE // 2, 0) for m in middle]
    i, j, k = (slice(a, a + EDGE) for a in start)
    return np.rint(labels[i, j, k]).astype(np.int64)


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    out = parser.parse_args().out
    maps = sorted((Path(os.environ["NEXUSINR_DATA"]) / "labels").glob("*.nii.gz"))[:MAPS]
    for number, path in enumerate(maps):
        labels = brain(read_volume(path).data)
        for first, second in PAIRINGS:
            folder = out / f"{first}_{second}_{number + 1}"
            folder.mkdir(parents=True, exist_ok=True)
            for slot, contrast in enumerate((first, second)):
                image = render(labels, contrast, 2 * number + slot)
                write_volume(folder / f"T{slot + 1}w.nii.gz", image, Affine.from_parts((1, 1, 1)))


if __name__ == "__main__":
    main()
