"""The panel: what the user chose becomes runs, and what runs say becomes words on the panel."""

from __future__ import annotations

from typing import Any

import qt
import slicer
import vtk
from slicer.i18n import tr as _
from slicer.util import VTKObservationMixin

from nexusinr.errors import Cancelled, InputError, NexusError
from nexusinr.models import weights
from nexusinr.mrml.record import PREFIX
from nexusinr.mrml.results import Results, results_of
from nexusinr.mrml.scene import nodes_of
from NexusINRLib import inputs, words
from NexusINRLib.compare import Compare
from NexusINRLib.estimate import Estimator, lattice
from NexusINRLib.export import Export
from NexusINRLib.report import Report
from NexusINRLib.run import Run, Settings

#: Milliseconds after a volume appeared or changed, until the panel looks at it: more may follow.
SETTLE = 300

#: What may change the place or the values of a chosen node.
CHANGES = (
    vtk.vtkCommand.ModifiedEvent,
    slicer.vtkMRMLTransformableNode.TransformModifiedEvent,
    slicer.vtkMRMLVolumeNode.ImageDataModifiedEvent,
)


class Panel(VTKObservationMixin):
    """Ties the widgets to the logic.

    Args:
        ui: the widgets by name.
        logic: starts runs; has a worker and dependencies.
        scene: where everything is.

    Attributes:
        parameters: what the user has chosen; None while the module is not open.
        compare: the controls of the comparison views.
        report: the part with the numbers.
        export: the results as DICOM.
    """

    def __init__(self, ui: Any, logic: Any, scene: Any) -> None:
        VTKObservationMixin.__init__(self)
        self.parameters: Any = None
        self._ui, self._logic, self._scene = ui, logic, scene
        self._guesses = inputs.Guesses()
        self._runs: list[Run] = []
        self._automatic: tuple[Any, Any] = (None, None)
        self._estimated: Settings | None = None
        self._is_ready = False
        self.compare = Compare(
            ui, lambda: slicer.app.layoutManager().layoutLogic().GetLayoutNode(), logic.worker
        )
        self.report = Report(ui, scene)
        self.export = Export(ui, logic.dependencies)
        self._estimator = Estimator(
            logic.worker, slicer.app.temporaryPath, self._show_estimate, self._show_no_estimate
        )
        self._look = qt.QTimer()
        self._look.setSingleShot(True)
        self._look.interval = SETTLE
        self._look.timeout.connect(self._look_again)
        self._cards = weights.available()
        ui.modelComboBox.addItems(list(self._cards))
        ui.resultSelector.addAttribute("vtkMRMLTextNode", f"{PREFIX}Notice")
        size = slicer.app.style().pixelMetric(qt.QStyle.PM_SmallIconSize)
        sign = slicer.app.style().standardIcon(qt.QStyle.SP_MessageBoxWarning)
        ui.warningsIcon.setPixmap(sign.pixmap(size, size))
        for label in (ui.statusLabel, ui.deviceReasonLabel, ui.liveLabel):
            _show(label, "")
        self._connect()
        self._show_runs()
        for selector in (ui.t1wSelector, ui.t2wSelector, ui.roiSelector, ui.likeSelector):
            _let_keyboard_in(selector)
        _let_keyboard_in(ui.resultSelector)

    def _connect(self) -> None:
        ui = self._ui
        ui.applyButton.clicked.connect(lambda *_: self._apply())
        ui.cancelButton.clicked.connect(lambda *_: self._cancel())
        ui.swapButton.clicked.connect(lambda *_: self._swap())
        ui.repairButton.clicked.connect(lambda *_: self._repair())
        ui.roiSelector.currentNodeChanged.connect(lambda *_: self._place_region())
        ui.modelComboBox.currentIndexChanged.connect(lambda *_: self._take_model())
        ui.cardButton.toggled.connect(lambda *_: self._show_card())
        ui.resultSelector.currentNodeChanged.connect(lambda *_: self._show_result())

    # --- the choice ---------------------------------------------------------------------------

    def settings(self) -> Settings:
        """What is chosen now."""
        chosen = self.parameters
        spacing = chosen.spacing.value
        if spacing == "free":
            spacing = (chosen.spacing_x, chosen.spacing_y, chosen.spacing_z)
        return Settings(
            t1w=chosen.t1w,
            t2w=chosen.t2w,
            spacing=None if spacing in ("finest", "like") else spacing,
            like=chosen.like if spacing == "like" else None,
            roi=chosen.roi,
            model=chosen.model,
            device=chosen.device.value,
            consistency=chosen.keep,
            segmentation=chosen.segmentation,
            surfaces=chosen.surfaces,
        )

    def choose_scans(self) -> None:
        """Fills in the scans, where the user has not chosen any."""
        chosen = self.parameters
        if (chosen.t1w, chosen.t2w) in ((None, None), self._automatic):
            found = inputs.choose(inputs.candidates(self._scene), self._guesses)
            self._automatic = found
            was_modifying = chosen.StartModify()
            chosen.t1w, chosen.t2w = found
            chosen.EndModify(was_modifying)

    def choose_result(self) -> None:
        """Chooses the newest result where none is chosen: a scene that was read may have some."""
        if self._ui.resultSelector.currentNode() is None:
            nodes = nodes_of(self._scene, "vtkMRMLTextNode")
            reports = [node for node in nodes if results_of(node) is not None]
            if reports:
                self._ui.resultSelector.setCurrentNode(reports[-1])

    def look_for_scans(self) -> None:
        """A volume has appeared: looks at it once it has been read."""
        self._look.start()

    def refresh(self) -> None:
        """Shows what follows from the choice."""
        if self.parameters is None:
            return
        ui, chosen = self._ui, self.parameters
        self._watch([chosen.t1w, chosen.t2w, chosen.roi, chosen.like])
        findings = inputs.examine(chosen.t1w, chosen.t2w, self._guesses)
        problem = findings.problem
        if problem is None and chosen.spacing.value == "like" and chosen.like is None:
            problem = _("Choose the volume whose voxels the result shall have.")
        _show(ui.inputsLabel, "\n".join(findings.facts))
        _show(ui.warningsLabel, "\n".join([*filter(None, [problem]), *findings.warnings]))
        ui.warningsIcon.visible = bool(ui.warningsLabel.text)
        ui.swapButton.enabled = bool(chosen.t1w or chosen.t2w)
        spins = ui.spacingXSpinBox, ui.spacingYSpinBox, ui.spacingZSpinBox
        for part in (ui.freeSpacingLabel, *spins):
            part.visible = chosen.spacing.value == "free"
        for part in (ui.likeLabel, ui.likeSelector):
            part.visible = chosen.spacing.value == "like"
        ui.surfacesCheckBox.enabled = chosen.segmentation
        ui.applyButton.enabled = problem is None
        ui.applyButton.toolTip = problem or _(
            "Restore the chosen volumes. While a run is under way, another one waits for it."
        )
        self._show_card()
        self._estimate(problem)

    def _watch(self, nodes: list[Any]) -> None:
        """Observes the chosen nodes, and no others."""
        self.removeObservers(self._on_change)
        for node in {node for node in nodes if node is not None}:
            for event in CHANGES:
                self.addObserver(node, event, self._on_change)

    def _on_change(self, caller: Any, event: Any) -> None:
        self._estimated = None
        self._look.start()

    def _look_again(self) -> None:
        if self.parameters is not None:
            self.choose_scans()
            self.refresh()

    def _swap(self) -> None:
        chosen = self.parameters
        was_modifying = chosen.StartModify()
        chosen.t1w, chosen.t2w = chosen.t2w, chosen.t1w
        chosen.EndModify(was_modifying)

    def _take_model(self) -> None:
        if self.parameters is not None and self._ui.modelComboBox.currentIndex >= 0:
            self.parameters.model = self._ui.modelComboBox.currentText

    def _place_region(self) -> None:
        """A region that is nowhere yet is the middle of the scan, to be moved in the views."""
        region, chosen = self._ui.roiSelector.currentNode(), self.parameters
        scan = None if chosen is None else chosen.t1w or chosen.t2w
        if region is None or scan is None or any(region.GetSize()):
            return
        try:
            inputs.place_in_middle(region, scan)
        except InputError:  # which the panel tells already
            return

    def _show_card(self) -> None:
        if self.parameters is None:
            return
        name = self.parameters.model
        self._ui.modelComboBox.currentIndex = self._ui.modelComboBox.findText(name)
        card = self._cards.get(name)
        self._ui.cardButton.enabled = card is not None
        if card is None:
            text = _("There is no model {name} here.").format(name=name)
        else:
            text = words.card(card, in_full=self._ui.cardButton.checked)
        self._ui.modelCardLabel.text = text

    # --- the estimate -------------------------------------------------------------------------

    def _estimate(self, problem: str | None) -> None:
        settings = None if problem else self.settings()
        if settings is not None and settings == self._estimated:
            return
        self._estimated = settings
        self._estimator.stop()
        if settings is None:
            _show(self._ui.estimateLabel, "")
            return
        try:
            shape = lattice(settings).shape
        except InputError as error:
            _show(self._ui.estimateLabel, words.sentence(str(error)))
            return
        text = _("Result: {shape} voxels.")
        if settings.roi is not None:
            text = _("Result: the region, of {shape} voxels in all.")
        text = text.format(shape=words.voxels(shape))
        if self._check_ready():
            self._estimator.ask(settings)
        else:
            text += " " + _("Apply asks before it installs the Python packages that are missing.")
        _show(self._ui.estimateLabel, text)

    def _check_ready(self) -> bool:
        """Whether the packages are there; asked until they are."""
        self._is_ready = self._is_ready or not self._logic.dependencies.missing()
        return self._is_ready

    def _show_estimate(self, event: dict[str, Any]) -> None:
        took = event["seconds"]
        text = _("Result: {shape} voxels. It takes {memory:.1f} GB of memory and {time}.").format(
            shape=words.voxels(event["lattice"]["shape"]),
            memory=event["memory_gb"],
            time=_("a time that is known after the first run")
            if took is None
            else _("about {time}").format(time=words.seconds(took)),
        )
        _show(self._ui.estimateLabel, text)
        device = event["device"]
        reason = f"{device['description']}: {device['reason']}"
        _show(self._ui.deviceReasonLabel, words.sentence(reason))

    def _show_no_estimate(self, error: NexusError) -> None:
        _show(self._ui.estimateLabel, words.sentence(str(error)))
        self._offer_repair()

    # --- runs ---------------------------------------------------------------------------------

    def _apply(self) -> None:
        if not self._check_ready():
            try:
                self._logic.dependencies.install()
            except RuntimeError as error:
                self._say(words.sentence(str(error)))
                return
        settings = self.settings()
        options = {name: getattr(settings, name) for name in settings.__dataclass_fields__}
        try:
            run = self._logic.start(
                options.pop("t1w"),
                options.pop("t2w"),
                onProgress=self._show_progress,
                onDone=self._show_done,
                onError=self._show_error,
                **options,
            )
        except (InputError, RuntimeError) as error:
            self._say(words.sentence(str(error)))
            return
        if not run.finished:  # the worker may have failed to start
            self._runs.append(run)
            self._say(self._with_waiting(_("Starting")))
        self._show_runs()

    def _cancel(self) -> None:
        if self._runs:
            self._runs[0].cancel()
            self._say(_("Cancelling"))

    def _show_progress(self, fraction: float, step: str, eta: float | None) -> None:
        if step == "waiting" and len(self._runs) > 1:
            return
        text = words.step(step)
        if eta:
            text = _("{step}, about {time} to go").format(step=text, time=words.seconds(eta))
        self._ui.progressBar.value = round(1000 * fraction)
        self._say(self._with_waiting(text))

    def _with_waiting(self, text: str) -> str:
        waiting = len(self._runs) - 1
        if waiting < 1:
            return text
        return _("{text} ({count} more waiting)").format(text=text, count=waiting)

    def _show_done(self, results: Results) -> None:
        took = words.seconds(sum(results.record["seconds"].values()))
        done = _("Done in {time}. Press Compare to look at it.")
        self._say(done.format(time=took))
        self._show_runs()
        self._estimated = None  # the worker knows its pace now
        self._ui.resultSelector.setCurrentNode(results.report)
        self.refresh()

    def _show_error(self, error: NexusError) -> None:
        if isinstance(error, Cancelled):
            self._say(_("Cancelled. Nothing was changed."))
        else:
            self._say(words.sentence(str(error)))
        self._offer_repair()
        self._show_runs()

    def _say(self, text: str) -> None:
        _show(self._ui.statusLabel, text)

    def _show_runs(self) -> None:
        """Controls that depend on whether something is under way."""
        self._runs = [run for run in self._runs if not run.finished]
        self._ui.cancelButton.enabled = bool(self._runs)
        self._ui.progressBar.value = 0
        self._ui.progressBar.visible = bool(self._runs)

    def _offer_repair(self) -> None:
        self._ui.repairButton.visible = self._logic.worker.problem is not None

    def _repair(self) -> None:
        self._logic.worker.close()  # which holds files of torch
        try:
            self._logic.dependencies.repair()
        except RuntimeError as error:
            self._say(words.sentence(str(error)))
            return
        self._ui.repairButton.visible = False
        self._say(_("PyTorch was installed again. Press Apply."))

    # --- results ------------------------------------------------------------------------------

    def forget(self, node: Any) -> None:
        """A node is about to be removed."""
        if self.compare.uses(node):
            self.compare.offer(None)
            self.export.offer(None)
            qt.QTimer.singleShot(0, self._show_result)

    def pause(self) -> None:
        """The module is left: runs go on, nothing else is asked."""
        self._look.stop()
        self._estimator.stop()
        self._estimated = None

    def leave_scene(self) -> None:
        """The scene is about to close: stops runs and gives the user's layout back."""
        self.removeObservers()
        self.pause()
        for run in self._runs:
            run.abandon()
        self._say(_("Cancelled: the scene was closed.") if self._runs else "")
        self._runs = []
        self._show_runs()
        self.compare.offer(None)
        self.export.offer(None)
        self.report.show(None)
        self._automatic = (None, None)
        self._guesses = inputs.Guesses()

    def close(self) -> None:
        """Slicer or the module goes: nothing stays behind."""
        self.leave_scene()
        self._logic.worker.close()

    def _show_result(self) -> None:
        node = self._ui.resultSelector.currentNode()
        results = None if node is None else results_of(node)
        self.compare.offer(results)
        self.export.offer(results)
        self.report.show(results)


def _show(label: Any, text: str) -> None:
    """A label without a text takes no room."""
    label.text = text
    label.visible = bool(text)


def _let_keyboard_in(selector: Any) -> None:
    """Gives the keyboard to the list inside a node selector, which keeps it for itself."""
    for box in selector.findChildren(qt.QComboBox)[:1]:
        box.setFocusProxy(None)
        selector.setFocusProxy(box)
