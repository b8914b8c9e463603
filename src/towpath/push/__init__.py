"""Push: the registry of devices, and the campaigns sent to them."""
