"""Cases for the opened panel, for a real Slicer and for its stand-ins alike.

In Slicer: ``slicer.testing.runUnitTest`` runs them, which ctest does; run_in_slicer.py, too.
"""

from __future__ import annotations

import time
import unittest
from collections.abc import Callable
from typing import Any

import slicer


class PanelCases(unittest.TestCase):
    """What a radiologist does, on the sample data."""

    def setUp(self) -> None:
        slicer.mrmlScene.Clear(0)
        slicer.util.selectModule("NexusINR")
        self.widget = slicer.util.getModuleWidget("NexusINR")
        self.ui = self.widget.ui
        missing = self.widget.logic.dependencies.missing()
        if missing:
            self.skipTest(f"{', '.join(missing)} not installed")

    def tearDown(self) -> None:
        slicer.mrmlScene.Clear(0)
        slicer.util.selectModule("Data")  # with none, Slicer would not choose this one again

    def wait(self, condition: Callable[[], Any], seconds: float = 120) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, self.ui.statusLabel.text
            slicer.app.processEvents()
            time.sleep(0.01)

    def load_small_scans(self) -> list[Any]:
        """The middle of the two samples: quick to restore."""
        import SampleData

        from nexusinr.mrml.volumes import add_volume, array_of, grid_of

        made = []
        for modality in ("T1w", "T2w"):
            whole = SampleData.downloadSample(f"NexusINRPhantom{modality}")
            grid = grid_of(whole)
            middle = [slice(int(0.4 * n), int(0.6 * n) + 1) for n in grid.shape]
            start, stop = zip(*((m.start, m.stop) for m in middle), strict=True)
            affine = grid.crop(start, stop).affine
            made.append(
                add_volume(slicer.mrmlScene, array_of(whole)[tuple(middle)], affine, modality)
            )
            slicer.mrmlScene.RemoveNode(whole)
        return made

    def count_live_planes(self) -> int:
        """Views into which a decoded plane is laid."""
        composites = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")
        layer = slicer.vtkMRMLSliceCompositeNode.Layer_Last
        return sum(bool(node.GetNthLayerVolumeID(layer)) for node in composites)

    def test_two_volumes_make_apply_work(self) -> None:
        assert not self.ui.applyButton.enabled
        t1w, t2w = self.load_small_scans()
        self.wait(lambda: self.ui.applyButton.enabled)
        assert self.ui.t1wSelector.currentNode() is t1w
        assert self.ui.t2wSelector.currentNode() is t2w

    def test_apply_then_compare_then_back(self) -> None:
        self.load_small_scans()
        self.wait(lambda: self.ui.applyButton.enabled)
        self.ui.applyButton.click()
        assert self.ui.cancelButton.enabled
        self.wait(lambda: not self.ui.cancelButton.enabled)
        assert self.ui.compareButton.enabled, self.ui.statusLabel.text
        manager = slicer.app.layoutManager()
        before = manager.layout
        self.ui.compareButton.click()
        names = manager.sliceViewNames()  # with those of former layouts
        assert sum(name.startswith("NexusINR") for name in names) == 12
        self.ui.liveCheckBox.click()
        assert self.ui.liveCheckBox.checked, self.ui.liveLabel.text
        self.wait(lambda: self.count_live_planes() == 6)
        self.ui.liveCheckBox.click()
        assert self.count_live_planes() == 0
        self.ui.compareButton.click()
        assert manager.layout == before
        assert "residual" in self.ui.reportLabel.text

    def test_cancel_gives_everything_back(self) -> None:
        self.load_small_scans()
        self.wait(lambda: self.ui.applyButton.enabled)
        before = slicer.mrmlScene.GetNumberOfNodes()
        self.ui.applyButton.click()
        self.ui.cancelButton.click()
        self.wait(lambda: not self.ui.cancelButton.enabled, 5)
        assert "Cancelled" in self.ui.statusLabel.text
        assert slicer.mrmlScene.GetNumberOfNodes() == before

    def test_closing_the_scene_during_a_run(self) -> None:
        self.load_small_scans()
        self.wait(lambda: self.ui.applyButton.enabled)
        self.ui.applyButton.click()
        slicer.mrmlScene.Clear(0)
        assert not self.ui.cancelButton.enabled
        assert not self.ui.applyButton.enabled


if __name__ == "__main__":
    unittest.main()
