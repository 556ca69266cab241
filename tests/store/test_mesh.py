"""What nodes know of the mesh, in the database of their root."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from relaymesh.core.mesh.member import State
from relaymesh.core.mesh.silence import Patience
from relaymesh.store.database import Database
from relaymesh.store.member import reconcile
from relaymesh.store.mesh import addresses_here, load_known, write_members
from relaymesh.store.presence import host_name, take_presence
from relaymesh.wire.mesh import MemberRow, WriteMembers, pack_marks, unpack_marks

NOON = 1_700_000_000_000


@pytest.fixture
def database(tmp_path: Path) -> Any:
    opened = Database.open(tmp_path / "root", now_ms=NOON)
    yield opened
    opened.close()


def row(
    node_id: str, shown: State = State.ALIVE, *, state: State | None = None, generation: int = 1, version: int = 0
) -> MemberRow:
    return MemberRow(node_id, "127.0.0.1:1", generation, version, int(shown if state is None else state), int(shown))


def order(*changed: MemberRow, **fields: Any) -> WriteMembers:
    made = {
        "observer": "me",
        "own": None,
        "owner_generation": 1,
        "shown": (),
        "heard": (),
        "refresh_ms": 10_000,
        "silent_ms": 30_000,
        "pruned": (),
        "marks": b"",
        "counters": (),
    }
    return WriteMembers(changed=changed, **{**made, **fields})


def write(database: Database, wanted: WriteMembers, now_ms: int = NOON) -> tuple[tuple[str, str, str], ...]:
    with database.write():
        return write_members(database.conn, wanted, now_ms=now_ms)


def register(database: Database, node_id: str, *, status: str = "ALIVE", generation: int = 1) -> None:
    """Enter a node of this root, as it does itself."""
    with database.write():
        database.conn.execute(
            "INSERT INTO mesh_nodes(node_id, status, last_heartbeat_ms, updated_at_ms, status_changed_at_ms,"
            " generation, host, agents) VALUES (?,?,?,?,?,?,?,'{}')",
            (node_id, status, NOON, NOON, NOON, generation, host_name()),
        )


def status(database: Database, node_id: str) -> str:
    return str(database.conn.execute("SELECT status FROM mesh_nodes WHERE node_id=?", (node_id,)).fetchone()[0])


def test_a_member_of_another_root_gets_a_row_with_the_word_that_counts(database: Database) -> None:
    turned = write(database, order(row("far", State.SUSPECT, state=State.ALIVE, generation=4)))

    assert turned == (("far", "", "SUSPECT"),)
    assert database.conn.execute(
        "SELECT status, generation, host, status_changed_at_ms FROM mesh_nodes WHERE node_id='far'"
    ).fetchone() == ("SUSPECT", 0, None, NOON)
    assert database.conn.execute("SELECT state, generation FROM mesh_members").fetchall() == [("ALIVE", 4)]


def test_whose_write_changes_a_word_is_told_and_the_next_is_not(database: Database) -> None:
    write(database, order(row("far")))

    first = write(database, order(row("far", State.DEAD)))
    second = write(database, order(row("far", State.DEAD), observer="another"))

    assert first == (("far", "ALIVE", "DEAD"),)
    assert second == ()


def test_a_node_of_this_root_is_marked_in_the_run_that_the_mesh_speaks_of(database: Database) -> None:
    register(database, "near")
    write(database, order(observer="near", own=row("near"), owner_generation=1))

    turned = write(database, order(row("near", State.DEAD)))

    assert turned == (("near", "ALIVE", "DEAD"),)


def test_a_later_run_that_has_not_joined_yet_is_not_marked(database: Database) -> None:
    register(database, "near", generation=2)
    write(database, order(observer="near", own=row("near"), owner_generation=1))

    turned = write(database, order(row("near", State.DEAD)))

    assert turned == ()
    assert status(database, "near") == "ALIVE"


def test_a_node_of_this_root_that_does_not_gossip_is_not_marked_for_its_namesake(database: Database) -> None:
    register(database, "near")

    assert write(database, order(row("near", State.DEAD, generation=9))) == ()
    assert status(database, "near") == "ALIVE"
    assert database.conn.execute("SELECT generation FROM mesh_nodes").fetchone() == (1,)


def test_who_has_left_is_not_called_dead_afterwards(database: Database) -> None:
    register(database, "near", status="LEFT")
    write(database, order(observer="near", own=row("near", State.LEFT), owner_generation=1))

    assert write(database, order(row("near", State.DEAD))) == ()
    assert status(database, "near") == "LEFT"


def test_a_node_of_this_root_that_has_left_is_back_when_it_says_so_itself(database: Database) -> None:
    register(database, "near", status="LEFT")
    write(database, order(observer="near", own=row("near", State.LEFT), owner_generation=1))

    assert write(database, order(row("near", State.ALIVE))) == ()
    assert status(database, "near") == "LEFT"


def test_a_node_of_another_root_that_had_left_is_back_when_the_mesh_says_so(database: Database) -> None:
    write(database, order(row("far", State.LEFT)))

    assert write(database, order(row("far", generation=2))) == (("far", "LEFT", "ALIVE"),)


def test_a_node_of_this_root_without_heartbeats_is_not_put_right_to_alive(database: Database) -> None:
    register(database, "near", status="DEAD")
    write(database, order(observer="near", own=row("near"), owner_generation=1))
    alive = order(shown=(("near", int(State.ALIVE)),))

    assert write(database, alive, NOON + 30_001) == ()
    assert write(database, alive, NOON + 30_000) == (("near", "DEAD", "ALIVE"),)


def test_a_row_that_says_something_else_is_put_right(database: Database) -> None:
    write(database, order(row("far")))
    with database.write():
        database.conn.execute("UPDATE mesh_nodes SET status='SUSPECT'")

    turned = write(database, order(shown=(("far", int(State.ALIVE)), ("unknown", int(State.DEAD)))))

    assert turned == (("far", "SUSPECT", "ALIVE"),)


@pytest.mark.parametrize(("shown", "dwell_ms"), [(State.SUSPECT, 5_000), (State.DEAD, 30_000)])
@pytest.mark.parametrize("local", [False, True])
def test_who_did_not_notice_that_a_member_was_away_does_not_end_its_dwell_time(
    database: Database, shown: State, dwell_ms: int, local: bool
) -> None:
    """Two nodes of a root, of which one alone was cut off from the member."""
    if local:
        register(database, "it")
        write(database, order(observer="it", own=row("it"), owner_generation=1))
    else:
        write(database, order(row("it")))
    patience = (30_000, 60_000, 5_000, 30_000)
    assert write(database, order(row("it", shown), patience=patience)) == (("it", "ALIVE", shown.name),)
    for alive in (order(row("it"), patience=patience), order(shown=(("it", int(State.ALIVE)),), patience=patience)):
        assert write(database, alive, NOON + dwell_ms - 1) == ()

    assert write(database, alive, NOON + dwell_ms) == (("it", shown.name, "ALIVE"),)


def test_rows_of_other_roots_stay_fresh_while_the_mesh_holds_them_alive_and_ours_are_left_alone(
    database: Database,
) -> None:
    write(database, order(row("far"), row("gone", State.DEAD)))
    register(database, "near")
    alive = (("far", int(State.ALIVE)), ("near", int(State.ALIVE)), ("gone", int(State.DEAD)))

    write(database, order(shown=alive), NOON + 9_999)
    assert dict(database.conn.execute("SELECT node_id, last_heartbeat_ms FROM mesh_nodes"))["far"] == NOON
    write(database, order(shown=alive), NOON + 10_001)

    beats = dict(database.conn.execute("SELECT node_id, last_heartbeat_ms FROM mesh_nodes"))
    assert beats == {"far": NOON + 10_001, "near": NOON, "gone": NOON}


def test_who_is_back_after_its_dwell_time_is_not_called_silent_for_the_time_before(database: Database) -> None:
    patience = Patience()
    fields = {"patience": (30_000, 60_000, 5_000, 30_000)}
    write(database, order(row("far")))
    write(database, order(row("far", State.DEAD), **fields))

    back_ms = NOON + 40_000
    assert write(database, order(row("far"), **fields), back_ms) == (("far", "DEAD", "ALIVE"),)

    with database.write():
        assert reconcile(database.conn, now_ms=back_ms + 1, patience=patience).suspected == ()
    assert status(database, "far") == "ALIVE"


@pytest.mark.parametrize("shown", [State.SUSPECT, State.DEAD])
def test_who_is_held_back_by_its_dwell_time_is_shown_as_heard(database: Database, shown: State) -> None:
    register(database, "near")
    write(database, order(row("far", shown), row("gone", State.DEAD)))

    write(database, order(heard=(("far", 900), ("near", 900))), NOON + 7_000)

    beats = dict(database.conn.execute("SELECT node_id, last_heartbeat_ms FROM mesh_nodes"))
    assert beats == {"far": NOON + 7_000, "near": NOON, "gone": NOON}
    assert status(database, "far") == shown.name


def test_an_older_opinion_does_not_replace_a_newer_one(database: Database) -> None:
    write(database, order(row("far", generation=3, version=5)))

    write(database, order(row("far", generation=3, version=4), row("other", generation=2)))

    assert dict(database.conn.execute("SELECT node_id, version FROM mesh_members")) == {"far": 5, "other": 0}


def test_what_a_restart_has_to_know_is_read_back(database: Database) -> None:
    marks = [(2**64 - 1, 7, 1_000), (5, 1, 2)]
    write(database, order(row("far"), row("gone", State.DEAD), own=row("me", generation=6), marks=pack_marks(marks)))

    known = load_known(database.conn, "me")

    assert known.generation == 6
    assert [member.node_id for member in known.members] == ["far"]
    assert unpack_marks(known.marks) == marks


def test_a_node_that_knows_nothing_starts_from_nothing(database: Database) -> None:
    known = load_known(database.conn, "me")

    assert (known.generation, known.members, known.marks) == (0, (), b"")


def test_marks_that_were_cut_off_are_read_as_far_as_they_go() -> None:
    assert unpack_marks(pack_marks([(1, 2, 3), (4, 5, 6)])[:-1]) == [(1, 2, 3)]


def test_round_trips_and_who_was_pruned_are_written(database: Database) -> None:
    write(database, order(row("far"), row("gone", State.DEAD)))

    write(database, order(heard=(("far", 1_500),), pruned=("gone",), counters=(("anti_entropy_merge", 3),)))

    assert database.conn.execute("SELECT node_id, rtt_us, heard_by FROM mesh_members").fetchall() == [
        ("far", 1_500, "me")
    ]
    assert database.conn.execute("SELECT value FROM counters WHERE name='anti_entropy_merge'").fetchone() == (3,)


def test_addresses_of_the_root_are_those_of_nodes_that_live(database: Database, tmp_path: Path) -> None:
    run = tmp_path / "root" / "run"
    presence = take_presence(run, "near")
    for name in ("near", "dead"):
        register(database, name)
        write(database, order(observer=name, own=row(name), owner_generation=1))
    write(database, order(row("far")))
    (run / "dead.lock").write_text(f'{{"pid": 1, "host": "{host_name()}"}}')

    def found(node_id: str) -> tuple[str, ...]:
        return addresses_here(database.conn, run, node_id, here=host_name(), now_ms=NOON, limit=10)

    assert found("me") == ("127.0.0.1:1",)
    assert found("near") == ()
    presence.release()
    assert found("me") == ()


def test_the_address_of_an_earlier_run_is_no_address(database: Database, tmp_path: Path) -> None:
    run = tmp_path / "root" / "run"
    presence = take_presence(run, "near")
    register(database, "near", generation=2)
    write(database, order(observer="near", own=row("near"), owner_generation=1))

    assert addresses_here(database.conn, run, "me", here=host_name(), now_ms=NOON, limit=10) == ()
    presence.release()
