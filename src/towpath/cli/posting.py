"""Posting sample traffic over HTTP, as SDKs, apps and Google do."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import TowpathError
from ..sandbox.firebase import CloudEvent


def post_calls(address: str, key: str, calls: Sequence[Mapping[str, Any]]) -> None:
    """Post calls as a batch of this write key. Raises `TowpathError` when it is not taken."""
    credentials = base64.b64encode(f"{key}:".encode()).decode()
    body = json.dumps({"batch": [dict(call) for call in calls]}).encode()
    with contextlib.closing(http.client.HTTPConnection(address, timeout=30)) as connection:
        connection.request("POST", "/v1/batch", body, {"authorization": f"Basic {credentials}"})
        _check("the event API", connection.getresponse())


def post_events(address: str, token: str, events: Sequence[CloudEvent]) -> None:
    """Post CloudEvents to the source `app` as Eventarc does. Raises `TowpathError` when one is not taken."""
    headers = {"content-type": "application/cloudevents+json", "authorization": f"Bearer {token}"}
    with contextlib.closing(http.client.HTTPConnection(address, timeout=30)) as connection:
        for event in events:
            connection.request("POST", "/webhooks/app", json.dumps(event).encode(), headers)
            _check("the source app", connection.getresponse())


def _check(who: str, response: http.client.HTTPResponse) -> None:
    said = response.read().decode("utf-8", "replace")
    if response.status != 200:
        raise TowpathError(f"{who} answered {response.status}: {said}", code="E5024")


def send_with_sdk(address: str, key: str, calls: Sequence[Mapping[str, Any]]) -> str:
    """Send through Segment's own Python client where it is installed, else through ours; which one it was."""
    try:
        from segment.analytics.client import Client as SegmentClient
    except ImportError:
        from ..client import Client

        client: Any = Client(key, host=f"http://{address}")
        name = "towpath's client"
    else:
        client = SegmentClient(key, host=f"http://{address}", upload_interval=0.1, gzip=True)
        name = "segment-analytics-python"
    for call in calls:
        ids = {
            "user_id": call["userId"],
            "anonymous_id": call["anonymousId"],
            "message_id": call["messageId"],
        }
        if call["type"] == "identify":
            client.identify(traits=call["traits"], **ids)
        elif call["type"] == "page":
            client.page(name=call["name"], properties=call["properties"], **ids)
        else:
            client.track(event=call["event"], properties=call["properties"], **ids)
    client.flush()
    return name
