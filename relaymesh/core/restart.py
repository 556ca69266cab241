"""Which steps of a workflow run again when it is restarted from one of them."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["steps_again"]


def steps_again(start: str, dependencies: Iterable[tuple[str, str]]) -> set[str]:
    """Return ``start`` and every step that depends on it, directly or through others.

    dependencies: pairs of a step and one that it depends on. Whatever is not returned keeps what it has come to.
    """
    dependents: dict[str, list[str]] = {}
    for step, needed in dependencies:
        dependents.setdefault(needed, []).append(step)
    again = {start}
    left = [start]
    while left:
        for step in dependents.get(left.pop(), ()):
            if step not in again:
                again.add(step)
                left.append(step)
    return again
