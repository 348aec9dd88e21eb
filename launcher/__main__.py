"""`python -m launcher` is the same as `regimen`."""

import sys
from pathlib import Path

# -m puts the working folder first, where a user may have a conf/ or trainers/ of their own
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from launcher.cli import main

raise SystemExit(main())
