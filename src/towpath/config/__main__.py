"""`python -m towpath.config` prints the reference page."""

from __future__ import annotations

import sys

from .reference import reference

sys.stdout.write(reference())
