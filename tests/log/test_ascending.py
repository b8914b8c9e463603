"""What deduplication writes to disk is in order, however the digests fall."""

from __future__ import annotations

from hashlib import blake2b
from pathlib import Path

import pytest

from towpath.log.dedup import _ascending
from towpath.log.runs import PAGE, Span, write

ALIKE = frozenset(
    b"\x07" + blake2b(bytes([n // 256, n % 256]), digest_size=15).digest() for n in range(2_000)
)
SPREAD = frozenset(blake2b(bytes([n // 256, n % 256]), digest_size=16).digest() for n in range(2_000))


@pytest.mark.spec("E036")
@pytest.mark.parametrize("digests", [ALIKE, SPREAD, frozenset[bytes]()])
def test_a_run_holds_every_digest_in_order(tmp_path: Path, digests: frozenset[bytes]) -> None:
    run = write(tmp_path / "1.run", Span(0, len(digests), 0.0, 1.0), _ascending(digests))
    assert b"".join(run.blocks()) == b"".join(sorted(digests))
    assert all(run.holds(digest) for digest in digests)
    assert not run.holds(b"\x07" * 16)


def test_no_block_is_more_than_a_part_of_a_full_table() -> None:
    blocks = list(_ascending(SPREAD))
    assert max(map(len, blocks)) < PAGE
    assert len(blocks) == 256
