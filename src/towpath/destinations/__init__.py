"""The built-in destinations, one file each; found by listing this package."""
