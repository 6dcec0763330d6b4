"""Results as DICOM, under the patient and study of the scans in Slicer's DICOM database."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import qt
import slicer
from slicer.i18n import tr as _

from nexusinr.errors import InputError
from nexusinr.geometry import Affine, Grid
from nexusinr.inference.output import OutputFolder
from nexusinr.mrml.record import NOTICE
from nexusinr.mrml.results import Results
from nexusinr.mrml.segmentation import tissues_of
from nexusinr.mrml.volumes import array_of, grid_of
from NexusINRLib.dependencies import Dependencies
from NexusINRLib.exchange import Folder
from NexusINRLib.words import sentence

if TYPE_CHECKING:
    from nexusinr.volume import Volume

#: Attribute by which a volume node knows its images in the database.
INSTANCES = "DICOM.instanceUIDs"

#: What is made in the folder that the user chooses; a number follows where it is there already.
NAME = "derived_dicom"

#: mm by which a scan may lie beside where its DICOM headers put it.
TOLERANCE = 0.1


def ask_for_folder(title: str) -> str:
    """Where to save several files; empty where the user thinks better of it."""
    return qt.QFileDialog.getExistingDirectory(slicer.util.mainWindow(), title)


def comes_from_dicom(results: Results) -> bool:
    """Whether every restored volume has a scan that was loaded from the DICOM database."""
    scans = [results.originals.get(modality) for modality in results.restored]
    return all(scan is not None and scan.GetAttribute(INSTANCES) for scan in scans)


def export(results: Results, path: str | Path, temporary: str | Path) -> Path:
    """Writes a derived MR series for each scan and a segmentation.

    Args:
        results: that `comes_from_dicom`.
        path: the folder in which another one is made.
        temporary: folder for temporary files.

    Returns the folder that was made.

    Raises InputError where the files of a scan are not in the database any more, where a scan does
    not lie where its headers say, and as nexusinr.dicom_out.export.write does.
    """
    # Reading files needs packages that a fresh Slicer lacks.
    from nexusinr.dicom_out.derived import Derivation
    from nexusinr.dicom_out.export import RestoredScan, check, write
    from nexusinr.volume import Volume

    record, copies = results.record, Folder(temporary)
    lattice, model = Affine(record["lattice"]["affine"]), record["model"]
    moved = {"T2w"} if record["registration"]["applied"] else set()
    try:
        scans = [
            RestoredScan(
                modality,
                _series_of(results.originals[modality], copies.path / modality.lower()),
                Volume(np.array(array_of(node)), lattice),
                modality in moved,
            )
            for modality, node in results.restored.items()
        ]
        grid = scans[0].restored.grid
        check([each.scan for each in scans], grid)
        derivation = Derivation(model["name"], model["version"], model["sha256"], NOTICE)
        with OutputFolder(path) as folder:
            name = _free_name(Path(path))
            write(folder.file(name), scans, _tissues(results, grid), derivation)
            return folder.publish()[name]
    finally:
        copies.remove()


def _free_name(folder: Path) -> str:
    names = [NAME, *(f"{NAME}_{number}" for number in range(2, 1000))]
    return next(name for name in names if not (folder / name).exists())


def _tissues(results: Results, grid: Grid) -> Any:
    """On the lattice of the run, wherever a transform has taken the segmentation since."""
    if results.segmentation is None:
        return None
    now = grid_of(next(iter(results.restored.values())))
    return tissues_of(results.segmentation, Grid(grid.shape, now.affine))


def _series_of(scan: Any, folder: Path) -> Volume:
    """The scan as its files in the database give it; they are copied, as others lie beside them."""
    from nexusinr.volume import read_volume

    folder.mkdir()
    for number, uid in enumerate(scan.GetAttribute(INSTANCES).split()):
        file = slicer.dicomDatabase.fileForInstance(uid)
        if not file or not Path(file).is_file():
            raise InputError(
                "the DICOM files of a scan are not in Slicer's database any more: import them again"
            )
        shutil.copyfile(file, folder / f"{number:05d}.dcm")
    series = read_volume(folder)
    lies, should = grid_of(scan).corners(), series.grid.corners()
    distances = np.linalg.norm(lies[:, None] - should[None], axis=-1)
    if max(distances.min(axis=0).max(), distances.min(axis=1).max()) > TOLERANCE:
        raise InputError(
            "a scan does not lie where its DICOM headers say, so that its patient coordinates do "
            "not hold for the result: take it out of its transform and restore it again"
        )
    return series


class Export:
    """The button that exports.

    Args:
        ui: the panel's widgets by name.
        dependencies: what installs the library for DICOM segmentations.
        ask: asks for a folder.
    """

    def __init__(
        self, ui: Any, dependencies: Dependencies, ask: Callable[[str], str] = ask_for_folder
    ) -> None:
        self._ui, self._dependencies, self._ask = ui, dependencies, ask
        self._results: Results | None = None
        ui.dicomButton.clicked.connect(lambda *_: self._export())
        self.offer(None)

    def offer(self, results: Results | None) -> None:
        """Makes results exportable; None: there are none."""
        self._results = results
        self._ui.dicomButton.enabled = results is not None and comes_from_dicom(results)

    def _export(self) -> None:
        path = self._ask(_("Choose a folder for the DICOM files"))
        if not path or self._results is None:
            return
        with slicer.util.tryWithErrorDisplay(
            _("The results could not be exported."), waitCursor=True
        ):
            self._dependencies.ensure_dicom()
            try:
                made = export(self._results, path, slicer.app.temporaryPath)
            except InputError as error:
                raise InputError(sentence(str(error))) from error
        slicer.util.showStatusMessage(_("Exported to {folder}.").format(folder=made), 5000)
