"""How much one request, and all requests together, may bring."""

from __future__ import annotations

from pydantic import Field

from ..destination import Settings


class IngestLimits(Settings):
    """Bounds on what senders may send; everything beyond is refused with a clear answer, never a crash."""

    event_bytes: int = Field(
        default=64 * 1024, ge=1024, description="Most bytes of one event; a larger one is refused."
    )
    request_bytes: int = Field(
        default=4 * 1024 * 1024,
        ge=1024,
        description="Most bytes of one request body, as sent and after inflating.",
    )
    request_events: int = Field(default=25_000, ge=1, description="Most events in one batch.")
    depth: int = Field(default=200, ge=2, le=400, description="Deepest JSON nesting of one event.")
    body_s: float = Field(
        default=20.0, gt=0, description="Seconds a sender has to send its body before it gets a 408."
    )
    held_bytes: int = Field(
        default=256 * 1024 * 1024,
        ge=1024 * 1024,
        description="Most body bytes held in memory at once, over all requests; above it senders get 503.",
    )
