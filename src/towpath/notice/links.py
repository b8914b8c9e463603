"""Links that take values of people and events: a value stays the one part of the link it stands in."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote

from ..mapping.template import as_text

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*(?=:.)")
_WHOLE = re.compile(r"\{[^{}]*\}")
_OPEN_HOST = re.compile(r"https?://[^/?#]*\{", re.IGNORECASE)
_UNSAFE = frozenset({"javascript", "data", "vbscript", "file", "blob", "about", "view-source"})
_BREAKING = re.compile(r"[\x00-\x20\x7f]")


def encoded(value: Any) -> str:
    """A value as it stands within a link: percent-encoded, so that it cannot end the part it stands in."""
    return quote(as_text(value), safe="", errors="replace")


def fault_of_link(link: str) -> str:
    """What is wrong with a link or the template of one; empty when nothing is."""
    if _WHOLE.fullmatch(link):
        return ""  # the whole link comes from the message; it is looked at when it is there
    scheme = _SCHEME.match(link)
    if scheme is None:
        return "has to be a link with a scheme, like https://… or shop://…"
    if scheme[0].lower() in _UNSAFE:
        return f"cannot be a {scheme[0].lower()}: link"
    if _OPEN_HOST.match(link):
        return "has a merge tag in the host's name: whoever sets that value would choose where a tap leads"
    return ""


def fault_of_filled(link: str) -> str:
    """What is wrong with a link as a person gets it."""
    if _BREAKING.search(link):
        return "has a space or a control character in it"
    return fault_of_link(link.replace("{", "%7B"))  # what a message brought is no template
