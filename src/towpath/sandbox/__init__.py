"""Vendors that run on this machine: simulators, a webhook receiver, a fault proxy and sample traffic."""
