"""`connectors test` of a Firebase project: each line, and what is missing by its name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from towpath.http import Reply, Request, TransportError
from towpath.sources._firebase_check import check
from towpath.sources._firebase_project import Project
from towpath.sources._firebase_settings import FirebaseSettings

from .google_world import PROJECT, World
from .test_google import FILE, MAIL, answer, granted

pytestmark = pytest.mark.spec("F008")


def signing(world: World, **fields: Any) -> None:
    """Let the world's project sign in with a service account."""
    key = json.dumps({**FILE, **fields})
    world.project = Project(
        FirebaseSettings(
            project=PROJECT, service_account=SecretStr(key), collections=list(world.settings.collections)
        )
    )
    world.transport.on("POST", "https://token.test/token", granted())


def refused(code: int, status: str, message: str = "no", *details: Mapping[str, Any]) -> Reply:
    error = {"code": code, "status": status, "message": message, "details": details}
    return answer(code, {"error": error})


async def lines(world: World) -> list[tuple[str, bool, str]]:
    found = await check(world.project, world.scope())
    return [(line.name, line.ok, line.detail) for line in found]


async def test_a_line_for_the_sign_in_and_for_each_list() -> None:
    world = World(collections=["users", "orgs/{org}/users"])
    signing(world)
    world.google.user("a")
    world.google.put("users/a")
    world.google.put("users/b")
    assert await lines(world) == [
        ("sign-in", True, f"as {MAIL}"),
        ("list auth", True, "users: 1"),
        ("list users", True, "documents: 2"),
        ("list orgs/{org}/users", True, "readable"),
    ]
    queries = [json.loads(request.body) for request in world.transport.requests if ":runQuery" in request.url]
    assert [query["structuredQuery"]["limit"] for query in queries] == [1, 1]


def test_a_wrong_key_file_is_an_error_of_the_configuration() -> None:
    with pytest.raises(ValidationError, match="no key file of a service account"):
        FirebaseSettings(project=PROJECT, service_account=SecretStr('{"type": "nope"}'))


async def test_an_emulator_needs_no_sign_in() -> None:
    assert (await lines(World()))[0] == ("sign-in", True, "none: emulator")


async def test_without_a_service_account_nothing_is_asked() -> None:
    world = World()
    world.project = Project(FirebaseSettings(project=PROJECT))
    [(name, ok, detail)] = await lines(world)
    assert (name, ok) == ("sign-in", True)
    assert "no service_account" in detail
    assert world.transport.requests == []


async def test_a_refused_sign_in_is_the_only_line() -> None:
    world = World(collections=["users"])
    signing(world)
    said = {"error": "invalid_grant", "error_description": "Invalid JWT Signature."}
    world.transport.on("POST", "*/token", answer(400, said))
    [(name, ok, detail)] = await lines(world)
    assert (name, ok) == ("sign-in", False)
    assert "the key was revoked" in detail


@pytest.mark.parametrize(
    ("reply", "fields", "said"),
    [
        (
            refused(403, "PERMISSION_DENIED", "Missing or insufficient permissions."),
            {},
            f"{MAIL} may not read it: give it the role Cloud Datastore Viewer (roles/datastore.viewer)",
        ),
        (
            refused(403, "PERMISSION_DENIED"),
            {"project_id": "another"},
            "Its key is of project another: is `project` right?",
        ),
        (
            refused(
                403,
                "PERMISSION_DENIED",
                "Cloud Firestore API has not been used in project 1 before or it is disabled.",
                {"reason": "SERVICE_DISABLED", "metadata": {"activationUrl": "https://console.test/enable"}},
            ),
            {},
            f"not enabled in project {PROJECT}: enable it at https://console.test/enable",
        ),
        (
            refused(404, "NOT_FOUND", "The database (default) does not exist for project x"),
            {},
            "check `project` and `database` (The database (default) does not exist",
        ),
        (
            Reply(200, {}, b'[{"error": {"code": 13, "message": "internal"}}]'),
            {},
            "broke off its answer: internal",
        ),
        (Reply(418, {}, b"tea"), {}, "418: tea"),
    ],
)
async def test_what_a_collection_lacks_is_named(reply: Reply, fields: Mapping[str, Any], said: str) -> None:
    world = World(collections=["users"])
    signing(world, **fields)
    world.transport.on("POST", "*:runQuery*", reply)
    line = (await lines(world))[2]
    assert (line[0], line[1]) == ("list users", False)
    assert said in line[2]


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (refused(403, "PERMISSION_DENIED"), "Firebase Authentication Viewer (roles/firebaseauth.viewer)"),
        (refused(400, "INVALID_ARGUMENT", "CONFIGURATION_NOT_FOUND"), "was never set up in this project"),
        (refused(400, "INVALID_ARGUMENT", "INVALID_PROJECT_ID : x"), "check `project`"),
        (refused(400, "INVALID_ARGUMENT", "TENANT_NOT_FOUND"), "check `tenants`"),
    ],
)
async def test_what_the_users_lack_is_named(reply: Reply, said: str) -> None:
    world = World()
    signing(world)
    world.transport.on("GET", "*accounts:batchGet*", reply)
    assert said in (await lines(world))[1][2]


async def test_a_network_that_is_down_says_nothing_about_the_credential() -> None:
    world = World()
    signing(world)
    world.transport.on("GET", "*accounts:batchGet*", TransportError("refused", sent=False))
    found = await check(world.project, world.scope())
    assert (found[1].ok, found[1].reached) == (False, False)


async def test_a_count_that_is_refused_is_no_failure() -> None:
    world = World()

    def fault(request: Request) -> Reply | None:
        return Reply(403) if ":query" in request.url else None

    world.google.fault = fault
    assert (await lines(world))[1] == ("list auth", True, "readable; it cannot be counted")


async def test_an_emulator_that_denies_is_quoted() -> None:
    world = World()
    world.google.fault = lambda request: refused(403, "PERMISSION_DENIED", "rules")
    assert (await lines(world))[1][2] == "rules"
