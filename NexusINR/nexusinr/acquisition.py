"""The acquisition model: what a scanner with thick slices makes of a fine image.

One forward model A, used for training pairs, for evaluation and for measurement consistency. Along
each axis of the scan the fine image is integrated with that axis's profile and read at the scan's
voxel centres. The fine image counts as measured with its own voxel size, so that A is the identity
where the scan's lattice and thickness are the target's: a scan restored onto its own lattice is
not changed.

Between parallel lattices A is three small matrices, one an axis, and its pseudo-inverse is exact.
Otherwise the fine image is first interpolated onto a fine lattice parallel to the scan, and the
pseudo-inverse is found by conjugate gradients.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np
from scipy.special import ndtr

from nexusinr.geometry import FloatArray, Grid
from nexusinr.volume import Volume

if TYPE_CHECKING:
    from torch import Tensor

Profile = Literal["gaussian", "box"]

#: Standard deviation of a Gaussian in units of its full width at half maximum.
FWHM_TO_SIGMA = 1 / (2 * np.sqrt(2 * np.log(2)))

#: A scan voxel whose profile lies less than this far inside the target lattice is left out.
MIN_COVERAGE = 0.8

#: Directions that the scan measures more weakly than this share of the strongest are not inverted:
#: they would blow up noise.
CUTOFF = 0.02


def profile_matrix(
    centres: FloatArray, targets: int, thickness: float, profile: Profile
) -> tuple[FloatArray, FloatArray]:
    """Weights of one axis of the acquisition model.

    Args:
        centres: positions of the scan's voxel centres along the axis, (n,), in target voxels.
        targets: number of target voxels.
        thickness: full width at half maximum of the profile, in target voxels.
        profile: ``gaussian`` or ``box``.

    Returns:
        The weights (n, targets), each row adding up to one (or zero where the target covers less
        than MIN_COVERAGE of the profile), and the coverage (n,), 0 ... 1.
    """
    distance = np.arange(targets)[None, :] - np.asarray(centres)[:, None]
    if profile == "box":
        half = max(thickness, 1.0) / 2
        lower = np.maximum(distance - 0.5, -half)
        weights = np.clip(np.minimum(distance + 0.5, half) - lower, 0, None) / (2 * half)
    elif profile == "gaussian":
        # Variances add under convolution: only what the target voxel has not blurred already.
        sigma = FWHM_TO_SIGMA * np.sqrt(max(thickness**2 - 1, 0))
        weights = (
            _gaussian_ramp(distance + 1, sigma)
            - 2 * _gaussian_ramp(distance, sigma)
            + _gaussian_ramp(distance - 1, sigma)
        )
    else:
        raise ValueError(f"unknown slice profile {profile!r}: choose gaussian or box")
    weights[weights < 1e-6] = 0
    coverage = weights.sum(axis=1)
    weights = weights / np.maximum(coverage, 1e-12)[:, None]
    weights[coverage < MIN_COVERAGE] = 0
    return weights, coverage


def _gaussian_ramp(x: FloatArray, sigma: float) -> FloatArray:
    """Second antiderivative of a Gaussian: its second difference is a Gaussian-blurred hat."""
    if sigma < 1e-6:
        return np.maximum(x, 0)
    z = x / sigma
    return x * ndtr(z) + sigma * np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi)


class SeparableAcquisition:
    """A between parallel lattices: y = (W_i x W_j x W_k) x, one matrix an axis of the scan.

    Args:
        scan: the scan's lattice.
        target: the fine lattice, parallel to it (permuted and flipped axes are welcome).
        thickness: of the profile along each axis of the scan, (3,), mm.
        profile: of the thickest axis among those that the target resolves more finely than the
            scan does; the others, sampled in-plane, always have box profiles.

    Raises ValueError where the lattices are not parallel.
    """

    def __init__(
        self, scan: Grid, target: Grid, thickness: FloatArray, profile: Profile = "gaussian"
    ) -> None:
        axes = scan.axes_in(target)
        if axes is None:
            raise ValueError("scan and target are not parallel: use acquisition_between")
        self.scan, self.target, self.axes = scan, target, axes
        index_map = scan.index_map_to(target)
        widths = np.asarray(thickness) / target.spacing[list(axes)]
        slice_axis = int(np.argmax(np.where(widths > 1 + 1e-3, thickness, 0)))
        self.matrices: list[FloatArray] = []
        covered = []
        for axis, along in enumerate(axes):
            step = index_map[along, axis]
            centres = step * np.arange(scan.shape[axis]) + index_map[along, 3]
            kind: Profile = profile if axis == slice_axis else "box"
            weights, coverage = profile_matrix(centres, target.shape[along], widths[axis], kind)
            self.matrices.append(weights)
            covered.append(coverage >= MIN_COVERAGE)
        self.measured = (
            covered[0][:, None, None] & covered[1][None, :, None] & covered[2][None, None, :]
        )

    def forward(self, x: Tensor) -> Tensor:
        """A x: (..., I, J, K) on the target to (..., i, j, k) on the scan. Differentiable."""
        batch = x.dim() - 3
        x = x.permute(*range(batch), *(batch + along for along in self.axes))
        return _along_axes(x, self.matrices)

    def adjoint(self, y: Tensor) -> Tensor:
        """A' y: (..., i, j, k) on the scan to (..., I, J, K) on the target."""
        return self._to_target(_along_axes(y, [m.T for m in self.matrices]))

    def pseudo_inverse(self, y: Tensor) -> Tensor:
        """A+ y, the smallest image that A turns into y (directions under CUTOFF left alone)."""
        spectra = self._spectra
        z = _along_axes(y, [vectors.T for _, vectors in spectra])
        values = (
            spectra[0][0][:, None, None] * spectra[1][0][None, :, None] * spectra[2][0][None, None]
        )
        keep = values > CUTOFF * values.max()
        inverse = np.where(keep, 1 / np.where(keep, values, 1), 0)
        z = z * _as_tensor(inverse, z)
        z = _along_axes(z, [m.T @ v for m, (_, v) in zip(self.matrices, spectra, strict=True)])
        return self._to_target(z)

    @cached_property
    def _spectra(self) -> list[tuple[FloatArray, FloatArray]]:
        return [
            (np.ones(len(m)), m) if _is_identity(m) else np.linalg.eigh(m @ m.T)
            for m in self.matrices
        ]

    def _to_target(self, x: Tensor) -> Tensor:
        batch = x.dim() - 3
        order = [batch + self.axes.index(along) for along in range(3)]
        return x.permute(*range(batch), *order)


class ObliqueAcquisition:
    """A between lattices at an angle: interpolation onto a parallel fine lattice, then as above.

    Same arguments and methods as SeparableAcquisition; the pseudo-inverse takes some iterations of
    conjugate gradients (enough for a residual below one thousandth where one is possible).
    """

    iterations = 30

    def __init__(
        self, scan: Grid, target: Grid, thickness: FloatArray, profile: Profile = "gaussian"
    ) -> None:
        self.scan, self.target = scan, target
        self.parallel = parallel_lattice(scan, target, thickness)
        self.separable = SeparableAcquisition(scan, self.parallel, thickness, profile)

    @cached_property
    def measured(self) -> np.ndarray:
        """Scan voxels whose profile lies inside the target, (i, j, k) bool."""
        import torch

        inside = self.separable.forward(self._interpolate(torch.ones(self.target.shape)))
        return (inside >= 1 - 1e-3).numpy()

    def forward(self, x: Tensor) -> Tensor:
        """A x: (..., I, J, K) on the target to (..., i, j, k) on the scan. Differentiable."""
        y = self.separable.forward(self._interpolate(x))
        return y * _as_tensor(self.measured, y)

    def adjoint(self, y: Tensor) -> Tensor:
        """A' y: (..., i, j, k) on the scan to (..., I, J, K) on the target."""
        import torch

        y = y * _as_tensor(self.measured, y)
        fine = self.separable.adjoint(y)
        with torch.inference_mode(False), torch.enable_grad():
            x = torch.zeros((*y.shape[:-3], *self.target.shape), dtype=y.dtype, device=y.device)
            x.requires_grad_()
            (gradient,) = torch.autograd.grad(self._interpolate(x), x, fine)
        return gradient

    def pseudo_inverse(self, y: Tensor) -> Tensor:
        """A+ y, by conjugate gradients for least squares (Hestenes and Stiefel 1952).

        No step makes the residual larger, also where the scan has more voxels than the target and
        cannot be reproduced.
        """
        residual = y * _as_tensor(self.measured, y)
        gradient = self.adjoint(residual)
        x, direction = gradient * 0, gradient
        start, slope = residual.square().sum(), gradient.square().sum()
        enough = 1e-8 * slope
        for _ in range(self.iterations):
            if residual.square().sum() <= 1e-6 * start or slope <= enough:
                break
            image = self.forward(direction)
            step = slope / image.square().sum()
            x = x + step * direction
            residual = residual - step * image
            gradient = self.adjoint(residual)
            before, slope = slope, gradient.square().sum()
            direction = gradient + slope / before * direction
        return x

    def _interpolate(self, x: Tensor) -> Tensor:
        import torch
        from torch.nn import functional

        batch = x.shape[:-3]
        volume = x.reshape(1, -1, *self.target.shape)
        slabs = []
        for start in range(0, self.parallel.shape[0], 32):  # bounds the memory for coordinates
            stop = min(start + 32, self.parallel.shape[0])
            where = self._coordinates(start, stop).to(x)
            slabs.append(
                functional.grid_sample(
                    volume, where, mode="bilinear", padding_mode="zeros", align_corners=False
                )
            )
        out = torch.cat(slabs, dim=2)
        return out.reshape(*batch, *self.parallel.shape)

    def _coordinates(self, start: int, stop: int) -> Tensor:
        import torch

        slab = self.parallel.crop((start, 0, 0), (stop, *self.parallel.shape[1:]))
        matrix = slab.index_map_to(self.target)
        index = np.stack(np.meshgrid(*map(np.arange, slab.shape), indexing="ij"), axis=-1)
        where = index @ matrix[:3, :3].T + matrix[:3, 3]
        normalised = (2 * where + 1) / np.array(self.target.shape) - 1
        return torch.from_numpy(normalised[None, ..., ::-1].copy())


Acquisition = SeparableAcquisition | ObliqueAcquisition


def parallel_lattice(scan: Grid, target: Grid, thickness: FloatArray) -> Grid:
    """The lattice along the axes of an oblique scan that covers it, about as fine as the target.

    Args:
        scan: its lattice.
        target: the fine lattice.
        thickness: of the scan's voxels, mm, (3,).
    """
    steps = np.maximum(np.round(scan.spacing / float(target.spacing.min())), 1)
    beyond = np.maximum(np.asarray(thickness) - scan.spacing, 0) / 2 + scan.spacing
    parallel = scan.with_spacing(scan.spacing / steps)
    extra = np.ceil(beyond / parallel.spacing).astype(int)
    return parallel.crop(-extra, np.array(parallel.shape) + extra)


def acquisition_between(
    scan: Grid, target: Grid, thickness: FloatArray, profile: Profile = "gaussian"
) -> Acquisition:
    """The acquisition model from a fine target lattice to a scan's lattice, parallel or not."""
    if scan.axes_in(target) is not None:
        return SeparableAcquisition(scan, target, thickness, profile)
    return ObliqueAcquisition(scan, target, thickness, profile)


@dataclass(frozen=True)
class Consistency:
    """What the projection did: root mean square of y - A x over the measured voxels."""

    before: float
    after: float


def project(
    x: Tensor, y: Tensor, model: Acquisition, weight: float = 1.0
) -> tuple[Tensor, Consistency]:
    """Moves an image onto the set of images that reproduce the acquired slices.

    x <- x + weight * A+ (y - A x): with weight 1 the scan is reproduced, with 0 nothing changes;
    in between, that share of the residual is taken away (for noisy scans).

    Args:
        x: image on the target lattice, (I, J, K).
        y: the scan, (i, j, k), same units.
        model: the acquisition model between the two.
        weight: 0 ... 1.
    """
    if not 0 <= weight <= 1:
        raise ValueError(f"the consistency weight is between 0 and 1, not {weight}")
    measured = _as_tensor(model.measured, y)
    count = measured.sum().clamp(min=1)

    def rms(r: Tensor) -> float:
        return float((r.square().sum() / count).sqrt())

    residual = (y - model.forward(x)) * measured
    before = rms(residual)
    if weight == 0:
        return x, Consistency(before, before)
    x = x + weight * model.pseudo_inverse(residual)
    return x, Consistency(before, rms((y - model.forward(x)) * measured))


def degrade(
    volume: Volume, axis: int, thickness: float, gap: float = 0.0, profile: Profile = "gaussian"
) -> Volume:
    """What a scan with thick slices would have made of a volume.

    Args:
        volume: the fine image.
        axis: its array axis (0, 1, 2) across which the slices lie.
        thickness: of the slices, mm; at least the volume's spacing there.
        gap: between slices, mm.
        profile: slice profile.

    Returns:
        A volume with the same corner and in-plane lattice, whose slices are thickness + gap apart.

    Raises ValueError for an axis that is none and for a thickness or gap that makes no slice.
    """
    import torch

    _check_axis(axis)
    fine = float(volume.affine.spacing[axis])
    if not thickness >= fine * (1 - 1e-3) or not np.isfinite(thickness):
        raise ValueError(f"slices of {thickness:g} mm cannot be made of voxels of {fine:g} mm")
    if not gap >= 0 or not np.isfinite(gap):
        raise ValueError(f"a gap between slices is not negative, in mm, unlike {gap:g}")
    grid = volume.grid
    slices = int((grid.extent[axis] + gap) / (thickness + gap) + 1e-3)
    if slices < 1:
        raise ValueError(
            f"the volume is {grid.extent[axis]:g} mm deep: no slice of {thickness:g} mm"
        )
    scan = _thick_slices(grid, axis, thickness + gap, slices)
    # The first slice, not the first slice and its gap, begins at the corner.
    step = scan.affine.direction[:, axis] * gap / 2
    scan = Grid(scan.shape, scan.affine.transformed(_translation(-step)))
    widths = _replaced(grid.spacing, axis, thickness)
    model = SeparableAcquisition(scan, grid, widths, profile)
    if not model.measured.all():
        raise ValueError(
            f"the volume is {grid.extent[axis]:g} mm deep: too little for the {profile} profile of "
            f"a slice of {thickness:g} mm"
        )
    data = model.forward(torch.from_numpy(np.ascontiguousarray(volume.data))).numpy()
    return Volume(data, scan.affine, thickness=tuple(widths.tolist()), name=volume.name)


def block_average(volume: Volume, axis: int, factor: int) -> Volume:
    """Means of blocks of voxels along one axis (paper section 4.1): slices that touch, box profile.

    The corner is kept; a last block that is not whole is left out.

    Raises ValueError for an axis that is none and for a factor that makes no block.
    """
    grid = block_lattice(volume.grid, axis, factor)
    blocks = grid.shape[axis]
    whole = np.moveaxis(volume.data, axis, 0)[: blocks * factor]
    data = np.moveaxis(whole.reshape(blocks, factor, *whole.shape[1:]).mean(axis=1), 0, axis)
    return Volume(np.ascontiguousarray(data), grid.affine, name=volume.name)


def block_lattice(grid: Grid, axis: int, factor: int) -> Grid:
    """The lattice of `block_average`. Raises ValueError as that does."""
    _check_axis(axis)
    if not 1 <= factor <= grid.shape[axis]:
        raise ValueError(f"{grid.shape[axis]} voxels have no blocks of {factor}")
    spacing = factor * float(grid.spacing[axis])
    return _thick_slices(grid, axis, spacing, grid.shape[axis] // factor)


def _check_axis(axis: int) -> None:
    if axis not in (0, 1, 2):
        raise ValueError(f"an array axis is 0, 1 or 2, not {axis}")


def _thick_slices(grid: Grid, axis: int, spacing: float, slices: int) -> Grid:
    shape = tuple(slices if a == axis else n for a, n in enumerate(grid.shape))
    return Grid.from_corner(
        (shape[0], shape[1], shape[2]),
        _replaced(grid.spacing, axis, spacing),
        grid.affine.direction,
        grid.corner,
    )


def _replaced(values: FloatArray, axis: int, value: float) -> FloatArray:
    changed = np.array(values, dtype=np.float64)
    changed[axis] = value
    return changed


def _translation(offset: FloatArray) -> FloatArray:
    matrix = np.eye(4)
    matrix[:3, 3] = offset
    return matrix


def _along_axes(x: Tensor, matrices: list[FloatArray]) -> Tensor:
    """Applies one matrix (n_out, n_in) to each of the last three axes."""
    import torch

    # The axis that shrinks most goes first; in-plane the matrix often is the identity.
    axes = [axis for axis in range(3) if not _is_identity(matrices[axis])]
    for axis in sorted(axes, key=lambda a: matrices[a].shape[0] / matrices[a].shape[1]):
        moved = torch.movedim(x, x.dim() - 3 + axis, -1)
        x = torch.movedim(moved @ _as_tensor(matrices[axis].T, x), -1, x.dim() - 3 + axis)
    return x


def _is_identity(matrix: FloatArray) -> bool:
    return matrix.shape[0] == matrix.shape[1] and np.array_equal(matrix, np.eye(len(matrix)))


def _as_tensor(array: np.ndarray, like: Tensor) -> Tensor:
    import torch

    return torch.from_numpy(np.ascontiguousarray(array)).to(like)
