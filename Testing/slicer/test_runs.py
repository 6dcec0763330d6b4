"""Runs from the panel, with the real worker: done, cancelled, failed, crashed, and two at once."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

#: What a cancel may take: a second, and the rest for a machine that is busy.
SOON = 3


def worker_process(widget) -> psutil.Process:
    """The worker: PythonSlicer becomes the interpreter."""
    return psutil.Process(widget.logic.worker._process.processId())


def is_busy(process: psutil.Process) -> bool:
    try:
        return process.cpu_percent(0.1) > 20
    except psutil.NoSuchProcess:  # ended, as it did not answer soon enough
        return False


def names(scene) -> list[str]:
    return sorted(scene.GetNthNode(i).GetName() or "" for i in range(scene.GetNumberOfNodes()))


@pytest.fixture
def free(ui, chosen):
    """Chooses one spacing, mm, for all axes."""

    def choose(spacing: float) -> None:
        chosen.spacing = type(chosen.spacing).FREE
        for box in (ui.spacingXSpinBox, ui.spacingYSpinBox, ui.spacingZSpinBox):
            box.value = spacing

    return choose


@pytest.fixture
def slow(chosen, free) -> None:
    """What is chosen takes a minute."""
    free(0.4)


@pytest.fixture
def begun(ui, slow, wait, scene, left_on_disk):
    """A long run that has come to its longest step; what there was before it."""
    wait(lambda: "GB of memory" in ui.estimateLabel.text)
    before = names(scene), left_on_disk()
    ui.applyButton.click()
    wait(lambda: "Restoring" in ui.statusLabel.text)
    return before


# --- done ---------------------------------------------------------------------------------------


def test_apply_gives_volumes_tissues_and_a_report(ui, widget, chosen, pair, run, left_on_disk):
    steps: set[str] = set()
    ui.progressBar.valueChanged.connect(lambda value: steps.add(ui.statusLabel.text))
    fractions: list[int] = []
    ui.progressBar.valueChanged.connect(fractions.append)
    results = run()
    assert set(results.restored) == {"T1w", "T2w"}
    assert list(results.originals.values()) == list(pair)
    assert results.segmentation is not None
    assert len(steps) > 4
    assert any("Restoring" in step for step in steps)
    rising = fractions[: fractions.index(max(fractions)) + 1]
    assert rising == sorted(rising)
    assert max(rising) > 900
    assert ui.statusLabel.text.startswith("Done in")
    assert ui.progressBar.value == 0
    assert ui.compareButton.enabled
    assert "residual" in ui.reportLabel.text
    assert "not for primary diagnosis" in ui.reportLabel.text
    assert ui.applyButton.enabled


def test_the_window_stays_usable_during_a_run(ui, begun, slicer_app, wait):
    slowest = 0.0
    for _ in range(30):
        start = time.monotonic()
        slicer_app.processEvents()
        ui.keepSlider.value = 0.5
        slowest = max(slowest, time.monotonic() - start)
        time.sleep(0.01)
    assert slowest < 0.5
    assert ui.cancelButton.enabled
    ui.cancelButton.click()
    wait(lambda: not ui.cancelButton.enabled)


def test_the_worker_is_kept_warm(ui, widget, chosen, run):
    run()
    first = worker_process(widget).pid
    run()
    assert worker_process(widget).pid == first


# --- cancel -------------------------------------------------------------------------------------


def test_cancel_is_quick_and_leaves_nothing(ui, widget, begun, scene, wait, left_on_disk):
    worker = worker_process(widget)
    start = time.monotonic()
    ui.cancelButton.click()
    wait(lambda: not ui.cancelButton.enabled)
    assert time.monotonic() - start < SOON
    assert "Cancelled" in ui.statusLabel.text
    assert (names(scene), left_on_disk()) == begun
    assert worker.is_running()  # warm for the next run
    assert worker.children(recursive=True) == []
    assert ui.applyButton.enabled


def test_two_runs_queue_and_each_can_be_cancelled(ui, widget, chosen, begun, scene, wait):
    chosen.spacing = type(chosen.spacing).MM_2_0
    ui.applyButton.click()
    assert "1 more waiting" in ui.statusLabel.text
    ui.cancelButton.click()
    wait(lambda: ui.statusLabel.text.startswith("Done in"))
    assert not ui.cancelButton.enabled
    restored = [n for n in names(scene) if "restored" in n]
    assert len(restored) == 2
    assert all("2" in name for name in restored)


# --- the scene and the module go ----------------------------------------------------------------


def test_closing_the_scene_during_a_run_is_safe(ui, widget, begun, scene, wait, left_on_disk):
    worker = worker_process(widget)
    scene.Clear(0)
    assert not ui.cancelButton.enabled
    assert ui.t1wSelector.currentNode() is None
    wait(lambda: left_on_disk() == [], SOON)
    wait(lambda: not is_busy(worker), SOON)
    assert "T1w" not in names(scene)
    assert not any("restored" in name for name in names(scene))


def test_a_closed_scene_takes_what_was_said_of_it_along(ui, chosen, run, scene):
    run()
    assert ui.statusLabel.text.startswith("Done in")
    scene.Clear(0)
    assert not ui.compareButton.enabled
    assert not ui.statusLabel.visible
    assert ui.statusLabel.text == ""


def test_removing_a_scan_during_a_run_keeps_the_result(ui, chosen, pair, scene, wait):
    ui.applyButton.click()
    scene.RemoveNode(pair[1])
    wait(lambda: not ui.cancelButton.enabled)
    assert ui.statusLabel.text.startswith("Done in")
    assert sum("restored" in name for name in names(scene)) == 2


def test_reloading_the_module_ends_its_run_and_gives_a_new_panel(
    module, widget, begun, pair, wait, left_on_disk
):
    import slicer

    worker = worker_process(widget)
    slicer.util.reloadScriptedModule("NexusINR")
    wait(lambda: not worker.is_running(), SOON)
    assert left_on_disk() == []
    fresh = slicer.modules.NexusINRWidget
    assert fresh is not widget
    assert fresh.ui.t1wSelector.currentNode() is pair[0]
    assert fresh.ui.applyButton.enabled
    assert fresh.ui.spacingXSpinBox.value == pytest.approx(0.4)
    assert len(slicer.util.getNodesByClass("vtkMRMLScriptedModuleNode")) == 1


# --- what goes wrong ----------------------------------------------------------------------------


def shown(ui, dialogs) -> list[str]:
    """Everything that tells the user of an error."""
    status = [ui.statusLabel.text] if ui.statusLabel.text else []
    return status + dialogs.seen


def test_a_refusal_of_the_worker_is_one_sentence(ui, chosen, scene, wait, dialogs):
    away = scene.AddNewNodeByClass("vtkMRMLMarkupsROINode")
    away.SetXYZ(300, 0, 0)
    away.SetRadiusXYZ(10, 10, 10)
    ui.roiSelector.setCurrentNode(away)
    ui.applyButton.click()
    wait(lambda: not ui.cancelButton.enabled)
    (message,) = shown(ui, dialogs)
    assert "region" in message
    assert "\n" not in message
    assert "Traceback" not in message
    assert ui.applyButton.enabled


def test_a_killed_worker_is_one_message_and_the_next_run_works(
    ui, widget, begun, chosen, run, wait, dialogs, errors, scene
):
    errors.expected = "SIGKILL"
    worker_process(widget).kill()
    wait(lambda: not ui.cancelButton.enabled)
    (message,) = shown(ui, dialogs)
    assert "memory" in message
    assert "coarser spacing" in message
    assert names(scene) == begun[0]
    chosen.spacing = type(chosen.spacing).MM_2_0
    assert run().restored


def test_packages_that_are_missing_are_installed_with_consent_only(
    ui, widget, chosen, dialogs, tmp_path, monkeypatch
):
    from NexusINRLib.dependencies import Dependencies

    wanted = tmp_path / "requirements.txt"
    wanted.write_text("surely-not-installed>=7\n")
    monkeypatch.setattr(widget.logic, "dependencies", Dependencies(wanted))
    monkeypatch.setattr(widget.panel, "_is_ready", False)
    assert widget.logic.dependencies.missing() == ["surely-not-installed>=7"]
    dialogs.answer = "Cancel"
    ui.applyButton.click()
    (question,) = dialogs.seen
    assert "1 Python package" in question
    assert "declined" in ui.statusLabel.text
    assert not ui.cancelButton.enabled
    with pytest.raises(RuntimeError, match=r"surely-not-installed.*Apply"):
        widget.logic.start(chosen.t1w)


@pytest.mark.parametrize("extension", [True, False], ids=["declined", "no PyTorch extension"])
def test_torch_that_is_missing_comes_by_its_extension(
    extension, ui, widget, chosen, dialogs, monkeypatch
):
    import NexusINRLib.dependencies as dependencies

    monkeypatch.setattr(dependencies, "_torch_version", lambda: None)
    monkeypatch.setattr(widget.panel, "_is_ready", False)
    if not extension:
        monkeypatch.setitem(sys.modules, "PyTorchUtils", None)
    dialogs.answer = "Cancel"
    ui.applyButton.click()
    assert len(dialogs.seen) == extension
    wanted = "Press Apply again and accept" if extension else "Extensions Manager"
    assert wanted in ui.statusLabel.text
    assert not ui.cancelButton.enabled


def test_without_a_network_the_message_says_what_to_do(
    ui, widget, chosen, dialogs, tmp_path, monkeypatch
):
    import slicer.packaging

    from NexusINRLib.dependencies import Dependencies

    def fail(*_: object, **__: object) -> None:
        raise subprocess.CalledProcessError(1, "pip")

    (tmp_path / "requirements.txt").write_text("surely-not-installed>=7\n")
    monkeypatch.setattr(slicer.packaging, "pip_ensure", fail)
    monkeypatch.setattr(widget.logic, "dependencies", Dependencies(tmp_path / "requirements.txt"))
    monkeypatch.setattr(widget.panel, "_is_ready", False)
    ui.applyButton.click()
    text = ui.statusLabel.text
    assert "status 1" in text
    for command in ("pip download -d wheels", "PythonSlicer -m pip install --no-index"):
        assert command in text
    assert str(tmp_path / "requirements.txt") in text


BROKEN = "raise OSError('libtorch_cpu.so: cannot open shared object file')"


@pytest.fixture
def broken_torch(widget, tmp_path, monkeypatch):
    """From here on the worker's interpreter has a torch that does not load."""
    (tmp_path / "torch.py").write_text(BROKEN)
    program = tmp_path / "PythonSlicer"
    python = Path(os.environ["PATH"].split(os.pathsep)[0]) / "PythonSlicer"
    line = f'exec env PYTHONPATH="{tmp_path}:$PYTHONPATH" "{python}" "$@"\n'
    program.write_text(f"#!/bin/sh\n{line}")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    widget.logic.worker.close()
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    yield
    widget.logic.worker.close()


def test_a_torch_that_does_not_load_is_told_and_can_be_repaired(
    broken_torch, ui, widget, chosen, wait, dialogs
):
    ui.applyButton.click()
    wait(lambda: not ui.cancelButton.enabled)
    (message,) = shown(ui, dialogs)
    assert "libtorch_cpu.so" in message
    assert "install torch again" in message
    assert ui.repairButton.visible or not ui.repairButton.isHidden()
    dialogs.answer = "Cancel"
    ui.repairButton.click()
    assert "removed" in dialogs.seen[-1]
    assert "Nothing was changed" in ui.statusLabel.text


def test_an_interpreter_that_is_not_there_is_told(ui, widget, chosen, monkeypatch, dialogs, wait):
    widget.logic.worker.close()
    monkeypatch.setattr(widget.logic.worker, "python", "/nowhere/PythonSlicer")
    ui.applyButton.click()
    wait(lambda: not ui.cancelButton.enabled)
    (message,) = shown(ui, dialogs)
    assert "/nowhere/PythonSlicer cannot be started" in message
    widget.logic.worker.close()
