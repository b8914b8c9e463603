"""The lines of `connectors test`: one per capability, and what is wrong by its name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from towpath.destination import Check
from towpath.destinations._customerio_check import SWAPPED_APP, SWAPPED_TRACK, TOO_MANY, TRACK_REFUSED
from towpath.http import Reply, TransportError
from towpath.sandbox.customerio import DEFAULT, ELSEWHERE
from towpath.testing.fakes import Rule

from .customerio_world import KEYS, REGION, WITH_APP, World, answer
from .test_customerio_conflicts import APP_KEY, Workspace

PAGE = Path(__file__).parent.parent.parent / "docs" / "destinations" / "customerio.md"
PIPELINES = {"pipelines_write_key": DEFAULT.write_key}


async def lines_of(settings: dict[str, Any], **workspace: Any) -> list[Check]:
    world = Workspace(settings, **workspace)
    return list(await world.destination.check(world.scope))


def shown(lines: list[Check]) -> list[str]:
    return [f"{'✓' if line.ok else '✗'} {line.name}" for line in lines]


@pytest.mark.spec("C099", "C100", "C101", "C102", "C103")
async def test_one_line_per_capability() -> None:
    assert shown(await lines_of({**APP_KEY, **PIPELINES})) == [
        "✓ Track API connection successful",
        "✓ App API connection successful",
        "✓ People accessible",
        "✓ Campaigns readable",
        "✓ Segments listable",
        "✓ Pipelines API connection successful",
    ]


@pytest.mark.spec("C099")
async def test_without_further_keys_only_track_is_asked_and_nothing_is_changed() -> None:
    world = Workspace()
    (line,) = await world.destination.check(world.scope)
    assert line.ok
    assert line.detail == "region US"
    assert world.paths() == ["GET /api/v1/accounts/region"]


@pytest.mark.spec("C099", "D18")
async def test_the_empty_batch_that_tries_the_pipelines_key_changes_nothing() -> None:
    world = Workspace({**PIPELINES, "api": "pipelines"})
    assert all(line.ok for line in await world.destination.check(world.scope))
    assert world.simulator.state.people == {}
    (line,) = [
        line
        for line in await lines_of({"pipelines_write_key": "wrong", "api": "pipelines"})
        if line.capability == "pipelines"
    ]
    assert not line.ok
    assert line.reached


@pytest.mark.spec("C085", "C094")
async def test_too_many_requests_to_the_app_api_name_its_limit() -> None:
    said = {"errors": [{"detail": "rate limited to 10 requests per 1s", "status": "429"}]}
    world = World(REGION, ("*", "/v1/*", answer(429, said)), **WITH_APP)
    lines = await world.destination.check(world.scope)
    assert [line.ok for line in lines] == [True, False, False, False, False]
    assert all(TOO_MANY in line.detail for line in lines[1:])
    assert not any(line.reached for line in lines[1:])


@pytest.mark.spec("C095")
def test_the_page_says_what_the_program_says() -> None:
    page = PAGE.read_text(encoding="utf-8")
    for words in (SWAPPED_TRACK, SWAPPED_APP, TOO_MANY, TRACK_REFUSED):
        beginning = words.partition(",")[0].partition(". ")[0]
        assert f'"{beginning}"' in page


@pytest.mark.spec("C090", "C092")
async def test_a_wrong_track_key_and_a_swapped_one() -> None:
    (wrong,) = await lines_of({"api_key": "wrong"})
    assert not wrong.ok
    assert "site id or the Track API key is wrong" in wrong.detail
    (swapped,) = await lines_of({"api_key": DEFAULT.app_api_key})
    assert not swapped.ok
    assert swapped.detail.startswith("api_key is a key of the App API.")


@pytest.mark.spec("C027", "C092", "C100")
async def test_a_wrong_app_key_and_a_swapped_one() -> None:
    wrong = await lines_of({"app_api_key": "wrong"})
    assert shown(wrong)[:2] == ["✓ Track API connection successful", "✗ App API connection failed"]
    assert all(line.capability == "app" for line in wrong[1:])
    swapped = await lines_of({"app_api_key": DEFAULT.api_key})
    assert swapped[1].detail.startswith("app_api_key is the Track API's key.")


@pytest.mark.spec("C093")
async def test_the_wrong_region_is_named() -> None:
    lines = await lines_of({"region": "us"}, region="eu")
    assert shown(lines) == ["✗ Track API connection failed"]
    assert "wrong region" in lines[0].detail
    keys = {"site_id": ELSEWHERE.site_id, "api_key": ELSEWHERE.api_key, "region": "us"}
    (line,) = await lines_of(keys, region="us")
    assert "the EU" in line.detail


@pytest.mark.spec("C101", "C102", "C103")
@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/v1/customers?limit=1", "People accessible"),
        ("/v1/campaigns", "Campaigns readable"),
        ("/v1/segments", "Segments listable"),
    ],
)
async def test_what_an_app_key_may_not_read_has_its_own_line(path: str, name: str) -> None:
    denied = answer(403, {"errors": [{"detail": "forbidden", "status": "403"}]})
    world = World(("*", path, denied), **WITH_APP)
    lines = await world.destination.check(world.scope)
    assert [line.name for line in lines if not line.ok] == [name]
    assert "forbidden" in next(line.detail for line in lines if not line.ok)


@pytest.mark.spec("C099", "D18")
@pytest.mark.parametrize("met", [answer(503), TransportError("refused", sent=False), answer(429)])
async def test_no_answer_is_no_refusal(met: Any) -> None:
    rules: tuple[Rule, ...] = (("*", "*", met),)
    world = World(*rules, **WITH_APP, pipelines_write_key="w")
    lines = await world.destination.check(world.scope)
    assert not any(line.ok for line in lines)
    assert not any(line.reached for line in lines)


async def test_a_check_names_what_payloads_need() -> None:
    ways: list[dict[str, Any]] = [{}, {"api": "pipelines", "pipelines_write_key": "w"}]
    for settings in ways:
        world = World(("*", "*", Reply(401, body=b"{}")), **KEYS, **settings)
        lines = await world.destination.check(world.scope)
        needed = "pipelines" if settings else ""
        assert [line for line in lines if line.capability == needed and not line.ok and line.reached]
