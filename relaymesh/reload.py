"""Read the settings of a root again: once for a command, or whenever a file has changed for a running node.

    reload   read settings and retry policies ─▶ lock ─▶ compare with the record ─▶ record, end the alert ─▶ audit
    watch    a file has another stamp ─▶ read both ─┬─▶ all of it is good: the same, and the node applies it
                                                    └─▶ else: keep what runs, raise the alert, audit the error

Any number of commands and nodes may do this at a time. A node compares with what it had itself, a command with what was
last recorded for the root; docs/decisions/settings-base.md says why.
"""

from __future__ import annotations

import contextlib
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from relaymesh.agents.agent_file import RETRY_FILE, AgentFile, load_retry_file
from relaymesh.agents.audit import retry_record
from relaymesh.audit import AuditTrail, Record
from relaymesh.audit.lock import locked
from relaymesh.core.retry import RetryPolicy
from relaymesh.core.setting import changed_names
from relaymesh.core.setting_table import SECRET, Settings, table
from relaymesh.errors import RelayMeshError
from relaymesh.rule_view import SettingsReloadOutcome
from relaymesh.settings.file import SETTINGS_FILE, Loaded, load
from relaymesh.settings.record import (
    Alert,
    Recorded,
    clear_alert,
    comparable,
    no_record,
    read_record,
    write_alert,
    write_record,
)
from relaymesh.settings.shown import runtime_view
from relaymesh.store.error import RootMissingError, RootReadOnlyError
from relaymesh.store.root import create_layout, signs_gossip

__all__ = ["LOAD", "RESOURCE", "News", "SettingsWatch", "locked_settings", "reload_settings"]

log = logging.getLogger("relaymesh.settings")

RESOURCE: Final = "runtime/settings"
LOAD: Final = "runtime.settings.load"
_FRESH_NS: Final = 2_000_000_000
"""A file that was changed so short before it was read may have been changed again under the same time stamp."""

Stamp = tuple[int, ...] | None
Code = Literal["reloaded", "unchanged_content", "defaults"]


@dataclass(frozen=True, slots=True)
class News:
    """What a look brought: what to print, and what holds now for the process.

    settings: keeps what cannot change at run time as it was. at_start: changed names that wait for the next start.
    """

    outcome: SettingsReloadOutcome
    settings: Settings
    retries: AgentFile[RetryPolicy]
    at_start: tuple[str, ...]


class SettingsWatch:
    """What one running process knows of its root's settings. Not thread-safe.

    loaded, retries: as the process read them at its start. node_id: who is named in an alert.
    """

    def __init__(
        self,
        root: Path,
        namespace: str,
        loaded: Loaded,
        retries: AgentFile[RetryPolicy],
        *,
        node_id: str,
    ) -> None:
        self._root = root
        self._namespace = namespace
        self._node_id = node_id
        self._loaded = loaded
        self._retries = retries
        self._running = loaded.settings
        self._stamps: tuple[Stamp, Stamp] | None = None
        self._problem: str | None = None

    def begin(self) -> None:
        """Record and audit what the process started with. A disk that does not take it is told to the log."""
        self._take(None, None)
        self._warn()

    def look(self, now_ms: int) -> News | None:
        """Read the files if one of them has changed; None when nothing has, or when it cannot be used."""
        stamps = (_stamp(self._root / SETTINGS_FILE), _stamp(self._root / RETRY_FILE))
        if stamps == self._stamps:
            return None
        settled = all(stamp is None or abs(now_ms * 1_000_000 - stamp[0]) > _FRESH_NS for stamp in stamps)
        self._stamps = stamps if settled else None
        try:
            loaded, retries = load(self._root), load_retry_file(self._root)
        except RelayMeshError as error:
            self._refuse(error, now_ms)
            return None
        if self._problem is None and _same(loaded, self._loaded) and _same_policies(retries, self._retries):
            return None  # read once more because its stamp was fresh
        changed = changed_names(table(), self._loaded.effective.values, loaded.effective.values)
        self._problem, self._loaded, self._retries = None, loaded, retries
        former, self._running = self._running, loaded.settings.with_start_values(self._running)
        self._take(changed, retries)
        waiting = changed_names(table(), self._running.values(), loaded.effective.values)
        if former != self._running or waiting:
            log.info("settings were reloaded; changed: %s", ", ".join(changed) or "nothing")
        self._warn()
        for name in set(waiting).intersection(changed):
            log.warning("the setting %s cannot change while a node runs: it holds from the next start on", name)
        return News(_outcome(loaded, changed, now_ms), self._running, retries, waiting)

    def _take(self, changed: tuple[str, ...] | None, retries: AgentFile[RetryPolicy] | None) -> None:
        try:
            with locked_settings(self._root):
                _take(self._root, self._loaded, retries, audit=self._audit(), actor="runtime", seen=changed)
        except (OSError, RelayMeshError) as error:
            log.warning("what was loaded cannot be recorded, it holds all the same: %s", error)

    def _refuse(self, error: RelayMeshError, now_ms: int) -> None:
        if self._problem == str(error):
            return
        self._problem = str(error)
        log.error("the settings stay as they were: %s", error)
        _refuse(self._root, error, audit=self._audit(), actor="runtime", node_id=self._node_id, now_ms=now_ms)

    def _warn(self) -> None:
        if self._loaded.exposed:
            log.warning("others can read the secret in %s: chmod 600 it", self._loaded.path)

    def _audit(self) -> AuditTrail:
        return AuditTrail(self._root, self._namespace, masked_fields=self._running.audit_masked_fields)


def locked_settings(root: Path) -> contextlib.AbstractContextManager[int]:
    """Hold the lock of a root's settings file, record and alert.

    Raises:
        AuditBusyError: another process keeps it for too long.
    """
    return locked(root / "run" / "settings.lock")


def _stamp(path: Path) -> Stamp:
    """Return what changes when the file does, its modification time first; None for a file that is not there."""
    try:
        found = os.stat(path)
    except OSError as error:
        return None if isinstance(error, FileNotFoundError | NotADirectoryError) else (0, error.errno or 0)
    return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino


def _same(one: Loaded, other: Loaded) -> bool:
    return (one.mtime_ns, one.given) == (other.mtime_ns, other.given)


def _same_policies(one: AgentFile[RetryPolicy], other: AgentFile[RetryPolicy]) -> bool:
    return (one.entries, one.skipped) == (other.entries, other.skipped)


def _outcome(loaded: Loaded, changed: tuple[str, ...], now_ms: int) -> SettingsReloadOutcome:
    message: Code = "defaults" if loaded.mtime_ns is None else "reloaded" if changed else "unchanged_content"
    return SettingsReloadOutcome(
        changed=bool(changed),
        config_exists=loaded.mtime_ns is not None,
        source_path=str(loaded.path),
        settings=runtime_view(
            loaded.effective.values,
            signing=signs_gossip(loaded.path.parent, str(loaded.effective.values[SECRET])),
        ),
        message=message,
        checked_at_ms=now_ms,
        changed_fields=changed,
    )


def reload_settings(root: Path, *, audit: AuditTrail, now_ms: int, actor: str = "cli") -> SettingsReloadOutcome:
    """Read settings and retry policies of a scoped root again, and say what differs from what was last recorded for it.

    Raises:
        RootMissingError: there is no such folder.
        SettingsError, EnvironmentSettingError, AgentLoadError: a file cannot be used; that is audited, the alert is
            raised, and the record is as it was.
    """
    if not root.is_dir():
        raise RootMissingError(str(root))  # a wrong --root; to make one would say that all is well
    create_layout(root)
    try:
        loaded, retries = load(root), load_retry_file(root)
    except RelayMeshError as error:
        _refuse(root, error, audit=audit, actor=actor, node_id=None, now_ms=now_ms)
        raise
    with locked_settings(root):
        changed = _take(root, loaded, retries, audit=audit, actor=actor)
    return _outcome(loaded, changed, now_ms)


def _take(
    root: Path,
    loaded: Loaded,
    retries: AgentFile[RetryPolicy] | None,
    *,
    audit: AuditTrail,
    actor: str,
    seen: tuple[str, ...] | None = None,
) -> tuple[str, ...]:
    """Record a good load; return what it changed: against the record, or ``seen`` by a process that knew others.

    retries: None when they are told of elsewhere, as at the start of a node.
    """
    recorded = read_record(root) or no_record()
    values = comparable(loaded.of_root.values, recorded.salt)
    of_root = changed_names(table(), recorded.values, values)
    changed = of_root if seen is None else seen
    vanished = loaded.mtime_ns is None and recorded.from_file
    try:
        if of_root or recorded.from_file != (loaded.mtime_ns is not None):
            from_file = loaded.mtime_ns is not None
            write_record(root, Recorded(values=values, from_file=from_file, salt=recorded.salt))
        clear_alert(root)
    except OSError as error:
        raise RootReadOnlyError(str(root), error.strerror or type(error).__name__) from error
    records = [] if retries is None else [retry_record(retries, actor=actor)]
    if loaded.mtime_ns is not None or vanished or changed:
        records.insert(0, _load_record(loaded, changed, actor))
    audit.record_many(records)
    return changed


def _load_record(loaded: Loaded, changed: tuple[str, ...], actor: str) -> Record:
    details: dict[str, object] = {"config": str(loaded.path)}
    if loaded.mtime_ns is None:
        details["source"] = "defaults"
    details |= {"changed": bool(changed), "changed_count": len(changed), "changed_fields": list(changed)}
    if loaded.mtime_ns is None:
        return Record(LOAD, actor, RESOURCE, "ok_default", details)
    details["config_mtime_ms"] = loaded.mtime_ns // 1_000_000
    return Record(LOAD, actor, RESOURCE, "reloaded" if changed else "ok", details)


def _refuse(
    root: Path, error: RelayMeshError, *, audit: AuditTrail, actor: str, node_id: str | None, now_ms: int
) -> None:
    details = {
        "config": str(root / SETTINGS_FILE),
        "changed": False,
        "changed_count": 0,
        "changed_fields": [],
        "error": error.code,
        "reason": str(error),
    }
    audit.record(LOAD, actor=actor, resource=RESOURCE, result="error", details=details)
    try:
        with locked_settings(root):
            write_alert(root, Alert(code=error.code, message=str(error), since_ms=now_ms, node_id=node_id))
    except (OSError, RelayMeshError) as alas:
        log.warning("the alert about the settings cannot be written: %s", alas)
