"""The event API of Segment and RudderStack SDKs: `Ingest` is its ASGI function."""

from .endpoint import Ingest
from .limits import IngestLimits

__all__ = ["Ingest", "IngestLimits"]
