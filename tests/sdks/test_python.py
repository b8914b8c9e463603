"""The real Python SDKs of Segment and RudderStack, unchanged, against a live server."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from contextlib import ExitStack
from typing import Any

import pytest
import rudderstack.analytics.client as rudder
import segment.analytics.client as segment

from tests.ingest.conftest import Serve
from tests.ingest.support import KEY, Hub, served, source
from towpath.ingest.answers import Send
from towpath.ingest.body import Receive
from towpath.message import Message

KINDS = ["identify", "track", "page", "screen", "group", "alias"]


@pytest.fixture
def hub() -> Hub:
    """A hub in this process, whose refusals and clock a test can set."""
    return Hub()


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Serve ASGI applications on loopback, in threads; gives the port."""
    with ExitStack() as running:
        yield lambda app: running.enter_context(served(app))


class Busy:
    """Has no room (503) or no allowance (429) for the first request; both come with `Retry-After: 1`."""

    def __init__(self, hub: Hub, status: int) -> None:
        self.hub = hub
        self.answers: list[int] = []
        if status == 429:
            hub.ingest.replace({"web": source(rate="1/s")})
            allowance = hub.ingest._keys.allowance("web")
            assert allowance
            allowance.spend(1)
        else:
            hub.ingest._bodies.held_bytes = hub.ingest._limits.held_bytes

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        async def noted(message: MutableMapping[str, Any]) -> None:
            if "status" in message:
                self.answers.append(message["status"])
            await send(message)

        await self.hub.ingest(scope, receive, noted)
        self.hub.ingest._bodies.held_bytes = 0
        self.hub.clock.time += 3600


def client(name: str, port: int, errors: list[Exception], **options: Any) -> Any:
    host = f"http://127.0.0.1:{port}"
    made = segment.Client if name == "segment" else rudder.Client
    return made(KEY, host=host, on_error=lambda error, items: errors.append(error), timeout=10, **options)


def send_all(sdk: Any) -> None:
    sdk.identify("u1", {"email": "a@example.com"})
    sdk.track("u1", "Bought", {"price": 3.5, "name": "é€"})
    sdk.page("u1", "Shop", "Cart", {"url": "https://shop.example"})
    sdk.screen("u1", "App", "Cart", {"size": 2})
    sdk.group("u1", "g1", {"plan": "x"})
    sdk.alias("a1", "u1")
    sdk.flush()
    sdk.shutdown()


def by_kind(hub: Hub) -> dict[str, Message]:
    messages = {message.type: message for message in hub.log.messages()}
    assert sorted(messages) == sorted(KINDS)
    assert len(hub.log.records) == len(KINDS)
    return messages


@pytest.mark.spec("E039", "E009", "E010", "E032", "E034")
@pytest.mark.parametrize("gzip", [True, False])
@pytest.mark.parametrize("name", ["segment", "rudder"])
def test_every_call_is_kept(hub: Hub, serve: Serve, name: str, *, gzip: bool) -> None:
    errors: list[Exception] = []
    send_all(client(name, serve(hub.ingest), errors, gzip=gzip, upload_size=len(KINDS)))
    assert errors == []
    found = by_kind(hub)
    identify = found["identify"]
    assert {**identify.context_traits, **identify.traits}["email"] == "a@example.com"
    assert (found["track"].event, found["track"].properties) == ("Bought", {"price": 3.5, "name": "é€"})
    assert (found["page"].category, found["page"].name) == ("Shop", "Cart")
    assert found["page"].properties["url"] == "https://shop.example"
    assert (found["screen"].name, found["screen"].properties["size"]) == ("Cart", 2)
    assert (found["group"].group_id, found["group"].traits["plan"]) == ("g1", "x")
    assert (found["alias"].previous_id, found["alias"].user_id) == ("a1", "u1")
    assert all(message.sent_at for message in found.values()), "the batch's sentAt fills in"
    assert len({record.message_id for record in hub.log.records}) == len(KINDS)


@pytest.mark.spec("E036", "E039")
@pytest.mark.parametrize("status", [503, 429])
@pytest.mark.parametrize("name", ["segment", "rudder"])
def test_what_could_not_be_taken_comes_again(hub: Hub, serve: Serve, name: str, status: int) -> None:
    errors: list[Exception] = []
    busy = Busy(hub, status)
    sdk = client(name, serve(busy), errors, upload_size=len(KINDS))
    send_all(sdk)
    assert errors == []
    assert busy.answers[0] == status
    assert {*busy.answers[1:]} == {200}
    by_kind(hub)


@pytest.mark.spec("E034", "E039")
@pytest.mark.parametrize("name", ["segment", "rudder"])
def test_a_refusal_is_an_error_the_sdk_understands(hub: Hub, serve: Serve, name: str) -> None:
    hub.ingest.replace({"web": source(write_keys=["another"])})
    errors: list[Exception] = []
    sdk = client(name, serve(hub.ingest), errors, max_retries=2, upload_size=1)
    sdk.track("u1", "Bought")
    sdk.flush()
    sdk.shutdown()
    assert len(errors) == 1
    assert "invalid write key" in str(errors[0])


@pytest.mark.spec("E034", "E035", "E039")
@pytest.mark.parametrize("name", ["segment", "rudder"])
def test_a_batch_of_nothing_good_is_an_error_the_sdk_understands(hub: Hub, serve: Serve, name: str) -> None:
    errors: list[Exception] = []
    sdk = client(name, serve(hub.ingest), errors, max_retries=2, upload_size=1)
    sdk.track("u1", "Bought", {"price": float("nan")})
    sdk.flush()
    sdk.shutdown()
    assert [getattr(error, "code", None) for error in errors] == ["nothing_accepted"]
    assert hub.log.refused[0].code == "invalid_json"


@pytest.mark.spec("E035", "E038", "E039")
@pytest.mark.parametrize("name", ["segment", "rudder"])
def test_one_event_the_sdk_wrote_badly_costs_no_other(hub: Hub, serve: Serve, name: str) -> None:
    errors: list[Exception] = []
    sdk = client(name, serve(hub.ingest), errors, upload_size=3)
    for price in (1.0, float("inf"), 2.0):
        sdk.track("u1", "Bought", {"price": price})
    sdk.flush()
    sdk.shutdown()
    assert errors == []
    assert [message.properties["price"] for message in hub.log.messages()] == [1.0, 2.0]
    assert len(hub.log.refused) == 1
