"""Changes of state.db's schema, one file each, applied in order at start."""
