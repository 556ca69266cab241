"""What a root's fencing counters become when an older state is put back.

A fencing token is the cluster epoch with the lease epoch of the step behind it. Whoever checks tokens outside of the
root has seen those of the present root, so a step that runs after the import must get a larger one:

    something in the snapshot can run again  ──▶ above both epochs, so above every token that either root gave out
    nothing can                              ──▶ the snapshot's own epoch: no step is left that could show a token

In the second case the counter is put back as it was and no token comes back with it: all of the snapshot's steps have
ended for good, and steps that are stored from now on have ids that no former token was about.
"""

from __future__ import annotations

from typing import Final

__all__ = ["UNREADABLE_JUMP", "epoch_after_import"]

UNREADABLE_JUMP: Final = 1_000
"""How far the epoch goes up when the present root cannot be read: more than anybody bumps between two snapshots."""


def epoch_after_import(snapshot: int, present: int | None, *, can_run_again: bool) -> int:
    """Return the cluster epoch of a root after an import.

    present: that of the root until now; None when its database is there and cannot be read; 0 when there is none.
    can_run_again: the snapshot holds a step that is open, or that a replay may open.
    """
    if present is None:
        return snapshot + UNREADABLE_JUMP
    if not can_run_again:
        return snapshot
    return max(snapshot, present) + 1
