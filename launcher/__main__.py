"""`python -m launcher` is the same as `regimen`."""

from launcher.cli import main

raise SystemExit(main())
