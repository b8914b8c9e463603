"""How posts reach Customer.io: Track v2 items alone or together, v1 calls, or the Pipelines API."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from towpath.destination import Ended, Scope
from towpath.http import Reply, Undelivered
from towpath.outcome import Delivered, Rejected, Retry
from towpath.vendors.customerio import PipelinesApi, TrackApi, batch_url

from ._customerio_claims import Claims
from ._customerio_conflicts import Conflicts
from ._customerio_items import Post

FRAME_BYTES = len('{"batch":[]}')
_encode = msgspec.json.Encoder().encode


class TrackCarrier:
    """Sends to the Track API; with an App key it looks after identifiers that others hold."""

    def __init__(self, scope: Scope, track: TrackApi, conflicts: Conflicts | None) -> None:
        self._scope = scope
        self._track = track
        self._conflicts = conflicts
        self._claims = Claims(scope.memory)

    def batches(self, post: Post) -> bool:
        """Whether it is made of v2 items that need no look-up first."""
        return not post.call and not self._is_looked_up(post) and (self._conflicts is None or not post.merges)

    async def alone(self, post: Post) -> Delivered:
        """Send one, by `/api/v2/entity`: its answer is the verdict on this item. Raises `Undelivered`."""
        began_s = self._scope.clock.now()
        if post.call == "events":
            return Delivered((await self._track.track_anonymous(post.encoded[0])).status)
        if post.call == "metrics":
            return Delivered((await self._track.report_metric(post.encoded[0])).status)
        if self._conflicts is not None and post.merges:
            return await self._conflicts.join(post.bodies[0]["primary"], post.bodies[0]["secondary"])
        if self._conflicts is not None and post.identification is not None and self._is_looked_up(post):
            return await self._conflicts.write(post.identification)
        sent, told = self._claims.guarded(post)
        for item in sent.encoded:
            reply = await self._track.entity(item)
        self._claims.keep(sent)
        (reports,) = await self._failures([sent], began_s)
        return Delivered(reply.status, told + reports)

    async def together(self, posts: Sequence[Post]) -> Sequence[Ended]:
        """Send several in one `/api/v2/batch`; an answer 207 names the items that were refused."""
        began_s = self._scope.clock.now()
        guarded = [self._claims.guarded(post) for post in posts]
        sent = [post for post, _ in guarded]
        reply = await self._track.batch(framed(sent))
        refused = self._refused(sent, reply) if reply.status == 207 else {}
        reports = await self._failures(sent, began_s)
        ended: list[Ended] = []
        for place, (post, told) in enumerate(guarded):
            if place not in refused:
                self._claims.keep(post)
            ended.append(refused.get(place) or Delivered(reply.status, told + reports[place]))
        return ended

    def own(self, error: Undelivered, post: Post) -> Undelivered:
        """Return a failure of a batch with this post's items only."""
        return own_part(self._scope, error, post)

    def _is_looked_up(self, post: Post) -> bool:
        return (
            self._conflicts is not None
            and post.identification is not None
            and self._conflicts.concern(post.identification)
        )

    async def _failures(self, posts: Sequence[Post], began_s: float) -> Sequence[tuple[str, ...]]:
        """Return what of the identifies among the posts was not applied, where that can be asked."""
        reports: list[tuple[str, ...]] = [()] * len(posts)
        if self._conflicts is None:
            return reports
        places = [place for place, post in enumerate(posts) if post.identification is not None]
        given = [found for post in posts if (found := post.identification) is not None]
        told = await self._conflicts.failures(given, began_s)
        for place, reports_of_it in zip(places, told, strict=True):
            reports[place] = reports_of_it
        return reports

    def _refused(self, posts: Sequence[Post], reply: Reply) -> Mapping[int, Undelivered]:
        """Return the refusal of each post that an answer 207 names, by its place."""
        owners = [place for place, post in enumerate(posts) for _ in post.encoded]
        refused: dict[int, Undelivered] = {}
        for error in _errors(reply):
            index = error.get("batch_index")
            if not isinstance(index, int) or not 0 <= index < len(owners):
                raise _unreadable()
            place = owners[index]
            said = Reply(207, {}, _encode({"errors": [error]}))
            outcome = Rejected(f"207: {in_words(error)}", 207)
            url, body = batch_url(self._track.base_url), framed([posts[place]])
            refused.setdefault(place, self._scope.http.undelivered(outcome, said, "POST", url, body=body))
        return refused


class PipelinesCarrier:
    """Sends to the Pipelines API, in strict mode: else it answers 200 to what it drops."""

    def __init__(self, scope: Scope, pipelines: PipelinesApi) -> None:
        self._scope = scope
        self._pipelines = pipelines

    def batches(self, post: Post) -> bool:
        """Whether it may be part of a batch: everything but an alias."""
        return not post.call

    async def alone(self, post: Post) -> Delivered:
        """Send one. Raises `Undelivered`."""
        if post.call == "alias":
            return Delivered((await self._pipelines.alias(post.encoded[0])).status)
        return Delivered((await self._pipelines.batch(framed([post]))).status)

    async def together(self, posts: Sequence[Post]) -> Sequence[Ended]:
        """Send several in one request; it has one answer for all of them."""
        reply = await self._pipelines.batch(framed(posts))
        return [Delivered(reply.status)] * len(posts)

    def own(self, error: Undelivered, post: Post) -> Undelivered:
        """Return a failure of a batch with this post's calls only."""
        return own_part(self._scope, error, post)


def framed(posts: Sequence[Post]) -> bytes:
    """Return the body of a batch."""
    return b'{"batch":[' + b",".join([item for post in posts for item in post.encoded]) + b"]}"


def own_part(scope: Scope, error: Undelivered, post: Post) -> Undelivered:
    """Return a batch's failure as one post's own: its letter must not hold what concerns others (D10)."""
    exchange = error.exchange
    if exchange is None or isinstance(error.outcome, Delivered):
        return error
    reply = Reply(exchange.status, {}, exchange.answer.encode())
    return scope.http.undelivered(error.outcome, reply, exchange.method, exchange.url, body=framed([post]))


def in_words(error: Mapping[str, Any]) -> str:
    """Return an error of an item as `field: message (reason)`, as far as Customer.io tells."""
    said = str(error.get("message") or error.get("reason") or "refused without a message")
    field, reason = error.get("field"), error.get("reason")
    told = f"{field}: {said}" if field else said
    return f"{told} ({reason})" if reason and reason != said else told


def said_in(answer: str) -> str:
    """Return what an answer of the Track API says is wrong, in any of its three envelopes; "" for none."""
    try:
        told = msgspec.json.decode(answer)
    except (msgspec.DecodeError, RecursionError):
        return ""
    errors = told.get("errors") if isinstance(told, dict) else None
    if isinstance(errors, list) and errors and isinstance(errors[0], dict):
        return "; ".join(in_words(error) for error in errors if isinstance(error, dict))
    meta = told.get("meta") if isinstance(told, dict) else None
    listed = meta.get("errors", [meta.get("error")]) if isinstance(meta, dict) else None
    return "; ".join(str(each) for each in listed if each) if isinstance(listed, list) else ""


def _errors(reply: Reply) -> Sequence[Mapping[str, Any]]:
    """Return the refusals of an answer 207. Raises `Undelivered` (retry) for one that cannot be read."""
    answer = reply.json()
    errors = answer.get("errors", []) if isinstance(answer, dict) else None
    if not isinstance(errors, list) or not all(isinstance(error, dict) for error in errors):
        raise _unreadable()
    return errors


def _unreadable() -> Undelivered:
    """Return what becomes of a batch whose refusals are not known: sent again, as its items may repeat."""
    return Undelivered(Retry("207: Customer.io refused items, but its answer does not say which", code=207))
