"""Whether what clients saw of one register could have happened in some order of instants.

Each operation takes effect at one instant between its question and its answer; one that was never answered takes effect
at some instant after its question, or never. A history is linearizable when there is an order of such instants that
explains every answer.

Source: Wing and Gong, "Testing and verifying concurrent objects" (1993), with the memory of Lowe, "Testing for
linearizability" (2017): a set of done operations and a state that were tried once are not tried again. Histories of
different registers are searched one by one, which is allowed because linearizability is local (Herlihy and Wing 1990).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, Final, NamedTuple

__all__ = ["LOOKS_MAX", "Operation", "linearizable"]

LOOKS_MAX: Final = 200_000
"""Steps of one search; then it is undecided."""
NEVER: Final = 1 << 62


class Operation(NamedTuple):
    """asked, answered: places in the history; NEVER when it was not answered. what: for ``apply``."""

    asked: int
    answered: int
    what: Any


def linearizable(
    operations: Sequence[Operation],
    start: Hashable,
    apply: Callable[[Any, Any], Sequence[Hashable]],
    *,
    looks_max: int = LOOKS_MAX,
) -> bool | None:
    """Return whether the answers can be explained; None when that was not found out within the looks.

    apply: takes a state and an operation; returns the states that it may lead to with this answer, none when the answer
        is impossible there.
    """
    ordered = sorted(operations, key=lambda one: (one.answered, one.asked))
    all_answered = sum(1 << at for at, one in enumerate(ordered) if one.answered != NEVER)
    seen: set[tuple[int, Hashable]] = {(0, start)}
    stack: list[tuple[int, Hashable]] = [(0, start)]
    looks = 0
    while stack:
        done, state = stack.pop()
        if done & all_answered == all_answered:
            return True
        # Nothing that was asked after an answer may come before what was answered.
        limit = next(one.answered for at, one in enumerate(ordered) if not done >> at & 1)
        # The last one put on the stack is tried first: what was answered first.
        for at in range(len(ordered) - 1, -1, -1):
            one = ordered[at]
            if done >> at & 1 or one.asked > limit:
                continue
            looks += 1
            if looks > looks_max:
                return None
            for after in apply(state, one.what):
                found = (done | 1 << at, after)
                if found not in seen:
                    seen.add(found)
                    stack.append(found)
    return False
