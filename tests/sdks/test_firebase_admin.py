"""Firebase's own Python client against the FCM simulator: only its URL, its key file and its CA differ."""

from __future__ import annotations

import asyncio
import json
import warnings
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import firebase_admin  # type: ignore[import-untyped]
import pytest
from firebase_admin import credentials, exceptions, messaging
from google.auth.exceptions import RefreshError

from towpath.sandbox.fcm import FcmSimulator
from towpath.sandbox.fcm_state import PREFIXES
from towpath.sandbox.http2 import Http2Server, serve_http2

pytestmark = pytest.mark.spec("P060", "D12")

Sender = Callable[..., Any]


class Project:
    """A simulator that is served, and an app of firebase-admin that was pointed at it."""

    def __init__(self, simulator: FcmSimulator, server: Http2Server, app: Any) -> None:
        self.simulator = simulator
        self.server = server
        self.app = app
        # The async client stays on the loop of its first use, and asks for tokens blocking: not on ours.
        self._runner = asyncio.Runner()
        self._thread = ThreadPoolExecutor(1)

    async def send(self, message: Any, *, dry_run: bool = False) -> str:
        """Send by `send`, over HTTP/1.1."""
        return await asyncio.to_thread(lambda: str(messaging.send(message, dry_run, self.app)))

    async def send_each(self, messages: Sequence[Any], *, dry_run: bool = False) -> list[Any]:
        """Send by `send_each`, over HTTP/1.1 in threads."""
        batch = await asyncio.to_thread(messaging.send_each, list(messages), dry_run, self.app)
        return list(batch.responses)

    async def send_each_async(self, messages: Sequence[Any], *, dry_run: bool = False) -> list[Any]:
        """Send by `send_each_async`, over HTTP/2."""
        sending = messaging.send_each_async(list(messages), dry_run, self.app)
        return list((await self._elsewhere(self._runner.run, sending)).responses)

    async def end(self) -> None:
        """Close both clients: the synchronous one does not close itself."""
        service = messaging._get_messaging_service(self.app)
        await self._elsewhere(self._runner.run, service._async_client.aclose())
        await self._elsewhere(self._runner.close)
        await self._elsewhere(firebase_admin.delete_app, self.app)
        service._client.close()
        self._thread.shutdown()

    async def _elsewhere(self, call: Callable[..., Any], *args: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call, *args)


@pytest.fixture
async def project(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> AsyncIterator[Project]:
    simulator = FcmSimulator()
    async with serve_http2(simulator) as server:
        trusted = tmp_path / "authority.pem"
        trusted.write_text(server.authority)
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(trusted))
        monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
        service = messaging._MessagingService
        monkeypatch.setattr(service, "FCM_URL", f"{server.url}/v1/projects/{{0}}/messages:send")
        account = credentials.Certificate(json.loads(simulator.account(server.url)))
        app = firebase_admin.initialize_app(account, name=str(tmp_path))
        opened = Project(simulator, server, app)
        yield opened
        await opened.end()


def to(address: str, **fields: Any) -> Any:
    return messaging.Message(fid=address, notification=messaging.Notification("Hi", "there"), **fields)


ADDRESSES = ["ok-1", "gone-1", "other-1", "apns-1", "bad-1", "quota-1", "ok-2"]
VERDICTS = [
    None,
    messaging.UnregisteredError,
    messaging.SenderIdMismatchError,
    messaging.ThirdPartyAuthError,
    exceptions.InvalidArgumentError,
    messaging.QuotaExceededError,
    None,
]


@pytest.mark.spec("P053")
@pytest.mark.parametrize("route", ["send_each", "send_each_async"])
async def test_every_verdict_is_understood(project: Project, route: str) -> None:
    responses = await getattr(project, route)([to(address) for address in ADDRESSES])
    kinds = [None if response.exception is None else type(response.exception) for response in responses]
    assert kinds == VERDICTS
    assert sorted(entry.address for entry in project.simulator.state.accepted) == ["ok-1", "ok-2"]
    names = {entry.name for entry in project.simulator.state.accepted}
    assert {response.message_id for response in responses if response.success} == names
    assert (project.server.streams > 0) is (route == "send_each_async")


async def test_one_message_at_a_time(project: Project) -> None:
    assert await project.send(to("ok")) == project.simulator.state.accepted[0].name
    with pytest.raises(messaging.UnregisteredError, match="Requested entity was not found"):
        await project.send(to("gone"))
    with pytest.raises(exceptions.InvalidArgumentError, match="not a valid FCM registration token"):
        await project.send(to("bad"))


@pytest.mark.parametrize("prefix", ["busy", "error"])
async def test_what_passes_is_sent_again(project: Project, prefix: str) -> None:
    assert prefix in PREFIXES
    await project.send(to(f"{prefix}-1"))
    (response,) = await project.send_each_async([to(f"{prefix}-2")])
    assert response.success
    statuses = [seen.status for seen in project.simulator.requests if seen.path != "/token"]
    broken = 503 if prefix == "busy" else 500
    assert statuses == [broken, 200, broken, 200]


@pytest.mark.parametrize("route", ["send_each", "send_each_async"])
async def test_a_dry_run_is_checked_and_not_sent(project: Project, route: str) -> None:
    wrong = to("ok", data={"from": "x"})
    sent = await getattr(project, route)([to("ok"), wrong, to("gone")], dry_run=True)
    assert [response.success for response in sent] == [True, False, False]
    assert sent[0].message_id.endswith("/fake_message_id")
    assert project.simulator.state.accepted == []


async def test_an_old_token_is_replaced(project: Project) -> None:
    await project.send(to("ok"))
    project.simulator.tokens.revoke()
    await project.send(to("ok"))
    project.simulator.tokens.revoke()
    (response,) = await project.send_each_async([to("ok")])
    assert response.success
    assert project.simulator.tokens.issued == 3
    statuses = [seen.status for seen in project.simulator.requests if seen.path != "/token"]
    assert statuses == [200, 401, 200, 401, 200]


async def test_a_revoked_key_is_told(project: Project) -> None:
    project.simulator.tokens.key_revoked = True
    with pytest.raises(RefreshError, match="Invalid JWT Signature"):
        await project.send(to("ok"))


async def test_a_registration_token_is_still_taken(project: Project) -> None:
    with pytest.warns(DeprecationWarning, match="Use Message.fid instead"):
        message = messaging.Message(token="ok:APA91", data={"a": "b"})
    await project.send(message)
    (entry,) = project.simulator.state.accepted
    assert (entry.kind, entry.address) == ("token", "ok:APA91")


async def test_topics_and_conditions(project: Project) -> None:
    await project.send(messaging.Message(topic="/topics/news", data={"a": "b"}))
    await project.send(messaging.Message(condition="'a' in topics || 'b' in topics", data={"a": "b"}))
    kinds = [(entry.kind, entry.address) for entry in project.simulator.state.accepted]
    assert kinds == [("topic", "news"), ("condition", "'a' in topics || 'b' in topics")]


# -- everything it can write ---------------------------------------------------------------------------

NAMES = ["title", "body", "icon", "sound", "tag", "click_action", "body_loc_key", "title_loc_key"]
STRINGS = dict.fromkeys([*NAMES, "channel_id", "image", "ticker"], "x")
ANDROID = [
    messaging.AndroidNotification(
        **STRINGS,
        body_loc_args=["a", "b"],
        title_loc_args=["c"],
        color="#A1b2C3",
        sticky=True,
        event_timestamp=datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC),
        local_only=False,
        priority=priority,
        vibrate_timings_millis=[100, 1500],
        default_vibrate_timings=False,
        default_sound=True,
        light_settings=messaging.LightSettings("#11223344", 500, 1000),
        default_light_settings=False,
        visibility=visibility,
        notification_count=3,
        proxy=proxy,
    )
    for priority, visibility, proxy in [
        ("min", "private", "allow"),
        ("low", "public", "deny"),
        ("default", "secret", "if_priority_lowered"),
        ("high", "private", "allow"),
        ("max", "private", "allow"),
    ]
]
APS = [
    messaging.Aps(
        alert=messaging.ApsAlert(
            title="t",
            subtitle="s",
            body="b",
            loc_key="k",
            loc_args=["a"],
            title_loc_key="tk",
            title_loc_args=["ta"],
            action_loc_key="ak",
            launch_image="i",
            custom_data={"more": 1},
        ),
        badge=4,
        sound=messaging.CriticalSound("default", critical=True, volume=0.5),
        content_available=True,
        category="c",
        thread_id="t",
        mutable_content=True,
        custom_data={"interruption-level": "active"},
    ),
    messaging.Aps(alert="plain", badge=0, sound="default"),
    messaging.Aps(content_available=True),
]
WEB = messaging.WebpushNotification(
    title="t",
    body="b",
    icon="i",
    actions=[messaging.WebpushNotificationAction("a", "A", "icon")],
    badge="x",
    data={"any": ["thing", 1]},
    direction="rtl",
    image="i",
    language="en",
    renotify=True,
    require_interaction=False,
    silent=False,
    tag="t",
    timestamp_millis=1_700_000_000_000,
    vibrate=[100, 200],
    custom_data={"more": {"x": None}},
)
CONFIGS: list[dict[str, Any]] = [
    *(
        {
            "android": messaging.AndroidConfig(
                collapse_key="k",
                priority="high",
                ttl=ttl,
                restricted_package_name="com.example",
                data={"a": "b"},
                notification=notification,
                fcm_options=messaging.AndroidFCMOptions("label"),
                direct_boot_ok=True,
                bandwidth_constrained_ok=True,
                restricted_satellite_ok=False,
            )
        }
        for notification, ttl in zip(ANDROID, [0, 3600, 3.5, timedelta(days=28), None], strict=True)
    ),
    {"android": messaging.AndroidConfig(priority="normal")},
    *(
        {
            "apns": messaging.APNSConfig(
                headers={"apns-priority": "5", "apns-collapse-id": "c"},
                payload=messaging.APNSPayload(aps, mine={"x": [1, 2.5, None, True]}),
                fcm_options=messaging.APNSFCMOptions("label", "https://example.com/i.png"),
                live_activity_token="t",
            )
        }
        for aps in APS
    ),
    {
        "webpush": messaging.WebpushConfig(
            headers={"TTL": "60", "Urgency": "high"},
            data={"a": "b"},
            notification=WEB,
            fcm_options=messaging.WebpushFCMOptions("https://example.com/"),
        )
    },
    {"data": {"a": "b", "é": "ü"}, "fcm_options": messaging.FCMOptions("a-b_c.d~e%f")},
    {"data": {}, "notification": messaging.Notification("t", "b", "https://example.com/i.png")},
]


@pytest.mark.parametrize("route", ["send_each", "send_each_async"])
async def test_every_encoding_is_taken(project: Project, route: str) -> None:
    messages = [messaging.Message(fid=f"ok-{index}", **config) for index, config in enumerate(CONFIGS)]
    responses = await getattr(project, route)(messages)
    assert [str(response.exception) for response in responses if not response.success] == []
    sent = {entry.address: entry.message() for entry in project.simulator.state.accepted}
    expected = {message.fid: json.loads(str(message)) for message in messages}
    assert sent == expected


@pytest.mark.parametrize(
    "wrong",
    [
        {"data": {"google.x": "1"}},
        {"android": messaging.AndroidConfig(ttl=timedelta(days=29))},
        {"webpush": messaging.WebpushConfig(headers={"TTL": "soon"})},
        {"apns": messaging.APNSConfig(headers={"apns-priority": "high"})},
        {"data": {"k": "x" * 4096}},
    ],
)
async def test_what_it_lets_through_and_fcm_does_not(project: Project, wrong: dict[str, Any]) -> None:
    with pytest.raises(exceptions.InvalidArgumentError):
        await project.send(messaging.Message(fid="ok", **wrong))


async def test_the_fixture_raises_no_other_warning(project: Project) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        await project.send(to("ok"))
