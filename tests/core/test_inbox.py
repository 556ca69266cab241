"""What is done with a file of the inbox: names, decisions, and a world of processes that crash at any moment."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from relaymesh.core import inbox
from relaymesh.core.inbox import Deliver, FolderWatch, Held, Kind, Look, Mark, Refuse, Submit, Take, Wait

TICKET = "tsk_018bcfe5-6800-7a3f-9c41-5d0c8e7b21aa"
OTHER = "tsk_018bcfe5-6800-7a3f-9c41-5d0c8e7b21ab"
SECOND = 1_000_000_000


def ticket(number: int) -> str:
    return f"tsk_018bcfe5-6800-7a3f-9c41-{number:012x}"


# Names ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["order-17.json", "a", "7.msgpack", "A_b.c-d", "x" * inbox.NAME_BYTES_MAX, "console.json", "tmp", "a..b"]
)
def test_a_plain_name_is_taken_as_it_is(name: str) -> None:
    assert inbox.on_sight(name, Kind.FILE) == Take()
    assert inbox.safe_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "-rf",
        "a b",
        "a~b",
        "a\nb",
        "ä.json",
        "\udcff.json",
        "x" * (inbox.NAME_BYTES_MAX + 1),
        "a.result.json",
        "a.reason.json",
        "nul",
        "COM1.json",
        "a.",
        "a:b",
        "a\\b",
    ],
)
def test_a_name_that_some_disk_or_shell_would_trip_over_is_refused_under_a_safe_one(name: str) -> None:
    assert inbox.on_sight(name, Kind.FILE) == Take("bad_name")
    assert inbox.on_sight(inbox.safe_name(name), Kind.FILE) == Take()


@pytest.mark.parametrize("name", [".a.json", ".", "..", "a.tmp", "a.json.part", "1_msg.meta.json"])
@pytest.mark.parametrize("kind", list(Kind))
def test_what_is_being_written_is_left_alone(name: str, kind: Kind) -> None:
    assert isinstance(inbox.on_sight(name, kind), inbox.LeaveAlone)


def test_a_folder_is_left_alone_and_a_link_is_refused_whatever_its_name() -> None:
    assert isinstance(inbox.on_sight("a.json", Kind.FOLDER), inbox.LeaveAlone)
    assert inbox.on_sight("a.json", Kind.OTHER) == Take("not_a_file")
    assert inbox.on_sight("a b", Kind.OTHER) == Take("not_a_file")


any_name = st.text(min_size=1, max_size=300).filter(lambda name: "/" not in name and "\0" not in name)


@given(any_name, st.sampled_from(list(inbox.LANES)), st.sampled_from(["", "bad_name", "not_a_file"]))
def test_a_taken_file_has_a_name_that_is_no_path_and_says_what_it_is(name: str, lane: inbox.Lane, code: str) -> None:
    held = Held.taken(TICKET, lane, name, Take(code))

    assert inbox.parse_held(held.file_name) == held
    assert "/" not in held.file_name and not held.file_name.startswith(".")
    assert len(held.file_name.encode()) + len(".result.json") <= 255
    assert held.refused == (code or None)
    assert held.lane == (None if code else lane)


@given(any_name)
def test_any_name_in_processing_is_one_of_ours_or_none(name: str) -> None:
    held = inbox.parse_held(name)

    assert held is None or held.file_name == name


def test_two_bad_names_that_look_alike_stay_two() -> None:
    assert inbox.safe_name("a b") != inbox.safe_name("a  b")


# Decisions ------------------------------------------------------------------------------------------------------------

STATUSES = [None, "PENDING", "RUNNING", "RETRYING", "SUCCESS", "DEAD_LETTER", "CANCELLED"]


@pytest.mark.parametrize("status", STATUSES)
def test_a_taken_file_is_submitted_only_if_its_ticket_is_unknown(status: str | None) -> None:
    step = inbox.next_step(Held(TICKET, "high", "a"), status)

    assert step == (Submit() if status is None else Mark(TICKET))


@pytest.mark.parametrize(
    ("status", "step"),
    [
        (None, Refuse("task_gone")),
        ("PENDING", Wait()),
        ("RUNNING", Wait()),
        ("RETRYING", Wait()),
        ("SUCCESS", Deliver(succeeded=True)),
        ("DEAD_LETTER", Deliver(succeeded=False)),
        ("CANCELLED", Deliver(succeeded=False)),
    ],
)
def test_a_stored_file_follows_its_task_and_is_never_submitted_again(status: str | None, step: inbox.Step) -> None:
    assert inbox.next_step(Held(TICKET, OTHER, "a"), status) == step


@pytest.mark.parametrize("status", STATUSES)
def test_what_the_name_has_refused_stays_refused(status: str | None) -> None:
    assert inbox.next_step(Held(TICKET, "refused-bad_name", "a"), status) == Refuse("bad_name")


def test_only_a_fresh_file_may_be_unfinished() -> None:
    assert inbox.may_be_unfinished(1_000, 1_000 + inbox.SETTLE_MS - 1)
    assert not inbox.may_be_unfinished(1_000, 1_000 + inbox.SETTLE_MS)
    assert not inbox.may_be_unfinished(1_001, 1_000)  # a clock ahead of ours must not keep a file for ever


# When to list ---------------------------------------------------------------------------------------------------------


def test_a_folder_that_has_not_changed_for_long_is_listed_once() -> None:
    watch = FolderWatch()

    assert watch.due(5, Look(100 * SECOND, 1))
    watch.listed(5, Look(100 * SECOND, 1), whole=True)

    assert not watch.due(5, Look(101 * SECOND, SECOND))


def test_a_listing_right_after_a_change_is_repeated_because_another_change_may_have_the_same_instant() -> None:
    watch = FolderWatch()

    watch.listed(100 * SECOND, Look(101 * SECOND, 1), whole=True)
    assert watch.due(100 * SECOND, Look(102 * SECOND, SECOND))
    watch.listed(100 * SECOND, Look(102 * SECOND, SECOND), whole=True)

    assert not watch.due(100 * SECOND, Look(103 * SECOND, 2 * SECOND))


def test_a_folder_is_listed_again_when_it_was_not_read_to_its_end() -> None:
    watch = FolderWatch()

    watch.listed(5, Look(100 * SECOND, 1), whole=False)

    assert watch.due(5, Look(100 * SECOND, 2))


def test_a_folder_is_listed_now_and_then_for_disks_whose_clock_is_not_ours() -> None:
    watch = FolderWatch()
    watch.listed(5, Look(100 * SECOND, 0), whole=True)

    assert not watch.due(5, Look(129 * SECOND, inbox.LOOK_ANYWAY_NS - 1))
    assert watch.due(5, Look(130 * SECOND, inbox.LOOK_ANYWAY_NS))


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=40))
def test_no_drop_stays_unseen_however_coarse_the_disk_notes_it(steps: list[tuple[int, bool]]) -> None:
    """The disk notes whole seconds; a drop may come at any moment, also while the folder is listed."""
    watch, now, noted = FolderWatch(), 1_000 * SECOND, 0
    lying = seen = 0
    for tenths, drops in [*steps, (40, False)]:
        now += tenths * SECOND // 10
        look = Look(now, now)
        before = noted
        if watch.due(before, look):
            seen = lying
            watch.listed(before, look, whole=True)
        if drops:
            lying += 1
            noted = now // SECOND * SECOND
    if watch.due(noted, Look(now, now)):
        seen = lying

    assert seen == lying


# A world that crashes -------------------------------------------------------------------------------------------------


class World(RuleBasedStateMachine):
    """Files with keys, processes that take them, and a database; any process may end between any two of its steps.

    A process is only what it remembers: the file that it holds in hand, and what it is about to do. What is on disk is
    a set of names in a folder; the database is tasks by id and holders by key.
    """

    @initialize(files=st.lists(st.tuples(st.integers(0, 2), st.booleans()), min_size=1, max_size=4))
    def drop(self, files: list[tuple[int, bool]]) -> None:
        self.key = {f"f{number}": f"k{key}" for number, (key, _) in enumerate(files)}
        self.succeeds = {f"k{key}": good for key, good in files}
        self.lane = set(self.key)
        self.folders: dict[int, set[str]] = {0: set(), 1: set()}
        self.hands: dict[int, tuple[str, Held] | None] = {0: None, 1: None}
        self.tasks: dict[str, str] = {}
        self.holder: dict[str, str] = {}
        self.key_of_task: dict[str, str] = {}
        self.shown: list[str] = []
        self.answers: dict[str, str] = {}
        self.put_away: dict[str, str] = {}
        self.tickets = 0

    def fresh(self) -> str:
        self.tickets += 1
        return ticket(self.tickets)

    def rename(self, who: int, old: Held, new: Held) -> bool:
        if old.file_name not in self.folders[who]:
            return False
        self.folders[who].remove(old.file_name)
        self.folders[who].add(new.file_name)
        return True

    @rule(who=st.sampled_from([0, 1]))
    def take(self, who: int) -> None:
        if self.lane and self.hands[who] is None:
            name = self.lane.pop()
            held = Held.taken(self.fresh(), "high", name, Take())
            self.folders[who].add(held.file_name)
            self.hands[who] = ("submit", held)

    @rule(who=st.sampled_from([0, 1]))
    def find(self, who: int) -> None:
        """Go on with a file of our folder that nobody has in hand."""
        if self.hands[who] is not None or not self.folders[who]:
            return
        held = inbox.parse_held(min(self.folders[who]))
        assert held is not None
        match inbox.next_step(held, self.tasks.get(held.task_id or held.ticket)):
            case Submit():
                new = Held(self.fresh(), held.mark, held.name)
                if self.rename(who, held, new):
                    self.hands[who] = ("submit", new)
            case Mark(task_id):
                self.hands[who] = (f"mark {task_id}", held)
            case Deliver():
                self.hands[who] = ("answer", held)
            case Refuse(code):
                raise AssertionError(code)

    @rule(who=st.sampled_from([0, 1]))
    def go_on(self, who: int) -> None:
        hand = self.hands[who]
        if hand is None:
            return
        what, held = hand
        self.hands[who] = None
        if what == "submit":
            self.shown.append(held.ticket)
            key = self.key[held.name]
            task_id = self.holder.setdefault(key, held.ticket)
            if task_id == held.ticket:
                self.tasks[task_id] = "PENDING"
                self.key_of_task[task_id] = key
            self.hands[who] = (f"mark {task_id}", held)
        elif what.startswith("mark"):
            self.rename(who, held, Held(held.ticket, what.removeprefix("mark "), held.name))
        elif what == "answer":
            assert self.answers.setdefault(held.name, held.ticket) == held.ticket
            self.hands[who] = ("put away", held)
        elif held.file_name in self.folders[who]:
            self.folders[who].remove(held.file_name)
            assert held.name not in self.put_away
            self.put_away[held.name] = held.mark

    @rule(who=st.sampled_from([0, 1]))
    def crash(self, who: int) -> None:
        self.hands[who] = None

    @rule(who=st.sampled_from([0, 1]))
    def adopt(self, who: int) -> None:
        """Take over a file of the other one, which may be alive and have it in hand."""
        if self.folders[1 - who]:
            name = self.folders[1 - who].pop()
            self.folders[who].add(name)

    @precondition(lambda self: bool(self.tasks))
    @rule()
    def run(self) -> None:
        task_id = min(self.tasks, key=lambda task_id: (self.tasks[task_id] != "PENDING", task_id))
        if self.tasks[task_id] == "PENDING":
            good = self.succeeds[self.key_of_task[task_id]]
            self.tasks[task_id] = "SUCCESS" if good else "DEAD_LETTER"

    @invariant()
    def every_file_is_in_one_place(self) -> None:
        if not hasattr(self, "key"):
            return
        held = [inbox.parse_held(name) for folder in self.folders.values() for name in folder]
        names = sorted([*self.lane, *self.put_away, *(one.name for one in held if one is not None)])
        assert names == sorted(self.key)

    @invariant()
    def a_key_has_one_task_and_a_ticket_is_shown_once(self) -> None:
        if hasattr(self, "key"):
            assert len(set(self.key_of_task.values())) == len(self.key_of_task)
            assert len(set(self.shown)) == len(self.shown)

    def teardown(self) -> None:
        """Left alone for long enough, every file ends beside its answer, with the task of its key."""
        if not hasattr(self, "key"):
            return
        self.crash(0)
        self.crash(1)
        for _ in range(200):
            self.adopt(0)
            self.take(0)
            self.find(0)
            self.go_on(0)
            if self.tasks:
                self.run()
        assert set(self.put_away) == set(self.key) == set(self.answers)
        for name, task_id in self.put_away.items():
            assert task_id == self.holder[self.key[name]]


TestWorld = World.TestCase
TestWorld.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
