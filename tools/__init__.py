"""The project's own checks, run as `python -m tools.layers` and `python -m tools.uncovered`."""
