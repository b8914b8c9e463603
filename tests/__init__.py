"""Tests of towpath; the folders mirror src/towpath."""
