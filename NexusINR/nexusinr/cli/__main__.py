"""For ``python -m nexusinr.cli``."""

import sys

from nexusinr.cli import main

sys.exit(main())
