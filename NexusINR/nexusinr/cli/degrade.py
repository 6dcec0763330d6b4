"""`nexusinr degrade`: the acquisition model as a command."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from typer import Argument, Option

from nexusinr.errors import InputError

if TYPE_CHECKING:
    from nexusinr.geometry import Affine

#: Letters of an orientation that run along each patient axis.
ALONG = {"x": "RL", "y": "AP", "z": "SI"}


def degrade(
    image: Annotated[Path, Argument(help="A fine image.")],
    thickness: Annotated[float, Option(metavar="MM", help="Of the slices.")],
    axis: Annotated[
        Literal["x", "y", "z"],
        Option(
            metavar="x|y|z",
            help="Patient axis across the slices: x right-left (sagittal slices), y front-back "
            "(coronal), z up-down (axial). The nearest voxel axis is taken.",
        ),
    ],
    out: Annotated[Path, Option(metavar="PATH", help=".nii.gz, .nii, .nrrd or .mha.")],
    gap: Annotated[float, Option(metavar="MM", help="Between the slices.")] = 0.0,
) -> None:
    """Make thick slices of a fine image, as a scanner would.

    The slices have a Gaussian profile whose width at half height is the thickness. The format of
    the result has no place for a thickness: with a gap, only the distance of the slices is kept.
    """
    from nexusinr import acquisition
    from nexusinr.volume import describe, read_volume, write_volume

    volume = read_volume(image)
    try:
        thick = acquisition.degrade(volume, _voxel_axis(volume.affine, axis), thickness, gap)
    except ValueError as error:
        raise InputError(f"{image.name}: {error}") from error
    write_volume(out, thick.data, thick.affine)
    print(f"{out}: {describe(thick)}")


def _voxel_axis(affine: Affine, axis: str) -> int:
    return next(n for n, letter in enumerate(affine.orientation) if letter in ALONG[axis])
