"""Tests of the door to the network."""  # noqa: A005 - mirrors towpath.http
