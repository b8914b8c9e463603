"""Push notices."""
