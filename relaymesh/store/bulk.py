"""Many rows in one statement.

Each call into SQLite gives up the interpreter lock and has to win it back, which costs more than the row itself when
other actors are busy. So rows travel in few, long statements. Sizes are fixed steps, so that the statements stay
prepared.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import chain

__all__ = ["id_list", "write_rows"]

_CHUNKS = (512, 384, 256, 192, 128, 96, 64, 48, 32, 24, 16, 12, 8, 6, 4, 3, 2, 1)


@lru_cache(maxsize=256)
def _statement(template: str, columns: int, rows: int) -> str:
    row = "(" + ",".join("?" * columns) + ")"
    return template.replace("{rows}", ",".join([row] * rows))


def write_rows(
    conn: sqlite3.Connection,
    template: str,
    rows: Sequence[Sequence[object]],
    shared: Sequence[object] = (),
    *,
    one: str | None = None,
) -> int:
    """Run ``template``, with ``{rows}`` as a VALUES list, over all rows; return how many rows were changed.

    All rows have the same number of columns. shared: values that the template names as ?1, ?2, ... before ``{rows}``.
    one: the same for a single row whose columns follow as parameters, where a list would cost more than the row.
    """
    changed = start = 0
    if not rows:
        return 0
    if one is not None and len(rows) == 1:
        return conn.execute(one, (*shared, *rows[0])).rowcount
    columns = len(rows[0])
    for chunk in _CHUNKS:
        while len(rows) - start >= chunk:
            values = chain(shared, *rows[start : start + chunk])
            changed += conn.execute(_statement(template, columns, chunk), tuple(values)).rowcount
            start += chunk
    return changed


def id_list(ids: Iterable[int | str]) -> str:
    """Return ids as the JSON text that ``json_each(?)`` takes: one parameter for any number."""
    return json.dumps(list(ids))
