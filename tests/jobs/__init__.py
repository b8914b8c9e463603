"""Tests of the jobs runner."""
