"""One key of the file is changed; the rest of the file, its readers, and a crash see the old content or the new one."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from relaymesh.audit import AuditTrail
from relaymesh.configure import BadSettingError, set_setting
from relaymesh.settings import SETTINGS_FILE, EnvironmentSettingError, SettingsError, load_settings

SECRET = "correct-horse-battery-staple"


def change(root: Path, key: str, text: str):  # type: ignore[no-untyped-def]
    return set_setting(root, key, text, audit=AuditTrail(root))


def test_a_missing_file_is_made_and_a_second_key_goes_beside_the_first(tmp_path: Path) -> None:
    assert change(tmp_path, "maxAttempts", "5").changed
    change(tmp_path, "auditMaskedFields", "iban, card")

    content = json.loads((tmp_path / SETTINGS_FILE).read_text())
    assert content == {"maxAttempts": 5, "auditMaskedFields": ["iban", "card"]}
    assert load_settings(tmp_path).audit_masked_fields == ("iban", "card")


def test_the_mark_the_indentation_the_line_ends_and_the_order_of_the_file_are_kept(tmp_path: Path) -> None:
    before = b'\xef\xbb\xbf{\r\n    "busMode": "files",\r\n    "maxAttempts": 2,\r\n    "durability": "fast"\r\n}'
    (tmp_path / SETTINGS_FILE).write_bytes(before)

    change(tmp_path, "maxAttempts", "7")

    assert (tmp_path / SETTINGS_FILE).read_bytes() == before.replace(b": 2,", b": 7,")


@pytest.mark.parametrize(
    ("key", "text", "said"),
    [
        ("maxAtempts", "5", "did you mean"),
        ("maxAttempts", "five", "whole number"),
        ("maxAttempts", "2147483648", "whole number of"),
        ("maxAttempts", "9" * 5_000, "whole number of"),
        ("leaseTimeoutMs", "-99999999999999999999999", "whole number of"),
        ("gossipSharedSecret", "\udcff", "not valid Unicode: write it as UTF-8"),
        ("durability", "slow", '"full" or "fast"'),
        ("payloadEncryption", "yes", "true or false"),
        ("auditMaskedFields", '["a", 7]', "expected a name"),
    ],
)
def test_a_bad_key_or_value_is_refused_and_changes_nothing(tmp_path: Path, key: str, text: str, said: str) -> None:
    (tmp_path / SETTINGS_FILE).write_bytes(b'{"busMode": "files"}')

    with pytest.raises(BadSettingError) as caught:
        change(tmp_path, key, text)

    assert said in str(caught.value) and key in str(caught.value)
    assert (tmp_path / SETTINGS_FILE).read_bytes() == b'{"busMode": "files"}'
    assert list(tmp_path.iterdir()) == [tmp_path / SETTINGS_FILE]


def test_a_file_with_another_fault_is_left_alone_and_its_own_fault_can_be_mended(tmp_path: Path) -> None:
    (tmp_path / SETTINGS_FILE).write_text('{"maxAttempts": "many"}')

    with pytest.raises(SettingsError, match=r"\$\.maxAttempts"):
        change(tmp_path, "busMode", "files")
    change(tmp_path, "maxAttempts", "4")

    assert json.loads((tmp_path / SETTINGS_FILE).read_text()) == {"maxAttempts": 4}


def test_a_value_below_its_floor_is_kept_as_written_and_told(tmp_path: Path) -> None:
    done = change(tmp_path, "leaseTimeoutMs", "-1")

    assert (done.value, done.raised_from) == (100, -1)
    assert json.loads((tmp_path / SETTINGS_FILE).read_text()) == {"leaseTimeoutMs": -1}


def test_the_same_value_again_changes_nothing(tmp_path: Path) -> None:
    change(tmp_path, "maxAttempts", "5")
    before = os.stat(tmp_path / SETTINGS_FILE)

    done = change(tmp_path, "maxAttempts", "5")

    assert not done.changed
    assert os.stat(tmp_path / SETTINGS_FILE).st_mtime_ns == before.st_mtime_ns


def test_true_is_not_the_same_as_one(tmp_path: Path) -> None:
    (tmp_path / SETTINGS_FILE).write_text('{"payloadEncryption": 1}')

    assert change(tmp_path, "payloadEncryption", "true").changed
    assert load_settings(tmp_path).payload_encryption is True


def test_what_the_environment_overrides_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RELAYMESH_MAX_ATTEMPTS", "9")

    done = change(tmp_path, "maxAttempts", "5")

    assert (done.value, done.overridden_by) == (9, "RELAYMESH_MAX_ATTEMPTS")


def test_a_bad_variable_is_found_before_the_file_is_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RELAYMESH_MAX_ATTEMPTS", "many")

    with pytest.raises(EnvironmentSettingError):
        change(tmp_path, "busMode", "files")

    assert not (tmp_path / SETTINGS_FILE).exists()


@pytest.mark.skipif(os.name == "nt", reason="modes are those of POSIX")
def test_a_file_with_a_secret_is_its_owners_and_stays_so_and_another_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / SETTINGS_FILE
    change(tmp_path, "maxAttempts", "5")
    path.chmod(0o664)

    change(tmp_path, "maxAttempts", "6")
    before = path.stat().st_mode & 0o777
    change(tmp_path, "gossipSharedSecret", SECRET)
    change(tmp_path, "maxAttempts", "7")

    assert (before, path.stat().st_mode & 0o777) == (0o664, 0o600)


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_a_link_is_followed(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere.json"
    elsewhere.write_text("{}")
    (tmp_path / SETTINGS_FILE).symlink_to(elsewhere)

    change(tmp_path, "maxAttempts", "5")

    assert (tmp_path / SETTINGS_FILE).is_symlink()
    assert json.loads(elsewhere.read_text()) == {"maxAttempts": 5}


def test_many_writers_at_a_time_lose_no_change(tmp_path: Path) -> None:
    keys = ["maxAttempts", "retryDispatchLimit", "gossipFanout", "gossipPacketTtl", "meshPruneLimit", "maxRunningSteps"]

    threads = [threading.Thread(target=change, args=(tmp_path, key, "77")) for key in keys]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert json.loads((tmp_path / SETTINGS_FILE).read_text()) == dict.fromkeys(keys, 77)


def test_a_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    change(tmp_path, "auditMaskedFields", "a")
    wide = ",".join(f"name{number}" for number in range(250))
    over = threading.Event()

    def write() -> None:
        for number in range(60):
            change(tmp_path, "auditMaskedFields", wide if number % 2 else "a")
        over.set()

    writer = threading.Thread(target=write)
    writer.start()
    seen = set()
    while not over.is_set():
        seen.add(len(load_settings(tmp_path).audit_masked_fields))
    writer.join()

    assert seen <= {1, 250}


DIES = """
import os, signal, sys
from pathlib import Path
def dies(*_): os.kill(os.getpid(), signal.SIGKILL)
os.{call} = dies
from relaymesh.audit import AuditTrail
from relaymesh.configure import set_setting
root = Path(sys.argv[1])
set_setting(root, "maxAttempts", "9", audit=AuditTrail(root))
"""


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL")
@pytest.mark.parametrize("call", ["fsync", "replace", "fchmod"])
def test_a_writer_that_is_killed_leaves_the_old_file_whole_and_the_next_one_gets_through(
    tmp_path: Path, call: str
) -> None:
    change(tmp_path, "gossipSharedSecret", SECRET)
    before = (tmp_path / SETTINGS_FILE).read_bytes()

    ended = subprocess.run([sys.executable, "-c", DIES.format(call=call), str(tmp_path)], check=False)

    assert ended.returncode == -signal.SIGKILL
    assert (tmp_path / SETTINGS_FILE).read_bytes() == before
    beside = [path for path in tmp_path.iterdir() if path.name.endswith(".aside")]
    assert [path.stat().st_mode & 0o777 for path in beside] == [0o600]
    assert change(tmp_path, "maxAttempts", "8").changed
    assert load_settings(tmp_path).max_attempts == 8
    assert [path for path in tmp_path.iterdir() if path.name.endswith(".aside")] == []


def test_the_audit_names_the_key_and_never_a_value(tmp_path: Path) -> None:
    change(tmp_path, "gossipSharedSecret", SECRET)
    change(tmp_path, "maxAttempts", "31337")

    rows = [json.loads(line) for line in (tmp_path / "audit" / "audit.log").read_text().splitlines()]

    assert [(row["action"], row["actor"], row["details"]["changed_fields"]) for row in rows] == [
        ("runtime.settings.set", "cli", ["gossipSharedSecret"]),
        ("runtime.settings.set", "cli", ["maxAttempts"]),
    ]
    assert "31337" not in json.dumps(rows) and SECRET not in json.dumps(rows)


def test_a_disk_that_refuses_is_told_as_that_and_not_as_a_bad_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "relaymesh-settings.json"
    file.write_text('{"maxAttempts": 4}')

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("relaymesh.configure.replace_file", full)
    with pytest.raises(SettingsError) as raised:
        change(tmp_path, "maxAttempts", "5")

    assert "cannot be written (No space left on device)" in str(raised.value) and "it is as it was" in str(raised.value)
    assert "remove it" not in str(raised.value)
    assert file.read_text() == '{"maxAttempts": 4}'
