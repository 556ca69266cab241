"""Which columns of the database hold texts that are encrypted at rest, and where each of them belongs.

    steps          payload (or payload_path), result_payload (or result_path), map_template, map_item, progress
    attempt_logs   text
    schedules      payload

Rows are read in pages in the order of their key, so that whoever goes over all of them can stop and go on anywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple

from relaymesh.store.database import Database
from relaymesh.store.payload import SEALED, PayloadFiles, log_place
from relaymesh.wire.sealed import kid_of

__all__ = ["TABLES", "Table", "Text", "key_of", "pages", "table_named"]

Key = tuple[str | int, ...]
_LOOKED_AT: Final = 512


class Text(NamedTuple):
    """One text of a row. kind, owner: its place; path_column: None where a text always lies in the row.

    task_id: of an output, whose task may hold a copy of it.
    """

    kind: str
    owner: str
    column: str
    path_column: str | None
    value: str | bytes | None
    path: str | None
    task_id: str | None = None


class Table(NamedTuple):
    """A table with such texts. page: selects the key, then what ``texts`` takes, behind a key and at most so many."""

    name: str
    key: tuple[str, ...]
    begin: Key
    page: str
    texts: Callable[[Sequence[Any]], tuple[Text, ...]]


def _of_step(row: Sequence[Any]) -> tuple[Text, ...]:
    _, step_id, task_id, of_map, payload, payload_path, output, output_path, over, item, progress = row
    return (
        # A copy of a map step has the input of the step that it is a copy of.
        Text("payload", of_map or step_id, "payload", "payload_path", payload, payload_path),
        Text("output", step_id, "result_payload", "result_path", output, output_path, task_id),
        Text("map", step_id, "map_template", None, over, None),
        Text("item", step_id, "map_item", None, item, None),
        Text("progress", step_id, "progress", None, progress, None),
    )


def _of_line(row: Sequence[Any]) -> tuple[Text, ...]:
    step_id, epoch, line, text = row
    return (Text("log", log_place(step_id, epoch, line), "text", None, text, None),)


def _of_schedule(row: Sequence[Any]) -> tuple[Text, ...]:
    schedule_id, payload = row
    return (Text("schedule", schedule_id, "payload", None, payload, None),)


TABLES: Final = (
    Table(
        "steps",
        ("id",),
        (0,),
        "SELECT id, step_id, task_id, map_parent, payload, payload_path, result_payload, result_path, map_template,"
        " map_item, progress FROM steps WHERE id>? ORDER BY id LIMIT ?",
        _of_step,
    ),
    Table(
        "attempt_logs",
        ("step_id", "lease_epoch", "line"),
        ("", 0, 0),
        "SELECT step_id, lease_epoch, line, text FROM attempt_logs WHERE (step_id, lease_epoch, line)>(?,?,?)"
        " ORDER BY step_id, lease_epoch, line LIMIT ?",
        _of_line,
    ),
    Table(
        "schedules",
        ("schedule_id",),
        ("",),
        "SELECT schedule_id, payload FROM schedules WHERE schedule_id>? ORDER BY schedule_id LIMIT ?",
        _of_schedule,
    ),
)


def table_named(name: str) -> int:
    """Return which of the tables that is; the number behind the last one for what is none."""
    return next((number for number, table in enumerate(TABLES) if table.name == name), len(TABLES))


def pages(database: Database) -> Iterator[list[Text]]:
    """Yield all texts, a page at a time, without holding anything between two."""
    for table in TABLES:
        after = table.begin
        while True:
            with database.reading():
                page = database.conn.execute(table.page, (*after, _LOOKED_AT)).fetchall()
            if not page:
                break
            after = page[-1][: len(table.key)]
            yield [text for row in page for text in table.texts(row)]


def key_of(payloads: PayloadFiles, text: Text) -> str | None:
    """Return the kid that a text is encrypted with, "" for clear text, None where there is none at all.

    A file that cannot be read counts as one of an unknown key, ``?``.
    """
    if text.path:
        return payloads.kid_of_file(text.path) if text.path.endswith(SEALED) else ""
    if isinstance(text.value, bytes):
        return kid_of(text.value) or "?"
    return None if text.value is None else ""
