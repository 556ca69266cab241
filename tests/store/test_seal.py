"""Texts that are encrypted at rest: where they lie, who can read them, and what happens when nobody can."""

from __future__ import annotations

import base64
import json
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaymesh.core.outcome import Failed
from relaymesh.store import read, seal
from relaymesh.store.error import SealError
from relaymesh.store.keyring import PayloadKeyringError, load_keyring
from relaymesh.store.keyring import rotate_keyring as rotate
from relaymesh.store.seal import (
    KEYRING,
    PayloadKeyringMissingError,
    PayloadKeyringWrongError,
    PayloadKeyUnknownError,
    PayloadTamperedError,
    Seal,
)
from relaymesh.wire.sealed import KID_BYTES_MAX, NONCE_BYTES, Sealed, pack, unpack
from relaymesh.wire.store import Grant
from relaymesh.wire.work import LogLine
from tests.store.bench import NOON, Bench

SECRET = "the-secret-of-the-seal"
LONG = f"{SECRET} " * 8_000


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


def switch(root: Path, *, on: bool) -> None:
    path = root / "relaymesh-settings.json"
    path.write_text(json.dumps({"payloadEncryption": on}))
    os.utime(path, ns=(NOON + on, NOON + on))  # the clock of a file system may be too coarse to tell two writes apart


def holding(root: Path, text: str = SECRET) -> list[str]:
    return sorted(
        path.relative_to(root).as_posix()
        for path in root.rglob("*")
        if path.is_file() and text.encode() in path.read_bytes()
    )


def run(bench: Bench, output: str = "done", **more: object) -> str:
    (row,) = bench.claimed_rows()
    grant = bench.store.render(row)
    assert isinstance(grant, Grant), grant
    bench.succeed(row.lease, output, **more)  # type: ignore[arg-type]
    return grant.payload


def failure(bench: Bench) -> Failed:
    (row,) = bench.claimed_rows()
    rendered = bench.store.render(row)
    assert not isinstance(rendered, Grant)
    return rendered[1]


@pytest.mark.parametrize("text", [SECRET, LONG], ids=["in a row", "in a file"])
def test_no_input_output_or_log_line_lies_in_clear_text(sealed: Bench, text: str) -> None:
    step_id = sealed.one(payload=text)
    assert run(sealed, text, log=[LogLine(NOON, "INFO", SECRET)]) == text

    assert holding(sealed.root) == []
    task = sealed.task_of(step_id)
    assert (task["status"], task["result_payload"], task["result_hash"]) == ("SUCCESS", None, None)
    conn, text_of = sealed.store.conn, sealed.store.payloads.text
    view = read.task_view(conn, str(task["task_id"]), text_of)
    assert view is not None and json.loads(view.result_payload or "") == {step_id: text}
    (line,) = read.log_entries(conn, read.log_keys(conn, [(step_id, 1)]), text_of)
    assert line.text == SECRET


def test_a_map_its_items_and_their_outputs_are_encrypted(sealed: Bench) -> None:
    task_id = sealed.flow(
        {"id": "m", "map": [f"{SECRET}-1", f"{SECRET}-2"], "input": {"is": {"$item": ""}, "too": SECRET}},
        {"id": "end", "input": {"$from": "m"}},
    )
    for _ in range(2):
        row, *_ = sealed.claimed_rows(limit=1)
        grant = sealed.store.render(row)
        assert isinstance(grant, Grant)
        sealed.succeed(row.lease, grant.payload)

    joined = json.loads(run(sealed, SECRET))

    assert [json.loads(item)["is"] if isinstance(item, str) else item["is"] for item in joined] == [
        f"{SECRET}-1",
        f"{SECRET}-2",
    ]
    assert holding(sealed.root) == []
    assert sealed.task(task_id)["status"] == "SUCCESS"


def test_without_the_setting_nothing_is_encrypted_and_no_key_is_made(bench: Bench) -> None:
    bench.one(payload=SECRET)

    assert run(bench) == SECRET
    assert holding(bench.root) != []
    assert not (bench.root / KEYRING).exists()


def test_texts_of_before_and_after_a_switch_are_both_read(bench: Bench) -> None:
    plain = bench.one(payload="plain")
    switch(bench.root, on=True)
    hidden = bench.one(payload="hidden")
    switch(bench.root, on=False)
    again = bench.one(payload="again")

    kinds = [type(bench.step(step)["payload"]) for step in (plain, hidden, again)]
    assert kinds == [str, bytes, str]
    rendered = [bench.store.render(row) for row in bench.claimed_rows()]
    assert [grant.payload for grant in rendered if isinstance(grant, Grant)] == ["plain", "hidden", "again"]


def test_a_text_that_looks_like_a_ciphertext_is_passed_through(bench: Bench) -> None:
    switch(bench.root, on=True)
    step_id = bench.one(payload="hidden")
    looks = bytes(bench.step(step_id)["payload"]).decode("latin-1")  # type: ignore[arg-type]
    run(bench)
    name = f"payload/ab/{'ab' * 32}.sealed"
    for on in (False, True):
        switch(bench.root, on=on)
        for text in (looks, name, '{"enc":"relaymesh.aesgcm.v1","kid":"k1","iv":"","ct":""}'):
            bench.one(payload=text)
            assert run(bench, text) == text


@pytest.mark.parametrize("text", ["short", LONG], ids=["in a row", "in a file"])
def test_a_ciphertext_that_was_moved_to_another_row_fails_that_step_for_good(sealed: Bench, text: str) -> None:
    one, other = sealed.one(payload=text), sealed.one(payload=f"another {text}")
    row = sealed.step(one)
    sealed.store.conn.execute(
        "UPDATE steps SET payload=?, payload_path=? WHERE step_id=?", (row["payload"], row["payload_path"], other)
    )
    rendered = {row.lease.step_id: sealed.store.render(row) for row in sealed.claimed_rows()}

    first, moved = rendered[one], rendered[other]
    assert isinstance(first, Grant) and first.payload == text
    assert not isinstance(moved, Grant)
    assert (moved[1].code, moved[1].retryable) == ("payload_tampered", False)


def test_an_output_does_not_pass_for_an_input_of_the_same_step(sealed: Bench) -> None:
    vault = sealed.store.payloads.seal
    data = vault.seal("output", "stp_1", SECRET)

    with pytest.raises(PayloadTamperedError):
        vault.open("payload", "stp_1", data)


def test_no_changed_bit_is_accepted(sealed: Bench) -> None:
    vault = sealed.store.payloads.seal
    good = vault.seal("payload", "stp_1", SECRET)

    for bit in range(len(good) * 8):
        changed = bytearray(good)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(SealError):
            vault.open("payload", "stp_1", bytes(changed))


@given(
    st.text(st.characters(max_codepoint=127), min_size=1, max_size=KID_BYTES_MAX),
    st.binary(min_size=NONCE_BYTES, max_size=NONCE_BYTES),
    st.binary(min_size=16, max_size=64),
)
def test_the_parts_of_a_ciphertext_come_back(kid: str, nonce: bytes, ciphertext: bytes) -> None:
    sealed = Sealed(kid, nonce, ciphertext)

    assert unpack(pack(sealed)) == sealed


@given(st.binary(max_size=80))
def test_bytes_that_are_no_ciphertext_are_refused_or_taken_apart(data: bytes) -> None:
    found = unpack(data)

    assert found is None or pack(found) == data


def test_a_running_process_notices_a_rotation_before_its_next_write(sealed: Bench) -> None:
    old = sealed.one(payload="old")
    first = load_keyring(sealed.root)
    ring = rotate(sealed.root, NOON)
    new = sealed.one(payload="new")

    assert first is not None and first.active != ring.active and len(ring.keys) == 2
    kids = [found.kid for step in (old, new) if (found := unpack(bytes(sealed.step(step)["payload"])))]  # type: ignore[arg-type]
    assert kids == [first.active, ring.active]
    rendered = [sealed.store.render(row) for row in sealed.claimed_rows()]
    assert [grant.payload for grant in rendered if isinstance(grant, Grant)] == ["old", "new"]


def test_a_process_that_only_reads_finds_a_key_that_it_does_not_know_yet(sealed: Bench) -> None:
    vault = Seal(sealed.root, None)
    assert vault.open("payload", "stp_1", sealed.store.payloads.seal.seal("payload", "stp_1", "old")) == "old"
    rotate(sealed.root, NOON)

    assert vault.open("payload", "stp_1", sealed.store.payloads.seal.seal("payload", "stp_1", "new")) == "new"


def test_a_keyring_that_is_gone_is_not_made_anew(sealed: Bench) -> None:
    sealed.one(payload=SECRET)
    (sealed.root / KEYRING).unlink()

    with pytest.raises(PayloadKeyringMissingError):
        sealed.one(payload="another")
    again = Bench(sealed.root)
    with pytest.raises(PayloadKeyringMissingError):
        again.one(payload="another")
    (row,) = again.claimed_rows()
    with pytest.raises(PayloadKeyringMissingError):
        again.store.render(row)
    again.close()
    assert not (sealed.root / KEYRING).exists()


def test_a_step_waits_for_the_right_keyring(sealed: Bench) -> None:
    step_id = sealed.one(payload=SECRET)
    right = (sealed.root / KEYRING).read_bytes()
    (sealed.root / KEYRING).unlink()
    rotate(sealed.root, NOON)
    again = Bench(sealed.root)
    (row,) = again.claimed_rows()

    with pytest.raises(PayloadKeyUnknownError, match="does not hold it"):
        again.store.render(row)
    again.release(row.lease)
    (sealed.root / KEYRING).write_bytes(right)

    (row,) = again.claimed_rows()
    grant = again.store.render(row)
    assert isinstance(grant, Grant) and (grant.payload, row.lease.attempt) == (SECRET, 1)
    assert sealed.step(step_id)["status"] == "RUNNING"
    again.close()


@pytest.mark.parametrize("how", ["another", "same name"])
def test_nothing_is_encrypted_with_the_keyring_of_another_root(sealed: Bench, how: str) -> None:
    step_id = sealed.one(payload=SECRET)
    right = (sealed.root / KEYRING).read_text()
    kid = json.loads(right)["active_kid"]
    name = kid if how == "same name" else "k1"
    key = base64.b64encode(bytes(32)).decode()
    ring = {"schema": "relaymesh.payload.keys.v1", "active_kid": name, "keys": {name: key}}
    (sealed.root / KEYRING).write_text(json.dumps(ring))
    again = Bench(sealed.root)

    for bench in (sealed, again):
        with pytest.raises(PayloadKeyringWrongError, match=kid):
            bench.one(payload="another")
    assert again.store.conn.execute("SELECT count(*) FROM tasks").fetchone() == (1,)
    (sealed.root / KEYRING).write_text(right)
    new = again.one(payload="another")

    rows = {row.lease.step_id: again.store.render(row) for row in again.claimed_rows()}
    assert [grant.payload for grant in (rows[step_id], rows[new]) if isinstance(grant, Grant)] == [SECRET, "another"]
    again.close()


def test_an_output_goes_under_the_keyring_of_before_when_that_has_just_gone(sealed: Bench) -> None:
    sealed.one(payload="x")
    right = (sealed.root / KEYRING).read_bytes()
    (row,) = sealed.claimed_rows()
    sealed.store.render(row)
    (sealed.root / KEYRING).write_text("{}")

    sealed.succeed(row.lease, SECRET, log=[LogLine(NOON, "INFO", SECRET)])

    assert sealed.step(row.lease.step_id)["status"] == "SUCCESS"
    assert holding(sealed.root) == []
    (sealed.root / KEYRING).write_bytes(right)
    again = Bench(sealed.root)
    view = read.task_view(again.store.conn, row.lease.task_id, again.store.payloads.text)
    again.close()
    assert view is not None and SECRET in (view.result_payload or "")


def test_an_output_that_cannot_be_encrypted_is_a_failure_and_not_clear_text(bench: Bench) -> None:
    step_id = bench.one(payload="x")
    (row,) = bench.claimed_rows()
    switch(bench.root, on=True)
    (bench.root / "security").mkdir(exist_ok=True)
    (bench.root / KEYRING).write_text("{}")

    bench.succeed(row.lease, SECRET, log=[LogLine(NOON, "INFO", SECRET)])

    step = bench.step(step_id)
    assert step["status"] == "DEAD_LETTER" and "keyring" in str(step["last_error"])
    assert holding(bench.root) == []


_SCHEMA = '"schema":"relaymesh.payload.keys.v1","active_kid":"k1"'


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", f'{{{_SCHEMA},"keys":{{}}}}', f'{{{_SCHEMA},"keys":{{"k1":"c2hvcnQ="}}}}']
)
def test_a_damaged_keyring_is_refused_and_left_as_it_is(tmp_path: Path, content: str) -> None:
    path = tmp_path / KEYRING
    path.parent.mkdir()
    path.write_text(content)

    for act in (lambda: load_keyring(tmp_path), lambda: rotate(tmp_path, NOON)):
        with pytest.raises(PayloadKeyringError):
            act()
    assert path.read_text() == content


def test_an_active_kid_that_is_not_in_the_ring_falls_back_to_the_first_key(tmp_path: Path) -> None:
    ring = rotate(tmp_path, NOON)
    rotate(tmp_path, NOON + 1)
    path = tmp_path / KEYRING
    path.write_text(json.dumps({**json.loads(path.read_text()), "active_kid": "k0"}))

    found = load_keyring(tmp_path)

    assert found is not None and found.active == ring.active == f"k{NOON}"


def test_keys_made_in_one_millisecond_have_names_of_their_own(tmp_path: Path) -> None:
    for _ in range(3):
        ring = rotate(tmp_path, NOON)

    assert list(ring.keys) == [f"k{NOON}", f"k{NOON + 1}", f"k{NOON + 2}"]
    assert ring.active == f"k{NOON + 2}"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no modes")
def test_only_the_owner_reads_the_keyring(tmp_path: Path) -> None:
    rotate(tmp_path, NOON)
    (tmp_path / KEYRING).chmod(0o644)
    rotate(tmp_path, NOON + 1)

    assert stat.S_IMODE((tmp_path / KEYRING).stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / KEYRING).parent.stat().st_mode) == 0o700
    assert os.listdir(tmp_path / "security") == ["payload-keys.json"]


def test_a_settings_file_that_turns_bad_does_not_switch_encryption_off(sealed: Bench) -> None:
    sealed.one(payload=SECRET)
    (sealed.root / "relaymesh-settings.json").write_text("{")
    sealed.one(payload=SECRET)
    again = Bench(sealed.root)
    again.one(payload=SECRET)
    again.close()

    assert holding(sealed.root) == []
