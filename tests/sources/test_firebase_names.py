"""Odd names in a Firebase source's settings are refused in words before Google is asked."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from towpath.sources._firebase_settings import FirebaseSettings


def refused(**given: Any) -> str:
    with pytest.raises(ValidationError) as found:
        FirebaseSettings(**{"project": "demo-p", **given})
    return str(found.value)


@pytest.mark.spec("D18", "F002")
@pytest.mark.parametrize(
    "name", ["My Project", "my project", "projects/my-p", "123456789", "https://x.y/z", "a/b"]
)
def test_a_project_is_named_by_its_id(name: str) -> None:
    assert "must be the project's id, like my-project-1a2b3" in refused(project=name)


@pytest.mark.parametrize("name", ["demo-p", "my-project-1a2b3", "example.com:my-project", "p2"])
def test_every_id_of_a_project_is_taken(name: str) -> None:
    assert FirebaseSettings(project=name).project == name


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"tenants": [""]}, "must be a tenant's id"),
        ({"tenants": ["a/b"]}, "must be a tenant's id"),
        ({"tenants": ["t1", "t1"]}, "names t1 twice"),
        ({"collections": ["users", "users/{id}"]}, "names users twice"),
        ({"collections": ["t/{a}/m", "t/{b}/m"]}, "names t/{b}/m twice"),
        ({"collections": [".."]}, 'holds ".."'),
        ({"collections": ["__all__"]}, 'holds "__all__"'),
        ({"collections": ["users "]}, "take the space"),
        ({"collections": [{"path": "users", "database": "A b"}]}, "must be the database's id"),
    ],
)
def test_what_cannot_be_is_said(given: dict[str, Any], said: str) -> None:
    assert said in refused(**given)


def test_the_same_path_elsewhere_is_another_collection() -> None:
    places: list[Any] = ["users", {"path": "users", "database": "second"}, {"path": "users", "group": True}]
    assert len(FirebaseSettings(project="p", collections=places, tenants=["Tenant-1a"]).collections) == 3
