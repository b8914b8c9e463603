"""The steps of a history: traffic, faults, and what people do by hand. Each has randomness of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any, TypeAlias

import msgspec

from towpath.log import DeadFilter, Entry

from .book import SOURCES
from .people import JUNK
from .vendor import CAPABILITIES, Account
from .world import Run, World

Step: TypeAlias = Callable[[World, Random], Awaitable[None]]
USERS = ("ann", "bob", "cid", "dan", "eve", "fay", "guy", "hal")
DEVICES = ("x1", "x2", "x3", "x4", "x5")
PILED = tuple(f"p{n}" for n in range(12))
PASSING = tuple(f"q{n}" for n in range(40))
WAITS_S = (0.02, 0.3, 2.0, 8.0, 45.0, 400.0, 4000.0)
KNOWN_S = 6 * 86400.0  # younger than the window of deduplication, whatever the clock did
HOURS_80_S = 80 * 3600.0


# -- traffic -------------------------------------------------------------------------------------------


def _message(world: World, chance: Random, kind: str = "", event: str = "") -> Entry:
    """Make a message of a random person."""
    name = f"m{len(world.messages.kept)}-{chance.randrange(10**9)}"
    linking = max(scenario.linking for scenario in world.plan.scenarios)
    kind = (
        kind
        or chance.choices(["track", "identify", "alias"], [10 - linking, linking * 0.6, linking * 0.4])[0]
    )
    users = USERS if chance.random() < 0.7 else USERS[:1]
    user, device = chance.choice(users), chance.choice(DEVICES)
    fields: dict[str, Any] = {"messageId": name, "type": kind}
    if kind == "track":
        fields["event"] = event or _event(world, chance)
        fields |= chance.choice([{"userId": user}, {"anonymousId": device}])
    elif kind == "identify":
        fields |= {"userId": user, "anonymousId": device} if chance.random() < 0.5 else {"userId": user}
    elif kind == "delete":
        fields["userId"] = user
    else:
        fields |= {"userId": user, "anonymousId": device, "previousId": chance.choice([*users, device])}
    return Entry(name, msgspec.json.encode(fields))


def _event(world: World, chance: Random) -> str:
    special = {"unsupported": 3, "poison": 1}
    for scenario in world.plan.scenarios:
        special |= scenario.events
    return chance.choices([*special, "Seen"], [*special.values(), max(10, 100 - sum(special.values()))])[0]


async def _send(world: World, chance: Random, count: int, kind: str = "", event: str = "") -> None:
    """Send some messages, in requests of one to five."""
    while count > 0:
        size = min(count, chance.choice([1, 1, 2, 5]))
        entries = [_message(world, chance, kind, event) for _ in range(size)]
        source, trusted = chance.choice(SOURCES), chance.random() < world.trusted
        await world.append(source, entries, trusted=trusted)
        count -= size
        if chance.random() < 0.2:
            await asyncio.sleep(chance.uniform(0, 0.5))


async def send(world: World, chance: Random) -> None:
    """Traffic."""
    await _send(world, chance, chance.choice([1, 2, 5, 12]))


async def send_many(world: World, chance: Random) -> None:
    """A burst."""
    await _send(world, chance, 150, "track")
    await asyncio.sleep(90)
    if any(book.open for book in world.books.values()):
        world.trace.saw("waited for the budget")


async def send_links(world: World, chance: Random) -> None:
    """Who is who changes in the middle of traffic."""
    before = world.messages.people.joined, world.messages.people.refused
    await _send(world, chance, 3, "track")
    await _send(world, chance, 2, chance.choice(["identify", "alias"]))
    await _send(world, chance, 3, "track")
    world.trace.saw("link", world.messages.people.joined - before[0])
    world.trace.saw("link refused", world.messages.people.refused - before[1])


async def send_junk(world: World, chance: Random) -> None:
    """Ids that are nobody's must not pull people together."""
    for user in chance.sample(USERS, 2):
        junk = chance.choice(JUNK)
        fields = {
            "type": "identify",
            "userId": user,
            "anonymousId": junk,
            "messageId": f"junk-{chance.random()}",
        }
        await world.append(
            "web", [Entry(str(fields["messageId"]), msgspec.json.encode(fields))], trusted=True
        )
    await _send(world, chance, 4, "track")
    world.trace.saw("junk id")


async def send_profiles(world: World, chance: Random) -> None:
    """Profiles of few people, with an event now and then between them."""
    for _ in range(8):
        await _send(world, chance, 2, "identify")
        await _send(world, chance, 1, "track" if chance.random() < 0.3 else "identify")


async def send_aging(world: World, chance: Random) -> None:
    """Events that are of no use when they come too late."""
    await _send(world, chance, 4, "track", "Aging")


async def send_deletes(world: World, chance: Random) -> None:
    """Many people are to be deleted, some of whom go on."""
    for _ in range(chance.choice([2, 5, 9])):
        await _send(world, chance, 1, "delete")
        await _send(world, chance, chance.choice([0, 0, 1]))
        await asyncio.sleep(chance.choice([0.0, 0.0, 1.0, 600.0]))


async def _send_own(world: World, chance: Random, user: str, other: str = "") -> None:
    """Send a message of somebody with a device of their own: maybe their link to it, or one to another."""
    kind = chance.choices(["user", "device", "identify", "both"], [6, 3, 2, 1])[0]
    fields: dict[str, Any] = {"type": "track", "event": _event(world, chance)}
    if other:
        fields = {"type": "alias", "previousId": chance.choice([other, f"d-{other}"])}
        if chance.random() < 0.5:
            fields, kind = {"type": "identify", "anonymousId": f"d-{other}"}, "user"
    elif kind == "identify":
        fields = {"type": "identify"}
    if kind != "device" or other:
        fields["userId"] = user
    if kind != "user":
        fields["anonymousId"] = f"d-{user}"
    fields["messageId"] = f"m{len(world.messages.kept)}-{chance.randrange(10**9)}"
    entry = Entry(str(fields["messageId"]), msgspec.json.encode(fields))
    await world.append(chance.choice(SOURCES), [entry], trusted=chance.random() < world.trusted)


async def pile_up(world: World, chance: Random) -> None:
    """The vendors are slow, perhaps after an outage, and more comes of a dozen people than memory holds."""
    down = chance.random() < 0.3
    for account in world.accounts:
        account.phase = "down" if down else "slow"
        world.trace.note("phase", account.label, account.phase)
    for book in world.books.values():
        book.schedule.disturb()
    for _ in range(chance.choice([60, 120, 320])):
        await _send_own(world, chance, chance.choice(PILED))
    if down:
        await asyncio.sleep(chance.choice([5.0, 300.0, 4000.0]))
    for account in world.accounts:
        account.phase = "slow"
    await asyncio.sleep(chance.choice([1.0, 5.0, 10.0]))


async def pass_by(world: World, chance: Random) -> None:
    """People come who are mostly not of those that have piled up, one after the other."""
    for _ in range(chance.choice([4, 8, 12])):
        people = chance.choices([PASSING, PASSING[:3], PILED], [5, 3, 2])[0]
        await _send_own(world, chance, chance.choice(people))
        await asyncio.sleep(chance.choice([0.0, 0.3, 1.2, 6.0]))


async def link_across(world: World, chance: Random) -> None:
    """Somebody who has piled up, and somebody who passes by, turn out to be one, in the midst of traffic."""
    pair = [chance.choice(PILED), chance.choice(PASSING[:8])]
    chance.shuffle(pair)
    joined = world.messages.people.joined
    for user in (*pair, pair[1]):
        await _send_own(world, chance, user)
        await asyncio.sleep(chance.choice([0.0, 1.2]))
    await _send_own(world, chance, pair[0], pair[1])
    world.trace.saw("linked across a backlog", world.messages.people.joined - joined)
    for _ in range(4):
        await _send_own(world, chance, chance.choice(pair))
        await asyncio.sleep(chance.choice([0.0, 1.2]))


async def erase_across(world: World, chance: Random) -> None:
    """Somebody is erased who has piled up, or passes by."""
    user = chance.choice(chance.choice([PILED, PASSING[:8]]))
    if chance.random() < 0.4:
        await _send_own(world, chance, user, chance.choice(PASSING[:8]))
    ids = chance.choice([{user}, {f"d-{user}"}, {user, f"d-{user}"}])
    gone = len(world.messages.gone)
    await world.erase(frozenset(ids), chance.choice([0.0, 1.0, 45.0]), chance)
    await pass_by(world, chance)
    await world.erased()
    world.trace.saw("erased across a backlog", len(world.messages.gone) - gone)


async def resend(world: World, chance: Random) -> None:
    """A client sends again what it sent before, some of it in one request with something new, or at once."""
    now, now_s = world.clock.now(), world.clock.monotonic()
    known = [
        kept for kept in world.messages.kept.values() if max(abs(now - kept.at), now_s - kept.at_s) < KNOWN_S
    ]
    if not known:
        return
    again = chance.choice(known)
    entry = Entry(again.name, again.raw)
    fresh = _message(world, chance)
    entries = chance.choice([[entry], [entry, entry], [fresh, entry, fresh]])
    await asyncio.gather(
        world.append(again.source, entries, trusted=again.trusted),
        world.append(again.source, [entry], trusted=again.trusted),
    )


async def wait(world: World, chance: Random) -> None:
    """Time passes."""
    await asyncio.sleep(chance.choice(WAITS_S) * chance.uniform(0.5, 1.5))


async def wait_long(world: World, chance: Random) -> None:
    """Some hours pass."""
    await asyncio.sleep(chance.uniform(3600, 20_000))


# -- vendors -------------------------------------------------------------------------------------------


def _phase(world: World, chance: Random, *phases: str) -> Account:
    account = chance.choice(world.accounts)
    account.phase = chance.choice(phases)
    world.trace.note("phase", account.label, account.phase)
    for book in world.books.values():
        book.schedule.disturb()
    return account


async def change_phase(world: World, chance: Random) -> None:
    """A vendor gets better or worse."""
    _phase(world, chance, "fine", "fine", "slow", "flaky", "limiting", "forgetful", "down")


async def break_down(world: World, chance: Random) -> None:
    """A vendor is down, or cannot be reached."""
    _phase(world, chance, "down", "down", "unreachable", "flaky")


async def slow_down(world: World, chance: Random) -> None:
    """A vendor takes its time, or never answers."""
    _phase(world, chance, "slow", "hanging")


async def limit(world: World, chance: Random) -> None:
    """A vendor says 429."""
    _phase(world, chance, "limiting")


async def lie(world: World, chance: Random) -> None:
    """A vendor does what it is asked for, and says nothing, or the contrary."""
    _phase(world, chance, "forgetful", "lying")


async def mend(world: World, chance: Random) -> None:
    """A vendor works again."""
    _phase(world, chance, "fine")


async def outage(world: World, chance: Random) -> None:
    """Nothing works for 80 hours; a little traffic goes on."""
    account = _phase(world, chance, "down", "unreachable")
    for _ in range(4):
        await _send(world, chance, 3)
        await asyncio.sleep(HOURS_80_S / 4)
    account.phase = "fine"
    world.trace.saw("outage of 80 hours")


async def expire(world: World, chance: Random) -> None:
    """A credential expires, for one capability or for all."""
    account = _phase(world, chance, "fine")
    account.wrong_check = False
    account.refusing.add(chance.choice(["", *CAPABILITIES]))


async def expire_unconfirmed(world: World, chance: Random) -> None:
    """Calls are refused, and the check says that all is well."""
    account = _phase(world, chance, "fine")
    account.wrong_check = True
    account.refusing.add(chance.choice(CAPABILITIES))


async def renew(world: World, chance: Random) -> None:
    """New credentials come; the loops are told, or find out by themselves."""
    for account in world.accounts:
        account.mend()
    if chance.random() < 0.5:
        for run in world.runs.values():
            await run.loop.pauses.recheck()
    await asyncio.sleep(chance.choice([1.0, 65.0]))


# -- processes -----------------------------------------------------------------------------------------


async def crash(world: World, chance: Random) -> None:
    """The process dies in the middle of it all."""
    world.trace.saw("crash")
    await world.crash()


async def stop(world: World, chance: Random) -> None:
    """A deploy."""
    world.trace.saw("graceful stop")
    await world.stop(chance.choice([0.05, 0.5, 30.0]))


async def take_over(world: World, chance: Random) -> None:
    """A second process takes over while the first one only believes itself alone, and then comes back."""
    await world.erased()
    book = chance.choice(list(world.books.values()))
    old = world.runs[book.name]
    old.wire.through.clear()
    book.doubled = True
    book.account.doubled_until_s = world.clock.monotonic() + 1000
    book.excuse_open()
    new = world.start(book)
    longest_s = chance.choice([6, 30, 30])  # the shorter one ends before the lease does
    for _ in range(5):
        await _send(world, chance, 4)
        await asyncio.sleep(chance.uniform(longest_s / 6, longest_s))
    book.excuse_open()
    old.wire.through.set()
    await asyncio.sleep(90)
    await _settle_owners(world, old, new)
    book.doubled = False


async def _settle_owners(world: World, old: Run, new: Run) -> None:
    """One of two loops has won; only that one goes on."""
    if old.task.done():
        world.trace.saw("taken over")
        world.fenced(old.task)
        return
    world.trace.saw("came back in time")
    for run in (new, old):
        await run.crash()
    new.book.excuse_open()
    new.book.account.hang_up(new.book)
    world.start(new.book)


async def jump_ahead(world: World, chance: Random) -> None:
    """Somebody sets the clock ahead."""
    _jump(world, chance.uniform(60, 30_000))
    world.trace.saw("clock ahead")


async def jump_back(world: World, chance: Random) -> None:
    """Somebody sets the clock back."""
    _jump(world, -chance.uniform(60, 30_000))
    world.trace.saw("clock back")


def _jump(world: World, seconds: float) -> None:
    world.clock.jump(seconds)
    world.messages.jumped_s += abs(seconds)
    for book in world.books.values():
        book.schedule.disturb()


async def fill_for_appends(world: World, chance: Random) -> None:
    """Below the reserve: nothing new is accepted, what is there goes on."""
    world.disk.appends_full = True
    await _send(world, chance, 3)


async def fill_for_settles(world: World, chance: Random) -> None:
    """No settlement can be written for some minutes: nothing may go on as if it had been."""
    world.disk.settles_full = True
    # Not for days: every connection tries again once a second.
    asyncio.get_running_loop().call_later(chance.uniform(60, 900), _let_settle, world)
    world.trace.saw("settle refused")
    for book in world.books.values():
        book.schedule.disturb()
    await asyncio.sleep(chance.choice([1.0, 30.0, 300.0]))


def _let_settle(world: World) -> None:
    """Settlements can be written again, and what could not be parked or loaded goes on."""
    world.disk.settles_full = False
    for book in world.books.values():
        book.schedule.disturb()


async def lose_settles(world: World, chance: Random) -> None:
    """Settlements are kept, and the answer is lost now and then."""
    world.disk.lost = 0.3
    world.trace.saw("settlement answer lost")


async def free(world: World, chance: Random) -> None:
    """The disk has room again."""
    world.disk.appends_full = world.disk.settles_full = False
    world.disk.lost = 0.0
    for book in world.books.values():
        book.schedule.disturb()


async def trim(world: World, chance: Random) -> None:
    """Retention: only what every connection has settled may go."""
    before = world.clock.now() - chance.choice([0.0, 60.0, 3600.0])
    trimmed = await world.store.trim(before)
    left = {record.position for record in await world.store.read(0, 1_000_000)}
    gone = [position for position in world.in_log() if position not in left]
    settled = min(book.cursor for book in world.books.values())
    for position in gone:
        kept = world.messages.kept[position]
        world.trace.expect(kept.at < before, f"{position} was trimmed though it is young")
        world.trace.expect(position <= settled, f"{position} was trimmed though only {settled} is settled")
    world.trace.expect(trimmed == len(gone), f"{trimmed} were trimmed, {len(gone)} are gone")
    world.messages.gone.update(gone)
    world.trace.saw("trim", len(gone))


# -- by hand -------------------------------------------------------------------------------------------


def _any_run(world: World, chance: Random) -> Run:
    return chance.choice(list(world.runs.values()))


async def pause(world: World, chance: Random) -> None:
    """Somebody pauses a connection."""
    await _any_run(world, chance).loop.pauses.by_hand("simulated")


async def resume(world: World, chance: Random) -> None:
    """Somebody resumes a connection, whatever it stood still for."""
    await _any_run(world, chance).loop.pauses.resume()


async def confirm_deletes(world: World, chance: Random) -> None:
    """Somebody confirms the deletions that wait, or that do not."""
    await world.decide_deletes(_any_run(world, chance), discard=False)


async def discard_deletes(world: World, chance: Random) -> None:
    """Somebody says that the deletions that wait are a mistake."""
    await world.decide_deletes(_any_run(world, chance), discard=True)


async def hurry(world: World, chance: Random) -> None:
    """Somebody wants what waits to be tried now."""
    await world.hurry([_any_run(world, chance)])
    world.trace.saw("hurry")


async def erase(world: World, chance: Random) -> None:
    """Somebody has a person erased: by one id, or by all that is known of them."""
    ids = {chance.choice([*USERS, *DEVICES])}
    if chance.random() < 0.5:
        ids |= {chance.choice(USERS), chance.choice(DEVICES)}
    await world.erase(frozenset(ids), chance.choice([0.0, 1.0, 45.0]), chance)
    await _send(world, chance, chance.choice([0, 2, 5]))
    if chance.random() < 0.5:  # else the next steps come in between
        await world.erased()


async def suppress(world: World, chance: Random) -> None:
    """Nothing more is delivered of some ids."""
    ids = {chance.choice(USERS), chance.choice([*USERS, *DEVICES])}
    await world.store.suppress(sorted(ids))
    await _load_suppressed(world)
    world.messages.once_suppressed |= ids
    world.trace.saw("suppress")


async def unsuppress(world: World, chance: Random) -> None:
    """Deliver again, of everybody."""
    await world.store.unsuppress(sorted(world.messages.suppressed))
    await _load_suppressed(world)


async def _load_suppressed(world: World) -> None:
    world.messages.suppressed = set(await world.store.suppressed())


def _filter(world: World, chance: Random) -> DeadFilter:
    """A filter by one of its fields, taken from a letter that is there."""
    book = chance.choice(list(world.books.values()))
    if not book.letters:
        return DeadFilter()
    letter = chance.choice(list(book.letters.values()))
    return chance.choice(
        [
            DeadFilter(),
            DeadFilter(connection=book.name),
            DeadFilter(code=letter.code),
            DeadFilter(reason=letter.reason),
            DeadFilter(connection=book.name, person=letter.person),
            DeadFilter(message_id=letter.record.message_id),
            DeadFilter(since=letter.died_at),
        ]
    )


async def replay(world: World, chance: Random) -> None:
    """Dead letters go again; a second replay of the same ones finds none."""
    for account in world.accounts:
        account.cured = True
    where = _filter(world, chance)
    replayed = await world.store.replay(where, world.clock.now())
    again = await world.store.replay(where, world.clock.now())
    for book in world.books.values():
        found = book.replayed(where)
        world.trace.saw("replay", found)
        book.expect(replayed.get(book.name, 0) == found, f"{replayed} were replayed by {where}, not {found}")
        book.expect(not again.get(book.name, 0), f"a second replay found {again}")
        book.schedule.lift()
    for name in replayed:
        run = world.runs[name]
        run.loop.lift_throttle()
        await run.loop.refresh()


async def drop(world: World, chance: Random) -> None:
    """Dead letters are deleted for good."""
    where = _filter(world, chance)
    dropped = await world.store.drop(where)
    found = sum(book.dropped(where) for book in world.books.values())
    world.trace.saw("drop", found)
    world.trace.expect(dropped == found, f"{dropped} letters were dropped, not {found}")


async def prune(world: World, chance: Random) -> None:
    """Dead letters have their time too."""
    before = world.clock.now() - chance.choice([0.0, 3600.0])
    letters = [(book, n, letter) for book in world.books.values() for n, letter in book.letters.items()]
    old = [(book, n) for book, n, letter in letters if letter.died_at < before]
    pruned = await world.store.prune(before)
    for book, position in old:
        del book.letters[position]
    world.trace.saw("prune", len(old))
    world.trace.expect(pruned == len(old), f"{pruned} letters were pruned, not {len(old)}")


async def add_connection(world: World, chance: Random) -> None:
    """One more connection, from now on or from the beginning."""
    if len(world.books) < 5:
        await world.add_connection(chance.choice(["now", "now", "earliest"]))
        world.trace.saw("connection added")


async def remove_source(world: World, chance: Random) -> None:
    """A connection takes no longer from one of its sources."""
    books = [book for book in world.books.values() if len(book.sources) > 1]
    if not books:
        return
    book = chance.choice(books)
    source = chance.choice(sorted(book.sources))
    skipped = book.skips["source removed"]
    await world.reload(book, book.sources - {source}, chance.choice([0.5, 9.0]))
    world.trace.saw("source removed")
    world.trace.saw("skipped: source removed", book.skips["source removed"] - skipped)


async def add_source(world: World, chance: Random) -> None:
    """A connection takes from one more source, from where it stands."""
    books = [book for book in world.books.values() if len(book.sources) < len(SOURCES)]
    if not books:
        return
    book = chance.choice(books)
    await world.reload(book, SOURCES, chance.choice([0.5, 9.0]))
    world.trace.saw("source added")


STEPS: dict[str, Step] = {
    step.__name__: step
    for step in (
        send, send_many, send_links, send_junk, send_profiles, send_aging, resend, wait, wait_long,
        change_phase, break_down, slow_down, limit, lie, mend, outage, expire, expire_unconfirmed, renew,
        crash, stop, take_over, jump_ahead, jump_back, fill_for_appends, fill_for_settles, lose_settles, free,
        trim, pause, resume, hurry, erase, suppress, unsuppress, replay, drop, prune, add_connection,
        remove_source, add_source, pile_up, pass_by, link_across, erase_across, send_deletes, confirm_deletes,
        discard_deletes,
    )
}  # fmt: skip
