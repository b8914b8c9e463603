"""Messages of any shape, for properties that must hold for all of them."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from towpath.message import Message

WORDS = ["a", "b", "email", "a.b", "", "ü", "*", "properties"]
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
    | st.sampled_from(["Ann@Example.com ", "2026-01-01T00:00:00Z", "x" * 300])
)
JSON = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(WORDS) | st.text(max_size=3), inner, max_size=4)
    ),
    max_leaves=12,
)
OBJECTS: st.SearchStrategy[dict[str, Any]] = st.dictionaries(st.sampled_from(WORDS), JSON, max_size=5)
IDS = st.none() | st.text(min_size=1, max_size=5)


@st.composite
def messages(draw: st.DrawFn) -> Message:
    return Message(
        type=draw(st.sampled_from(["track", "identify", "page", "group", "alias"])),
        message_id=draw(st.text(max_size=4)),
        user_id=draw(IDS),
        anonymous_id=draw(IDS),
        previous_id=draw(IDS),
        group_id=draw(IDS),
        event=draw(st.sampled_from(["Order", "Seen"]) | JSON),
        name=draw(JSON),
        properties=draw(OBJECTS | JSON),
        traits=draw(OBJECTS),
        context=draw(OBJECTS),
        integrations=draw(st.none() | st.booleans() | OBJECTS),
        original_timestamp=draw(JSON),
        timestamp=draw(JSON),
        received_at=draw(st.floats(0, 4e9)),
    )
