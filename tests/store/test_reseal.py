"""After a rotation everything that is stored comes under the new key, whatever happens meanwhile."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from relaymesh.store import read, seal
from relaymesh.store.keyring import Keyring
from relaymesh.store.reseal import Leftover, Reseal, leftover, pending, ring_of, rotate
from relaymesh.store.seal import KEYRING, PayloadKeyringMissingError
from relaymesh.store.snapshot import export_snapshot
from relaymesh.store.verify import verify_snapshot
from relaymesh.wire.store import Grant
from tests.store.bench import NOON, Bench
from tests.store.test_seal import LONG, SECRET, holding, run, switch

NOTHING = Leftover(0, 0, 0)


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
        run(bench, text)
    task_id = bench.flow({"id": "m", "map": [SECRET, LONG, "x"], "input": {"i": {"$item": ""}, "l": LONG}})
    bench.one(payload=LONG, agent="other")
    return inputs(bench) | {"flow": task_id}


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


def count(bench: Bench) -> Leftover:
    return leftover(bench.store, ring_of(bench.store))


def test_a_pass_brings_every_text_under_the_new_key_and_changes_none(sealed: Bench) -> None:
    fill(sealed)
    before = inputs(sealed), results(sealed)
    assert count(sealed) == NOTHING

    rotate(sealed.store, now_ms=NOON)
    assert count(sealed).old > 10
    done = whole(sealed)

    assert count(sealed) == NOTHING
    assert done.unread == 0
    assert (inputs(sealed), results(sealed)) == before
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
