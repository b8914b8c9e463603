"""Parts of bench/replication.py: a server of prepared pages, the contestants, and how they are measured."""
