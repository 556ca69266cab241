"""A reload says what an edit changed, takes all or nothing, and leaves a trace of each load."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from relaymesh.agents.agent_file import RETRY_FILE, load_retry_file
from relaymesh.audit import AuditTrail
from relaymesh.configure import settings_history
from relaymesh.core.retry import RetryPolicy
from relaymesh.core.setting_table import SECRET, VIEW_KEYS, table
from relaymesh.errors import AgentLoadError
from relaymesh.reload import News, SettingsWatch, reload_settings
from relaymesh.rule_view import SettingsReloadOutcome
from relaymesh.settings import SETTINGS_FILE, SettingsError, load
from relaymesh.settings.record import read_alert, read_record
from relaymesh.store.root import create_layout

SECRET_TEXT = "correct-horse-battery-staple"
NOW_MS = 4_000_000_000_000  # long after every file of a test was written


@pytest.fixture
def root(tmp_path: Path) -> Path:
    create_layout(tmp_path)
    return tmp_path


def write(root: Path, content: Mapping[str, object] | str) -> None:
    text = content if isinstance(content, str) else json.dumps(content)
    (root / SETTINGS_FILE).write_text(text)


def reload(root: Path) -> SettingsReloadOutcome:
    return reload_settings(root, audit=AuditTrail(root), now_ms=NOW_MS)


def rows(root: Path, action: str = "runtime.settings.load") -> list[Any]:
    try:
        lines = (root / "audit" / "audit.log").read_text().splitlines()
    except FileNotFoundError:
        return []
    return [row for row in map(json.loads, lines) if row["action"] == action]


# A command.


def test_a_reload_reports_an_edit_once_in_table_order(root: Path) -> None:
    write(root, {"gossipFanout": 2, "leaseTimeoutMs": 40_000})

    first, second = reload(root), reload(root)

    # deadAfterMs stays at its default of 60 s; suspectAfterMs is raised to the lease.
    assert first.changed_fields == ("leaseTimeoutMs", "suspectAfterMs", "gossipFanout")
    assert (first.changed, first.message, first.config_exists) == (True, "reloaded", True)
    assert first.settings["suspectAfterMs"] == 40_000
    assert (second.changed, second.message, second.changed_fields) == (False, "unchanged_content", ())
    assert first.source_path == str(root / SETTINGS_FILE) and first.checked_at_ms == NOW_MS


def test_the_view_has_the_keys_of_the_reference_and_not_the_secret(root: Path) -> None:
    write(root, {SECRET: SECRET_TEXT})

    view = reload(root).settings

    names = [setting.name for setting in table()[:VIEW_KEYS]]
    names[names.index(SECRET)] = "gossipPacketSigningEnabled"
    assert list(view) == names
    assert view["gossipPacketSigningEnabled"] is True


def test_the_view_says_that_packets_are_signed_by_the_keys_of_the_root_too(root: Path) -> None:
    assert reload(root).settings["gossipPacketSigningEnabled"] is False

    (root / "security").mkdir(exist_ok=True)
    (root / "security" / "gossip-keys.json").write_text("{}")

    assert reload(root).settings["gossipPacketSigningEnabled"] is True


def test_without_a_file_it_says_defaults_and_audits_nothing(root: Path) -> None:
    outcome = reload(root)

    assert (outcome.message, outcome.changed, outcome.config_exists) == ("defaults", False, False)
    assert rows(root) == []
    assert len(rows(root, "retry.policy.load")) == 1


def test_a_file_that_vanished_is_told_as_a_change_back_to_the_defaults(root: Path) -> None:
    write(root, {"maxAttempts": 9})
    reload(root)
    (root / SETTINGS_FILE).unlink()

    outcome = reload(root)

    assert (outcome.message, outcome.changed_fields) == ("defaults", ("maxAttempts",))
    (last,) = rows(root)[1:]
    assert last["result"] == "ok_default"
    assert last["details"] == {
        "config": str(root / SETTINGS_FILE),
        "source": "defaults",
        "changed": True,
        "changed_count": 1,
        "changed_fields": ["maxAttempts"],
    }


def test_each_load_is_audited_with_names_only_and_neither_names_nor_the_path_are_masked(root: Path) -> None:
    write(root, {SECRET: SECRET_TEXT, "idempotencyKeyRetentionMs": 5})
    reload(root)
    reload(root)

    first, second = rows(root)

    mtime_ms = os.stat(root / SETTINGS_FILE).st_mtime_ns // 1_000_000
    assert [row["result"] for row in (first, second)] == ["reloaded", "ok"]
    assert first["resource"] == "runtime/settings" and first["actor"] == "cli"
    assert first["details"] == {
        "config": str(root / SETTINGS_FILE),
        "changed": True,
        "changed_count": 2,
        "changed_fields": [SECRET, "idempotencyKeyRetentionMs"],
        "config_mtime_ms": mtime_ms,
    }


def test_overrides_of_one_process_are_not_edits_of_the_root(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(root, {"maxAttempts": 9})
    reload(root)
    monkeypatch.setenv("RELAYMESH_MAX_ATTEMPTS", "2")

    outcome = reload(root)

    assert outcome.changed_fields == ()
    assert outcome.settings["maxAttempts"] == 2


@pytest.mark.parametrize(
    ("path", "content", "error"),
    [(SETTINGS_FILE, '{"maxAttempts": "9"}', SettingsError), (RETRY_FILE, "[", AgentLoadError)],
)
def test_a_bad_file_fails_the_command_is_audited_and_raises_the_alert_until_it_is_mended(
    root: Path, path: str, content: str, error: type[Exception]
) -> None:
    write(root, {"maxAttempts": 9})
    reload(root)
    (root / path).write_text(content)

    with pytest.raises(error):
        reload(root)

    last, alert = rows(root)[-1], read_alert(root)
    assert (last["result"], last["details"]["changed_fields"]) == ("error", [])
    assert alert is not None and alert.since_ms == NOW_MS and alert.message == last["details"]["reason"]
    recorded = read_record(root)
    assert recorded is not None and recorded.values["maxAttempts"] == 9
    (root / path).unlink()
    reload(root)
    assert read_alert(root) is None


@pytest.mark.parametrize("content", ["", "{", '{"values": {}, "fromFile": true, "salt": "xyz"}'])
def test_a_damaged_record_counts_as_one_of_the_defaults(root: Path, content: str) -> None:
    write(root, {"maxAttempts": 9})
    reload(root)
    (root / "run" / "settings.json").write_text(content)

    assert reload(root).changed_fields == ("maxAttempts",)


def test_a_record_from_before_a_key_existed_does_not_report_the_key(root: Path) -> None:
    write(root, {"maxAttempts": 9})
    reload(root)
    path = root / "run" / "settings.json"
    record = json.loads(path.read_text())
    del record["values"]["auditMaskedFields"]
    record["values"]["keyOfLater"] = 1
    path.write_text(json.dumps(record))

    assert reload(root).changed_fields == ()


def test_the_secret_is_in_no_file_but_its_own_and_a_change_of_it_is_seen(root: Path) -> None:
    write(root, {SECRET: SECRET_TEXT})
    first = reload(root)
    write(root, {SECRET: SECRET_TEXT + "2"})
    second = reload(root)
    write(root, '{"' + SECRET + '": "' + SECRET_TEXT)
    with pytest.raises(SettingsError) as caught:
        reload(root)

    assert first.changed_fields == second.changed_fields == (SECRET,)
    assert SECRET_TEXT not in f"{first}{second}{caught.value}"
    others = [path for path in root.rglob("*") if path.is_file() and path != root / SETTINGS_FILE]
    assert others and [path for path in others if SECRET_TEXT.encode() in path.read_bytes()] == []
    if os.name != "nt":
        assert (root / "run" / "settings.json").stat().st_mode & 0o777 == 0o600


def test_the_history_lists_loads_newest_first(root: Path) -> None:
    write(root, {"maxAttempts": 9})
    reload(root)
    write(root, "{")
    with pytest.raises(SettingsError):
        reload(root)
    (root / SETTINGS_FILE).unlink()
    reload(root)

    entries = settings_history(2, audit=AuditTrail(root))

    assert [(entry.result, entry.changed_fields, entry.source) for entry in entries] == [
        ("ok_default", ("maxAttempts",), "defaults"),
        ("error", (), None),
    ]
    assert all(entry.config_path == str(root / SETTINGS_FILE) for entry in entries)


# A process that runs.


def watching(root: Path) -> SettingsWatch:
    watch = SettingsWatch(root, "default", load(root), load_retry_file(root), node_id="n1")
    watch.begin()
    return watch


def look(watch: SettingsWatch) -> News | None:
    return watch.look(NOW_MS)


def test_a_process_takes_an_edit_whoever_reported_it_before(root: Path) -> None:
    watch = watching(root)
    look(watch)
    write(root, {"maxAttempts": 9})
    reload(root)

    news = look(watch)

    assert news is not None
    assert (news.settings.max_attempts, news.outcome.changed_fields) == (9, ("maxAttempts",))
    assert look(watch) is None


def test_what_the_process_started_with_is_recorded_so_a_reload_after_it_reports_nothing(root: Path) -> None:
    write(root, {"maxAttempts": 9})

    watching(root)

    assert reload(root).changed_fields == ()
    assert [(row["actor"], row["result"]) for row in rows(root)] == [("runtime", "reloaded"), ("cli", "ok")]


def test_what_only_a_start_applies_is_told_and_kept(root: Path) -> None:
    watch = watching(root)
    write(root, {"durability": "fast", "maxAttempts": 9})

    news = look(watch)

    assert news is not None
    assert (news.settings.durability, news.settings.max_attempts) == ("full", 9)
    assert news.outcome.changed_fields == ("maxAttempts", "durability")
    assert news.at_start == ("durability",)


def test_policies_are_read_again_when_their_file_changes(root: Path) -> None:
    watch = watching(root)
    look(watch)
    policy = {"id": "a", "maxAttempts": 1, "baseBackoffMs": 2, "maxBackoffMs": 3}
    (root / RETRY_FILE).write_text(json.dumps({"agents": [policy, {"id": "b"}]}))

    news = look(watch)

    assert news is not None and news.retries.entries == {"a": RetryPolicy(1, 2, 3)}
    assert not news.outcome.changed
    last = rows(root, "retry.policy.load")[-1]
    assert (last["result"], last["details"]["loaded"], last["details"]["skipped"]) == ("ok", 1, 1)


def test_a_bad_file_changes_nothing_is_told_once_and_the_good_part_waits_for_the_mending(root: Path) -> None:
    watch = watching(root)
    write(root, {"maxAttempts": 9})
    (root / RETRY_FILE).write_text("[")

    assert [look(watch) for _ in range(3)] == [None] * 3
    alert = read_alert(root)
    assert alert is not None and (alert.node_id, alert.code) == ("n1", "agent_load")
    assert [row["result"] for row in rows(root)] == ["error"]
    (root / RETRY_FILE).unlink()
    news = look(watch)

    assert news is not None and news.settings.max_attempts == 9
    assert read_alert(root) is None


def test_a_file_that_is_as_it_was_again_ends_the_alert(root: Path) -> None:
    write(root, {"maxAttempts": 9})
    watch = watching(root)
    write(root, "{")
    look(watch)
    write(root, {"maxAttempts": 9})

    news = look(watch)

    assert news is not None and not news.outcome.changed
    assert read_alert(root) is None


def test_an_edit_under_the_same_time_stamp_is_not_missed(root: Path) -> None:
    write(root, {"maxAttempts": 7})
    stamp = os.stat(root / SETTINGS_FILE)
    watch = watching(root)
    just_now_ms = stamp.st_mtime_ns // 1_000_000
    watch.look(just_now_ms)
    audited = len(rows(root))

    assert watch.look(just_now_ms) is None  # read once more; the same, so nothing is told
    assert len(rows(root)) == audited
    assert watch._stamps is None


def test_a_folder_that_takes_no_record_keeps_nobody_from_the_new_settings(root: Path) -> None:
    watch = watching(root)
    (root / "run" / "settings.lock").unlink()
    (root / "run" / "settings.lock").mkdir()
    write(root, {"maxAttempts": 9})

    news = look(watch)

    assert news is not None and news.settings.max_attempts == 9
