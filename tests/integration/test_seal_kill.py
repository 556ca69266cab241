"""A rotation of the payload keys that is killed at any step of it: every text is read, and the next one goes on."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from relaymesh.client import Client
from relaymesh.core.payload_key import REST_MS
from relaymesh.store import seal
from relaymesh.store.key_use import count_use, remove_key
from relaymesh.store.keyring import Keyring
from relaymesh.store.reseal import Reseal, pending, ring_of, rotate
from relaymesh.wire.work import LogLine
from tests.inbox.test_intake import Desk
from tests.integration.killing import kill_at_every_step, kill_at_statement
from tests.store.bench import NOON, Bench
from tests.store.test_reseal import fill, inputs, results, said, whole
from tests.store.test_seal import SECRET, holding, run, switch

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform == "win32", reason="it forks")]


def texts(root: Path) -> object:
    bench = Bench(root)
    try:
        return inputs(bench), results(bench), said(bench)
    finally:
        bench.close()


def ring(root: Path) -> Keyring:
    bench = Bench(root)
    try:
        found = ring_of(bench.store)  # it is the one of the fingerprints, too
    finally:
        bench.close()
    assert found is not None
    return found


@pytest.fixture
def template(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A root with every kind of text, most of them encrypted and some from before that was switched on."""
    bench = Bench(tmp_path / "template")
    monkeypatch.setattr(seal, "SETTINGS_HOLD_NS", 0)
    bench.one(payload=SECRET)
    run(bench, SECRET, log=[LogLine(NOON, "INFO", SECRET)])
    switch(bench.root, on=True)
    fill(bench)
    bench.close()
    return bench.root


def copied(template: Path, root: Path) -> Path:
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(template, root)
    return root


def test_a_rotation_that_is_killed_at_any_step_has_made_a_key_or_not(template: Path, tmp_path: Path) -> None:
    root, before, old = tmp_path / "root", texts(template), ring(template)

    def prepare(_: int) -> Callable[[], object]:
        copied(template, root)
        return lambda: Client(root).payload_keys.rotate()

    totals = []
    for _ in kill_at_every_step(prepare, root / "security"):
        found = ring(root)
        totals.append(len(found.keys))
        assert set(old.keys) <= set(found.keys)
        assert texts(root) == before
        bench = Bench(root)
        if len(found.keys) == 2:  # nobody was told to bring texts under it, and they are all the same
            whole(bench, rows=50)
            assert count_use(bench.store).keys() == {found.active}
        assert rotate(bench.store, now_ms=NOON).active not in found.keys
        bench.close()
        assert texts(root) == before
    assert totals == sorted(totals) and set(totals) == {1, 2}, totals


def test_a_pass_that_is_killed_at_any_statement_loses_no_text_and_is_finished_by_the_next(
    template: Path, tmp_path: Path
) -> None:
    bench = Bench(template)
    active = rotate(bench.store, now_ms=NOON).active
    bench.close()
    root, before = tmp_path / "root", texts(template)

    def one_pass(on_statement: Callable[[str], None]) -> None:
        bench = Bench(root)
        keyring = pending(bench.store)
        assert keyring is not None
        found = Reseal(bench.store, keyring)
        bench.store.conn.set_trace_callback(on_statement)
        while found.piece(4, now_ms=bench.now_ms) is not None:
            pass
        bench.store.conn.set_trace_callback(None)

    statement, ended, brought = 1, False, []
    while not ended:
        copied(template, root)
        ended = kill_at_statement(statement, one_pass)
        assert texts(root) == before
        bench = Bench(root)
        use = count_use(bench.store)
        brought.append(use[active])
        if not ended:
            whole(bench, rows=50)
        assert count_use(bench.store).keys() == {active}
        bench.close()
        assert texts(root) == before
        statement += 7
    assert brought == sorted(brought) and len(set(brought)) > 4, brought


def test_a_removal_that_is_killed_at_any_step_leaves_a_keyring_that_fits(template: Path, tmp_path: Path) -> None:
    bench = Bench(template)
    old = ring_of(bench.store)
    assert old is not None
    new = rotate(bench.store, now_ms=NOON)
    whole(bench, rows=50)
    bench.close()
    root, before, now_ms = tmp_path / "root", texts(template), int(new.active[1:]) + REST_MS

    def remove() -> None:
        bench = Bench(root)
        remove_key(bench.store, old.active, now_ms=now_ms)

    def prepare(_: int) -> Callable[[], object]:
        copied(template, root)
        return remove

    totals = []
    for _ in kill_at_every_step(prepare, root):
        totals.append(len(ring(root).keys))
        assert texts(root) == before
        if totals[-1] == 2:
            remove()
        assert list(ring(root).keys) == [new.active]
        assert texts(root) == before
    assert totals == sorted(totals, reverse=True) and 2 in totals, totals

    def remove_traced(on_statement: Callable[[str], None]) -> None:
        bench = Bench(root)
        bench.store.conn.set_trace_callback(on_statement)
        remove_key(bench.store, old.active, now_ms=now_ms)
        bench.store.conn.set_trace_callback(None)

    statement, ended = 1, False
    while not ended:
        copied(template, root)
        ended = kill_at_statement(statement, remove_traced)
        assert len(ring(root).keys) == (1 if ended else 2)
        assert texts(root) == before
        statement += 1


def test_a_file_of_the_inbox_is_taken_in_once_and_left_empty_whichever_step_is_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seal, "SETTINGS_HOLD_NS", 0)
    template, root = tmp_path / "template", tmp_path / "root"
    desk = Desk(template)
    switch(template, on=True)
    desk.drop(data=json.dumps({"agent": "echo", "input": SECRET}).encode())
    desk.close()

    def prepare(_: int) -> Callable[[], object]:
        copied(template, root)
        return lambda: Desk(root, "first").run()

    for _ in kill_at_every_step(prepare, root):
        after = Desk(root, "second")
        after.intake.recover()
        after.intake.adopt(lambda owner: owner == "first")
        after.bench.now_ms += 60_000
        after.run()
        assert after.tasks() == ["a.json"]
        assert after.names("done") == ["a.json", "a.json.result.json"]
        after.close()
        assert holding(root) == []
        assert not (root / "processing" / "first").exists()
