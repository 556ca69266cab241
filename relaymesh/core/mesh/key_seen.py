"""Which keys the members of a mesh hold and use, as far as this node has seen: what a change of keys waits for.

    install ──all ALIVE members hold it──▶ use ──all use it, nobody the old one for ten minutes──▶ remove the old one

A member holds what it says it holds, and what it was seen sealing with. Who reads the ring of this root itself holds
what is in the ring once it has had time to read it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from relaymesh.core.plural import counted, verb

__all__ = ["MEMBERS_MAX", "READ_MS", "REST_MS", "KeyMember", "KeysSeen", "Phase", "phase", "remove_fault", "use_fault"]

MEMBERS_MAX: Final = 4_096
"""Members whose keys are remembered; above it the one that was heard of longest ago is forgotten."""
REST_MS: Final = 600_000
"""A key that a member sealed with this recently is still needed."""
READ_MS: Final = 15_000
"""Processes on this root have read a changed ring by then."""
FRESH_MS: Final = 10_000
"""A use is written down again when the last note is this old."""
_KEYS_MAX: Final = 8
_NAMED: Final = 5


@dataclass(slots=True)
class _Seen:
    """holds: what the member said last, and when. used: key id to the wall time in ms when it last sealed with it."""

    holds_ms: int = 0
    holds: tuple[str, ...] = ()
    used: dict[str, int] = field(default_factory=dict)

    @property
    def heard_ms(self) -> int:
        return max(self.holds_ms, *self.used.values(), 0)


class KeyMember(NamedTuple):
    """A member of the mesh. here: it reads the ring of this root."""

    node_id: str
    alive: bool
    here: bool


class Phase(NamedTuple):
    """How far one key is: of so many ALIVE members some hold it, some seal with it; used_ms: when anybody last did.

    lacking: those that were heard, and hold others. unheard: those of which nothing is known yet.
    """

    members: int
    holders: int
    users: int
    used_ms: int
    lacking: tuple[str, ...]
    unheard: tuple[str, ...]


class KeysSeen:
    """What was seen of all members. Key ids are hexadecimal."""

    def __init__(self) -> None:
        self._members: dict[str, _Seen] = {}

    def __len__(self) -> int:
        return len(self._members)

    def sealed(self, node_id: str, key_id: str, now_ms: int) -> bool:
        """Note that a member sealed a packet with a key; return whether that is worth keeping."""
        seen = self._of(node_id)
        before = seen.used.get(key_id)
        if before is not None and now_ms - before < FRESH_MS:
            return False
        if before is None and len(seen.used) >= _KEYS_MAX:
            del seen.used[min(seen.used, key=lambda key: (seen.used[key], key))]
        seen.used[key_id] = now_ms
        return True

    def holds(self, node_id: str, key_ids: Iterable[str], now_ms: int) -> bool:
        """Note what a member says it holds; return whether that is new."""
        held = tuple(key_ids)[:_KEYS_MAX]
        seen = self._of(node_id)
        changed = seen.holds != held
        seen.holds_ms, seen.holds = now_ms, held
        return changed

    def holds_key(self, node_id: str, key_id: str) -> bool:
        seen = self._members.get(node_id)
        return seen is not None and (key_id in seen.holds or key_id in seen.used)

    def heard(self, node_id: str) -> bool:
        """Whether anything is known of the keys of a member."""
        return node_id in self._members

    def used_ms(self, node_id: str, key_id: str) -> int:
        """Return when a member last sealed with a key, 0 for never."""
        seen = self._members.get(node_id)
        return 0 if seen is None else seen.used.get(key_id, 0)

    def uses_key(self, node_id: str, key_id: str) -> bool:
        """Whether this is the key that the member sealed with last."""
        seen = self._members.get(node_id)
        return seen is not None and seen.used.get(key_id, -1) == max(seen.used.values(), default=0)

    def last_used_ms(self, key_id: str) -> int:
        return max((seen.used.get(key_id, 0) for seen in self._members.values()), default=0)

    def users_since(self, key_id: str, since_ms: int) -> list[str]:
        """Return who sealed with a key at or after an instant, sorted."""
        return sorted(node_id for node_id, seen in self._members.items() if seen.used.get(key_id, -1) >= since_ms)

    def forget(self, known: Collection[str]) -> None:
        """Forget members that are no longer in the table of members."""
        for node_id in [node_id for node_id in self._members if node_id not in known]:
            del self._members[node_id]

    def rows(self) -> dict[str, tuple[int, tuple[str, ...], dict[str, int]]]:
        """Return all that is remembered, to be kept."""
        return {node_id: (seen.holds_ms, seen.holds, dict(seen.used)) for node_id, seen in self._members.items()}

    def merge(self, rows: dict[str, tuple[int, tuple[str, ...], dict[str, int]]]) -> None:
        """Take in what another process remembers; what is newer counts."""
        for node_id, (holds_ms, holds, used) in rows.items():
            seen = self._of(node_id)
            seen.holds_ms, seen.holds = max((seen.holds_ms, seen.holds), (holds_ms, tuple(holds)[:_KEYS_MAX]))
            for key_id, used_ms in used.items():
                seen.used[key_id] = max(used_ms, seen.used.get(key_id, 0))
            while len(seen.used) > _KEYS_MAX:
                del seen.used[min(seen.used, key=lambda key: (seen.used[key], key))]

    def _of(self, node_id: str) -> _Seen:
        seen = self._members.get(node_id)
        if seen is None:
            if len(self._members) >= MEMBERS_MAX:
                del self._members[min(self._members, key=lambda one: (self._members[one].heard_ms, one))]
            seen = self._members[node_id] = _Seen()
        return seen


def phase(seen: KeysSeen, key_id: str, members: Iterable[KeyMember], *, installed_ms: int, now_ms: int) -> Phase:
    """Return how far a key of the ring is. installed_ms: when it was put into the ring of this root."""
    alive = [member for member in members if member.alive]
    read = now_ms - installed_ms >= READ_MS
    without = sorted(
        member.node_id for member in alive if not seen.holds_key(member.node_id, key_id) and not (member.here and read)
    )
    lacking = tuple(node_id for node_id in without if seen.heard(node_id))
    unheard = tuple(node_id for node_id in without if not seen.heard(node_id))
    users = sum(1 for member in alive if seen.uses_key(member.node_id, key_id))
    return Phase(len(alive), len(alive) - len(without), users, seen.last_used_ms(key_id), lacking, unheard)


def use_fault(key_id: str, found: Phase) -> str:
    """Return why sealing with a key would cut members off, in one sentence; empty when it would not."""
    faults = []
    if found.lacking:
        faults.append(f"{_names(found.lacking)} could not read what is sealed with it: install it there first")
    if found.unheard:
        have = verb(len(found.unheard), "has", "have")
        faults.append(f"{_names(found.unheard)} {have} not been heard yet: install it there, and wait a minute")
    if not faults:
        return ""
    confirm = verb(found.holders, "confirms", "confirm")
    told = f"{found.holders} of {found.members} ALIVE members {confirm} key {key_id}"
    return f"{told}, and {'; '.join(faults)}; or use --force"


def remove_fault(
    seen: KeysSeen, key_id: str, primary: str, members: Iterable[KeyMember], *, primary_since_ms: int, now_ms: int
) -> str:
    """Return why removing a key would cut members off, in one sentence; empty when it would not.

    Every member that has not been pruned has to hold the key that is used instead, DEAD ones too: they may come back.
    """
    users = seen.users_since(key_id, now_ms - REST_MS + 1)
    if users:
        return (
            f"{_names(users)} sealed with key {key_id} within the last {REST_MS // 60_000} minutes: use another key"
            " there and wait, or use --force"
        )
    read = now_ms - primary_since_ms >= READ_MS
    lacking = sorted(
        member.node_id
        for member in members
        if not seen.holds_key(member.node_id, primary) and not (member.here and read)
    )
    if not lacking:
        return ""
    return (
        f"{_names(lacking)} did not confirm key {primary}, and could not be read without key {key_id}: install"
        f" {primary} there, prune members that are gone, or use --force"
    )


def _names(node_ids: Collection[str]) -> str:
    shown = ", ".join(list(node_ids)[:_NAMED])
    return shown if len(node_ids) <= _NAMED else f"{shown} and {counted(len(node_ids) - _NAMED, 'other')}"
