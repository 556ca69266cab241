"""The clock guard's state, handed from process to process through the root (rules: ``relaymesh.core.clock_guard``)."""

from __future__ import annotations

import sqlite3

import msgspec

from relaymesh.boot import boot_id
from relaymesh.core import clock_guard

__all__ = ["boot_id", "load_clock", "save_clock"]


class _Clock(msgspec.Struct, frozen=True):
    wall_ms: int
    mono_ns: int
    boot_id: str
    doubted_ticks: int = 0
    doubted_until_ns: int = 0


_DECODER = msgspec.json.Decoder(_Clock)  # at import: relaymesh.wire.typed says why


def load_clock(conn: sqlite3.Connection) -> clock_guard.ClockState | None:
    """Return the clock guard's state that the last process left, if any."""
    row = conn.execute("SELECT state_value FROM cluster_state WHERE state_key='clock'").fetchone()
    if row is None:
        return None
    try:
        clock = _DECODER.decode(row[0])
    except msgspec.DecodeError:
        return None
    return clock_guard.ClockState(
        clock.wall_ms, clock.mono_ns, clock.boot_id, clock.doubted_ticks, clock.doubted_until_ns
    )


def save_clock(conn: sqlite3.Connection, state: clock_guard.ClockState, now_ms: int) -> None:
    """Leave the clock guard's state to the next process; the caller holds the write transaction."""
    text = msgspec.json.encode(
        _Clock(state.wall_ms, state.mono_ns, state.boot_id, state.doubted_ticks, state.doubted_until_ns)
    ).decode()
    conn.execute(
        "INSERT INTO cluster_state(state_key, state_value, version, updated_at_ms) VALUES ('clock', ?, 1, ?)"
        " ON CONFLICT(state_key) DO UPDATE SET state_value=excluded.state_value, version=version+1,"
        " updated_at_ms=excluded.updated_at_ms",
        (text, now_ms),
    )
