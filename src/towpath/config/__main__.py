"""`python -m towpath.config` prints the reference page."""

from __future__ import annotations

import sys

from .page import reference

sys.stdout.write(reference())
