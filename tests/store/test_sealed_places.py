"""Texts that come on other ways than a submit: schedules, edits, failures, progress, and a root without processes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from relaymesh.client import Client
from relaymesh.store import seal
from relaymesh.store.dead_letter import stored_input
from relaymesh.store.keyring import rotate_keyring
from relaymesh.store.schedule_fire import LATER_MS
from relaymesh.store.seal import KEYRING
from relaymesh.testing import InlineRelay
from relaymesh.wire.store import Grant
from tests.store.bench import NOON, Bench
from tests.store.test_seal import SECRET, holding, switch


@pytest.fixture(autouse=True, scope="module")
def looks_at_once() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(seal, "SETTINGS_HOLD_NS", 0)
        yield


@pytest.fixture
def sealed(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path / "root")
    switch(bench.root, on=True)
    yield bench
    bench.close()


def scheduled(bench: Bench, **more: object) -> None:
    client = Client(bench.root, now_ms=lambda: bench.now_ms)
    client.schedules.create("often", every_ms=1_000, agent="echo", input=SECRET, **more)  # type: ignore[arg-type]
    client.close()


def test_a_schedule_waits_for_its_keyring_and_misses_nothing(sealed: Bench) -> None:
    scheduled(sealed, missed="all")
    right = (sealed.root / KEYRING).read_bytes()
    (sealed.root / KEYRING).unlink()
    rotate_keyring(sealed.root, NOON)
    again = Bench(sealed.root)
    again.now_ms = sealed.now_ms + 3_000
    store = again.store

    with store.write():
        assert store.fire_due(now_ms=again.now_ms) == []
    state = "SELECT state, next_tick_ms, last_error, made FROM schedules"
    assert store.conn.execute(state).fetchone() == ("ACTIVE", again.now_ms + LATER_MS, None, 0)
    (sealed.root / KEYRING).write_bytes(right)
    with store.write():
        fired = store.fire_due(now_ms=again.now_ms + LATER_MS)

    assert [tick.result for tick in fired].count("submitted") == 10
    rendered = [store.render(row) for row in again.claimed_rows()]
    assert {grant.payload for grant in rendered if isinstance(grant, Grant)} == {SECRET}
    assert holding(sealed.root) == []
    again.close()


def test_a_schedule_whose_input_was_changed_is_paused_with_the_reason(sealed: Bench) -> None:
    scheduled(sealed)
    conn = sealed.store.conn
    conn.execute("UPDATE schedules SET payload=substr(payload, 1, length(payload)-1) || x'00'")
    conn.execute("UPDATE schedules SET payload=CAST(payload AS BLOB)")

    with sealed.store.write():
        (fired,) = sealed.store.fire_due(now_ms=sealed.now_ms + 2_000)

    assert (fired.result, fired.reason) == ("failed", "payload_tampered")
    state, error = conn.execute("SELECT state, last_error FROM schedules").fetchone()
    assert state == "PAUSED" and error.startswith("payload_tampered: ")


def test_what_is_shown_of_a_schedule_does_not_depend_on_how_it_is_stored(sealed: Bench) -> None:
    scheduled(sealed)
    client = Client(sealed.root)
    hidden = client.schedules.show("often").schedule
    row = json.loads(client.audit_query(action="schedule.create")[0])
    client.schedules.delete("often")
    switch(sealed.root, on=False)
    scheduled(sealed)
    plain = client.schedules.show("often").schedule
    client.close()

    assert (hidden.input_bytes, hidden.input_sha256) == (plain.input_bytes, plain.input_sha256)
    assert row["details"]["input_sha256"] is None and row["details"]["input_keyed_hash"]


def test_the_input_of_a_dead_copy_of_a_map_step_is_replaced_and_read(sealed: Bench) -> None:
    sealed.flow({"id": "m", "map": [1, 2], "input": {"i": {"$item": ""}, "too": SECRET}})
    rows = sealed.claimed_rows()
    for row in rows:
        sealed.fail(row.lease, retryable=False)
    first = rows[0].lease
    assert SECRET in stored_input(sealed.store.conn, first.step_id, sealed.store.payloads.text)

    with sealed.store.write():
        sealed.store.replay(first.task_id, now_ms=sealed.now_ms, edits={first.step_id: f"{SECRET} anew"})

    rendered = {row.lease.step_id: sealed.store.render(row) for row in sealed.claimed_rows()}
    grant = rendered[first.step_id]
    assert isinstance(grant, Grant) and grant.payload == f"{SECRET} anew"
    assert holding(sealed.root) == []


def test_the_hash_of_an_encrypted_text_tells_texts_apart_and_cannot_be_guessed_at(
    sealed: Bench, tmp_path: Path
) -> None:
    other = Bench(tmp_path / "other")
    ours, plain = sealed.store.payloads.seal, other.store.payloads.seal.trace("a")
    switch(other.root, on=True)
    theirs = other.store.payloads.seal.trace("a")
    other.close()

    assert ours.trace("a") == ours.trace("a") != ours.trace("b")
    assert "sha256" in plain and "sha256" not in ours.trace("a")
    assert theirs["keyed_hash"] != ours.trace("a")["keyed_hash"]


def test_a_root_without_processes_encrypts_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RELAYMESH_PAYLOAD_ENCRYPTION", "true")
    with InlineRelay() as relay:
        good, bad = relay.submit("echo", SECRET).task_id, relay.submit("fail", SECRET).task_id
        relay.run()

        assert SECRET in (relay.output(good) or "")
        assert (relay.task(bad).last_error or "").startswith("agent_error: see `relaymesh logs")
        assert holding(relay.root) == []
