"""Firestore's Listen stream: gRPC, as it has no JSON form. Needs the extra `towpath[firebase]`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

from msgspec import Struct

from towpath.errors import TowpathError
from towpath.http import Http

from .google import Credential

LISTEN = "/google.firestore.v1.Firestore/Listen"


class Target(Struct, frozen=True):
    """A query that is listened to. `parent` is a document's name or the database's `…/documents`.

    With `everywhere` it takes every collection of this name below the parent. `resume_token` is the last one
    that Firestore sent: only what came later is sent then.
    """

    number: int
    parent: str
    collection: str
    everywhere: bool = False
    resume_token: bytes = b""


class Ended(Exception):
    """The stream ended with an error; `code` is the name of its gRPC status."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(f"{code}: {reason}")
        self.code = code


async def responses(
    http: Http, url: str, credential: Credential, database: str, targets: Sequence[Target]
) -> AsyncGenerator[Any, None]:
    """Every `google.firestore.v1.ListenResponse` about these targets of `projects/P/databases/D`.

    Raises `Ended`, `Undelivered` where no token can be had, `TowpathError` where gRPC is not installed.
    """
    grpc, messages = _installed()
    shown = await credential.headers(http)
    about = (*shown.items(), ("google-cloud-resource-prefix", database))
    response = messages.ListenResponse.pb()
    try:
        async with _channel(grpc, url) as channel:
            call = channel.stream_stream(
                LISTEN,
                request_serializer=lambda request: request.SerializeToString(),
                response_deserializer=response.FromString,
            )(metadata=about)
            for target in targets:
                await call.write(_request(messages, database, target))
            async for heard in call:
                if heard is None:  # gRPC could not read it: the emulator may write two into each other
                    raise Ended("INTERNAL", "Firestore sent a message that cannot be read")
                yield heard
    except grpc.aio.AioRpcError as error:
        raise Ended(error.code().name, error.details() or "") from error


def status_name(number: int) -> str:
    """The name of a gRPC status code."""
    grpc, _ = _installed()
    return next((code.name for code in grpc.StatusCode if code.value[0] == number), "UNKNOWN")


def require_grpc() -> None:
    """Raise `TowpathError` where what listening needs is not installed."""
    _installed()


@asynccontextmanager
async def _channel(grpc: Any, url: str) -> AsyncIterator[Any]:
    parts = urlsplit(url)
    if parts.scheme == "http":
        channel = grpc.aio.insecure_channel(parts.netloc)
    else:
        where = parts.netloc if parts.port else f"{parts.netloc}:443"
        channel = grpc.aio.secure_channel(where, grpc.ssl_channel_credentials())
    async with channel as opened:
        yield opened


def _request(messages: Any, database: str, target: Target) -> Any:
    request = messages.ListenRequest.pb()(database=database)
    added = request.add_target
    added.target_id = target.number
    if target.resume_token:
        added.resume_token = target.resume_token
    added.query.parent = target.parent
    chosen = added.query.structured_query.from_.add()
    chosen.collection_id, chosen.all_descendants = target.collection, target.everywhere
    return request


def _installed() -> tuple[Any, Any]:
    try:
        import grpc  # type: ignore[import-untyped]
        from google.cloud.firestore_v1.types import firestore
    except ImportError as error:
        raise TowpathError(
            "listening to Firestore needs what is not installed",
            why=str(error),
            fix="pip install 'towpath[firebase]', or set `listen: false` and have the events pushed",
            data="nothing is lost: reconciling finds what changed meanwhile",
        ) from error
    return grpc, firestore
