"""After a rotation everything that is stored comes under the new key, whatever happens meanwhile."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from relaymesh.core.payload_key import REST_MS
from relaymesh.store import read, seal
from relaymesh.store.key_use import NoSuchPayloadKeyError, PayloadKeyInUseError, count_use, remove_key
from relaymesh.store.keyring import Keyring
from relaymesh.store.payload import log_place
from relaymesh.store.reseal import Reseal, pending, ring_of, rotate
from relaymesh.store.seal import KEYRING, PayloadKeyringMissingError
from relaymesh.store.snapshot import export_snapshot
from relaymesh.store.verify import verify_snapshot
from relaymesh.wire.store import Grant
from relaymesh.wire.work import LogLine
from tests.store.bench import NOON, Bench
from tests.store.test_seal import LONG, SECRET, holding, run, switch


class Left(NamedTuple):
    """How many texts are under older keys, and in clear text."""

    old: int
    clear: int


NOTHING = Left(0, 0)


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


def whole(bench: Bench, rows: int = 3) -> Reseal:
    keyring = pending(bench.store)
    assert keyring is not None
    found = Reseal(bench.store, keyring)
    while found.piece(rows, now_ms=bench.now_ms) is not None:
        pass
    return found


def fill(bench: Bench) -> dict[str, str]:
    """Store every kind of text; return what comes out, by step."""
    for text in (SECRET, LONG):
        bench.one(payload=text)
        run(bench, text, log=[LogLine(NOON, "INFO", f"{SECRET} {number}") for number in range(5)])
    schedule(bench, SECRET)
    task_id = bench.flow({"id": "m", "map": [SECRET, LONG, "x"], "input": {"i": {"$item": ""}, "l": LONG}})
    bench.one(payload=LONG, agent="other")
    return inputs(bench) | {"flow": task_id}


def schedule(bench: Bench, text: str) -> None:
    conn, kept = bench.store.conn, bench.store.payloads.in_row("schedule", "sch_1", text)
    conn.execute(
        "INSERT INTO schedules(schedule_id, name, kind, agent_id, payload, cursor_ms, next_tick_ms, anchor_ms,"
        " created_at_ms, updated_at_ms) VALUES ('sch_1', 'one', 'once', 'echo', ?, 0, ?, ?, 0, 0)",
        (kept, bench.now_ms + 5, bench.now_ms + 5),
    )


def said(bench: Bench) -> list[str]:
    """Return all log lines, and the inputs of all schedules."""
    conn, text = bench.store.conn, bench.store.payloads.text
    rows = conn.execute("SELECT step_id, lease_epoch, line, text FROM attempt_logs ORDER BY 1, 2, 3")
    lines = [text("log", log_place(*key), value, None) or "" for *key, value in rows]
    rows = conn.execute("SELECT schedule_id, payload FROM schedules")
    return lines + [text("schedule", schedule_id, payload, None) or "" for schedule_id, payload in rows]


def inputs(bench: Bench) -> dict[str, str]:
    """Return the inputs of all steps that can be claimed, which are given back."""
    rows = bench.claimed_rows()
    found = {}
    for row in rows:
        grant = bench.store.render(row)
        assert isinstance(grant, Grant), grant
        found[row.lease.step_id] = grant.payload
    bench.release(*(row.lease for row in rows))
    return found


def results(bench: Bench) -> list[str | None]:
    conn, text = bench.store.conn, bench.store.payloads.text
    ids = [row[0] for row in conn.execute("SELECT task_id FROM tasks ORDER BY id")]
    views = [read.task_view(conn, task_id, text) for task_id in ids]
    return [view.result_payload for view in views if view is not None]


def count(bench: Bench) -> Left:
    use, ring = count_use(bench.store), ring_of(bench.store)
    clear = use.pop("", 0)
    return Left(use.total() - (use[ring.active] if ring is not None else 0), clear)


def test_a_pass_brings_every_text_under_the_new_key_and_changes_none(sealed: Bench) -> None:
    fill(sealed)
    before = inputs(sealed), results(sealed), said(sealed)
    assert count(sealed) == NOTHING

    rotate(sealed.store, now_ms=NOON)
    assert count(sealed).old > 10
    done = whole(sealed)

    assert count(sealed) == NOTHING
    assert done.unread == 0
    assert (inputs(sealed), results(sealed), said(sealed)) == before
    assert said(sealed).count(SECRET) == 1 and f"{SECRET} 4" in said(sealed)
    assert pending(sealed.store) is None


def test_a_pass_encrypts_what_was_stored_before_the_setting(bench: Bench) -> None:
    fill(bench)
    before = inputs(bench), [json.loads(text or "null") for text in results(bench)]
    switch(bench.root, on=True)

    rotate(bench.store, now_ms=NOON)
    whole(bench)

    assert count(bench) == NOTHING
    assert (inputs(bench), [json.loads(text or "null") for text in results(bench)]) == before
    assert bench.store.conn.execute("SELECT count(result_payload) + count(result_hash) FROM tasks").fetchone() == (0,)


def test_with_the_setting_off_a_pass_leaves_clear_text_and_takes_what_is_encrypted(bench: Bench) -> None:
    bench.one(payload="plain")
    switch(bench.root, on=True)
    bench.one(payload="hidden")
    switch(bench.root, on=False)

    rotate(bench.store, now_ms=NOON)
    whole(bench)

    assert (count(bench).old, count(bench).clear) == (0, 1)


def test_a_pass_that_was_cut_off_goes_on_where_it_was(sealed: Bench) -> None:
    for number in range(10):
        sealed.one(payload=f"{number}")
    rotate(sealed.store, now_ms=NOON)
    first = pending(sealed.store)
    assert first is not None
    Reseal(sealed.store, first).piece(4, now_ms=NOON)

    assert count(sealed).old == 6
    assert whole(sealed).changed == 6
    assert count(sealed) == NOTHING


def test_a_rotation_that_was_killed_before_it_could_ask_is_noticed(sealed: Bench) -> None:
    sealed.one(payload=SECRET)
    rotate(sealed.store, now_ms=NOON)
    sealed.store.conn.execute("DELETE FROM cluster_state WHERE state_key='payload_reseal'")

    whole(sealed)

    assert count(sealed) == NOTHING


def test_a_rotation_during_a_pass_begins_a_new_one(sealed: Bench) -> None:
    for number in range(10):
        sealed.one(payload=f"{number}")
    rotate(sealed.store, now_ms=NOON)
    keyring = pending(sealed.store)
    assert keyring is not None
    first = Reseal(sealed.store, keyring)
    first.piece(4, now_ms=NOON)
    rotate(sealed.store, now_ms=NOON)

    assert first.piece(4, now_ms=NOON) is None
    assert whole(sealed).changed == 10
    assert count(sealed) == NOTHING


def test_an_output_that_is_committed_between_the_look_and_the_write_is_not_overwritten(
    sealed: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    step_id = sealed.one(payload="input")
    (row,) = sealed.claimed_rows()
    sealed.succeed(row.lease, "first")
    rotate(sealed.store, now_ms=NOON)
    other = Bench(sealed.root)
    keyring = pending(sealed.store)
    assert keyring is not None
    found = Reseal(sealed.store, keyring)
    changes = found._changes

    def replaced_meanwhile(*args: object) -> object:
        result = changes(*args)  # type: ignore[arg-type]
        monkeypatch.undo()
        value = other.store.payloads.in_row("output", step_id, "second")
        other.store.conn.execute("UPDATE steps SET result_payload=?", (value,))
        return result

    monkeypatch.setattr(found, "_changes", replaced_meanwhile)
    while found.piece(3, now_ms=NOON) is not None:
        pass
    other.close()

    assert json.loads(results(sealed)[0] or "") == {step_id: "second"}
    assert count(sealed) == NOTHING


def test_a_text_that_cannot_be_opened_is_left_and_holds_nothing_up(sealed: Bench) -> None:
    broken, fine = sealed.one(payload=SECRET), sealed.one(payload=SECRET)
    data = bytes(sealed.step(broken)["payload"])[:-1] + b"?"  # type: ignore[arg-type]
    sealed.store.conn.execute("UPDATE steps SET payload=? WHERE step_id=?", (data, broken))
    rotate(sealed.store, now_ms=NOON)

    done = whole(sealed)

    assert (done.changed, done.unread, count(sealed).old) == (1, 1, 1)
    assert sealed.step(broken)["payload"] == data
    assert sealed.step(fine)["payload"] != data


def test_the_copies_of_a_map_step_keep_sharing_one_file(sealed: Bench) -> None:
    sealed.flow({"id": "m", "map": list(range(20)), "input": {"i": {"$item": ""}, "l": LONG}})
    rotate(sealed.store, now_ms=NOON)

    whole(sealed, rows=7)

    paths = {row[0] for row in sealed.store.conn.execute("SELECT payload_path FROM steps")}
    assert len(paths) == 1
    assert set(inputs(sealed).values()) == {json.dumps({"i": n, "l": LONG}, separators=(",", ":")) for n in range(20)}


def test_a_root_that_lost_its_keyring_is_not_given_a_new_one_by_a_rotation(sealed: Bench) -> None:
    sealed.one(payload=SECRET)
    (sealed.root / KEYRING).unlink()

    with pytest.raises(PayloadKeyringMissingError):
        rotate(sealed.store, now_ms=NOON)
    assert not (sealed.root / KEYRING).exists()


def test_a_first_key_alone_asks_for_no_pass(sealed: Bench) -> None:
    assert pending(sealed.store) is None
    sealed.one(payload=SECRET)
    assert pending(sealed.store) is None


def test_a_snapshot_holds_encrypted_texts_and_their_keys_and_nothing_in_clear_text(
    sealed: Bench, tmp_path: Path
) -> None:
    fill(sealed)
    rotate(sealed.store, now_ms=NOON)
    whole(sealed)

    export_snapshot(sealed.store, tmp_path / "out", now_ms=NOON)

    assert verify_snapshot(tmp_path / "out").ok
    assert holding(tmp_path / "out") == []
    copy = Bench(tmp_path / "out" / "relaymesh-root")
    assert inputs(copy) == inputs(sealed)
    copy.close()
    assert (tmp_path / "out" / "relaymesh-root" / KEYRING).stat().st_mode & 0o077 == 0


def test_a_keyring_does_not_show_its_keys(sealed: Bench) -> None:
    keyring = rotate(sealed.store, now_ms=NOON)

    assert isinstance(keyring, Keyring)
    assert repr(next(iter(keyring.keys.values()))) not in repr(keyring)


def test_an_old_key_is_removed_only_when_nothing_needs_it(sealed: Bench) -> None:
    fill(sealed)
    old = ring_of(sealed.store)
    assert old is not None

    def refused(kid: str, now_ms: int) -> str:
        before = (sealed.root / KEYRING).read_bytes()
        with pytest.raises(PayloadKeyInUseError) as caught:
            remove_key(sealed.store, kid, now_ms=now_ms)
        assert (sealed.root / KEYRING).read_bytes() == before
        return caught.value.why

    assert "active" in refused(old.active, NOON)
    new = rotate(sealed.store, now_ms=NOON)
    later = int(new.active[1:]) + REST_MS
    assert "brought" in refused(old.active, later)
    whole(sealed)
    assert "moment" in refused(old.active, later - 1)
    with pytest.raises(NoSuchPayloadKeyError):
        remove_key(sealed.store, "k1", now_ms=later)

    left = remove_key(sealed.store, old.active, now_ms=later)

    assert list(left.keys) == [new.active]
    again = Bench(sealed.root)
    assert inputs(again) and results(again) and said(again)
    again.one(payload="goes on")
    again.close()


def test_a_key_that_one_text_needs_is_kept(sealed: Bench) -> None:
    step_id = sealed.one(payload=SECRET)
    old = ring_of(sealed.store)
    assert old is not None
    data = sealed.step(step_id)["payload"]
    new = rotate(sealed.store, now_ms=NOON)
    whole(sealed)
    # Of a process that was stopped between encrypting and storing, for as long as all this took.
    sealed.store.conn.execute("UPDATE steps SET payload=? WHERE step_id=?", (data, step_id))

    with pytest.raises(PayloadKeyInUseError, match="1 texts need it"):
        remove_key(sealed.store, old.active, now_ms=int(new.active[1:]) + REST_MS)

    assert set(inputs(sealed).values()) == {SECRET}


def test_a_snapshot_without_its_keyring_is_called_damaged(sealed: Bench, tmp_path: Path) -> None:
    fill(sealed)
    export_snapshot(sealed.store, tmp_path / "out", now_ms=NOON)
    keyring = tmp_path / "out" / "relaymesh-root" / KEYRING
    data = keyring.read_bytes()

    keyring.unlink()
    found = verify_snapshot(tmp_path / "out")
    keyring.write_bytes(data)
    keyring.chmod(0o600)

    assert not found.ok
    assert f"{KEYRING} is missing, and texts are encrypted" in found.problems
    assert verify_snapshot(tmp_path / "out").ok
