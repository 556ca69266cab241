"""The SQL that moves rows, held against the table of transitions: it writes what the table allows, and all of it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import relaymesh.store
from relaymesh.core.status import STEP_TRANSITIONS, TASK_TRANSITIONS, StepStatus, TaskStatus
from tests.store.scenario import note_everything, one_line

_HOLE = "@"
_WORD = r"'([A-Z_]+)'"
_IS = re.compile(rf"\bstatus\s*(?:=\s*{_WORD}|IN\s*\(([^)]*)\))")
_BECOMES = re.compile(rf"\bstatus={_WORD}")
_BECOMES_IF = re.compile(rf"\bstatus=CASE WHEN status IN \(([^)]*)\) THEN {_WORD} ELSE status END")


def strings(node: ast.AST) -> Iterator[ast.AST]:
    """Yield every string of the source; an f-string whole, and not its parts."""
    if isinstance(node, ast.JoinedStr | ast.Constant):
        yield node
        return
    for child in ast.iter_child_nodes(node):
        yield from strings(child)


def written_updates() -> Iterator[re.Pattern[str]]:
    """Yield a pattern for each UPDATE of steps or tasks that stands in the source; any text where a value is put in."""
    for path in sorted(Path(relaymesh.store.__file__).parent.glob("*.py")):
        for node in strings(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = [str(part.value) if isinstance(part, ast.Constant) else _HOLE for part in node.values]
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                parts = [node.value.replace("{rows}", _HOLE)]
            else:
                continue
            text = one_line("".join(parts))
            if re.match(r"UPDATE (steps|tasks) ", text):
                yield re.compile(re.escape(text).replace(_HOLE, ".*"))


@pytest.fixture(scope="module")
def updates(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    noting = note_everything(tmp_path_factory.mktemp("transitions") / "root")
    noting.conn.close()
    return [sql for sql in map(one_line, noting.noted) if re.match(r"UPDATE (steps|tasks) ", sql)]


def test_every_update_in_the_source_is_looked_at(updates: list[str]) -> None:
    written = list(written_updates())

    assert len(written) > 25
    assert [pattern.pattern for pattern in written if not any(pattern.fullmatch(sql) for sql in updates)] == []


def sources_in(condition: str) -> set[str]:
    found = set()
    for one, several in _IS.findall(condition):
        found |= {one} if one else set(re.findall(_WORD, several))
    return found


def moves(sql: str) -> set[tuple[str, str]]:
    """Return every (from, to) that an UPDATE can write."""
    changes, _, condition = sql.partition(" WHERE ")
    if guarded := _BECOMES_IF.search(changes):
        return {(source, guarded[2]) for source in re.findall(_WORD, guarded[1])}
    becomes = _BECOMES.search(re.sub(r"CASE .*? END", "", changes))
    return {(source, becomes[1]) for source in sources_in(condition)} if becomes else set()


def sets_status(sql: str) -> bool:
    return re.search(r"[ ,]status=", sql.partition(" WHERE ")[0]) is not None


def test_every_update_of_a_status_says_which_status_it_expects(updates: list[str]) -> None:
    moving = [sql for sql in updates if sets_status(sql)]

    assert [sql for sql in moving if not moves(sql)] == []
    assert len(moving) > 15


def test_the_sql_moves_steps_exactly_as_the_table_of_steps_allows(updates: list[str]) -> None:
    s = StepStatus
    # ABANDONED is passed through within one statement, so RUNNING goes where it goes.
    allowed = {(source, to) for (source, _), to in STEP_TRANSITIONS.items() if s.ABANDONED not in (source, to)}
    allowed |= {(s.RUNNING, to) for (source, _), to in STEP_TRANSITIONS.items() if source is s.ABANDONED}
    # A cancel ends an ABANDONED row, should somebody else have written one.
    allowed |= {(s.ABANDONED, s.CANCELLED)}

    written = set().union(*(moves(sql) for sql in updates if sql.startswith("UPDATE steps ")))

    assert written == {(str(source), str(to)) for source, to in allowed}


def test_the_sql_moves_tasks_exactly_as_the_table_of_tasks_allows(updates: list[str]) -> None:
    allowed = {(source, to) for (source, _), to in TASK_TRANSITIONS.items()}

    written = set().union(*(moves(sql) for sql in updates if sql.startswith("UPDATE tasks ")))

    # What is RUNNING already need not be written again when a step starts or succeeds.
    assert written | {("RUNNING", "RUNNING")} == {(str(source), str(to)) for source, to in allowed}
    assert ("DEAD_LETTER", "RUNNING") not in written and TaskStatus.CANCELLED not in {source for source, _ in written}


def test_every_transition_of_a_step_raises_updated_at(updates: list[str]) -> None:
    moving = [sql for sql in updates if sql.startswith("UPDATE steps ") and sets_status(sql)]

    for sql in moving:
        assert re.search(r"updated_at_ms=max\([^,]+, ?(steps\.)?updated_at_ms\+1\)", sql), sql


def test_every_step_that_stops_running_loses_its_owner_and_token(updates: list[str]) -> None:
    for sql in updates:
        if sql.startswith("UPDATE steps ") and any(source == "RUNNING" for source, _ in moves(sql)):
            assert "lease_owner=NULL, lease_token=NULL" in sql, sql
