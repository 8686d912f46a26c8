"""`python -m hdgan.controller SETTINGS`."""

import sys

import hdgan.core.held_signals  # noqa: F401 (first: until the controller can hear them)
from hdgan.controller.program import main

sys.exit(main())
