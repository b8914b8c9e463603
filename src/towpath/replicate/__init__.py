"""Replication: a Customer.io workspace copied into a warehouse, table by table."""
