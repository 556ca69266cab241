"""Giving a dead-lettered task a new start, with all that may be asked for with it."""

from __future__ import annotations

from collections.abc import Mapping

from relaymesh.store import dead_letter
from relaymesh.store.database import Database
from relaymesh.store.finish import finish_tasks
from relaymesh.store.release import spread_roots

__all__ = ["replay_edited"]


def replay_edited(
    database: Database,
    task_id: str,
    *,
    cluster_epoch: int | None,
    edits: Mapping[str, str],
    from_step: str | None,
    now_ms: int,
) -> str:
    """Edit inputs, replay the task and restart it from a step; see ``Store.replay``."""
    conn = database.conn
    for step_id, text in edits.items():
        dead_letter.edit_input(conn, step_id, text, database.payloads.keep)
    code = dead_letter.replay(conn, task_id, cluster_epoch=cluster_epoch, now_ms=now_ms)
    if code == "replayed":
        if from_step is not None:
            dead_letter.restart_from(conn, task_id, from_step, now_ms=now_ms)
        # A map step whose list was refused has nothing left to wait for: look at the list again now.
        settled = spread_roots(conn, [task_id], now_ms=now_ms, payloads=database.payloads)
        finish_tasks(conn, settled, now_ms)
    return code
