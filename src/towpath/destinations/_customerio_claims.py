"""Which of our own people an e-mail was written for: nobody else is handed that profile with it."""

from __future__ import annotations

from hashlib import blake2b

from msgspec.structs import replace

from towpath.destination import Memory

from ._customerio_items import Post, of_identification
from ._customerio_profile import Identification

HELD_S = 90 * 86400.0
APART = (
    "its e-mail was written for another id before: it was sent apart from the rest, and Customer.io does not "
    "apply it while that profile has it"
)


class Claims:
    """Remembers, by hashes, the id that each e-mail was written with first.

    Customer.io gives the profile that has an e-mail to a new id that comes with it, which is right for a lead
    who signs up and wrong for two users who share an address (C122). Only the second can be told here; then
    the e-mail travels as an item of its own, which Customer.io refuses while another profile holds it.
    """

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._written: dict[str, str] = {}  # in the call that is being made

    def guarded(self, post: Post) -> tuple[Post, tuple[str, ...]]:
        """Return what to send, and what there is to report."""
        claim = _claim(post.identification)
        if claim is None or post.identification is None:
            return post, ()
        email, mine = claim
        holder = self._memory.find(email) or self._written.setdefault(email, mine)
        if holder == mine:
            return post, ()
        return of_identification(replace(post.identification, trusted=False), post.people), (APART,)

    def keep(self, post: Post) -> None:
        """Remember what was written."""
        claim = _claim(post.identification)
        if claim is not None and self._memory.find(claim[0]) is None:
            self._memory.keep(*claim, HELD_S)


def _claim(found: Identification | None) -> tuple[str, str] | None:
    """Return what an e-mail and an id are remembered as, where a trusted identify has both."""
    if found is None or not found.trusted or "id" not in found.identifiers:
        return None
    email = found.attributes.get("email")
    if not isinstance(email, str) or not email:
        return None
    return f"email:{_digest(email.lower())}", _digest(found.identifiers["id"])


def _digest(text: str) -> str:
    return blake2b(text.encode("utf-8", "replace"), digest_size=12).hexdigest()
