"""The key that seals the audit log cannot be removed, or exchanged, unnoticed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from relaymesh import Client
from relaymesh.outcome import AuditIntegrityOutcome


@pytest.fixture
def client(tmp_path: Path) -> Client:
    client = Client(tmp_path / "data", actor="ann")
    client.submit("echo", "1")
    return client


def verify(client: Client, *, accept_key: bool = False) -> tuple[AuditIntegrityOutcome, str]:
    told: list[str] = []
    outcome = client.audit_verify(accept_key=accept_key, on_fault=told.append)
    return outcome, " ".join(told)


def test_a_key_that_stays_is_no_problem(client: Client) -> None:
    assert client.health().ok
    assert verify(client)[0].ok
    assert client.health().ok


@pytest.mark.parametrize("anchored", [True, False])
def test_a_removed_security_folder_is_told_of_after_the_next_record_made_a_new_key(
    client: Client, anchored: bool
) -> None:
    if anchored:
        client.health()
    shutil.rmtree(client.root / "security")
    client.submit("echo", "2")

    outcome, told = verify(client)

    assert (outcome.ok, outcome.reason, outcome.broken_line) == (False, "key_changed", 0)
    assert "no rotation was recorded: restore security/" in told
    assert "--accept-key" in told
    health = client.health()
    assert not health.ready
    assert any("no rotation was recorded" in problem for problem in health.problems)
    assert [json.loads(row)["result"] for row in client.audit_query(action="audit.key")] == ["replaced"]


def test_a_key_that_is_gone_is_told_of_before_another_is_made(client: Client) -> None:
    client.health()
    shutil.rmtree(client.root / "security")

    assert any("is gone: restore security/" in problem for problem in client.health().problems)


def test_a_key_of_another_root_is_told_of_also_where_the_chain_does_not(client: Client, tmp_path: Path) -> None:
    client.health()
    other = Client(tmp_path / "other")
    other.submit("echo", "1")
    shutil.rmtree(client.root / "security")
    shutil.copytree(other.root / "security", client.root / "security")

    outcome, told = verify(client)

    assert (outcome.ok, outcome.reason) == (False, "key_changed")
    assert "no rotation was recorded" in told


def test_the_key_that_comes_back_ends_it(client: Client, tmp_path: Path) -> None:
    client.health()
    shutil.copytree(client.root / "security", tmp_path / "kept")
    shutil.rmtree(client.root / "security")
    assert not client.health().ready

    shutil.rmtree(client.root / "security", ignore_errors=True)
    shutil.copytree(tmp_path / "kept", client.root / "security")

    assert client.health().ready


@pytest.mark.parametrize("anchored", [True, False])
def test_a_new_key_is_accepted_on_purpose_and_that_is_recorded(client: Client, anchored: bool) -> None:
    if anchored:
        client.health()
    shutil.rmtree(client.root / "security")
    client.submit("echo", "2")
    assert not verify(client)[0].ok

    accepted, told = verify(client, accept_key=True)

    assert (accepted.ok, told) == (True, "")
    assert client.health().ready
    newest = json.loads(client.audit_query(action="audit.key", limit=1)[0])
    assert (newest["result"], newest["actor"]) == ("accepted", "ann")
    assert len(newest["details"]["sealing_hash"]) == 32
