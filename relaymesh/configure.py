"""Change one setting of a root, and tell which loads of its settings there were.

set      lock ─▶ read ─▶ check all of it ─▶ replace the file ─▶ audit
history  rows of the audit log, newest first
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from relaymesh.audit import AuditTrail
from relaymesh.core.nearest import quoted
from relaymesh.core.setting import Applies, Setting, Value, WrongValueError, find, parse
from relaymesh.core.setting_table import SECRET, by_name
from relaymesh.errors import InputError
from relaymesh.evidence import rows_of_action
from relaymesh.reload import LOAD, RESOURCE, locked_settings
from relaymesh.rule_view import SettingSetOutcome, SettingsHistoryEntry
from relaymesh.settings.aside import replace_file
from relaymesh.settings.edit import edited, holds_secret
from relaymesh.settings.file import SETTINGS_FILE, SettingsError, decode, from_environment, load, read_file
from relaymesh.settings.shown import presentable
from relaymesh.store.root import create_layout

__all__ = ["BadSettingError", "set_setting", "settings_history"]


class BadSettingError(InputError):
    """A key or value that ``settings set`` was given; the file is as it was."""

    code = "bad_setting"

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(key, reason)
        self.key, self.reason = key, reason

    def __str__(self) -> str:
        return f"{quoted(self.key)} cannot be set ({self.reason}): `relaymesh settings show` lists keys and values"


def set_setting(root: Path, key: str, text: str, *, audit: AuditTrail, actor: str = "cli") -> SettingSetOutcome:
    """Change one key of a scoped root's settings file, which is made when it is missing.

    Raises:
        BadSettingError: there is no such key, or it cannot have this value.
        SettingsError: the file has another fault, or cannot be written. Either way it is as it was.
        EnvironmentSettingError: an override of this process is wrong.
    """
    try:
        setting = find(key, by_name())
        value = parse(setting, text)
    except WrongValueError as error:
        raise BadSettingError(key, error.reason) from error
    from_environment(os.environ)  # what is wrong with it is said before anything is changed
    create_layout(root)
    path = root / SETTINGS_FILE
    with locked_settings(root):
        changed = _write(path, setting, value)
    details = {"config": str(path), "changed": changed, "changed_fields": [key] if changed else []}
    audit.record("runtime.settings.set", actor=actor, resource=RESOURCE, result="ok", details=details)
    loaded = load(root)
    raised = loaded.of_root.raised.get(key)
    overridden = setting.variable if loaded.effective.values[key] != loaded.of_root.values[key] else None
    return SettingSetOutcome(
        key=key,
        value=presentable(setting, loaded.effective.values[key]),
        changed=changed,
        source_path=str(path),
        raised_from=raised.given if raised is not None else None,
        overridden_by=overridden,
        hot=setting.applies is Applies.LIVE,
        message=_what_now(setting, changed, overridden) + _guessable(setting, value),
    )


def _write(path: Path, setting: Setting, value: Value) -> bool:
    found = read_file(path)
    data = found[0] if found is not None else None
    new = edited(data, path, setting, value)
    if data is not None:
        former, wanted = (decode(text, path).get(setting.name) for text in (data, new))
        if type(former) is type(wanted) and former == wanted:  # 1 is not true
            return False
    try:
        replace_file(path, new, private=holds_secret(new, path))
    except OSError as error:
        cause = error.strerror or type(error).__name__
        raise SettingsError(str(path), cause, unwritable=True) from error
    return True


def _what_now(setting: Setting, changed: bool, overridden: str | None) -> str:
    if overridden is not None:
        return f"{overridden} in the environment of this command is what holds, not the file"
    if not changed:
        return "the file says so already"
    if setting.applies is Applies.START:
        return "nodes take it at their next start"
    return "running nodes take it at their next look at the file"


def _guessable(setting: Setting, value: Value) -> str:
    """Return a warning about a secret that somebody could try out, "" for any other value."""
    if setting.name != SECRET or not value:
        return ""
    from relaymesh.wire.mesh_key import SECRET_CHARS_MIN

    length = len(str(value))
    if length >= SECRET_CHARS_MIN:
        return ""
    return f"; {length} characters can be guessed: take {SECRET_CHARS_MIN} or more, as of `openssl rand -hex 32`"


def settings_history(limit: int, *, audit: AuditTrail) -> list[SettingsHistoryEntry]:
    """Return the loads of a root's settings, newest first; at most ``limit``.

    Raises:
        RootMissingError, AuditUnreadableError
    """
    rows = rows_of_action(audit, LOAD, limit)
    return [entry for row in rows if (entry := _entry(row)) is not None]


def _entry(line: str) -> SettingsHistoryEntry | None:
    """Return what a row says; None for one that somebody broke, which `audit-verify` tells of."""
    try:
        row: dict[str, Any] = json.loads(line)
        details = row["details"]
        fields = tuple(str(name) for name in details["changed_fields"])
        mtime_ms, source, path = (details.get(name) for name in ("config_mtime_ms", "source", "config"))
        return SettingsHistoryEntry(
            timestamp=str(row["timestamp"]),
            result=str(row["result"]),
            changed=bool(details["changed"]),
            changed_count=len(fields),
            changed_fields=fields,
            config_mtime_ms=mtime_ms if isinstance(mtime_ms, int) else None,
            source=None if source is None else str(source),
            config_path=None if path is None else str(path),
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
