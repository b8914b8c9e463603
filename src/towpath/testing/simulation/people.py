"""Who belongs together, written down from the rules alone: the oracle of order."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from typing import Any

JUNK = ("undefined", "null", "0", "anonymous", "00000000-0000-0000-0000-000000000000", "NULL", " guest ")
"""Ids that are nobody's, as clients spell them."""
_JUNK = frozenset(word.strip().lower() for word in JUNK)


class Group:
    """The positions of one history; `vague` once an erase has taken links away that held it together."""

    def __init__(self) -> None:
        self.positions: list[int] = []
        self.vague = False
        self.joined: Group | None = None


class People:
    """Takes the messages of the log in order. `before[position]` are those that must have ended first."""

    def __init__(self, links_max: int) -> None:
        self.before: dict[int, tuple[int, ...]] = {}
        self.after: defaultdict[int, list[int]] = defaultdict(list)
        self.joined = 0
        self.refused = 0
        self._links_max = links_max
        self._owner: dict[str, str] = {}
        self.erased = False
        self.links: list[tuple[int, str, str]] = []
        self._groups: dict[str, Group] = {}
        self._home: dict[int, Group] = {}

    def add(self, position: int, fields: dict[str, Any], *, trusted: bool) -> None:
        """Take the next message of the log."""
        links = list(self.links)
        # Each link a message asks for is judged by what held before the message.
        wanted = [
            (old, new, self._root(old), self._root(new)) for old, new in _wanted(fields, trusted=trusted)
        ]
        for old, new, owner, target in wanted:
            self._join(position, (old, new), (owner, target), links)
        name = f"u:{fields['userId']}" if fields.get("userId") else f"a:{fields.get('anonymousId')}"
        group = self._group(self._root(name))
        self.before[position] = () if group.vague else tuple(group.positions)
        for earlier in self.before[position]:
            self.after[earlier].append(position)
        group.positions.append(position)
        self._home[position] = group

    def companions(self, position: int) -> list[int] | None:
        """Those before it of whom its person consists by now; None when nobody can say."""
        group = self._home[position]
        while group.joined is not None:
            group = group.joined
        return None if group.vague else [n for n in group.positions if n < position]

    def erase(self, ids: Collection[str], named: Collection[str]) -> None:
        """Links of these ids are gone: of what they held together nothing is expected any more.

        Nor of others `named` in erased messages, whose links may not have been read yet.
        """
        self.erased = True
        names = {f"{space}:{known}" for known in ids for space in "ua"}
        others = {f"{space}:{known}" for known in named for space in "ua"}
        for root in sorted({self._root(name) for name in names | others}):
            group = self._group(root)
            group.vague = True
            for position in group.positions:
                self.before[position] = ()
                self.after[position] = []
            for later in self.before:
                if set(self.before[later]) & set(group.positions):
                    self.before[later] = ()
        self.links = [link for link in self.links if not names & {*link[1:]}]

    def _root(self, name: str) -> str:
        while name in self._owner:
            name = self._owner[name]
        return name

    def _group(self, root: str) -> Group:
        return self._groups.setdefault(root, Group())

    def _join(
        self,
        position: int,
        asked: tuple[str, str],
        roots: tuple[str, str],
        links: list[tuple[int, str, str]],
    ) -> None:
        """A user takes over a device or another user; a device that has an owner leaves its history there.

        `links` are those made before this message.
        """
        (old, new), (owner, target) = asked, roots
        if owner == target:
            return
        if {old[2:].strip().lower(), new[2:].strip().lower()} & _JUNK or self._full(target, links):
            self.refused += 1
            return
        self.joined += 1
        moved = old.startswith("a:") and owner != old
        self.links.append((position, old if moved else owner, target))
        self._owner[old if moved else owner] = target
        if not moved:
            leaving, staying = self._groups.pop(owner, Group()), self._group(target)
            staying.positions = sorted(staying.positions + leaving.positions)
            staying.vague = staying.vague or leaving.vague
            leaving.joined = staying

    def _full(self, target: str, links: list[tuple[int, str, str]]) -> bool:
        """Whether a person has as many links as one may have (D15), those of this message not counted."""
        return sum(person == target for _, _, person in links) >= self._links_max


def _wanted(fields: dict[str, Any], *, trusted: bool) -> list[tuple[str, str]]:
    """Which ids a message says are one person's (D13)."""
    user, device, previous = fields.get("userId"), fields.get("anonymousId"), fields.get("previousId")
    user, device, previous = (value.strip() if value else None for value in (user, device, previous))
    if fields["type"] == "identify" and user and device:
        return [(f"a:{device}", f"u:{user}")]
    if fields["type"] == "alias" and user and previous:
        if trusted:
            return [(f"u:{previous}", f"u:{user}"), (f"a:{previous}", f"u:{user}")]
        if previous == device:
            return [(f"a:{device}", f"u:{user}")]
    return []
