"""What a job may say about a failure: secrets and addresses taken out, foreign texts not let in."""

from __future__ import annotations

import re

from ..errors import TowpathError
from ..http import Undelivered
from ..outcome import Retry
from .job import GiveUp, Snooze

_ADDRESS = re.compile(r"[^\s@\"'<>(){}\[\],;:=]+@[^\s@\"'<>(){}\[\],;:=]+")


def without_addresses(text: str) -> str:
    """A text with every e-mail address masked."""
    return _ADDRESS.sub("***", text) if "@" in text else text


def reason_of(error: BaseException) -> str:
    """Why an attempt failed; of an unforeseen error only its place, since its text may hold a record's."""
    if isinstance(error, GiveUp | Snooze):
        return error.reason
    if isinstance(error, TowpathError):
        return f"{error.code}: {error.title}"
    if isinstance(error, Undelivered):
        return getattr(error.outcome, "reason", "") or "a request failed"
    return f"{type(error).__name__} at {_place(error)}"


def wish_s(error: BaseException) -> float:
    """How long the vendor asked to wait; 0 when it did not."""
    outcome = error.outcome if isinstance(error, Undelivered) else None
    return (outcome.after_s or 0.0) if isinstance(outcome, Retry) else 0.0


def _place(error: BaseException) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "an unknown place" if trace is None else f"{trace.tb_frame.f_code.co_name}:{trace.tb_lineno}"
