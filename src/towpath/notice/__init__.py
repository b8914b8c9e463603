"""Push notices: what is written once, filled for each person, and sent to FCM for each of their devices."""

from __future__ import annotations

from .bodies import Bodies, Refused
from .content import PLATFORMS, Content
from .encoding import Encoded, Preview, encoded, preview
from .fields import LARGEST_BYTES
from .notice import Notice, about
from .problems import Problem, counted_bytes, problems
from .settings import NoticeSettings
from .trigger import Trigger

__all__ = [
    "LARGEST_BYTES",
    "PLATFORMS",
    "Bodies",
    "Content",
    "Encoded",
    "Notice",
    "NoticeSettings",
    "Preview",
    "Problem",
    "Refused",
    "Trigger",
    "about",
    "counted_bytes",
    "encoded",
    "preview",
    "problems",
]
