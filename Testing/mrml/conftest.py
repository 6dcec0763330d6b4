"""Real scenes, a small head to put into them, and the report of a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from nexusinr.geometry import Grid
from nexusinr.labels import CSF, DEEP_GREY, GREY, WHITE


@pytest.fixture(scope="session")
def new_app() -> Callable[[], Any]:
    """Makes a scene with the logics that Slicer has, offscreen views included."""
    why = "MRML without Slicer (slicer-core) is not installed: pip install 'nexusinr[web]'"
    core = pytest.importorskip("trame_slicer.core", reason=why)
    views = pytest.importorskip("trame_slicer.views", reason=why)

    def make() -> Any:
        app = core.SlicerApp()
        app.view_manager.register_factory(views.DirectViewFactory(do_render_offscreen=True))
        return app

    return make


@pytest.fixture(scope="session")
def views_of() -> Callable[..., dict[str, Any]]:
    """Makes the views of a layout, 200 x 160 pixels each, that show a volume; by their tags."""

    def make(app: Any, description: str, background: Any, *only: str) -> dict[str, Any]:
        from trame_slicer.views.layout_grid import slicer_layout_to_vue

        views = {}
        for item in slicer_layout_to_vue(description).get_views(is_recursive=True):
            if only and item.singleton_tag not in only:
                continue
            view = app.view_manager.create_view(item)
            view.set_render_blocked(True)  # pictures are rendered when they are asked for
            view.interactor().UpdateSize(200, 160)
            view.set_background_volume_id(background.GetID())
            view.reset_view()
            views[item.singleton_tag] = view
        return views

    return make


@pytest.fixture(scope="session")
def picture_of() -> Callable[[Any], NDArray[np.int16]]:
    """Renders a view: RGB, (rows, columns, 3), first row at the top."""

    def render(view: Any) -> NDArray[np.int16]:
        from trame_rca.rca.vtk_rca import VtkRemoteControlledArea

        image, _, _ = VtkRemoteControlledArea(view.render_window()).img_cols_rows
        return image.astype(np.int16)

    return render


@pytest.fixture
def app(new_app) -> Any:
    return new_app()


@pytest.fixture
def scene(app) -> Any:
    return app.scene


@dataclass(frozen=True)
class Head:
    """A head of shells on an oblique lattice of 3 mm, and its scan with slices of 12 mm."""

    grid: Grid
    tissues: NDArray[np.uint8]
    restored: NDArray[np.float32]
    scan_grid: Grid
    scan: NDArray[np.float32]


@pytest.fixture(scope="session")
def head() -> Head:
    turned = Rotation.from_euler("xyz", (8, -5, 12), degrees=True).as_matrix()
    grid = Grid.from_corner((60, 72, 56), (3, 3, 3), turned * (-1, -1, 1), (100, 90, -90))
    scan_grid = grid.with_spacing((3, 3, 12))
    index = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), -1)
    middle = (np.array(grid.shape) - 1) / 2
    away = (index - middle) / (22, 29, 20)
    depth = np.sqrt((away**2).sum(axis=-1)) + 0.06 * np.sin(index.sum(axis=-1) * 0.9)
    tissues = np.zeros(grid.shape, dtype=np.uint8)
    for radius, tissue in ((1.0, CSF), (0.92, GREY), (0.75, WHITE), (0.3, DEEP_GREY)):
        tissues[depth < radius] = tissue
    signal = np.array([20, 220, 480, 700, 560, 0], dtype=np.float32)
    restored = signal[tissues] + np.where((depth > 1) & (depth < 1.15), 600, 0)
    restored = restored.astype(np.float32)
    scan = restored.reshape(60, 72, 14, 4).mean(axis=-1)
    return Head(grid, tissues, restored, scan_grid, scan)


@pytest.fixture
def report() -> dict[str, Any]:
    """What a run with one scan says, as in report.json."""
    return {
        "notice": "Derived images for research; not for primary diagnosis.",
        "inputs": [
            {
                "modality": "T1w",
                "path": "/scans/DOE_JANE/t1.nii.gz",
                "sha256": "a" * 64,
                "shape": [60, 72, 14],
                "spacing_mm": [3.0, 3.0, 12.0],
            }
        ],
        "lattice": {"shape": [60, 72, 56], "spacing_mm": [3.0, 3.0, 3.0]},
        "model": {"name": "nexus-inr", "version": "1.2", "sha256": "b" * 64},
        "registration": {"mode": "auto", "applied": False},
        "consistency": {
            "weight": 1.0,
            "T1w": {"profile": "gaussian", "before": 12.5, "after": 0.75},
        },
        "tissue_volumes_ml": {"grey matter": 612.25, "white matter": 480.5},
        "warnings": ["σ was guessed"],
        "software": {"nexusinr": "0.1", "torch": "2.13", "numpy": "2.4"},
    }
