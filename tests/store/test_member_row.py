"""Heartbeats in the table of members: the rules of silence, written only over what they were decided from."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relaymesh.core.mesh.silence import Patience, Row, heard, judged
from relaymesh.store.grave import prune
from relaymesh.store.member import reconcile
from relaymesh.store.member_row import MEMBERS_MAX, fresh_members, hear_members, member_count
from relaymesh.store.store import Store

NOON = 1_700_000_000_000
PATIENCE = Patience()
COLUMNS = "status, last_heartbeat_ms, updated_at_ms, status_changed_at_ms"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open(tmp_path / "root", now_ms=NOON)
    yield opened
    opened.close()


def row(conn: sqlite3.Connection, node_id: str) -> tuple[object, ...] | None:
    found = conn.execute(f"SELECT {COLUMNS} FROM mesh_nodes WHERE node_id=?", (node_id,)).fetchone()
    return None if found is None else tuple(found)


def put(conn: sqlite3.Connection, node_id: str, status: str, heartbeat_ms: int, changed_ms: int) -> None:
    conn.execute(
        f"INSERT INTO mesh_nodes(node_id, {COLUMNS}) VALUES (?,?,?,?,?)",
        (node_id, status, heartbeat_ms, changed_ms, changed_ms),
    )


def test_an_unknown_node_that_is_heard_is_alive(store: Store) -> None:
    with store.write():
        written = hear_members(store.conn, [("a", NOON - 7)], now_ms=NOON, patience=PATIENCE)

    assert written == (1, 0)
    assert row(store.conn, "a") == ("ALIVE", NOON - 7, NOON, NOON)


def test_a_heartbeat_that_is_not_newer_changes_nothing_not_even_after_the_dwell(store: Store) -> None:
    with store.write():
        put(store.conn, "a", "DEAD", NOON - 100_000, NOON - 40_000)
        written = hear_members(store.conn, [("a", NOON - 100_000)], now_ms=NOON, patience=PATIENCE)

    assert written == (0, 0)
    assert row(store.conn, "a") == ("DEAD", NOON - 100_000, NOON - 40_000, NOON - 40_000)


def test_a_recovery_is_held_back_during_the_dwell_time_and_told(store: Store) -> None:
    with store.write():
        put(store.conn, "a", "DEAD", NOON - 70_000, NOON - 29_999)
        first = hear_members(store.conn, [("a", NOON - 1)], now_ms=NOON, patience=PATIENCE)
        second = hear_members(store.conn, [("a", NOON + 1)], now_ms=NOON + 1, patience=PATIENCE)

    assert (first, second) == ((1, 1), (1, 0))
    assert row(store.conn, "a") == ("ALIVE", NOON + 1, NOON + 1, NOON + 1)


def test_what_a_member_said_before_it_was_pruned_does_not_bring_it_back(store: Store) -> None:
    with store.write():
        put(store.conn, "a", "DEAD", NOON - 100_000, NOON - 90_000)
        prune(store.conn, older_than_ms=0, limit=9, now_ms=NOON)
        before = hear_members(store.conn, [("a", NOON)], now_ms=NOON + 5, patience=PATIENCE)
        after = hear_members(store.conn, [("a", NOON + 1)], now_ms=NOON + 5, patience=PATIENCE)

    assert (before.applied, after.applied) == (0, 1)
    assert row(store.conn, "a") == ("ALIVE", NOON + 1, NOON + 5, NOON + 5)


def test_only_what_is_young_is_passed_on_and_nobody_that_has_left(store: Store) -> None:
    with store.write():
        for name, heartbeat_ms, status in (
            ("me", NOON, "ALIVE"),
            ("young", NOON - 120_000, "DEAD"),
            ("old", NOON - 120_001, "ALIVE"),
            ("ahead", NOON + 300_001, "ALIVE"),
            ("left", NOON, "LEFT"),
        ):
            put(store.conn, name, status, heartbeat_ms, 0)
        found = fresh_members(store.conn, now_ms=NOON, patience=PATIENCE, but="me")

    assert [tuple(one) for one in found] == [("young", NOON - 120_000)]


def test_a_full_table_takes_no_unknown_node_in_and_still_hears_those_it_knows(store: Store) -> None:
    with store.write():
        store.conn.executemany(
            f"INSERT INTO mesh_nodes(node_id, {COLUMNS}) VALUES (?,'ALIVE',1,1,1)",
            [(f"n{number}",) for number in range(MEMBERS_MAX)],
        )
        written = hear_members(store.conn, [("one-more", NOON), ("n7", NOON)], now_ms=NOON, patience=PATIENCE)

    assert written.applied == 1
    assert row(store.conn, "one-more") is None
    assert member_count(store.conn) == MEMBERS_MAX


@given(
    st.lists(
        st.tuples(st.sampled_from("ab"), st.integers(-90_000, 5_000), st.integers(0, 40_000)), min_size=1, max_size=12
    )
)
@settings(max_examples=30, deadline=None)
def test_the_table_goes_the_way_of_the_rules(steps: list[tuple[str, int, int]]) -> None:
    conn = sqlite3.connect(":memory:")
    conn.execute(f"CREATE TABLE mesh_nodes(node_id TEXT PRIMARY KEY, {COLUMNS})")
    conn.execute("CREATE INDEX mesh_nodes_silent ON mesh_nodes(status, last_heartbeat_ms)")
    conn.execute("CREATE TABLE cluster_state(state_key, state_value, version, updated_at_ms)")
    model: dict[str, Row] = {}
    now_ms = NOON
    for node_id, offset_ms, gap_ms in steps:
        now_ms += gap_ms
        beat_ms = now_ms + offset_ms
        known = model.get(node_id)
        if known is None or beat_ms > known.heartbeat_ms:
            after = heard(known, beat_ms, now_ms, PATIENCE).row
            assert after is not None
            model[node_id] = after
        for name, one in model.items():
            verdict = judged(one, now_ms, PATIENCE)
            if verdict is not None:
                model[name] = Row(verdict, one.heartbeat_ms, now_ms, now_ms)
        hear_members(conn, [(node_id, beat_ms)], now_ms=now_ms, patience=PATIENCE)
        reconcile(conn, now_ms=now_ms, patience=PATIENCE)

    assert {name: Row(*row(conn, name)) for name in model} == model  # type: ignore[misc]
