"""Members judged by their silence: never better before the dwell is over, never worse before the silence is long."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from relaymesh.core.mesh.silence import (
    Patience,
    Row,
    Status,
    dwell_left_ms,
    heard,
    heartbeat_every_ms,
    judged,
)
from relaymesh.core.setting_table import Settings

NOON = 1_700_000_000_000
PATIENCE = Patience(
    suspect_after_ms=30_000, dead_after_ms=60_000, suspect_recover_min_ms=5_000, dead_recover_min_ms=30_000
)
statuses = st.sampled_from([*map(str, Status), "JOINING"])
around = st.integers(-200_000, 200_000).map(lambda by: NOON + by)
rows = st.builds(Row, statuses, around, around, around)
patiences = st.tuples(*[st.integers(0, 100_000)] * 4).map(
    lambda n: Patience(
        suspect_after_ms=n[0], dead_after_ms=n[0] + n[1], suspect_recover_min_ms=n[2], dead_recover_min_ms=n[3]
    )
)


def row(status: str, *, silent_ms: int = 0, for_ms: int = 0) -> Row:
    return Row(status, NOON - silent_ms, NOON - for_ms, NOON - for_ms)


def test_an_unknown_member_is_alive_with_its_first_heartbeat() -> None:
    found = heard(None, NOON - 40, NOON, PATIENCE)

    assert found.row == Row("ALIVE", NOON - 40, NOON, NOON)
    assert not found.suppressed


def test_a_heartbeat_that_is_older_than_the_known_one_changes_nothing() -> None:
    assert heard(row("DEAD", for_ms=90_000), NOON - 1, NOON, PATIENCE).row is None


def test_a_heartbeat_of_an_alive_member_leaves_alone_since_when_it_is() -> None:
    known = row("ALIVE", silent_ms=9_000, for_ms=70_000)

    assert heard(known, NOON, NOON, PATIENCE).row == Row("ALIVE", NOON, NOON, known.changed_ms)


def test_a_suspect_is_alive_again_after_its_dwell_and_not_before() -> None:
    early = heard(row("SUSPECT", silent_ms=31_000, for_ms=4_999), NOON, NOON, PATIENCE)
    late = heard(row("SUSPECT", silent_ms=31_000, for_ms=5_000), NOON, NOON, PATIENCE)

    assert (early.row, early.suppressed) == (Row("SUSPECT", NOON, NOON, NOON - 4_999), True)
    assert (late.row, late.suppressed) == (Row("ALIVE", NOON, NOON, NOON), False)


def test_a_dead_member_waits_for_its_own_longer_dwell() -> None:
    early = heard(row("DEAD", for_ms=29_999), NOON, NOON, PATIENCE)
    late = heard(row("DEAD", for_ms=30_000), NOON, NOON, PATIENCE)

    assert (early.suppressed, late.suppressed) == (True, False)
    assert late.row is not None and late.row.status == "ALIVE"


def test_who_has_left_is_back_with_the_first_heartbeat() -> None:
    found = heard(row("LEFT", for_ms=1), NOON, NOON, PATIENCE)

    assert found.row is not None and found.row.status == "ALIVE"


def test_silence_makes_a_suspect_then_a_dead_member_and_may_skip_the_doubt() -> None:
    assert judged(row("ALIVE", silent_ms=30_000), NOON, PATIENCE) is None
    assert judged(row("ALIVE", silent_ms=30_001), NOON, PATIENCE) is Status.SUSPECT
    assert judged(row("SUSPECT", silent_ms=60_000), NOON, PATIENCE) is None
    assert judged(row("SUSPECT", silent_ms=60_001), NOON, PATIENCE) is Status.DEAD
    assert judged(row("ALIVE", silent_ms=60_001), NOON, PATIENCE) is Status.DEAD


def test_nobody_is_silent_after_having_left() -> None:
    assert judged(row("LEFT", silent_ms=10**9), NOON, PATIENCE) is None


def test_a_node_is_heard_three_times_before_it_would_be_doubted() -> None:
    assert heartbeat_every_ms(PATIENCE) == 5_000
    assert heartbeat_every_ms(Patience(suspect_after_ms=1_500, dead_after_ms=3_000)) == 500
    assert Patience.of(Settings()) == Patience()


@given(rows, around, patiences)
def test_a_dwell_is_never_cut_short_and_never_longer_than_it_is(known: Row, now_ms: int, patience: Patience) -> None:
    left_ms = dwell_left_ms(known, now_ms, patience)

    assert 0 <= left_ms <= max(patience.suspect_recover_min_ms, patience.dead_recover_min_ms)
    found = heard(known, known.heartbeat_ms, now_ms, patience)
    assert found.row is not None
    assert found.suppressed == (left_ms > 0)
    assert (found.row.status == "ALIVE") == (left_ms == 0)
    if left_ms > 0:
        later = heard(known, known.heartbeat_ms, now_ms + patience.dead_recover_min_ms + 400_000, patience)
        assert later.row is not None and later.row.status == "ALIVE"


@given(rows, around, patiences)
def test_a_verdict_is_only_ever_worse_and_is_not_passed_twice(known: Row, now_ms: int, patience: Patience) -> None:
    rank = {"ALIVE": 0, "SUSPECT": 1, "DEAD": 2}
    verdict = judged(known, now_ms, patience)

    if verdict is None:
        return
    assert rank[verdict] > rank.get(known.status, 0)
    assert now_ms - known.heartbeat_ms > patience.suspect_after_ms
    after = Row(verdict, known.heartbeat_ms, now_ms, now_ms)
    assert judged(after, now_ms, patience) in (None, Status.DEAD)
    assert judged(Row("DEAD", known.heartbeat_ms, now_ms, now_ms), now_ms, patience) is None


@given(rows, around, around, patiences)
def test_heartbeats_may_come_in_any_order(known: Row, one_ms: int, other_ms: int, patience: Patience) -> None:
    def take(start: Row, *beats: int) -> Row:
        for beat_ms in beats:
            start = heard(start, beat_ms, NOON, patience).row or start
        return start

    assert take(known, one_ms, other_ms) == take(known, other_ms, one_ms) or max(one_ms, other_ms) < known.heartbeat_ms
    assert take(known, one_ms, one_ms) == take(known, one_ms)
