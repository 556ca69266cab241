"""Order and cycles among steps, without recursion, so that a chain of 100,000 steps is nothing special.

Steps are numbers: ``depends[i]`` lists the steps that step ``i`` waits for, each once.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["find_cycle", "topological_order"]


def topological_order(depends: Sequence[Sequence[int]]) -> list[int]:
    """Return the steps, each after all that it waits for; steps on or behind a cycle are left out.

    Source: Kahn, "Topological sorting of large networks" (1962). Time is linear in steps and dependencies.
    """
    waiting_for = [len(found) for found in depends]
    dependents: list[list[int]] = [[] for _ in depends]
    for step, found in enumerate(depends):
        for dependency in found:
            dependents[dependency].append(step)
    order = [step for step, count in enumerate(waiting_for) if count == 0]
    for step in order:  # grows while it is walked
        for dependent in dependents[step]:
            waiting_for[dependent] -= 1
            if waiting_for[dependent] == 0:
                order.append(dependent)
    return order


def find_cycle(depends: Sequence[Sequence[int]]) -> list[int]:
    """Return one cycle, each step waiting for the next and the last for the first, or an empty list.

    It starts at its lowest number, so that the same file always gives the same answer.
    """
    order = topological_order(depends)
    if len(order) == len(depends):
        return []
    stuck = set(range(len(depends))).difference(order)
    # Each stuck step waits for at least one stuck step, so following those must come back to a step already seen.
    seen_at: dict[int, int] = {}
    trail: list[int] = []
    step = min(stuck)
    while step not in seen_at:
        seen_at[step] = len(trail)
        trail.append(step)
        step = next(dependency for dependency in depends[step] if dependency in stuck)
    cycle = trail[seen_at[step] :]
    first = cycle.index(min(cycle))
    return cycle[first:] + cycle[:first]
