"""The commands about payload keys, on a real root; and what a root without encryption does not load."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from relaymesh.client import Client
from relaymesh.core.payload_key import REST_MS


def run(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "relaymesh", "--root", str(root), "--output", "json", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.fixture
def encrypted(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    root.mkdir()
    (root / "relaymesh-settings.json").write_text('{"payloadEncryption": true}')
    with Client(root) as client:
        client.submit("echo", "hello")
    return root


def test_status_rotate_and_remove_say_what_they_did_and_never_a_key(encrypted: Path) -> None:
    keyring = encrypted / "security" / "payload-keys.json"
    before = json.loads(run(encrypted, "payload-key-status").stdout)
    rotated = json.loads(run(encrypted, "payload-key-rotate").stdout)
    counted = json.loads(run(encrypted, "payload-key-status", "--count").stdout)
    refused = run(encrypted, "payload-key-remove", before["activeKid"])

    assert list(before) == list(rotated) == ["activeKid", "totalKeys", "keyFile"]
    assert (before["totalKeys"], rotated["totalKeys"]) == (1, 2)
    assert rotated["keyFile"] == str(keyring) and rotated["activeKid"] != before["activeKid"]
    assert (counted["underOldKeys"], counted["inClearText"]) == (1, 0)
    assert counted["keys"] == [
        {"kid": before["activeKid"], "active": False, "texts": 1},
        {"kid": rotated["activeKid"], "active": True, "texts": 0},
    ]
    assert refused.returncode == 1
    assert json.loads(refused.stderr)["code"] == "payload_key_in_use"
    with Client(encrypted) as client:
        rows = [json.loads(row) for row in client.audit_query(action="payload.key.rotate")]
    assert [row["details"]["total_keys"] for row in rows] == [2]
    secrets = json.loads(keyring.read_text())["keys"].values()
    said = json.dumps([before, rotated, counted, rows])
    assert not any(secret in said for secret in secrets)


def test_a_key_that_nothing_needs_is_removed_and_that_is_recorded(encrypted: Path) -> None:
    from relaymesh.store.reseal import Reseal, pending
    from relaymesh.store.store import Store

    with Client(encrypted) as client:
        old, new = client.payload_keys.status().active_kid, client.payload_keys.rotate().active_kid
        store = client._writable()
        assert isinstance(store, Store)
        keyring = pending(store)
        assert keyring is not None
        todo = Reseal(store, keyring)
        while todo.piece(50, now_ms=0) is not None:
            pass
    with Client(encrypted, now_ms=lambda: int(new[1:]) + REST_MS) as client:
        left = client.payload_keys.remove(old)
        (row,) = (json.loads(row) for row in client.audit_query(action="payload.key.remove"))

    assert (left.active_kid, left.total_keys) == (new, 1)
    assert row["details"]["removed_kid"] == old


@pytest.mark.parametrize("words", [["task"], ["submit", "--agent", "echo", "--input", "x"], ["tasks"]])
def test_a_root_without_encryption_loads_nothing_of_it(tmp_path: Path, words: list[str]) -> None:
    with Client(tmp_path / "root") as client:
        task_id = client.submit("echo", "hello").task_id
    loaded = [
        "nacl",
        "nacl.bindings",
        "relaymesh.store.keyring",
        "relaymesh.wire.sealed",
        "relaymesh.store.reseal",
    ]
    program = (
        "import sys; from relaymesh.cli import main; status = main(sys.argv[1:]);"
        f"found = [name for name in {loaded} if name in sys.modules];"
        "sys.exit(str(found) if found or status else 0)"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    full = ["--root", str(tmp_path / "root"), *words, *([task_id] if words == ["task"] else [])]

    done = subprocess.run([sys.executable, "-c", program, *full], env=environment, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
