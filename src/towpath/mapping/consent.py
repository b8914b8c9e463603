"""Consent: which categories a destination needs, and what a message says the person agreed to (D09)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field

from ..destination import Settings
from ..message import Message
from ..outcome import Skipped

Word: TypeAlias = Annotated[str, Field(min_length=1, max_length=200)]


class ConsentRule(Settings):
    """Which consent a person must have given for a message to go to this destination."""

    needs: tuple[Word, ...] = Field(
        min_length=1, max_length=50, description="The categories, all of which must be agreed to."
    )
    missing: Literal["allow", "deny"] = Field(
        default="deny", description="What a message counts as that says nothing about a category."
    )

    def verdict(self, message: Message) -> Skipped | None:
        """Why a message must not go; None when it may. One denial outweighs everything (D09)."""
        said = dict[str, bool]()
        for category, allowed in _answers(message.context):
            folded = category.strip().casefold()
            said[folded] = said.get(folded, True) and allowed
        for category in self.needs:
            answer = said.get(category.strip().casefold())
            if answer is False:
                return Skipped("consent", f"consent to {category} is denied")
            if answer is None and self.missing == "deny":
                return Skipped("consent", f"the message does not say that {category} is agreed to")
        return None


def _answers(context: dict[str, Any]) -> Iterator[tuple[str, bool]]:
    """What a message says, in both shapes there are.

    Segment: `context.consent.categoryPreferences`, category -> true or false.
    RudderStack: `context.consentManagement`, lists `allowedConsentIds` and `deniedConsentIds`.
    """
    preferences = _object(_object(context.get("consent")).get("categoryPreferences"))
    for category, agreed in preferences.items():
        yield category, agreed is True
    management = _object(context.get("consentManagement"))
    for key, allowed in (("allowedConsentIds", True), ("deniedConsentIds", False)):
        for category in _names(management.get(key)):
            yield category, allowed


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _names(value: Any) -> Iterator[str]:
    """Category ids in a list, or in an object as some consent platforms nest them."""
    if isinstance(value, str):
        yield value
    if isinstance(value, dict):
        value = [*value, *value.values()]
    for item in value if isinstance(value, list) else ():
        if isinstance(item, str):
            yield item


def needed(value: Any) -> Any:
    """The short form, a name or a list of names, as the section it stands for."""
    if isinstance(value, str):
        value = [value]
    return {"needs": value} if isinstance(value, list) else value
