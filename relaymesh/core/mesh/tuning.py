"""Intervals and limits of the mesh. What an operator sets comes from ``Settings``; the rest is fixed here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from relaymesh.core.setting_table import Settings

__all__ = ["MS", "NEVER_NS", "SECOND", "Tuning"]

MS: Final = 1_000_000
SECOND: Final = 1_000 * MS
NEVER_NS: Final = (1 << 63) - 1


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """How one node behaves. Durations in ns.

    probe_interval_ns: one member is asked in each. probe_timeout_ns: then others are asked to ask it; after twice
    as long without an answer it is suspected.
    suspect_after_ns, dead_after_ns: ceilings: verdicts that were held back come at the latest after these.
    sync_gap_ns: between two requests of ours for other views.
    eager_ns: after the start, views are repaired at the first difference, and more often.
    late_ns: a wake-up this much too late makes the node trust itself less; stall_ns: then its deadlines move too.
    members_max: unknown members above it are not taken in (counted as ``refused``).
    """

    probe_interval_ns: int = SECOND
    probe_timeout_ns: int = 400 * MS
    gossip_interval_ns: int = 200 * MS
    gossip_delay_ns: int = 5 * MS
    dead_probe_ns: int = 10 * SECOND
    join_retry_ns: int = SECOND
    sync_gap_ns: int = 500 * MS
    join_sync_gap_ns: int = 100 * MS
    eager_ns: int = 20 * SECOND
    late_ns: int = 100 * MS
    stall_ns: int = SECOND
    suspect_after_ns: int = 30 * SECOND
    dead_after_ns: int = 60 * SECOND
    suspect_dwell_ns: int = 5 * SECOND
    dead_dwell_ns: int = 30 * SECOND
    prune_older_than_ns: int = 7 * 86_400 * SECOND
    prune_interval_ns: int = 3_600 * SECOND
    prune_limit: int = 256
    fanout: int = 3
    sample: int = 32
    datagram_bytes: int = 1_400
    helpers: int = 3
    members_max: int = 4_096

    def __post_init__(self) -> None:
        if not 0 < 2 * self.probe_timeout_ns <= self.probe_interval_ns:
            raise ValueError("probe_timeout_ns must lie between 0 and half of probe_interval_ns")
        if not 512 <= self.datagram_bytes <= 1_400:
            raise ValueError(f"a datagram of {self.datagram_bytes} bytes: use 512 to 1400")
        if self.fanout < 1 or self.sample < 1 or self.members_max < 2:
            raise ValueError("fanout and sample must be 1 at least, members_max 2")

    @classmethod
    def of(cls, settings: Settings) -> Tuning:
        """Return what the settings of a root ask for."""
        return cls(
            suspect_after_ns=settings.suspect_after_ms * MS,
            dead_after_ns=settings.dead_after_ms * MS,
            suspect_dwell_ns=settings.suspect_recover_min_ms * MS,
            dead_dwell_ns=settings.dead_recover_min_ms * MS,
            prune_older_than_ns=settings.mesh_prune_older_than_ms * MS,
            prune_interval_ns=settings.mesh_prune_interval_ms * MS,
            prune_limit=settings.mesh_prune_limit,
            fanout=settings.gossip_fanout,
            sample=min(settings.gossip_sync_sample_size, 64),
        )
