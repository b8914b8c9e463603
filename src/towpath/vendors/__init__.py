"""Thin typed clients of the vendors' APIs: one method per endpoint, no decisions."""
