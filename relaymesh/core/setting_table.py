"""The table of settings: every key with its type, default, floor, effect, unit and sane range, in table order.

Each field says four things about its key: effect; bounds (what it must stay above or below, and the sane range); unit;
and whether a running process takes a changed value. docs/settings.md is made of this module.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from typing import Any, Final, Literal, TypeVar

from relaymesh.core.retry import RetryPolicy
from relaymesh.core.setting import Applies, Kind, Setting, Value

__all__ = ["SECRET", "VIEW_KEYS", "Settings", "by_name", "table"]

DAY_MS: Final = 86_400_000
_BACKOFF_MS_MAX: Final = 10**12  # 31 years; what is added to a time of day must stay a 64-bit number
_ATTEMPTS_UNIT: Final = "attempts"

T = TypeVar("T", bound=Value)


def _key(
    default: T,
    kind: Kind,
    effect: str,
    bounds: str,
    *,
    floor: int | str | None = None,
    unit: str = "",
    choices: tuple[str, ...] = (),
    applies: Applies = Applies.LIVE,
    secret: bool = False,
) -> T:
    facts = (kind, default, floor, choices, unit, effect, bounds, applies, secret)
    made: Any = field(default=default, repr=not secret, metadata={"facts": facts})
    value: T = made
    return value


def _ms(default: int, floor: int | str, effect: str, bounds: str) -> int:
    return _key(default, Kind.LONG, effect, bounds, floor=floor, unit="ms")


def _count(default: int, floor: int, effect: str, bounds: str, *, unit: str = "") -> int:
    return _key(default, Kind.INT, effect, bounds, floor=floor, unit=unit)


def _age(days: int, what: str, bounds: str = "0 keeps it for ever. Sane: 1 hour to 90 days.") -> int:
    return _ms(days * DAY_MS, 0, f"How long {what} before maintenance deletes it.", bounds)


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """What an operator may set; each value is at or above its floor when it comes from a file (``settle``)."""

    lease_timeout_ms: int = _ms(
        15_000,
        100,
        "How long a lease lasts without renewal: a step whose owner has fallen silent runs again after it.",
        "Equal for all nodes of a root. Never above suspectAfterMs. Sane: 2000 to 120000; below 2000 a slow disk looks"
        " like a dead owner.",
    )
    suspect_after_ms: int = _ms(
        30_000,
        "leaseTimeoutMs",
        "Silence after which a member is SUSPECT.",
        "At least leaseTimeoutMs. Sane: two to four times leaseTimeoutMs.",
    )
    dead_after_ms: int = _ms(
        60_000,
        "suspectAfterMs",
        "Silence after which a member is DEAD and its steps are taken back.",
        "At least suspectAfterMs. Sane: twice suspectAfterMs.",
    )
    suspect_recover_min_ms: int = _ms(
        5_000, 0, "How long a member stays SUSPECT at least.", "Below suspectAfterMs. Sane: 0 to 30000."
    )
    dead_recover_min_ms: int = _ms(
        30_000,
        0,
        "How long a member stays DEAD at least.",
        "Sane: 0 to 300000; a high one calms a member that flaps.",
    )
    pause_worker_when_local_not_alive: bool = _key(
        True,
        Kind.BOOL,
        "A worker whose own node is marked SUSPECT or DEAD takes no steps.",
        "Switch it off only to run a worker whose heartbeats cannot be written.",
    )
    max_attempts: int = _count(
        3,
        1,
        "Attempts of a step, the first included, before it is dead-lettered.",
        "For agents without a policy of their own. Sane: 1 to 20.",
        unit=_ATTEMPTS_UNIT,
    )
    base_backoff_ms: int = _ms(
        1_000,
        1,
        "Wait after the first failure; doubles with each further one.",
        "At most maxBackoffMs. Sane: 100 to 60000.",
    )
    max_backoff_ms: int = _ms(
        60_000,
        "baseBackoffMs",
        "No wait between attempts is longer than this, jitter included.",
        "At least baseBackoffMs. Sane: 10000 to 3600000; above 31 years it counts as 31 years.",
    )
    retry_dispatch_limit: int = _count(
        32,
        1,
        "Per maintenance tick: retries dispatched, leases reclaimed, dead owners examined.",
        "Sane: 16 to 1000; high values make a tick hold the writer longer.",
        unit="rows",
    )
    gossip_fanout: int = _count(3, 1, "Members that a gossip round is sent to.", "Sane: 2 to 6.", unit="members")
    gossip_packet_ttl: int = _count(2, 1, "How often a gossip packet is passed on.", "Sane: 1 to 4.", unit="hops")
    gossip_sync_sample_size: int = _count(
        32, 1, "Members carried in one packet.", "Sane: 8 to 64; a packet must fit a datagram.", unit="members"
    )
    gossip_dedup_window_ms: int = _ms(
        60_000,
        1_000,
        "How long a packet is remembered, so that it is taken once.",
        "Above the time a packet can travel. Sane: 10000 to 300000.",
    )
    gossip_dedup_max_entries: int = _count(
        4_096,
        64,
        "Packets remembered at most; the oldest are forgotten first.",
        "Above the packets of one gossipDedupWindowMs. Sane: 1024 to 65536.",
        unit="packets",
    )
    gossip_shared_secret: str = _key(
        "",
        Kind.TEXT,
        "Signs gossip packets; empty leaves them unsigned. Surrounding blanks are cut. Never printed or logged.",
        "Equal on all nodes. Sane: 32 random characters or more.",
        secret=True,
    )
    mesh_prune_older_than_ms: int = _ms(
        7 * DAY_MS, 0, "A DEAD member older than this is pruned.", "Above deadAfterMs. Sane: 1 hour to 30 days."
    )
    mesh_prune_limit: int = _count(256, 1, "Members pruned in one go.", "Sane: 16 to 1000.", unit="members")
    mesh_prune_interval_ms: int = _ms(
        3_600_000, 0, "Time between automatic prunes.", "0 = no automatic prune. Sane: 60000 to 86400000."
    )
    min_free_disk_bytes: int = _key(
        0,
        Kind.LONG,
        "With less free space on the root's disk, health reports disk pressure.",
        "0 = off. Sane: 1 GiB, or 5 % of the disk.",
        floor=0,
        unit="bytes",
    )
    max_ingress_queue_depth: int = _count(
        5_000,
        1,
        "A submit is refused when more steps than this would wait or be in processing.",
        "Above the largest batch that is submitted. Sane: 1000 to 1000000.",
        unit="steps",
    )
    max_running_steps: int = _count(
        2_000,
        1,
        "A submit is refused while this many steps run.",
        "Above the slots of all nodes together. Sane: 100 to 10000.",
        unit="steps",
    )
    submit_rate_limit_per_min: int = _count(
        240, 0, "Steps that may be submitted in one UTC minute.", "0 = off. Sane: 0, or 60 to 100000.", unit="steps"
    )
    slo_queue_lag_target_ms: int = _ms(5_000, 1, "An alert fires when the queue lags more.", "Sane: 1000 to 600000.")
    slo_step_p95_target_ms: int = _ms(
        2_000, 1, "An alert fires when the 95th percentile of step latency is above.", "At most sloStepP99TargetMs."
    )
    slo_step_p99_target_ms: int = _ms(
        5_000,
        "sloStepP95TargetMs",
        "An alert fires when the 99th percentile of step latency is above.",
        "At least sloStepP95TargetMs.",
    )
    slo_dead_letter_growth_target_1h: int = _count(
        10, 1, "An alert fires when more steps were dead-lettered in an hour.", "Sane: 1 to 1000.", unit="steps"
    )
    slo_replication_lag_target_ms: int = _ms(
        30_000, 1, "An alert fires when the last import was older.", "Sane: 5000 to 3600000."
    )

    durability: Literal["full", "fast"] = _key(
        "full",
        Kind.CHOICE,
        "full: what was acknowledged survives power loss. fast: it survives a killed process only, and commits are"
        " quicker.",
        "Printed figures say at which they were taken.",
        choices=("full", "fast"),
        applies=Applies.START,
    )
    bus_mode: Literal["database", "files"] = _key(
        "database",
        Kind.CHOICE,
        "files: each message also has a file in the lane folders, repaired by maintenance. The database stays the"
        " authority.",
        "files costs a file operation per message and state.",
        choices=("database", "files"),
        applies=Applies.START,
    )
    done_retention_ms: int = _age(7, "a finished task, its steps and its folder in done/ are kept")
    dead_retention_ms: int = _age(7, "a dead-lettered or cancelled task and files in dead/ and retry/ are kept")
    result_retention_ms: int = _age(
        7,
        "the result of a finished task is kept",
        "0 keeps it for ever. Not above doneRetentionMs, where the task goes with its result. Sane: 1 hour to 90 days.",
    )
    message_retention_ms: int = _age(7, "the attempts and messages of an ended step are kept")
    conflict_retention_ms: int = _age(7, "a lease conflict is kept")
    log_retention_ms: int = _age(14, "the log lines of an attempt are kept")
    idempotency_key_retention_ms: int = _age(7, "the idempotency key of an ended task is kept")
    audit_segment_retention_ms: int = _age(
        365, "a closed segment of the audit log is kept", "0 keeps it for ever. Sane: 30 days to 10 years."
    )
    retention_interval_ms: int = _ms(
        600_000,
        0,
        "Time between rounds of retention; one also runs at the start of a node.",
        "0 = no automatic retention, `purge` only. Sane: 60000 to 86400000.",
    )
    payload_encryption: bool = _key(
        False,
        Kind.BOOL,
        "New payloads and results are encrypted at rest with the active key of security/payload-keys.json.",
        "Old ones stay as they are until the key is rotated; encrypted ones stay readable when it is switched off.",
    )
    audit_masked_fields: tuple[str, ...] = _key(
        (),
        Kind.NAMES,
        "Names of details whose value is *** in audit records, beside those that are masked always.",
        "Compared without regard to case. At most 256 names.",
        applies=Applies.START,
    )
    mesh_label: str = _key(
        "",
        Kind.TEXT,
        "Name of the mesh: nodes of other names are not heard. Empty: the namespace; without a secret this root alone.",
        "Equal on all nodes that are to find each other. Needed for several roots of one machine without a secret.",
        applies=Applies.START,
    )
    allow_insecure_gossip: bool = _key(
        False,
        Kind.BOOL,
        "Gossip without a secret also at addresses that other machines reach.",
        "Who reaches such a node can join and mark members dead. Leave it off; set gossipSharedSecret instead.",
        applies=Applies.START,
    )

    @property
    def retry_policy(self) -> RetryPolicy:
        """The policy of agents that have none of their own."""
        base_ms = min(self.base_backoff_ms, _BACKOFF_MS_MAX)
        return RetryPolicy(self.max_attempts, base_ms, min(self.max_backoff_ms, _BACKOFF_MS_MAX))

    @classmethod
    def of(cls, values: Mapping[str, Value]) -> Settings:
        """Make settings of values by key, as ``settle`` returns them."""
        made: Any = {setting.attribute: values[setting.name] for setting in table()}
        return cls(**made)

    def values(self) -> dict[str, Value]:
        """Return the values by key, in table order."""
        return {setting.name: getattr(self, setting.attribute) for setting in table()}

    def with_start_values(self, running: Settings) -> Settings:
        """Return these settings, but with what cannot change at run time as it is in the running process."""
        kept: Any = {
            setting.attribute: getattr(running, setting.attribute)
            for setting in table()
            if setting.applies is Applies.START
        }
        return dataclasses.replace(self, **kept)


SECRET: Final = "gossipSharedSecret"
VIEW_KEYS: Final = 28
"""The first keys of the table make up RuntimeSettingsView; the others are shown by ``settings show``."""


@cache
def table() -> tuple[Setting, ...]:
    """Return all settings in table order."""
    return tuple(Setting(_camel(found.name), found.name, *found.metadata["facts"]) for found in fields(Settings))


@cache
def by_name() -> Mapping[str, Setting]:
    """Return all settings by key."""
    return {setting.name: setting for setting in table()}


def _camel(attribute: str) -> str:
    first, *others = attribute.split("_")
    return first + "".join(word.capitalize() for word in others)
