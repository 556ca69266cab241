"""What is looked at beside the screen, in a thread of its own."""

from __future__ import annotations

import threading
from pathlib import Path

from relaymesh import Client
from relaymesh.console.asker import Asker
from relaymesh.console.board import Board
from relaymesh.console.checker import Checker
from relaymesh.core.console_event import Query, Seen
from relaymesh.status_view import StatusChecks
from tests.actors.fakes import eventually

FOUND = StatusChecks(1, ("a key is broken",), ("files wait",))


def test_a_look_that_hangs_keeps_nobody_waiting_and_is_not_begun_twice() -> None:
    checker, go_on, looks = Checker(), threading.Event(), []

    def look() -> StatusChecks:
        looks.append(threading.current_thread())
        go_on.wait(30)
        return FOUND

    assert [checker.latest(look) for _ in range(3)] == [None, None, None]
    go_on.set()
    eventually(lambda: checker.latest(look) == FOUND)

    assert len(looks) == 1
    assert looks[0] is not threading.current_thread()
    checker.close()


def test_a_look_that_fails_is_a_sentence_and_the_next_root_is_looked_at_anew() -> None:
    checker = Checker()

    def fall() -> StatusChecks:
        raise ValueError("on purpose")

    eventually(lambda: checker.latest(fall) is not None)
    assert checker.latest(fall).problems == ("nothing can be checked: ValueError: on purpose",)  # type: ignore[union-attr]

    checker.forget()
    eventually(lambda: checker.latest(lambda: FOUND) == FOUND)
    checker.close()


def test_the_screen_shows_the_queue_at_once_and_what_was_checked_when_it_is_there(root: Path) -> None:
    (root / "security" / "gossip-keys.json").write_text("no keys")
    go_on = threading.Event()

    class Slow(Client):
        def checks(self) -> StatusChecks:
            go_on.wait(30)
            return super().checks()

    come = threading.Event()
    asker = Asker(lambda: Slow(root), come.set)

    def seen(version: int) -> Board:
        come.clear()
        asker.put(Query(version))
        assert come.wait(30)
        (answer,) = asker.take()
        assert isinstance(answer, Seen) and isinstance(answer.body, Board)
        return answer.body

    first = seen(1).status.health
    go_on.set()
    eventually(lambda: seen(2).status.health.checks_age_ms is not None)
    later = seen(3).status.health
    asker.close()

    assert (first.ok, first.checks_age_ms) == (True, None)
    assert not later.ok and any("the keys of the mesh" in problem for problem in later.problems)
