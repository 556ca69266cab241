"""What the commands about gossip answer; as ``relaymesh.view``, and apart from it because few load them."""

from __future__ import annotations

from relaymesh.view import View

__all__ = ["GossipKey", "GossipKeysOutcome", "GossipSyncOutcome", "GossipTickOutcome"]


class GossipTickOutcome(View, frozen=True, kw_only=True):
    """One tick. received: all datagrams; accepted: packets that were taken, and heartbeats in them that were news.

    invalid: datagrams that were refused, and packets that could not be sent.
    """

    node_id: str
    bind_port: int
    sent: int
    relayed: int
    received: int
    accepted: int
    deduplicated: int
    invalid: int
    fanout: int
    ttl: int
    dedup_cache_size: int
    suspected_nodes_marked: int
    dead_nodes_marked: int


class GossipSyncOutcome(View, frozen=True, kw_only=True):
    """Several ticks, and their sums."""

    node_id: str
    bind_port: int
    rounds_completed: int
    sent: int
    relayed: int
    received: int
    accepted: int
    deduplicated: int
    invalid: int
    suspected_nodes_marked: int
    dead_nodes_marked: int
    member_count: int
    ticks: tuple[GossipTickOutcome, ...]


class GossipKey(View, frozen=True, kw_only=True):
    """One key of the ring. confirmed: ALIVE members that hold it; users: those that sealed their last packet with it.

    lacking: the first ten ALIVE members that were heard, and hold others only. not_heard_yet: the first ten of whose
    keys nothing is known. last_used_ms: None when nobody was seen using it.
    """

    key_id: str
    primary: bool
    installed_at_ms: int | None
    confirmed: int
    users: int
    last_used_ms: int | None
    lacking: tuple[str, ...]
    not_heard_yet: tuple[str, ...]


class GossipKeysOutcome(View, frozen=True, kw_only=True):
    """The ring of a root. source: ``settings``, ``ring`` or ``none``, what decides about the primary key.

    differs: settings and ring name different primary keys; those of the settings count. changed: by this command.
    """

    signing: bool
    source: str
    primary_key_id: str | None
    differs: bool
    key_file: str
    alive_members: int
    changed: bool
    message: str
    keys: tuple[GossipKey, ...]
