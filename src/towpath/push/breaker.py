"""When a campaign stops itself: what FCM says so often that it must be the campaign, not the devices."""

from __future__ import annotations

from collections import Counter

from .verdict import Verdict

SAME_TO_STOP = 5
WRONG_SHARE = 0.01
"""Fewer than that are single people's, whose merge tags make a message that FCM refuses."""
ENOUGH_TO_JUDGE = 50


class Breaker:
    """Hears every verdict of a campaign; says why it has to stop, once it has to.

    `mismatches` is the share of addresses of another project from which on the credential must be the wrong
    one. A stop removes no device: that is for verdicts on single devices.
    """

    def __init__(self, mismatches: float) -> None:
        self._mismatches = mismatches
        self._heard: Counter[str] = Counter()
        self._wrong: Counter[str] = Counter()
        self.platforms_out: dict[str, str] = {}

    def hear(self, verdict: Verdict, platform: str) -> str:
        """Take a verdict in; why the campaign has to stop, empty while it goes on."""
        self._heard[verdict.kind] += 1
        if verdict.kind == "misconfigured":
            return f"FCM refuses the project or its key: {verdict.detail}"
        if verdict.kind == "platform_misconfigured":
            self.platforms_out[platform] = verdict.detail
            return ""
        if verdict.kind == "wrong_message":
            return self._wrong_message(verdict)
        return self._too_many_mismatches() if verdict.kind == "mismatch" else ""

    def _wrong_message(self, verdict: Verdict) -> str:
        self._wrong[verdict.detail] += 1
        times = self._wrong[verdict.detail]
        if times < SAME_TO_STOP or times < WRONG_SHARE * self._heard.total():
            return ""
        return f"FCM refused the message {times} times for the same reason: {verdict.detail}"

    def _too_many_mismatches(self) -> str:
        judged = self._heard["accepted"] + self._heard["mismatch"]
        share = self._heard["mismatch"] / judged
        if judged < ENOUGH_TO_JUDGE or share <= self._mismatches:
            return ""
        return f"{share:.0%} of the addresses belong to another Firebase project: is it the right key?"
