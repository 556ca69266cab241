"""Supervision: who is restarted, in which order, and when it is too much."""

from __future__ import annotations

import pytest

from relaymesh.core.supervision import (
    Backoff,
    Begin,
    ChildCrashed,
    ChildSpec,
    ChildStarted,
    ChildState,
    ChildStopped,
    Effect,
    GiveUp,
    Intensity,
    Restart,
    Shutdown,
    Start,
    Stop,
    Strategy,
    Supervision,
    Wake,
    Woke,
)

SECOND = 1_000_000_000
AT_ONCE = Backoff(0, 0)
THREE_IN_TEN_SECONDS = Intensity(3, 10 * SECOND)


def supervision(
    *children: ChildSpec | str,
    strategy: Strategy = Strategy.ONE_FOR_ONE,
    intensity: Intensity = THREE_IN_TEN_SECONDS,
    backoff: Backoff = AT_ONCE,
) -> Supervision:
    specs = [ChildSpec(child) if isinstance(child, str) else child for child in children]
    return Supervision(specs, strategy=strategy, intensity=intensity, backoff=backoff)


def bring_up(machine: Supervision, now_ns: int = 0) -> list[str]:
    """Begin and answer every start; return the names in the order of their starts."""
    return settle(machine, machine.handle(now_ns, Begin()), now_ns)


def settle(machine: Supervision, effects: list[Effect], now_ns: int = 0) -> list[str]:
    """Answer every start; return what was done, in words."""
    done: list[str] = []
    todo = list(effects)
    while todo:
        effect = todo.pop(0)
        match effect:
            case Start(name, incarnation):
                done.append(name)
                todo.extend(machine.handle(now_ns, ChildStarted(name, incarnation)))
            case Stop(name):
                done.append(f"-{name}")
            case GiveUp():
                done.append("give up")
            case Wake():
                done.append("wake")
    return done


def test_children_start_one_after_the_other_each_when_the_one_before_is_up() -> None:
    machine = supervision("store", "queue")

    first = machine.handle(0, Begin())
    second = machine.handle(0, ChildStarted("store", 1))

    assert first == [Start("store", 1)]
    assert second == [Start("queue", 1)]
    assert not machine.settled
    assert machine.handle(0, ChildStarted("queue", 1)) == []
    assert machine.settled


def test_one_for_one_restarts_only_the_child_that_crashed() -> None:
    machine = supervision("a", "b", "c")
    bring_up(machine)

    effects = machine.handle(0, ChildCrashed("a", 1, "boom"))

    assert effects == [Start("a", 2)]


def test_rest_for_one_stops_later_siblings_in_reverse_and_starts_them_after_it() -> None:
    machine = supervision("a", "b", "c", "d", strategy=Strategy.REST_FOR_ONE)
    bring_up(machine)

    effects = machine.handle(0, ChildCrashed("b", 1, "boom"))

    assert effects == [Stop("d"), Stop("c"), Start("b", 2)]
    assert settle(machine, effects) == ["-d", "-c", "b", "c", "d"]


def test_a_child_that_fails_to_start_holds_up_its_later_siblings() -> None:
    machine = supervision("a", "b", strategy=Strategy.REST_FOR_ONE)
    machine.handle(0, Begin())

    effects = machine.handle(0, ChildCrashed("a", 1, "no database"))

    assert effects == [Start("a", 2)]
    assert machine.handle(0, ChildStarted("a", 2)) == [Start("b", 1)]


def test_a_crash_during_the_restart_of_a_later_sibling_starts_again_from_there() -> None:
    machine = supervision("a", "b", "c", strategy=Strategy.REST_FOR_ONE)
    bring_up(machine)
    machine.handle(0, ChildCrashed("a", 1, "boom"))

    effects = machine.handle(0, ChildStarted("a", 2))
    again = machine.handle(0, ChildCrashed("a", 2, "boom"))

    assert effects == [Start("b", 2)]
    assert again == [Stop("b"), Start("a", 3)]
    assert settle(machine, [Start("a", 3)]) == ["a", "b", "c"]


def test_a_transient_child_that_ended_in_order_stays_ended_even_when_its_elder_is_restarted() -> None:
    machine = supervision("a", ChildSpec("b", Restart.TRANSIENT), strategy=Strategy.REST_FOR_ONE)
    bring_up(machine)
    machine.handle(0, ChildStopped("b", 1))

    effects = machine.handle(0, ChildCrashed("a", 1, "boom"))

    assert settle(machine, effects) == ["a"]


def test_a_transient_child_that_crashed_is_restarted() -> None:
    machine = supervision(ChildSpec("a", Restart.TRANSIENT))
    bring_up(machine)

    assert machine.handle(0, ChildCrashed("a", 1, "boom")) == [Start("a", 2)]


def test_a_permanent_child_that_ended_in_order_is_restarted_and_counted() -> None:
    machine = supervision("a", intensity=Intensity(0, SECOND))
    bring_up(machine)

    effects = machine.handle(0, ChildStopped("a", 1))

    assert effects == [GiveUp("more than 0 restarts in 1 s; the last was a: stopped by itself")]


def test_a_temporary_child_is_never_started_again() -> None:
    machine = supervision("a", ChildSpec("b", Restart.TEMPORARY), strategy=Strategy.REST_FOR_ONE)
    bring_up(machine)

    effects = machine.handle(0, ChildCrashed("a", 1, "boom"))

    assert settle(machine, effects) == ["-b", "a"]
    assert machine.states()["b"] is ChildState.ENDED


def test_one_restart_more_than_allowed_within_the_window_stops_all_and_gives_up() -> None:
    machine = supervision("a", "b", "c", intensity=Intensity(2, 10 * SECOND))
    bring_up(machine)
    settle(machine, machine.handle(1 * SECOND, ChildCrashed("b", 1, "boom")))
    settle(machine, machine.handle(2 * SECOND, ChildCrashed("c", 1, "boom")))

    effects = machine.handle(10 * SECOND, ChildCrashed("b", 2, "bang"))

    assert effects == [
        Stop("c"),
        Stop("a"),
        GiveUp("more than 2 restarts in 10 s; the last was b: bang"),
    ]
    assert machine.handle(11 * SECOND, ChildCrashed("a", 1, "late")) == []


def test_a_restart_that_is_as_old_as_the_window_no_longer_counts() -> None:
    machine = supervision("a", intensity=Intensity(1, 10 * SECOND))
    bring_up(machine)
    settle(machine, machine.handle(0, ChildCrashed("a", 1, "boom")))

    effects = machine.handle(10 * SECOND, ChildCrashed("a", 2, "boom"))

    assert effects == [Start("a", 3)]


def test_the_second_crash_waits_and_each_further_one_twice_as_long_up_to_the_bound() -> None:
    backoff = Backoff(first_ns=10, max_ns=35)

    delays = [backoff.delay_ns(crashes) for crashes in range(1, 7)]

    assert delays == [0, 10, 20, 35, 35, 35]
    assert backoff.delay_ns(10_000) == 35


def test_a_child_in_backoff_starts_when_it_is_due_and_not_before() -> None:
    machine = supervision("a", backoff=Backoff(10, 100))
    bring_up(machine)
    settle(machine, machine.handle(0, ChildCrashed("a", 1, "boom")))

    assert machine.handle(5, ChildCrashed("a", 2, "boom")) == [Wake(15)]
    assert machine.handle(14, Woke()) == [Wake(15)]
    assert machine.handle(15, Woke()) == [Start("a", 3)]
    assert machine.handle(16, Woke()) == []


def test_a_child_in_backoff_holds_up_nobody_under_one_for_one() -> None:
    machine = supervision("a", "b", backoff=Backoff(10, 100))
    bring_up(machine)
    settle(machine, machine.handle(0, ChildCrashed("a", 1, "boom")))
    machine.handle(5, ChildCrashed("a", 2, "boom"))

    effects = machine.handle(6, ChildCrashed("b", 1, "boom"))

    assert effects == [Start("b", 2)]
    assert machine.handle(7, ChildStarted("b", 2)) == [Wake(15)]


def test_under_rest_for_one_later_siblings_wait_for_the_backoff_of_their_elder() -> None:
    machine = supervision("a", "b", strategy=Strategy.REST_FOR_ONE, backoff=Backoff(10, 100))
    bring_up(machine)
    settle(machine, machine.handle(0, ChildCrashed("a", 1, "boom")))

    assert machine.handle(5, ChildCrashed("a", 2, "boom")) == [Stop("b"), Wake(15)]
    assert settle(machine, machine.handle(15, Woke()), 15) == ["a", "b"]


def test_what_an_older_incarnation_reports_is_ignored() -> None:
    machine = supervision("a")
    bring_up(machine)
    settle(machine, machine.handle(0, ChildCrashed("a", 1, "boom")))

    assert machine.handle(0, ChildCrashed("a", 1, "boom")) == []
    assert machine.handle(0, ChildStopped("a", 1)) == []
    assert machine.handle(0, ChildStarted("a", 1)) == []


def test_shutdown_stops_in_reverse_order_once_and_then_nothing_starts_any_more() -> None:
    machine = supervision("a", "b", "c")
    bring_up(machine)
    machine.handle(0, ChildCrashed("b", 1, "boom"))  # b is starting

    assert machine.handle(0, Shutdown()) == [Stop("c"), Stop("b"), Stop("a")]
    assert machine.handle(0, Shutdown()) == []
    assert machine.handle(0, ChildStarted("b", 2)) == []
    assert machine.handle(0, Begin()) == []
    assert set(machine.states().values()) == {ChildState.ENDED}


@pytest.mark.parametrize(
    "make",
    [
        lambda: supervision("a", "a"),
        lambda: Intensity(-1, SECOND),
        lambda: Intensity(1, 0),
        lambda: Backoff(2, 1),
        lambda: Backoff(-1, 1),
    ],
)
def test_wrong_arguments_are_refused_at_construction(make: object) -> None:
    with pytest.raises(ValueError, match="need"):
        make()  # type: ignore[operator]
