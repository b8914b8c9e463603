"""Preview of a connection that filters, transforms and maps: every stage, by the path delivery takes."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given

from towpath.connection import Connection
from towpath.destination import Payload, Scope
from towpath.destinations.webhook import Webhook
from towpath.mapping import ConsentRule, FieldMap, Filter, MapRule
from towpath.message import Message
from towpath.outcome import Skipped
from towpath.preview import preview
from towpath.testing.loop import run_virtual

from .plan import Planned
from .values import messages

RULES = [
    MapRule.model_validate(
        {"rename_event": {"Order": "Purchase"}, "set": {"properties.x": "{properties.total}"}}
    ),
    MapRule.model_validate(
        {"event": "Wrong", "set": {"properties.x": "{traits.none}"}, "on_error": "reject"}
    ),
]
ORDER = {"type": "track", "userId": "u1", "messageId": "m", "event": "Order", "properties": {"total": 5}}


def connection(**flow: Any) -> Connection:
    settings = Webhook.Settings.model_validate(
        {"url": "https://example.com/", "secret": "whsec_dGhpcy1pcy1uby1zZWNyZXQtYXQtYWxsLi4u"}
    )
    hook = Webhook(settings)
    return Connection(name="c", sources=frozenset({"web"}), destination_name="hook", destination=hook, **flow)


async def shown(given: Any, **flow: Any) -> dict[str, Any]:
    return await preview(connection(**flow), msgspec.json.encode(given))


@pytest.mark.spec("K067")
async def test_without_any_flow_a_line_is_as_ever() -> None:
    assert list(await shown(ORDER)) == ["message_id", "outcome", "requests", "reports", "reason"]


@pytest.mark.spec("D09", "K067")
async def test_every_stage_is_shown() -> None:
    flow: dict[str, Any] = {
        "filter": Filter('event == "Order"'),
        "consent": ConsentRule(needs=("ads",), missing="allow"),
        "transform": Planned(),
        "fields": FieldMap(RULES),
    }
    said = await shown(ORDER, **flow)
    stages = said["stages"]
    assert list(stages) == ["received", "consent", "filter", "transformed", "mapped"]
    assert stages["received"]["event"] == stages["transformed"][0]["event"] == "Order"
    assert (stages["consent"], stages["filter"]) == ("passed", "passed")
    assert stages["mapped"][0]["event"] == "Purchase"
    assert said["requests"][0]["json"]["properties"] == {"total": 5, "x": 5}
    assert (said["outcome"], said["reports"]) == ("request", [])


async def test_a_verdict_is_shown_with_its_reason() -> None:
    said = await shown({**ORDER, "event": "Other"}, filter=Filter('event == "Order"'), transform=Planned())
    assert (said["outcome"], said["reason"]) == ("skipped", "filtered: the filter is false")
    assert list(said["stages"]) == ["received", "filter"]
    assert said["stages"]["filter"] == "the filter is false"
    said = await shown(ORDER, consent=ConsentRule(needs=("ads",)))
    assert said["reason"] == "consent: the message does not say that ads is agreed to"


async def test_reports_and_refusals_of_the_map_are_shown() -> None:
    said = await shown({**ORDER, "properties": {}}, fields=FieldMap(RULES))
    assert said["reports"] == ["mapping rule 1, set properties.x: there is no properties.total"]
    said = await shown({**ORDER, "event": "Wrong"}, fields=FieldMap(RULES))
    assert said["outcome"] == "rejected"
    assert said["reason"] == "mapping rule 2, set properties.x: there is no traits.none"
    assert said["stages"]["mapped"] == [None]


@pytest.mark.spec("D24")
async def test_what_a_transform_makes_is_shown_one_by_one() -> None:
    made = {**ORDER, "properties": {"parts": 3}}
    said = await shown(made, transform=Planned())
    assert (said["outcome"], len(said["requests"])) == ("request", 3)
    assert [each["message_id"] for each in said["deliveries"]] == ["m", "m-1", "m-2"]
    said = await shown({**ORDER, "properties": {"parts": 0}}, transform=Planned())
    assert said["reason"] == "transformed away: the transform returned nothing for it"
    said = await shown({**ORDER, "properties": {"fails": 1}}, transform=Planned())
    assert (said["outcome"], said["reason"]) == ("retry", "the function failed")


@pytest.mark.parametrize(
    ("text", "passes"),
    [('source == "web"', True), ('source == "app" && trust == "client"', False), ('trust == "server"', True)],
)
async def test_a_line_may_say_which_source_it_comes_from(text: str, passes: bool) -> None:
    said = await shown(ORDER, filter=Filter(text))
    assert (said["outcome"] == "request") is passes
    other = {"message": ORDER, "source": "app", "trust": "client"}
    assert ((await shown(other, filter=Filter(text)))["outcome"] == "request") is not passes


HOLDING: dict[str, Any] = {
    "only": frozenset({"identify"}),
    "filter": Filter('type == "identify"'),
    "consent": ConsentRule(needs=("ads",)),
    "max_age_s": {"*": 1.0},
}


@pytest.mark.spec("D10")
async def test_a_deletion_passes_what_holds_others_back() -> None:
    delete = {"type": "delete", "userId": "u1", "messageId": "m"}
    chosen = connection(**HOLDING)
    assert chosen.skip(Message(type="delete", user_id="u1", trust="server")) is None
    assert chosen.stale(Message(type="delete", user_id="u1", trust="server"), 1e9) is None
    assert chosen.skip(Message(type="track", user_id="u1", trust="server")) is not None
    assert chosen.stale(Message(type="track", user_id="u1", trust="server"), 1e9) is not None
    stages = (await shown(delete, **HOLDING))["stages"]
    assert (stages["consent"], stages["filter"]) == ("passed", "passed")


@pytest.mark.spec("D10", "D13")
async def test_but_not_one_that_is_not_trusted_or_is_for_others() -> None:
    delete = {"type": "delete", "userId": "u1", "messageId": "m"}
    said = await shown({"message": delete, "trust": "client"}, **HOLDING)
    assert said["outcome"] == "skipped"
    assert said["reason"].startswith("untrusted: ")
    said = await shown({**delete, "integrations": {"All": False}}, **HOLDING)
    assert said["reason"].startswith("filtered: the message's `integrations`")


async def test_a_message_is_judged_once_and_its_parts_are_not() -> None:
    judged = list[Message]()

    class Counting(Filter):
        def verdict(self, message: Message) -> Skipped | None:
            judged.append(message)
            return super().verdict(message)

    chosen = connection(filter=Counting("true"), transform=Planned())
    part = Message(type="track", user_id="u1", message_id="m-1", event="Order")
    assert isinstance(chosen.payload(Message(type="track", user_id="u1", event="Order"), part), Payload)
    assert judged == []
    assert isinstance(chosen.payload(part), Payload)
    assert judged == [part]


async def test_a_message_without_an_id_gets_one_as_from_the_server() -> None:
    line = msgspec.json.encode({"type": "track", "userId": "u1", "event": "Order"})
    first, second = await preview(connection(), line), await preview(connection(), line)
    assert str(UUID(first["message_id"])) == first["message_id"] != second["message_id"]
    assert first["requests"][0]["json"]["messageId"] == first["message_id"]
    assert (await preview(connection(), b"5"))["message_id"] == ""


class Plain(Webhook):
    """Sends what is no JSON, after a look-up."""

    def prepare(self, message: Message) -> Payload | Skipped:
        made = super().prepare(message)
        assert isinstance(made, Payload)
        return msgspec.structs.replace(made, look_ups=True)

    async def deliver(self, payload: Payload, scope: Scope) -> None:
        await scope.http.request("POST", "https://example.com/", body=b"a=1&b=\xff")


async def test_a_body_that_is_no_json_is_shown_as_text() -> None:
    chosen = connection()
    plain = msgspec.structs.replace(chosen, destination=Plain(chosen.destination.settings))
    said = await preview(plain, msgspec.json.encode({"message": ORDER, "lookups": []}))
    assert [call["json"] for call in said["requests"]] == ["a=1&b=\ufffd"]


@given(messages())
def test_the_path_of_preview_is_the_path_of_delivery(message: Message) -> None:
    """What preview shows is what `Connection.payload` makes, for any message."""
    chosen = connection(filter=Filter("has(properties.a) || type != 'track'"), fields=FieldMap(RULES))
    line = msgspec.json.encode(
        {"message": msgspec.to_builtins(message), "source": message.source, "trust": message.trust}
    )
    said = run_virtual(preview(chosen, line))
    assert said["outcome"] in ("request", "skipped", "rejected")
    assert said["requests"] or said["outcome"] != "request"
