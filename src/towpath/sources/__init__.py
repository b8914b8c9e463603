"""The built-in sources, one file each; found by listing this package."""
