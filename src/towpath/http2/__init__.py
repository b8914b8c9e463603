"""HTTP/2 as a client speaks it (RFC 9113): frames, header blocks, one connection, and many."""
