"""Queries: the same answer as reading everything, wherever the rows lie."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from relaymesh.audit import AuditTrail, Record
from relaymesh.audit.read import Filter, count_rows, newest, tail
from relaymesh.audit.segment import numbers, read_index
from relaymesh.store.root import create_layout
from relaymesh.wire.audit import instant
from tests.audit import chain

TASKS = st.sampled_from([None, "tsk_1", "tsk_2", 'tsk_"\\é', ""])
ACTIONS = st.sampled_from(["task.submit", "task.cancel", 'odd","actor":"', "é"])
TIMES = st.integers(0, 20).map(lambda second: second * 1_000)
RECORDS = st.builds(
    Record,
    ACTIONS,
    st.just("cli"),
    st.just("r"),
    st.just("ok"),
    st.dictionaries(st.sampled_from(["task_id", "action", "step_id"]), TASKS, max_size=2),
    TASKS,
    at_ms=TIMES,
)
FILTERS = st.builds(
    Filter,
    st.none() | st.sampled_from(["tsk_1", "tsk_2", 'tsk_"\\é', "", "tsk_none"]),
    st.none() | ACTIONS,
    st.none() | TIMES,
    st.none() | TIMES,
)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(RECORDS, min_size=1, max_size=6), max_size=10),
    st.lists(FILTERS, min_size=1, max_size=6),
    st.integers(1, 12),
    st.booleans(),
)
def test_a_query_finds_what_reading_everything_finds(
    batches: list[list[Record]], filters: list[Filter], limit: int, packed: bool
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        create_layout(root)
        trail = AuditTrail(root, segment_bytes=1_000)
        for batch in batches:
            trail.record_many(batch)
        if packed:
            trail.pack(at_most=3)
        lines = chain.lines(root)

        assert count_rows(trail.place) == len(lines)
        assert tail(trail.place, limit) == lines[-limit:]
        for wanted in filters:
            assert newest(trail.place, wanted, limit) == [line for line in lines[::-1] if fits(line, wanted)][:limit]


def fits(line: str, wanted: Filter) -> bool:
    row = json.loads(line)
    return (
        (wanted.task_id is None or row["task_id"] == wanted.task_id)
        and (wanted.action is None or row["action"] == wanted.action)
        and (wanted.from_ms is None or row["timestamp"] >= instant(wanted.from_ms))
        and (wanted.to_ms is None or row["timestamp"] <= instant(wanted.to_ms))
    )


def test_a_log_larger_than_a_read_is_told_from_its_end(tmp_path: Path) -> None:
    create_layout(tmp_path)
    trail = AuditTrail(tmp_path)
    trail.record_many(Record("a", "cli", "r", "ok", {"n": n, "pad": "word " * 300}) for n in range(2_000))
    log = tmp_path / "audit" / "audit.log"
    assert log.stat().st_size > 3 << 20
    with open(log, "ab") as file:
        file.write(b'{"timestamp":"half a li')

    rows = tail(trail.place, 1_500)

    assert [json.loads(row)["details"]["n"] for row in rows] == list(range(500, 2_000))


def test_an_index_that_is_damaged_is_done_without(tmp_path: Path) -> None:
    create_layout(tmp_path)
    trail = AuditTrail(tmp_path, segment_bytes=1)
    for n in range(3):
        trail.record_many([Record("a", "cli", "r", "ok", {"n": n}, task_id=f"tsk_{n}")] * 4)
    trail.pack()
    assert numbers(trail.place) == [1, 2]
    trail.place.index(1).write_bytes(b"nonsense")

    assert read_index(trail.place, 1) is None
    assert len(newest(trail.place, Filter(task_id="tsk_0"), 10)) == 4


def test_a_query_of_one_task_opens_none_of_the_other_segments(tmp_path: Path) -> None:
    create_layout(tmp_path)
    trail = AuditTrail(tmp_path, segment_bytes=1)
    for n in range(4):
        trail.record_many([Record("a", "cli", "r", "ok", task_id=f"tsk_{n}")] * 3)
    trail.pack()
    for n in (1, 3):  # whoever opened them would fail
        trail.place.packed(n).write_bytes(b"not gzip")

    assert len(newest(trail.place, Filter(task_id="tsk_1"), 10)) == 3
