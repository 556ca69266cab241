"""AuditActor and its desk: batches, a bound that is told of, and a crash that loses nothing in silence."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from actors.address import Address
from actors.audit import BATCH_ROWS, FAULT_KINDS_MAX, UNMADE_MAX, AuditActor, AuditDesk
from actors.mailbox import Overflow
from relaymesh.audit import AuditTrail
from relaymesh.store.root import create_layout
from relaymesh.wire.audit import Record, body_of
from relaymesh.wire.audit_mail import FlushAudit
from relaymesh.wire.kernel import Crash, Ping
from tests.actors.fakes import PATIENCE_S, Ends, ManualTimers
from tests.audit import chain


def bodies(count: int, text: str = "a") -> list[str]:
    return [body_of(Record(text, "n1", "r", "ok", {"n": n}), namespace="default", now_ms=0) for n in range(count)]


class Place:
    """One AuditActor on a root of its own."""

    def __init__(self, root: Path, rows_max: int = 100) -> None:
        create_layout(root)
        self.root = root
        self.timers = ManualTimers()
        self.ends = Ends()
        self.address = Address("audit", capacity=64, overflow=Overflow.DROP_NEW)
        self.desk = AuditDesk(self.address, rows_max)

    def launch(self) -> None:
        self.actor = AuditActor(AuditTrail(self.root), self.desk, self.timers)
        self.actor.launch(self.address, on_end=self.ends.put)
        assert self.actor.wait_up(PATIENCE_S)

    def stop(self) -> None:
        self.actor.halt()
        self.ends.last_word()

    def flush(self) -> None:
        self.address.tell(FlushAudit())
        self.address.ask(Ping(), PATIENCE_S)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_rows_of_several_commits_are_written_together(place: Place) -> None:
    place.launch()
    place.desk.offer(bodies(3))
    place.desk.offer(bodies(2))
    place.address.ask(Ping(), PATIENCE_S)
    assert chain.lines(place.root) == []

    place.flush()

    assert len(chain.rows(place.root)) == 5
    place.stop()


def test_rows_for_which_there_is_no_room_are_given_up_and_told_of(tmp_path: Path) -> None:
    place = Place(tmp_path, rows_max=5)
    place.desk.offer(bodies(4))
    place.desk.offer(bodies(3))  # nobody has read the first
    place.launch()

    place.flush()
    place.desk.offer(bodies(1, "later"))
    place.flush()

    rows = chain.rows(tmp_path)
    assert [row["action"] for row in rows] == ["audit.gap", "a", "a", "a", "a", "later"]
    assert rows[0]["details"] == {"lost": 3, "since_ms": None, "cause": "overflow"}
    assert place.desk.lost == 3
    place.stop()


def test_rows_that_are_made_later_keep_their_place(place: Place) -> None:
    place.launch()
    place.desk.offer(bodies(1, "a"))
    assert place.desk.offer_later(2, lambda: bodies(2, "b"))
    place.desk.offer(bodies(1, "c"))

    place.flush()

    assert [row["action"] for row in chain.rows(place.root)] == ["a", "b", "b", "c"]
    place.stop()


def test_only_so_many_rows_wait_to_be_made_and_they_count_as_rows(tmp_path: Path) -> None:
    place = Place(tmp_path, rows_max=UNMADE_MAX)
    taken = [place.desk.offer_later(1, lambda: bodies(1)) for _ in range(UNMADE_MAX)]

    assert all(taken) and not place.desk.offer_later(1, lambda: bodies(1))
    place.desk.offer(bodies(1))

    assert place.desk.lost == 1
    assert place.desk.take() == (bodies(UNMADE_MAX)[:1] * UNMADE_MAX, 1, "overflow")
    assert place.desk.offer_later(1, lambda: bodies(1))


def test_rows_that_cannot_be_made_are_told_of_and_take_no_others_with_them(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    def fall() -> list[str]:
        raise ValueError("what a row was made of")

    place.launch()
    place.desk.offer(bodies(1, "a"))
    assert place.desk.offer_later(2, fall)
    place.desk.offer(bodies(1, "b"))
    assert place.desk.offer_later(1, fall)
    assert place.desk.offer_later(1, lambda: bodies(1, "c"))

    place.flush()

    rows = chain.rows(place.root)
    assert [row["action"] for row in rows] == ["audit.gap", "a", "b", "c"]
    assert rows[0]["details"] == {"lost": 3, "since_ms": None, "cause": "unmade"}
    assert place.desk.lost == 3
    (said,) = caplog.messages
    assert "2 rows of the audit log could not be made" in said and "ValueError in fall" in said
    assert "made of" not in said
    place.stop()


def test_only_so_many_kinds_of_faults_are_logged_and_each_once(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    kinds = [type(f"Kind{n}Error", (Exception,), {}) for n in range(FAULT_KINDS_MAX + 1)]

    def fall(kind: type[Exception]) -> list[str]:
        raise kind

    place.launch()
    for kind in [*kinds, *kinds]:
        place.desk.offer_later(1, partial(fall, kind))
        assert place.desk.take()[1:] == (1, "unmade")

    assert len(caplog.messages) == FAULT_KINDS_MAX
    place.stop()


def test_what_was_collected_is_written_when_the_node_stops(place: Place) -> None:
    place.launch()
    place.desk.offer(bodies(2))
    place.address.ask(Ping(), PATIENCE_S)

    place.stop()

    assert len(chain.rows(place.root)) == 2


def test_nothing_is_refused_when_the_actor_has_ended_for_good(place: Place) -> None:
    place.address.close()

    place.desk.offer(bodies(2))

    assert place.desk.lost == 2


def test_rows_that_waited_when_the_actor_crashed_are_written_by_the_next(place: Place) -> None:
    place.launch()
    place.desk.offer(bodies(2))
    place.address.ask(Ping(), PATIENCE_S)
    place.address.tell(Crash("on purpose"))
    place.ends.last_word()

    place.launch()
    place.desk.offer(bodies(1, "after"))
    place.flush()

    assert [row["action"] for row in chain.rows(place.root)] == ["a", "a", "after"]
    assert place.desk.lost == 0
    place.stop()


def test_rows_that_were_in_hand_at_a_crash_are_told_of_by_the_next(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fall(*_: object, **__: object) -> None:
        raise RuntimeError("on purpose")

    place.launch()
    place.desk.offer(bodies(2))
    with monkeypatch.context() as broken:
        broken.setattr(AuditTrail, "append", fall)
        place.address.tell(FlushAudit())
        place.ends.last_word()

    place.launch()
    place.desk.offer(bodies(1, "after"))
    place.flush()

    gap, after = chain.rows(place.root)
    assert gap["action"] == "audit.gap"
    assert gap["details"] == {"lost": 2, "since_ms": None, "cause": "crash"}
    assert after["action"] == "after"
    place.stop()


def test_only_the_first_row_of_a_batch_wakes_the_actor(place: Place) -> None:
    for _ in range(3):
        place.desk.offer(bodies(1))

    assert place.address.depth == 1


def test_a_batch_that_is_full_does_not_wait_for_its_time(tmp_path: Path) -> None:
    place = Place(tmp_path, rows_max=2 * BATCH_ROWS)
    place.launch()
    place.desk.offer(bodies(1))
    place.desk.offer(bodies(BATCH_ROWS))
    place.address.ask(Ping(), PATIENCE_S)

    assert len(chain.lines(place.root)) == BATCH_ROWS + 1
    place.stop()
