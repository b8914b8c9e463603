"""What histories are made of: each seed lives one scenario for sure and some others by chance."""

# ruff: noqa: S311 - randomness here must be repeatable, not secret
from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from random import Random

from msgspec import Struct

from towpath.connection import DeleteLimit

STEPS = (14, 34)
BASE = {"send": 8, "wait": 6, "resend": 1, "change_phase": 2}


class Scenario(Struct, frozen=True, kw_only=True):
    """One kind of trouble. `script` happens in every history of it, in this order; `often` are weights.

    `sours` and the like are how many of 100 track calls are such ones. `limits` names the kind of vendor.
    """

    name: str
    script: Sequence[str] = ()
    often: Mapping[str, int] = {}
    events: Mapping[str, int] = {}
    linking: int = 3  # of 10 messages: identify or alias
    limits: str = ""
    lease_s: float = 3600.0
    links_max: int = 500
    per_minute: int | None = None
    shared: bool = False
    max_age_s: float | None = None
    deletes: tuple[DeleteLimit, int] | None = None  # and how many persons are known
    late_s: float = 120.0  # what a retry may wait for the calls of others
    windows: Sequence[int] = (8, 64, 4096)  # deliveries a loop may hold in memory
    pages: Sequence[int] = (256, 256, 5)  # records that reading brings at once
    seen: Sequence[str] = ()
    """What must have been seen when enough histories of it were lived."""
    mostly: Sequence[str] = ()
    """What must have been seen in at least half of its own histories."""


SCENARIOS = (
    Scenario(
        name="crash",
        script=("send", "crash", "send", "crash"),
        often={"crash": 3},
        seen=("crash", "effect repeated after a fault"),
    ),
    Scenario(
        name="stop",
        script=("send", "stop", "send", "stop"),
        often={"stop": 3},
        seen=("graceful stop", "stop that cut calls off"),
    ),
    Scenario(
        name="expired credential",
        script=("send", "expire", "send", "wait", "send", "renew", "wait"),
        often={"expire": 2, "renew": 2},
        seen=("401", "401 for one message", "checked", "pause", "resume"),
    ),
    Scenario(
        name="refusal unconfirmed",
        script=("send", "expire_unconfirmed", "send", "wait", "renew"),
        events={"forbidden": 8},
        seen=("403 for one message", "refusal unconfirmed"),
    ),
    Scenario(
        name="outage of 80 hours",
        script=("send", "outage", "send"),
        seen=("outage of 80 hours", "gave up after 76 hours"),
    ),
    Scenario(
        name="outages",
        script=("send", "break_down", "send", "wait", "send", "mend", "send"),
        often={"break_down": 3, "mend": 2},
        seen=("503", "500 now and then", "unreachable", "stalled", "retry on schedule"),
    ),
    Scenario(
        name="rate limit",
        script=("limit", "send", "wait", "send", "mend", "wait"),
        often={"limit": 2},
        seen=("429", "429 with Retry-After", "429 for one object"),
    ),
    Scenario(
        name="links",
        script=("send", "send_links", "send_links", "send_junk", "send_links"),
        often={"send_links": 6, "break_down": 1, "wait_long": 1},
        linking=6,
        seen=("link", "junk id"),
    ),
    Scenario(
        name="too many links",
        script=("send_links", "send_links", "send_links"),
        often={"send_links": 6},
        linking=7,
        links_max=2,
        seen=("link refused",),
    ),
    Scenario(
        name="clock jumps",
        script=("send", "break_down", "send", "jump_back", "wait", "jump_ahead", "send", "crash", "mend"),
        often={"jump_back": 2, "jump_ahead": 2, "crash": 1},
        seen=("clock ahead", "clock back"),
    ),
    Scenario(
        name="erase",
        script=("send", "break_down", "send", "wait", "erase", "mend", "erase", "send", "erase", "wait"),
        often={"erase": 3, "break_down": 1, "slow_down": 1},
        events={"poison": 8},
        seen=(
            "erased: parked",
            "erased: unread or in memory",
            "erased: dead",
            "erased: flying",
            "erased in steps",
        ),
        mostly=("erased in steps",),
    ),
    Scenario(
        name="suppress",
        script=("send", "suppress", "send", "wait", "unsuppress", "send"),
        often={"suppress": 2, "unsuppress": 1, "break_down": 1},
        seen=("suppress", "skipped: suppressed"),
    ),
    Scenario(
        name="dead letters",
        script=("send", "wait", "replay", "send", "wait", "drop", "send", "wait", "prune", "replay"),
        often={"replay": 3, "drop": 1, "prune": 1, "crash": 1},
        events={"poison": 15, "curable": 15},
        seen=("replay", "drop", "prune", "refused for good"),
    ),
    Scenario(
        name="by hand",
        script=("send", "pause", "send", "resume", "send"),
        often={"pause": 2, "resume": 2, "crash": 1, "hurry": 1},
        seen=("pause by hand", "resume by hand", "hurry"),
    ),
    Scenario(
        name="trim",
        script=("send", "wait", "trim", "send", "break_down", "send", "wait", "trim", "mend", "send"),
        often={"trim": 3, "break_down": 1},
        events={"poison": 5},
        seen=("trim",),
    ),
    Scenario(
        name="changed configuration",
        script=("send", "add_connection", "send", "remove_source", "send", "add_source", "send"),
        often={"add_connection": 1, "remove_source": 1, "add_source": 1, "break_down": 1},
        seen=("connection added", "source removed", "source added", "skipped: source removed"),
    ),
    Scenario(
        name="second owner",
        script=("send", "take_over", "send", "take_over"),
        often={"take_over": 1, "change_phase": 1},
        lease_s=60.0,
        seen=("taken over", "came back in time"),
    ),
    Scenario(
        name="disk full",
        script=(
            "send",
            "fill_for_appends",
            "send",
            "free",
            "send",
            "fill_for_settles",
            "send",
            "wait",
            "free",
        ),
        often={"fill_for_appends": 1, "fill_for_settles": 1, "free": 2, "crash": 1},
        seen=("append refused", "settle refused"),
    ),
    Scenario(
        name="ledger forgets to answer",
        script=("lose_settles", "send", "wait", "send", "wait", "free"),
        often={"lose_settles": 1, "free": 1, "break_down": 1},
        events={"poison": 5},
        seen=("settlement answer lost",),
    ),
    Scenario(
        name="slow and hanging",
        script=("slow_down", "send", "wait", "slow_down", "send", "wait", "mend"),
        often={"slow_down": 3},
        seen=("call slow", "call hung"),
    ),
    Scenario(
        name="lost answers",
        script=("lie", "send", "wait", "lie", "send", "wait", "mend"),
        often={"lie": 3},
        seen=("answer lost", "500 though delivered", "effect repeated after a fault"),
    ),
    Scenario(
        name="duplicates",
        script=("send", "resend", "resend", "crash", "resend", "wait", "resend"),
        often={"resend": 8, "crash": 1},
        seen=("duplicate",),
    ),
    Scenario(
        name="ordered batches",
        script=("send", "change_phase", "send", "wait", "send"),
        events={"poison": 8},
        limits="ordered batches",
        seen=("batch", "400 for a batch", "422 for one message"),
    ),
    Scenario(
        name="batches",
        script=("send", "change_phase", "send", "wait", "send"),
        events={"poison": 8},
        limits="batches",
        seen=("batch", "400 for a batch", "422 for one message"),
    ),
    Scenario(
        name="coalescing",
        script=("send_profiles", "break_down", "send_profiles", "wait", "mend", "send_profiles"),
        often={"send_profiles": 4, "suppress": 1},
        limits="coalescing",
        seen=("merged",),
    ),
    Scenario(
        name="one budget for many",
        script=("send", "send", "send_many", "wait"),
        often={"limit": 1},
        per_minute=90,
        shared=True,
        seen=("waited for the budget",),
    ),
    Scenario(
        name="poison among the healthy",
        script=("send", "wait_long", "send", "wait_long", "send", "wait_long"),
        often={"wait_long": 3},
        events={"sour": 6, "poison": 3},
        seen=("500 for one message", "gave up after the short schedule"),
    ),
    Scenario(
        name="too old",
        script=("send_aging", "break_down", "send_aging", "wait_long", "mend"),
        often={"send_aging": 3, "break_down": 1, "mend": 1},
        events={"Aging": 30},
        max_age_s=3600.0,
        seen=("skipped: stale",),
    ),
    Scenario(
        name="backlog",
        script=(
            "pile_up",
            "pass_by",
            "pass_by",
            "crash",
            "pass_by",
            "link_across",
            "pass_by",
            "erase_across",
            "pass_by",
        ),
        often={"pass_by": 8, "link_across": 2, "erase_across": 2, "pile_up": 1, "crash": 1, "take_over": 1},
        lease_s=60.0,
        late_s=3600.0,  # of dozens of people who are due, each call takes half a minute
        windows=(8, 8, 16, 64),
        pages=(5, 24, 256),
        seen=("passed a backlog", "linked across a backlog", "erased across a backlog", "taken over"),
        mostly=("passed a backlog",),
    ),
    Scenario(
        name="too many deletions",
        script=(
            "send_deletes",
            "send",
            "send_deletes",
            "crash",
            "send_deletes",
            "wait",
            "resume",
            "confirm_deletes",
            "send_deletes",
            "wait_long",
            "send_deletes",
            "confirm_deletes",
            "send",
        ),
        often={
            "send_deletes": 5,
            "confirm_deletes": 1,
            "discard_deletes": 1,
            "renew": 1,
            "resume": 1,
            "stop": 1,
            "break_down": 1,
        },
        deletes=(DeleteLimit(share=0.3, count=2), 10),
        seen=("deletions held", "deletions confirmed", "deletions discarded", "skipped: discarded"),
        mostly=("deletions held",),
    ),
)


class Plan(Struct, frozen=True):
    """A history before it is lived: its scenarios, and (step, its own seed) in order."""

    scenarios: Sequence[Scenario]
    steps: Sequence[tuple[str, str]]

    @property
    def main(self) -> Scenario:
        """The scenario that every history with this place among the seeds has."""
        return self.scenarios[0]

    def settles(self, name: str) -> bool:
        """Whether a scenario is among them."""
        return any(scenario.name == name for scenario in self.scenarios)


def plan(seed: int) -> Plan:
    """What happens in the history of a seed."""
    chance = Random(f"plan {seed}")
    main = SCENARIOS[seed % len(SCENARIOS)]
    others = [scenario for scenario in SCENARIOS if scenario is not main and scenario.lease_s > 60]
    scenarios = [main, *chance.sample(others, chance.choice([0, 0, 1, 1, 2]))]
    weights = Counter(BASE)
    for scenario in scenarios:
        weights.update(scenario.often)
    names = chance.choices(list(weights), list(weights.values()), k=chance.randint(*STEPS))
    for scenario in scenarios:
        places = sorted(chance.randint(0, len(names)) for _ in scenario.script)
        for moved, (place, name) in enumerate(zip(places, scenario.script, strict=True)):
            names.insert(place + moved, name)
    return Plan(scenarios, [(name, f"{seed}/{number}/{name}") for number, name in enumerate(names)])
