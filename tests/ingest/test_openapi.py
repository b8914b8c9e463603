"""The API's description says what the route table and the code say."""

from __future__ import annotations

import ast
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec
import pytest

import towpath.ingest
from towpath.ingest.routes import ROUTES
from towpath.message import KINDS

DESCRIPTION: dict[str, Any] = msgspec.json.decode(
    resources.files("towpath.ingest").joinpath("openapi.json").read_bytes()
)
# Refused where nobody reads an answer: the pixel.
UNSEEN = {"invalid_query"}


def references(node: Any) -> set[str]:
    if isinstance(node, dict):
        inner = set().union(*(references(value) for value in node.values()))
        return inner | ({node["$ref"]} if "$ref" in node else set())
    return set().union(*(references(value) for value in node)) if isinstance(node, list) else set()


@pytest.mark.spec("E007")
def test_every_route_is_described_with_its_methods() -> None:
    described = {
        path: {method.upper() for method in methods} for path, methods in DESCRIPTION["paths"].items()
    }
    assert described == {path: set(route.methods) - {"HEAD"} for path, route in ROUTES.items()}


@pytest.mark.spec("E007")
def test_references_lead_somewhere() -> None:
    for reference in references(DESCRIPTION):
        node = DESCRIPTION
        for part in reference.removeprefix("#/").split("/"):
            node = node[part]
    assert set(DESCRIPTION["components"]["schemas"]["Event"]["properties"]["type"]["enum"]) == KINDS


@pytest.mark.spec("E035")
def test_every_code_a_refusal_can_have_is_described() -> None:
    folder = Path(towpath.ingest.__file__).parent
    calls = [node for path in folder.glob("*.py") for node in ast.walk(ast.parse(path.read_text()))]
    made = {
        node.args[0].value
        for node in calls
        if isinstance(node, ast.Call)
        and getattr(node.func, "id", "") == "Bad"
        and isinstance(node.args[0], ast.Constant)
    }
    named = DESCRIPTION["components"]["schemas"]["Refused"]["properties"]["code"]["enum"]
    assert {*named} == (made - UNSEEN) | {"invalid_context", "invalid_integrations"}
