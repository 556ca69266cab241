from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

from relaymesh import Client
from relaymesh.console.asker import Asker
from relaymesh.core.console_event import Act, Acted, Action, Failed, Look, Query, Seen, Told, Verb


class Endless(Client):
    """The first look takes for ever, unless somebody breaks it off."""

    looked = 0
    begun: threading.Event

    def status(self) -> Any:
        self.looked += 1
        if self.looked == 1:
            self._readable()
            self.begun.set()
            self.query("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n) SELECT count(*) FROM n")
        return super().status()


class Answers:
    def __init__(self, client: Client) -> None:
        self.come = threading.Event()
        self.asker = Asker(lambda: client, self.come.set)

    def next(self) -> Any:
        assert self.come.wait(30)
        self.come.clear()
        (answer,) = self.asker.take()
        return answer


def test_a_slow_query_is_broken_off_and_the_next_one_answers(root: Path) -> None:
    client = Endless(root)
    client.begun = threading.Event()
    answers = Answers(client)
    answers.asker.put(Query(1))
    assert client.begun.wait(30)

    until = time.monotonic() + 20
    while not answers.come.is_set():  # it may be between two statements, where there is nothing to break off
        answers.asker.interrupt(1)
        assert time.monotonic() < until
    failed = answers.next()
    answers.asker.put(Query(2))

    assert failed == Failed(1, "the store did not answer in time")
    assert isinstance(answers.next(), Seen)
    answers.asker.close()


def test_an_interrupt_of_another_version_does_nothing(root: Path) -> None:
    answers = Answers(Client(root))
    answers.asker.put(Query(1))
    answers.asker.interrupt(7)

    assert isinstance(answers.next(), Seen)
    answers.asker.close()


def test_actions_are_done_by_the_client_and_recorded(root: Path) -> None:
    with Client(root) as client:
        task = client.submit("echo", "hello")
    answers = Answers(Client(root))
    said = []
    for action in (
        Action(Verb.CANCEL, task.task_id),
        Action(Verb.CANCEL, task.task_id),
        Action(Verb.REPLAY, task.task_id),
        Action(Verb.PAUSE, "HIGH"),
        Action(Verb.RESUME, "HIGH"),
        Action(Verb.CANCEL, "tsk_none"),
    ):
        answers.asker.put(Act(action))
        said.append(answers.next())
    answers.asker.close()

    assert [one.done for one in said if isinstance(one, Acted)] == [True, False, False, True, True, False]
    with Client(root) as client:
        recorded = " ".join(client.audit_tail(20))
        assert client.task(task.task_id).status == "CANCELLED"
    assert all(action in recorded for action in ("task.cancel", "queue.pause", "queue.resume"))


def test_a_look_at_a_task_that_is_gone_is_a_sentence(root: Path) -> None:
    answers = Answers(Client(root))
    answers.asker.put(Look(3, "tsk_none"))

    told = answers.next()

    assert isinstance(told, Told) and "there is no task" in told.lines[0]
    answers.asker.close()


def test_a_root_that_was_put_in_the_place_of_another_is_read(root: Path, tmp_path: Path) -> None:
    answers = Answers(Client(root))
    answers.asker.put(Query(1))
    first = answers.next()
    with Client(tmp_path / "other") as other:
        other.submit("echo", "hello")
    root.rename(tmp_path / "former")
    (tmp_path / "other").rename(root)

    answers.asker.put(Query(2))

    assert sum(lane.waiting for lane in first.body.status.lanes) == 0
    assert sum(lane.waiting for lane in answers.next().body.status.lanes) == 1
    answers.asker.close()
