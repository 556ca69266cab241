"""What the commands about limits, pauses, budgets and settings answer.

As ``relaymesh.view``, and apart from it because a command that looks at tasks need not load these.
"""

from __future__ import annotations

from typing import Literal

from relaymesh.view import View

__all__ = [
    "BudgetOutcome",
    "BudgetView",
    "LimitOutcome",
    "LimitView",
    "PauseOutcome",
    "PauseView",
    "QueueStatus",
    "SettingSetOutcome",
    "SettingView",
    "SettingsHistoryEntry",
    "SettingsReloadOutcome",
]


class LimitView(View, frozen=True, kw_only=True):
    """One limit. rate: starts and time, such as ``100/m``; burst: starts at once after a pause; None is no limit.

    running, room: steps that count against it now, and how many more may start; None for the limit of each key.
    """

    scope: str
    name: str
    max_concurrency: int | None
    rate: str | None
    burst: int | None
    running: int | None
    room: int | None


class LimitOutcome(View, frozen=True, kw_only=True):
    """The limit that holds after a change. message: ``set``, ``removed`` or ``not_found``."""

    changed: bool
    scope: str
    name: str
    max_concurrency: int | None
    rate: str | None
    burst: int | None
    message: str


class PauseView(View, frozen=True, kw_only=True):
    """One pause. scope: ``overall``, ``agent``, ``priority`` or ``node``."""

    scope: str
    name: str
    since_ms: int
    reason: str


class PauseOutcome(View, frozen=True, kw_only=True):
    """message: ``paused``, ``paused_before``, ``resumed`` or ``not_paused``."""

    changed: bool
    scope: str
    name: str
    message: str


class QueueStatus(View, frozen=True, kw_only=True):
    """waiting: ready steps by priority. nodes: running steps by node. drained: drained nodes that run nothing more."""

    paused: bool
    waiting: dict[str, int]
    running: int
    pauses: tuple[PauseView, ...]
    nodes: dict[str, int]
    drained: tuple[str, ...]


class SettingView(View, frozen=True, kw_only=True):
    """One setting as it holds in this process.

    value, default: a secret is ``***`` when it is set and empty when it is not.
    source: ``default``, ``file`` or ``environment``; variable: the one that set it.
    raised_from, raised_to: what was asked for, and the floor (a number, or the key it depends on), when it was raised.
    hot: a running node takes a changed value; otherwise at its next start.
    """

    key: str
    value: bool | int | str | list[str]
    source: Literal["default", "file", "environment"]
    raised_from: int | None
    raised_to: str | None
    default: bool | int | str | list[str]
    unit: str
    hot: bool
    variable: str | None


class SettingSetOutcome(View, frozen=True, kw_only=True):
    """What ``settings set`` did. ``value``: what holds now in this process, above its floor; a secret is ``***``.

    changed: the file was changed. overridden_by: the environment variable that beats the file, or None.
    """

    key: str
    value: bool | int | str | list[str]
    changed: bool
    source_path: str
    raised_from: int | None
    overridden_by: str | None
    hot: bool
    message: str


class SettingsReloadOutcome(View, frozen=True, kw_only=True):
    """One look at the settings. ``settings``: the members of RuntimeSettingsView, without the secret.

    message: ``reloaded``, ``unchanged_content``, ``unchanged``, ``defaults`` or ``skip_interval``.
    """

    changed: bool
    config_exists: bool
    source_path: str
    settings: dict[str, bool | int | str]
    message: Literal["reloaded", "unchanged_content", "unchanged", "defaults", "skip_interval"]
    checked_at_ms: int
    changed_fields: tuple[str, ...]


class SettingsHistoryEntry(View, frozen=True, kw_only=True):
    """One load of settings, from the audit log. ``source`` is ``defaults`` when there was no file."""

    timestamp: str
    result: str
    changed: bool
    changed_count: int
    changed_fields: tuple[str, ...]
    config_mtime_ms: int | None
    source: str | None
    config_path: str | None


class BudgetView(View, frozen=True, kw_only=True):
    """One budget. scope: ``agent``, ``key`` or ``task``; kind: ``wall_seconds``, ``cpu_seconds`` or ``units:NAME``.

    Amounts are texts, exact to the millionth: amount that may be spent, spent so far, left (below 0 when more was spent
    than that). per: the period, such as ``1d``, at whose end nothing is spent again, which is at ``turns_at_ms``; None
    for a budget without.
    """

    scope: str
    name: str
    kind: str
    amount: str
    per: str | None
    spent: str
    left: str
    turns_at_ms: int | None


class BudgetOutcome(View, frozen=True, kw_only=True):
    """The budget that was set or removed. message: ``set``, ``removed`` or ``not_found``."""

    changed: bool
    scope: str
    name: str
    kind: str
    amount: str | None
    per: str | None
    message: str
