from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relaymesh.client import Client
from relaymesh.core.retry import RetryPolicy
from relaymesh.core.setting import Source
from relaymesh.settings import (
    SETTINGS_FILE,
    EnvironmentSettingError,
    Settings,
    SettingsError,
    load,
    load_settings,
)


def write(root: Path, content: str | bytes) -> None:
    data = content if isinstance(content, bytes) else content.encode()
    (root / SETTINGS_FILE).write_bytes(data)


def test_without_a_file_everything_has_its_default(tmp_path: Path) -> None:
    found = load_settings(tmp_path)

    assert found == Settings()
    assert (found.lease_timeout_ms, found.retry_dispatch_limit, found.durability) == (15_000, 32, "full")
    assert found.retry_policy == RetryPolicy(3, 1_000, 60_000)


def test_a_file_changes_what_it_names_with_or_without_a_byte_order_mark(tmp_path: Path) -> None:
    for mark in (b"", b"\xef\xbb\xbf"):
        write(tmp_path, mark + b'{"leaseTimeoutMs": 4000, "durability": "fast"}')

        assert load_settings(tmp_path) == Settings(lease_timeout_ms=4_000, durability="fast")


def test_a_value_below_its_floor_is_raised_to_it(tmp_path: Path) -> None:
    low = dict.fromkeys(("leaseTimeoutMs", "maxAttempts", "baseBackoffMs", "maxBackoffMs", "retryDispatchLimit"), -5)
    write(tmp_path, json.dumps(low))

    found = load_settings(tmp_path)

    assert (found.lease_timeout_ms, found.max_attempts, found.retry_dispatch_limit) == (100, 1, 1)
    assert (found.base_backoff_ms, found.max_backoff_ms) == (1, 1)


def test_the_longest_backoff_is_never_below_the_first(tmp_path: Path) -> None:
    write(tmp_path, '{"baseBackoffMs": 90000}')

    assert load_settings(tmp_path).retry_policy == RetryPolicy(3, 90_000, 90_000)


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        ('{"leaseTimeoutMS": 4000}', 'called "leaseTimeoutMS"; did you mean "leaseTimeoutMs"?'),
        ('{"leaseTimeoutMs": "4000"}', "$.leaseTimeoutMs"),
        ('{"maxAttempts": 2.5}', "$.maxAttempts"),
        ('{"durability": "none"}', "$.durability"),
        ('{"leaseTimeoutMs": null}', "$.leaseTimeoutMs"),
        ('{"leaseTimeoutMs": true}', "$.leaseTimeoutMs"),
        ('{"maxAttempts": 2147483648}', "$.maxAttempts"),
        ('{"minFreeDiskBytes": 9223372036854775808}', "$.minFreeDiskBytes"),
        ('{"payloadEncryption": 1}', "$.payloadEncryption"),
        ('{"auditMaskedFields": ["name", 7]}', "$.auditMaskedFields[1]"),
        ('{"maxAttempts": 2, "maxAttempts": 3}', "twice"),
        ('{"maxAttempts": NaN}', "NaN"),
        ("[" * 100_000, "deep"),
        ("[]", "JSON object"),
        ("", "line 1, column 1"),
        ('{\n"leaseTimeoutMs": 40', "line 2, column 21"),
        (b"\xff{}", "UTF-8 at byte 0"),
        ('{"durability": "\xff"}'.encode("latin-1"), "UTF-8 at byte 16"),
        (b" " * 1_048_577, "larger than"),
    ],
)
def test_a_bad_file_is_refused_with_its_path_and_the_cause(tmp_path: Path, content: str | bytes, cause: str) -> None:
    write(tmp_path, content)

    with pytest.raises(SettingsError) as caught:
        load_settings(tmp_path)

    sentence = str(caught.value)
    assert str(tmp_path / SETTINGS_FILE) in sentence and cause in sentence and "\n" not in sentence


def test_a_folder_in_the_place_of_the_file_is_refused_with_its_path(tmp_path: Path) -> None:
    (tmp_path / SETTINGS_FILE).mkdir()

    with pytest.raises(SettingsError) as caught:
        load_settings(tmp_path)

    assert str(tmp_path / SETTINGS_FILE) in str(caught.value)


def test_a_client_with_a_bad_file_stores_nothing(tmp_path: Path) -> None:
    with Client(tmp_path) as client:
        client.submit("echo", "before")
    write(tmp_path, "{")

    with Client(tmp_path) as client, pytest.raises(SettingsError):
        client.submit("echo", "after")


@pytest.mark.parametrize(("durability", "synchronous"), [("full", 2), ("fast", 1)])
def test_a_client_commits_at_the_durability_that_was_set(tmp_path: Path, durability: str, synchronous: int) -> None:
    write(tmp_path, json.dumps({"durability": durability}))

    with Client(tmp_path) as client:
        client.submit("echo", "x")

        assert client._writable().conn.execute("PRAGMA synchronous").fetchone() == (synchronous,)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.binary(max_size=60)
    | st.dictionaries(st.sampled_from(["maxAttempts", "durability", "x"]), st.integers() | st.text() | st.none()).map(
        lambda value: json.dumps(value).encode()
    )
)
def test_any_bytes_are_settings_or_one_sentence(tmp_path: Path, content: bytes) -> None:
    write(tmp_path, content)

    try:
        found = load_settings(tmp_path)
    except SettingsError as error:
        assert "\n" not in str(error)
    else:
        assert found.retry_policy.max_attempts >= 1


def test_the_environment_beats_the_file_and_an_empty_variable_does_not_count(tmp_path: Path) -> None:
    write(tmp_path, '{"maxAttempts": 5, "busMode": "files", "leaseTimeoutMs": 4000}')
    environment = {"RELAYMESH_MAX_ATTEMPTS": " 7 ", "RELAYMESH_BUS_MODE": "", "RELAYMESH_LEASE_TIMEOUT_MS": "3"}

    found = load(tmp_path, environment)

    assert (found.settings.max_attempts, found.settings.bus_mode, found.settings.lease_timeout_ms) == (7, "files", 100)
    assert found.of_root.values["maxAttempts"] == 5
    assert {name: found.effective.sources[name] for name in ("maxAttempts", "busMode", "maxBackoffMs")} == {
        "maxAttempts": Source.ENVIRONMENT,
        "busMode": Source.FILE,
        "maxBackoffMs": Source.DEFAULT,
    }


def test_a_bad_variable_is_refused_by_its_name_and_a_secret_is_not_repeated(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentSettingError, match=r"RELAYMESH_MAX_ATTEMPTS is not valid .*whole number"):
        load(tmp_path, {"RELAYMESH_MAX_ATTEMPTS": "many"})
    with pytest.raises(EnvironmentSettingError) as caught:
        load(tmp_path, {"RELAYMESH_GOSSIP_SHARED_SECRET": "s3cret" * 1000})

    assert "s3cret" not in str(caught.value)


@pytest.mark.skipif(os.name == "nt", reason="modes are those of POSIX")
def test_a_secret_that_others_can_read_is_noticed(tmp_path: Path) -> None:
    write(tmp_path, '{"gossipSharedSecret": "hush-hush"}')
    (tmp_path / SETTINGS_FILE).chmod(0o640)
    open_to_others = load(tmp_path).exposed
    (tmp_path / SETTINGS_FILE).chmod(0o600)

    assert open_to_others
    assert not load(tmp_path).exposed


def test_the_secret_is_in_no_repr(tmp_path: Path) -> None:
    write(tmp_path, '{"gossipSharedSecret": "hush-hush", "maxAttempts": 7}')

    found = load(tmp_path)

    assert found.settings.gossip_shared_secret == "hush-hush" and "max_attempts=7" in repr(found.settings)
    assert "hush" not in f"{found!r}{found.settings!r}{found.effective!r}"


def test_the_environment_of_the_process_is_what_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RELAYMESH_RETRY_DISPATCH_LIMIT", "9")

    assert load_settings(tmp_path).retry_dispatch_limit == 9


@pytest.mark.parametrize("coding", ["utf-16", "utf-16-be"])
def test_a_file_in_utf_16_is_named_as_that(tmp_path: Path, coding: str) -> None:
    mark = b"\xfe\xff" if coding == "utf-16-be" else b""
    write(tmp_path, mark + '{"maxAttempts": 4}'.encode(coding))

    with pytest.raises(SettingsError, match="UTF-16: save it as UTF-8"):
        load_settings(tmp_path)


def test_a_file_that_cannot_be_read_is_not_called_wrong(tmp_path: Path) -> None:
    (tmp_path / SETTINGS_FILE).mkdir()

    with pytest.raises(SettingsError) as raised:
        load_settings(tmp_path)

    assert "cannot be read" in str(raised.value) and "remove" not in str(raised.value)
