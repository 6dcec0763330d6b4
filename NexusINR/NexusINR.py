"""The 3D Slicer module: panel, scripting interface and self-test. Wiring only; see NexusINRLib."""

# ruff: noqa: N802 (Slicer calls many methods by its own names)

import enum
import os
import unittest
from typing import Annotated, Any

import numpy as np
import slicer
import vtk
from slicer import vtkMRMLMarkupsROINode, vtkMRMLScalarVolumeNode
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.parameterNodeWrapper import WithinRange, parameterNodeWrapper
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin

RESOURCES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "Resources")


class NexusINR(ScriptedLoadableModule):
    """What Slicer shows of the module before it is opened."""

    def __init__(self, parent: Any) -> None:
        ScriptedLoadableModule.__init__(self, parent)
        parent.title = _("NexusINR")
        parent.categories = [translate("qSlicerAbstractCoreModule", "Filtering")]
        parent.dependencies = ["SampleData", "Segmentations", "SubjectHierarchy"]
        parent.contributors = ["NexusINR contributors"]
        parent.helpText = _(
            "Restores T1w and T2w brain MRI with thick slices on any lattice you choose, with a "
            "tissue segmentation. Choose one or two volumes and press Apply; then compare original "
            "and restored scan. Results are derived images for research, not for primary "
            "diagnosis. Nothing leaves this computer. See {link}."
        ).format(
            link='<a href="https://github.com/NexusINR/SlicerNexusINR">'
            + _("the documentation")
            + "</a>"
        )
        parent.acknowledgementText = _(
            "Written by the NexusINR contributors, licensed under Apache 2.0. It stands on 3D "
            "Slicer, PyTorch, ITK and NiBabel."
        )
        slicer.app.startupCompleted.connect(register_sample_data)


def register_sample_data() -> None:
    """Adds the computed head to the Sample Data module."""
    from NexusINRLib.samples import register

    register(RESOURCES)


class Spacing(enum.Enum):
    """What the result's spacing is chosen by; numbers are mm."""

    FINEST = "finest"
    MM_0_5 = 0.5
    MM_0_7 = 0.7
    MM_0_8 = 0.8
    MM_1_0 = 1.0
    MM_1_5 = 1.5
    MM_2_0 = 2.0
    FREE = "free"
    LIKE = "like"

    def label(self) -> str:
        """As the panel shows it."""
        texts = {
            "finest": _("Finest of the scans, on all axes"),
            "free": _("Free, for each axis"),
            "like": _("Like another volume"),
        }
        return texts.get(self.value) or _("{spacing:.1f} mm").format(spacing=self.value)


class Device(enum.Enum):
    """What computes; values are names that the worker knows."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"
    MPS = "mps"

    def label(self) -> str:
        """As the panel shows it."""
        return {
            "auto": _("Automatic"),
            "cpu": _("Processor (CPU)"),
            "cuda": _("NVIDIA graphics card (CUDA)"),
            "mps": _("Apple graphics (MPS)"),
        }[self.value]


@parameterNodeWrapper
class NexusINRParameterNode:
    """What the user has chosen; kept with the scene.

    Attributes:
        t1w: the T1w scan.
        t2w: the T2w scan.
        roi: the region to restore.
        spacing: what the spacing is chosen by.
        spacing_x: mm along the first axis of the first scan, where it is free.
        spacing_y: likewise along the second axis.
        spacing_z: likewise along the third axis.
        like: the volume whose lattice is taken over, where that is chosen.
        model: name of the weights.
        device: what computes.
        keep: how much of what was measured is kept.
        segmentation: whether tissues are wanted.
        surfaces: whether they are shown in 3D.
    """

    t1w: vtkMRMLScalarVolumeNode
    t2w: vtkMRMLScalarVolumeNode
    roi: vtkMRMLMarkupsROINode
    spacing: Spacing = Spacing.FINEST
    spacing_x: Annotated[float, WithinRange(0.1, 20.0)] = 1.0
    spacing_y: Annotated[float, WithinRange(0.1, 20.0)] = 1.0
    spacing_z: Annotated[float, WithinRange(0.1, 20.0)] = 1.0
    like: vtkMRMLScalarVolumeNode
    model: str = "nexus-inr"
    device: Device = Device.AUTO
    keep: Annotated[float, WithinRange(0.0, 1.0)] = 1.0
    segmentation: bool = True
    surfaces: bool = False


class NexusINRWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """The panel."""

    def __init__(self, parent: Any = None) -> None:
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic: NexusINRLogic = None
        self._parameters = None
        self._gui = None

    def setup(self) -> None:
        """Called when the module is opened for the first time."""
        from NexusINRLib.panel import Panel

        ScriptedLoadableModuleWidget.setup(self)
        widget = slicer.util.loadUI(self.resourcePath("UI/NexusINR.ui"))
        self.layout.addWidget(widget)
        self.ui = slicer.util.childWidgetVariables(widget)
        widget.setMRMLScene(slicer.mrmlScene)
        self.logic = NexusINRLogic()
        self.panel = Panel(self.ui, self.logic, slicer.mrmlScene)
        scene = slicer.mrmlScene
        self.addObserver(scene, scene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(scene, scene.EndCloseEvent, self.onSceneEndClose)
        self.addObserver(scene, scene.EndImportEvent, self.onSceneEndImport)
        self.addObserver(scene, scene.NodeAddedEvent, self.onNodeAdded)
        self.addObserver(scene, scene.NodeAboutToBeRemovedEvent, self.onNodeAboutToBeRemoved)
        self.initializeParameterNode()

    def cleanup(self) -> None:
        """Called when the module is reloaded and when Slicer closes."""
        self.panel.close()
        self.setParameterNode(None)
        self.removeObservers()

    def enter(self) -> None:
        """Called whenever the module is opened."""
        self.initializeParameterNode()

    def exit(self) -> None:
        """Called whenever another module is opened; runs go on."""
        self.panel.pause()
        self.setParameterNode(None)

    def onSceneStartClose(self, caller: Any, event: Any) -> None:
        """Runs belong to the scene that closes."""
        self.panel.leave_scene()
        self.setParameterNode(None)

    def onSceneEndClose(self, caller: Any, event: Any) -> None:
        """The panel goes on with the empty scene."""
        if self.parent.isEntered:
            self.initializeParameterNode()

    def onSceneEndImport(self, caller: Any, event: Any) -> None:
        """A scene that was saved brings choices and results."""
        if self.parent.isEntered:
            self.initializeParameterNode()

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def onNodeAdded(self, caller: Any, event: Any, node: Any) -> None:
        """A volume that was loaded may be what the user wants to restore."""
        if node is not None and node.IsA("vtkMRMLScalarVolumeNode"):
            self.panel.look_for_scans()

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def onNodeAboutToBeRemoved(self, caller: Any, event: Any, node: Any) -> None:
        """What is compared may go."""
        self.panel.forget(node)

    def initializeParameterNode(self) -> None:
        """Makes sure that there is a parameter node, and that it is observed."""
        self.setParameterNode(self.logic.getParameterNode())

    def setParameterNode(self, parameters: NexusINRParameterNode | None) -> None:
        """Ties the panel to a parameter node, or to none."""
        if self._parameters is not None:
            self._parameters.disconnectGui(self._gui)
            self.removeObserver(self._parameters, vtk.vtkCommand.ModifiedEvent, self._refresh)
        self._parameters = parameters
        self.panel.parameters = parameters
        if parameters is not None:
            self._gui = parameters.connectGui(self.ui)
            self.addObserver(parameters, vtk.vtkCommand.ModifiedEvent, self._refresh)
            self.panel.choose_scans()
            self.panel.choose_result()
            self._refresh()

    def _refresh(self, caller: Any = None, event: Any = None) -> None:
        self.panel.refresh()


class NexusINRLogic(ScriptedLoadableModuleLogic):
    """The same work from a script, without questions and windows.

    One volume, restored at 1 mm::

        from NexusINR import NexusINRLogic
        results = NexusINRLogic().upsample(slicer.util.getNode("T1"), spacing=1.0)
        print(results.restored["T1w"].GetName(), results.record["tissue_volumes_ml"])

    A folder of pairs::

        from pathlib import Path

        logic = NexusINRLogic()
        for folder in sorted(Path("/data").iterdir()):
            t1, t2 = (slicer.util.loadVolume(str(folder / f"{m}.nii.gz")) for m in ("T1w", "T2w"))
            results = logic.upsample(t1, t2, spacing=(0.8, 0.8, 0.8))
            for modality, node in results.restored.items():
                slicer.util.saveNode(node, str(folder / f"{modality}_restored.nii.gz"))
            slicer.mrmlScene.Clear()

    Without waiting; the window stays usable::

        def done(results):
            slicer.util.setSliceViewerLayers(background=results.restored["T1w"], fit=True)

        t1 = slicer.util.getNode("T1")
        run = NexusINRLogic().start(t1, spacing=1.0, onDone=done, onError=print)
        run.cancel()  # at any time

    Args:
        worker: who computes (NexusINRLib.worker.Worker); default: the one of this Slicer.
        dependencies: who knows what is missing (NexusINRLib.dependencies.Dependencies).
    """

    def __init__(self, worker: Any = None, dependencies: Any = None) -> None:
        from NexusINRLib.dependencies import Dependencies
        from NexusINRLib.worker import shared

        ScriptedLoadableModuleLogic.__init__(self)
        self.worker = worker or shared()
        self.dependencies = dependencies or Dependencies(
            os.path.join(RESOURCES, "requirements.txt")
        )

    def getParameterNode(self) -> NexusINRParameterNode:
        """What the user has chosen in the panel."""
        return NexusINRParameterNode(super().getParameterNode())

    def start(
        self,
        t1Node: Any = None,
        t2Node: Any = None,
        spacing: float | tuple[float, float, float] | None = None,
        onProgress: Any = None,
        onDone: Any = None,
        onError: Any = None,
        **options: Any,
    ) -> Any:
        """Starts a run and returns at once; runs wait for one another.

        Args:
            t1Node: the T1w volume node, or None.
            t2Node: the T2w volume node, or None; one of the two at least.
            spacing: mm along the axes of the T1w scan (T2w where there is none), one number or
                three; default: the finest of the scans, isotropic, not under 0.5.
            onProgress: called with a share 0 ... 1, a step in words, and seconds to go or None.
            onDone: called with the results (nexusinr.mrml.results.Results).
            onError: called instead with the error, also where the run is cancelled.
            options: like, roi, model, device, register, consistency, segmentation, surfaces; see
                NexusINRLib.run.Settings.

        Returns the run (NexusINRLib.run.Run), which can be cancelled.

        Raises RuntimeError where Python packages are missing, InputError (a ValueError) for nodes
        that cannot be used.
        """
        from NexusINRLib.run import Run, Settings

        missing = self.dependencies.missing()
        if missing:
            raise RuntimeError(
                f"Python packages are missing: {', '.join(missing)}. Open the module NexusINR and "
                "press Apply once to install them, or call NexusINRLogic().dependencies.install()."
            )
        settings = Settings(t1Node, t2Node, spacing, **options)
        temporary = slicer.app.temporaryPath
        return Run(settings, slicer.mrmlScene, self.worker, temporary, onProgress, onDone, onError)

    def upsample(
        self,
        t1Node: Any = None,
        t2Node: Any = None,
        spacing: float | tuple[float, float, float] | None = None,
        onProgress: Any = None,
        **options: Any,
    ) -> Any:
        """Restores scans and waits for it; arguments as those of `start`.

        Returns the results (nexusinr.mrml.results.Results): ``restored`` (volume nodes by
        modality), ``segmentation``, ``report`` (text node), ``record`` (the report's values).

        Raises what `start` raises, and the run's error where it fails: InputError, OutOfMemory,
        Cancelled or NexusError of nexusinr.errors, one sentence each.
        """
        run = self.start(t1Node, t2Node, spacing, onProgress, **options)
        try:
            while not run.finished:
                self.worker.wait(50)
                slicer.app.processEvents()
        except BaseException:  # such as Ctrl-C
            run.cancel()
            raise
        if run.error is not None:
            raise run.error
        return run.results


class NexusINRTest(ScriptedLoadableModuleTest):
    """Cases that run in Slicer (Reload and Test, ctest) and on its stand-ins.

    Those that compute are skipped where the Python packages are missing: nothing is installed.
    """

    def setUp(self) -> None:
        """Every case has an empty scene and a logic."""
        slicer.mrmlScene.Clear()
        self.logic = NexusINRLogic()

    def runTest(self) -> None:
        """All cases, one after the other."""
        for name in sorted(name for name in dir(self) if name.startswith("test_")):
            self.setUp()
            self.delayDisplay(name.replace("_", " "))
            try:
                getattr(self, name)()
            except unittest.SkipTest as reason:
                print(f"{name}: skipped ({reason})")

    def test_samples_load_and_are_told_apart(self) -> None:
        """The sample data is registered; T1w and T2w are found whatever the order."""
        from NexusINRLib.inputs import Guesses, candidates, choose, examine

        t2w, t1w = self._load("T2w"), self._load("T1w")
        assert choose(candidates(slicer.mrmlScene), Guesses()) == (t1w, t2w)
        findings = examine(t1w, t2w, Guesses())
        assert findings.problem is None
        assert "axial" in findings.facts[0]
        assert "coronal" in findings.facts[1]

    def test_missing_packages_are_an_error_without_a_question(self) -> None:
        """Scripts are told what to do; nothing is installed."""

        class Nothing:
            def missing(self) -> list[str]:
                return ["nibabel>=5.3"]

        with self.assertRaisesRegex(RuntimeError, "nibabel"):  # noqa: PT027 (no pytest in Slicer)
            NexusINRLogic(self.logic.worker, Nothing()).upsample(self._load("T1w"))

    def test_one_volume_is_restored_where_it_lies(self) -> None:
        """Under a linear transform, too; the record says how."""
        scan = self._small_scan()
        moved = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
        matrix = vtk.vtkMatrix4x4()
        matrix.SetElement(0, 3, 12.5)
        moved.SetMatrixTransformToParent(matrix)
        scan.SetAndObserveTransformNodeID(moved.GetID())
        results = self.logic.upsample(scan, spacing=1.5)
        restored = results.restored["T1w"]
        np.testing.assert_allclose(restored.GetSpacing(), 1.5, atol=1e-4)
        bounds = [np.zeros(6), np.zeros(6)]
        for node, box in zip((scan, restored), bounds, strict=True):
            node.GetRASBounds(box)
        np.testing.assert_allclose(bounds[0], bounds[1], atol=0.01)
        assert results.record["inputs"][0]["modality"] == "T1w"
        assert "not for primary" in restored.GetAttribute("NexusINR.Notice")

    def test_a_cancelled_run_leaves_nothing(self) -> None:
        """No node, and it ends within seconds."""
        from nexusinr.errors import Cancelled

        scan, errors = self._small_scan(), []
        count = slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode")
        run = self.logic.start(scan, spacing=0.5, onError=errors.append)
        run.cancel()
        while not run.finished:
            self.logic.worker.wait(50)
            slicer.app.processEvents()
        assert isinstance(errors[0], Cancelled)
        assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == count

    def test_results_are_found_and_compared(self) -> None:
        """The comparison is entered and left; the user's layout comes back."""
        from nexusinr.mrml.comparison import Comparison
        from nexusinr.mrml.results import results_of, with_invented

        made = self.logic.upsample(self._small_scan(), spacing=2.0)
        results = with_invented(slicer.mrmlScene, results_of(made.report))
        layout_node = slicer.app.layoutManager().layoutLogic().GetLayoutNode()
        before = layout_node.GetViewArrangement()
        comparison = Comparison(slicer.mrmlScene, results.pairs(), results.segmentation)
        comparison.enter(layout_node)
        slicer.app.processEvents()
        comparison.fit()
        comparison.show_invented(0.5)
        assert layout_node.GetViewArrangement() != before
        comparison.leave()
        assert layout_node.GetViewArrangement() == before

    def _load(self, modality: str) -> Any:
        import SampleData

        register_sample_data()
        return SampleData.downloadSample(f"NexusINRPhantom{modality}")

    def _small_scan(self) -> Any:
        """The middle of the T1w sample, without the rest: quick to restore."""
        from nexusinr.mrml.volumes import add_volume, array_of, grid_of

        missing = self.logic.dependencies.missing()
        if missing:
            self.skipTest(f"{', '.join(missing)} not installed")
        whole = self._load("T1w")
        grid = grid_of(whole).crop((40, 50, 20), (80, 90, 40))
        values = array_of(whole)[40:80, 50:90, 20:40]
        scan = add_volume(slicer.mrmlScene, values, grid.affine, "T1w")
        slicer.mrmlScene.RemoveNode(whole)
        return scan
