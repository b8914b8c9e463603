"""The Listen call itself, against a gRPC server in this process: what is asked, heard, and how it ends."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc  # type: ignore[import-untyped]
import pytest
from google.cloud.firestore_v1.types import ListenRequest, ListenResponse

from towpath.http import Http
from towpath.testing.fakes import FakeClock, FakeTransport
from towpath.vendors.firestore_stream import Ended, Target, responses, status_name
from towpath.vendors.google import Owner

pytestmark = pytest.mark.spec("F054")
DATABASE = "projects/demo-towpath/databases/(default)"
Answer = Callable[[Any, Any], AsyncIterator[Any]]


@asynccontextmanager
async def serving(answer: Answer) -> AsyncIterator[str]:
    """Serve `google.firestore.v1.Firestore/Listen` on loopback."""
    handler = grpc.stream_stream_rpc_method_handler(
        answer,
        request_deserializer=ListenRequest.pb().FromString,
        response_serializer=lambda said: said if isinstance(said, bytes) else said.SerializeToString(),
    )
    server = grpc.aio.server()
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("google.firestore.v1.Firestore", {"Listen": handler}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        await server.stop(None)


def listened(url: str, *targets: Target) -> AsyncIterator[Any]:
    http = Http(FakeTransport(), FakeClock())
    return responses(http, url, Owner(), DATABASE, targets)


async def test_targets_are_asked_for_and_responses_heard() -> None:
    asked: list[Any] = []
    shown: dict[str, str] = {}

    async def answer(requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        shown.update(context.invocation_metadata())
        async for request in requests:
            asked.append(request)
            yield ListenResponse.pb()(target_change={"target_ids": [request.add_target.target_id]})
            if len(asked) == 2:
                return

    everywhere = Target(2, f"{DATABASE}/documents/orgs/o", "staff", everywhere=True, resume_token=b"t")
    async with serving(answer) as url:
        heard = [one async for one in listened(url, Target(1, f"{DATABASE}/documents", "users"), everywhere)]
    assert [list(one.target_change.target_ids) for one in heard] == [[1], [2]]
    assert shown["authorization"] == "Bearer owner"
    assert shown["google-cloud-resource-prefix"] == DATABASE
    first, second = (request.add_target for request in asked)
    assert {request.database for request in asked} == {DATABASE}
    assert (first.query.parent, first.resume_token) == (f"{DATABASE}/documents", b"")
    [chosen] = first.query.structured_query.from_
    assert (chosen.collection_id, chosen.all_descendants) == ("users", False)
    assert (second.query.parent, second.resume_token) == (f"{DATABASE}/documents/orgs/o", b"t")
    [chosen] = second.query.structured_query.from_
    assert (chosen.collection_id, chosen.all_descendants) == ("staff", True)


async def test_an_error_ends_it_by_the_name_of_its_status() -> None:
    async def answer(requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        await anext(requests)  # a status that comes before the request is written, gRPC calls INTERNAL
        yield ListenResponse.pb()(target_change={})
        await context.abort(grpc.StatusCode.PERMISSION_DENIED, "no role")

    async with serving(answer) as url:
        heard = listened(url, Target(1, f"{DATABASE}/documents", "users"))
        await anext(heard)
        with pytest.raises(Ended, match="PERMISSION_DENIED: no role") as ended:
            await anext(heard)
    assert ended.value.code == "PERMISSION_DENIED"


async def test_a_message_that_cannot_be_read_is_an_end_that_passes() -> None:
    async def answer(requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        await anext(requests)  # a status that comes before the request is written, gRPC calls INTERNAL
        yield ListenResponse.pb()(target_change={})
        yield b"\xff\xff no message"

    async with serving(answer) as url:
        heard = listened(url, Target(1, f"{DATABASE}/documents", "users"))
        await anext(heard)
        with pytest.raises(Ended) as ended:
            await anext(heard)
    assert ended.value.code == "INTERNAL"


async def test_nobody_there_is_an_end_that_passes() -> None:
    heard = listened("http://127.0.0.1:1", Target(1, f"{DATABASE}/documents", "users"))
    with pytest.raises(Ended) as ended:
        await anext(heard)
    assert ended.value.code == "UNAVAILABLE"


def test_status_names() -> None:
    assert (status_name(7), status_name(5), status_name(99)) == ("PERMISSION_DENIED", "NOT_FOUND", "UNKNOWN")
