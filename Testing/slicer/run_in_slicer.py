"""Runs every self-test case inside Slicer and ends it: status 0 where all have passed.

Slicer --testing --no-splash --additional-module-paths NexusINR \
    --python-script Testing/slicer/run_in_slicer.py
"""

from __future__ import annotations

import sys
import unittest
from pathlib import Path

import slicer

sys.path.insert(0, str(Path(__file__).parent))


def main() -> int:
    """The exit status."""
    from panel_cases import PanelCases

    from NexusINR import NexusINRTest

    load = unittest.defaultTestLoader.loadTestsFromTestCase
    suite = unittest.TestSuite([load(NexusINRTest), load(PanelCases)])
    result = unittest.TextTestRunner(verbosity=2).run(suite)
    return slicer.util.EXIT_SUCCESS if result.wasSuccessful() else slicer.util.EXIT_FAILURE


if __name__ == "__main__":
    slicer.util.exit(main())
