"""When a node looks by itself: never later than is said, and no oftener than is worth it."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relaymesh.core.look import (
    ADOPT_TICKS,
    CHECKPOINT_NS,
    IDLE_POLL_NS,
    INBOX_LOOK_NS,
    POLL_NS,
    QUIET_LOOKS,
    REPAIR_TICKS,
    REST_TICKS,
    VERIFY_NS,
    Checkpoint,
    InboxLook,
    InboxLooks,
    LookEffect,
    LookEvery,
    LookIn,
    StoreLooks,
    VerifyLong,
    next_due_ns,
)

# A machine with much else to do is no reason to fail.
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

MS = 1_000_000

instants = st.integers(0, 10**15)
periods = st.integers(1, 10**12)


@patient
@given(instants, periods, instants)
def test_the_next_due_time_is_the_first_whole_period_after_now(now_ns: int, period_ns: int, since_ns: int) -> None:
    due_ns = next_due_ns(now_ns, period_ns, since_ns=since_ns)

    assert now_ns < due_ns <= now_ns + period_ns
    assert (due_ns - since_ns) % period_ns == 0


@patient
@given(instants, instants, st.integers(1, 10**9), st.integers(1, 50))
def test_periods_that_divide_each_other_fall_due_together_whenever_they_were_set(
    now_ns: int, earlier_ns: int, short_ns: int, times: int
) -> None:
    long_due_ns = next_due_ns(earlier_ns, short_ns * times)

    while long_due_ns <= now_ns:
        long_due_ns = next_due_ns(now_ns, short_ns * times, since_ns=long_due_ns)

    assert next_due_ns(long_due_ns - 1, short_ns) == long_due_ns


def test_the_looks_of_an_idle_node_share_their_wake_ups() -> None:
    assert next_due_ns(7, IDLE_POLL_NS) == next_due_ns(3, INBOX_LOOK_NS)
    assert CHECKPOINT_NS % IDLE_POLL_NS == 0


class Node:
    """Looks whenever the rule says, on a clock of its own; its wall clock began with it."""

    def __init__(self) -> None:
        self.now_ns = 0
        self.looks = StoreLooks()
        self.at_ns: list[int] = []
        self.effects: list[tuple[int, LookEffect]] = []
        self.due_at_ms: int | None = None
        self.once_ns: int | None = None
        self.take(self.looks.begin(0))

    def take(self, effect: LookEffect | None) -> None:
        match effect:
            case LookEvery(period_ns):
                self.period_ns = period_ns
                self.next_ns = next_due_ns(self.now_ns, period_ns)
            case LookIn(delay_ns):
                self.once_ns = self.now_ns + delay_ns

    def look(self) -> None:
        """Let time pass until the next look, and look."""
        if self.once_ns is not None and self.once_ns < self.next_ns:
            self.now_ns, self.once_ns = self.once_ns, None
        else:
            self.now_ns = self.next_ns
            self.next_ns = next_due_ns(self.now_ns, self.period_ns)
            if self.once_ns == self.now_ns:
                self.once_ns = None
        self.at_ns.append(self.now_ns)
        due_in_ms = None if self.due_at_ms is None else self.due_at_ms - self.now_ns // MS
        for effect in self.looks.looked(self.now_ns, due_in_ms=due_in_ms):
            self.effects.append((self.now_ns, effect))
            self.take(effect)

    def stir(self) -> None:
        self.take(self.looks.stirred())

    def run(self, until_ns: int) -> None:
        while min(self.next_ns, self.once_ns or self.next_ns) <= until_ns:
            assert len(self.at_ns) < 10_000, "it looks without a pause"
            self.look()

    def times(self, kind: type[LookEffect]) -> list[int]:
        return [at_ns for at_ns, effect in self.effects if isinstance(effect, kind)]

    def pauses(self) -> set[int]:
        return {after - before for before, after in pairwise(self.at_ns)}


def quiet_node() -> Node:
    node = Node()
    for _ in range(QUIET_LOOKS + 1):
        node.look()
    assert node.period_ns == IDLE_POLL_NS
    node.at_ns.clear()
    return node


happenings = st.lists(st.sampled_from(["look", "look", "look", "news", "stir", "wrote"]), max_size=80)


def let_happen(node: Node, what: str) -> None:
    match what:
        case "look":
            node.look()
        case "news":
            node.looks.found_news()
            node.look()
        case "stir":
            node.stir()
        case "wrote":
            node.looks.wrote()


@patient
@given(happenings)
def test_no_pause_is_longer_than_that_of_an_idle_node_and_none_after_something_happened_than_that_of_a_busy_one(
    events: list[str],
) -> None:
    node = Node()
    for what in events:
        let_happen(node, what)
        longest_ns = POLL_NS if what in ("news", "stir") else IDLE_POLL_NS
        assert node.next_ns - node.now_ns <= longest_ns


@patient
@given(happenings)
def test_looks_become_rare_after_enough_of_them_that_found_nothing_and_not_before(events: list[str]) -> None:
    node = Node()
    quiet = 0
    for what in events:
        let_happen(node, what)
        quiet = {"news": 0, "stir": 0, "wrote": quiet, "look": quiet + 1}[what]
        assert node.period_ns == (IDLE_POLL_NS if quiet >= QUIET_LOOKS else POLL_NS)


def test_an_idle_node_looks_at_whole_periods_and_no_oftener() -> None:
    node = quiet_node()

    node.run(node.now_ns + 10 * IDLE_POLL_NS)

    assert node.pauses() == {IDLE_POLL_NS}
    assert all(at_ns % IDLE_POLL_NS == 0 for at_ns in node.at_ns)


@patient
@given(happenings, st.integers(0, 1_000))
def test_what_is_due_is_looked_at_when_it_is(events: list[str], in_ms: int) -> None:
    node = Node()
    for what in events:
        let_happen(node, what)
    node.look()  # the one that finds out what is due next
    node.due_at_ms = node.now_ns // MS + IDLE_POLL_NS // MS + in_ms

    node.run(node.due_at_ms * MS + 2 * MS)

    assert node.due_at_ms * MS <= node.at_ns[-1] <= (node.due_at_ms + 2) * MS


@patient
@given(st.integers(-100_000, -1))
def test_what_is_overdue_causes_no_looks_of_its_own(due_in_ms: int) -> None:
    node = quiet_node()
    for _ in range(5):
        node.due_at_ms = node.now_ns // MS + due_in_ms
        node.look()

    assert node.pauses() == {IDLE_POLL_NS}


@patient
@given(happenings)
def test_after_news_running_steps_are_verified_soon_and_never_oftener_than_is_said(events: list[str]) -> None:
    node = Node()
    asked_ns: int | None = None
    for what in [*events, "look", "look", "look", "look"]:
        before = len(node.times(VerifyLong))
        let_happen(node, what)
        if what == "news" and asked_ns is None:
            asked_ns = node.now_ns
        if len(node.times(VerifyLong)) > before:
            assert asked_ns is not None, "nobody has committed anything since"
            assert node.now_ns - asked_ns <= VERIFY_NS + IDLE_POLL_NS
            asked_ns = None

    assert asked_ns is None
    verified = node.times(VerifyLong)
    assert all(after - before >= VERIFY_NS for before, after in pairwise(verified))


def test_a_look_that_an_error_broke_off_is_made_up_for_by_the_next_one() -> None:
    looks = StoreLooks()
    looks.begin(0)

    looks.found_news()  # and then it cannot be read what is due

    assert VerifyLong() in looks.looked(POLL_NS, due_in_ms=None)


@patient
@given(st.lists(st.booleans(), min_size=1, max_size=4))
def test_the_log_is_copied_now_and_then_and_cut_only_when_nothing_was_written_meanwhile(wrote: list[bool]) -> None:
    node = Node()
    for round_, writes in enumerate(wrote, 1):
        if writes:
            node.looks.wrote()
        node.run(round_ * (CHECKPOINT_NS + IDLE_POLL_NS))

    found = [effect.idle for _, effect in node.effects if isinstance(effect, Checkpoint)]
    assert found == [not writes for writes in wrote]


ticks = st.lists(st.sampled_from(["tick", "tick", "tick", "trouble", "adopted"]), max_size=400)


@patient
@given(ticks)
def test_the_inbox_rests_after_trouble_and_leaves_out_so_many_looks(events: list[str]) -> None:
    looks = InboxLooks()
    left_out = 0
    for what in events:
        match what:
            case "tick":
                assert looks.resting == (left_out > 0)
                assert (looks.tick() is None) == (left_out > 0)
                left_out = max(0, left_out - 1)
            case "trouble":
                looks.trouble()
                left_out = REST_TICKS


@patient
@given(ticks)
def test_searches_in_the_inbox_come_in_time_whatever_rests_there_are(events: list[str]) -> None:
    looks = InboxLooks()
    since_adopt, since_repair = ADOPT_TICKS, 0
    for what in events:
        match what:
            case "tick":
                since_adopt, since_repair = since_adopt + 1, since_repair + 1
                look = looks.tick()
                if look is None:
                    continue
                assert look.adopts == (since_adopt >= ADOPT_TICKS)
                assert look.repairs == (since_repair >= REPAIR_TICKS)
                since_adopt = 0 if look.adopts else since_adopt
                since_repair = 0 if look.repairs else since_repair
            case "trouble":
                looks.trouble()
            case "adopted":
                looks.adopted()
                since_adopt = ADOPT_TICKS


def test_a_new_inbox_searches_for_files_of_the_dead_at_once_and_for_missing_ones_later() -> None:
    looks = InboxLooks()

    found = [looks.tick() for _ in range(3 * REPAIR_TICKS)]

    assert found[0] == InboxLook(adopts=True, repairs=False)
    assert [number for number, look in enumerate(found, 1) if look is not None and look.repairs] == [
        REPAIR_TICKS,
        2 * REPAIR_TICKS,
        3 * REPAIR_TICKS,
    ]
