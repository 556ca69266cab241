from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from relaymesh.core.console import DEADLINE_NS, FILTER_CHARS_MAX, Console, Mode
from relaymesh.core.console_event import (
    Act,
    Acted,
    Action,
    Effect,
    Failed,
    Interrupt,
    Key,
    Look,
    Query,
    Quit,
    Resize,
    Row,
    Seen,
    Tick,
    Told,
    Verb,
)
from relaymesh.core.console_history import Sample
from relaymesh.core.console_layout import Pane

SECOND = 1_000_000_000
INTERVAL_MS = 2_000


def new_console(*, read_only: bool = False) -> Console:
    return Console(interval_ms=INTERVAL_MS, read_only=read_only, width=80, height=24)


def seen(version: int, *, running: int = 2, dead: int = 1, paused: frozenset[str] = frozenset(), at: int = 0) -> Seen:
    return Seen(
        version=version,
        body=f"body {version}",
        rows={
            Pane.MEMBERS: (Row("node-local", "node-local", lines=("all of it",)),),
            Pane.QUEUE: tuple(Row(lane, lane, pauses=lane) for lane in ("HIGH", "NORMAL", "LOW")),
            Pane.RUNNING: tuple(Row(f"stp_{n}", f"stp_{n} echo", f"tsk_{n}", cancels=True) for n in range(running)),
            Pane.TROUBLE: tuple(Row(f"dead_{n}", "boom", f"tsk_dead_{n}", replays=True) for n in range(dead)),
        },
        sample=Sample(at, (1, 2, 3), (None, 5, None), 0.5),
        paused=paused,
    )


def shown(console: Console, **what: object) -> None:
    (query,) = [effect for effect in console.handle(0, Tick()) if isinstance(effect, Query)]
    console.handle(0, seen(query.version, **what))  # type: ignore[arg-type]


def press(console: Console, *names: str, now_ns: int = 0) -> list[Effect]:
    return [effect for name in names for effect in console.handle(now_ns, Key(name))]


def acts(effects: list[Effect]) -> list[Action]:
    return [effect.action for effect in effects if isinstance(effect, Act)]


def test_an_action_needs_its_y() -> None:
    console = new_console()
    shown(console)

    assert acts(press(console, "tab", "tab", "C")) == []
    assert console.mode is Mode.CONFIRM
    assert acts(press(console, "y")) == [Action(Verb.CANCEL, "tsk_0")]


@pytest.mark.parametrize("key", ["n", "Y", "enter", "escape", "space", "q", "C"])
def test_any_other_key_does_nothing(key: str) -> None:
    console = new_console()
    shown(console)

    assert acts(press(console, "tab", "tab", "C", key)) == []
    assert console.mode is Mode.LIST
    assert "nothing was changed" in console.message


def test_what_was_asked_about_is_what_is_done_whatever_moved_meanwhile() -> None:
    console = new_console()
    shown(console)
    press(console, "tab", "tab", "j", "C")

    (query,) = [one for one in console.handle(3 * SECOND, Tick()) if isinstance(one, Query)]
    console.handle(3 * SECOND, seen(query.version, running=1))

    assert acts(press(console, "y", now_ns=3 * SECOND)) == [Action(Verb.CANCEL, "tsk_1")]


@pytest.mark.parametrize("key", ["C", "R", "P"])
def test_a_read_only_console_refuses_with_a_sentence(key: str) -> None:
    console = new_console(read_only=True)
    shown(console)
    press(console, "tab", "tab")

    assert acts(press(console, key, "y")) == []
    press(console, key)
    assert "--read-only" in console.message


def test_p_is_about_the_lane_that_is_selected_and_elsewhere_about_all() -> None:
    console = new_console()
    shown(console, paused=frozenset({"LOW"}))

    assert acts(press(console, "P", "y")) == [Action(Verb.PAUSE, "")]
    console.handle(0, Acted("paused", done=True))
    assert acts(press(console, "tab", "G", "P", "y")) == [Action(Verb.RESUME, "LOW")]


def test_a_second_action_waits_for_the_answer_to_the_first() -> None:
    console = new_console()
    shown(console)
    press(console, "P", "y")

    assert acts(press(console, "P", "y")) == []
    press(console, "P")
    assert "not done yet" in console.message


def test_r_is_for_dead_letters_only() -> None:
    console = new_console()
    shown(console)

    assert acts(press(console, "tab", "tab", "R", "y")) == []
    assert acts(press(console, "tab", "R", "y")) == [Action(Verb.REPLAY, "tsk_dead_0")]


def test_enter_looks_at_a_task_and_shows_the_answer_to_that_look_only() -> None:
    console = new_console()
    shown(console)

    looks = [one for one in press(console, "tab", "tab", "enter", "q", "j", "enter") if isinstance(one, Look)]
    console.handle(0, Told(looks[0].version, ("of the first",)))
    assert console.detail == ()
    console.handle(0, Told(looks[1].version, ("of the second",)))

    assert [look.task_id for look in looks] == ["tsk_0", "tsk_1"]
    assert console.detail == ("of the second",)


def test_the_filter_narrows_rows_and_escape_shows_all() -> None:
    console = new_console()
    shown(console, running=3)
    press(console, "tab", "tab", "/", *"STP_1", "enter")

    assert [row.key for row in console.rows(Pane.RUNNING)] == ["stp_1"]
    assert len(console.rows(Pane.QUEUE)) == 3
    press(console, "escape")
    assert len(console.rows(Pane.RUNNING)) == 3


def test_a_letter_within_a_filter_is_no_command() -> None:
    console = new_console()
    shown(console)

    assert not [one for one in press(console, "/", "q", "C", "y") if isinstance(one, Quit | Act)]
    assert console.filter == "qCy"


def test_space_holds_what_is_shown_while_the_history_goes_on() -> None:
    console = new_console()
    shown(console)
    before = console.shown
    press(console, "space")
    (query,) = [one for one in console.handle(3 * SECOND, Tick()) if isinstance(one, Query)]
    console.handle(3 * SECOND, seen(query.version, at=3 * SECOND))

    assert console.shown is before
    assert len(console.history) == 2
    press(console, "space", now_ns=3 * SECOND)
    assert console.shown is not before


def news(console: Console, *keys: str) -> None:
    at_ns = console.next_at_ns(0)
    (query,) = [effect for effect in console.handle(at_ns, Tick()) if isinstance(effect, Query)]
    rows = {Pane.NEWS: tuple(Row(key, f"node {key}") for key in keys)}
    sample = Sample(0, (0, 0, 0), (None, None, None), 0.0)
    console.handle(at_ns, Seen(query.version, "body", rows, sample, frozenset()))


def test_who_reads_the_latest_news_gets_the_next_and_who_reads_an_older_one_stays_with_it() -> None:
    console = new_console()
    news(console, "2", "1")
    console.focus = Pane.NEWS

    news(console, "3", "2", "1")

    assert console.selected(Pane.NEWS) == 0

    press(console, "down")
    news(console, "5", "4", "3", "2", "1")

    assert console.rows(Pane.NEWS)[console.selected(Pane.NEWS)].key == "2"


def test_data_is_stale_from_when_it_was_asked_for() -> None:
    console = new_console()
    (query,) = [one for one in console.handle(0, Tick()) if isinstance(one, Query)]

    console.handle(2 * SECOND, seen(query.version))

    assert not console.stale(6 * SECOND)
    assert console.stale(6 * SECOND + 1)


def test_a_query_past_its_deadline_is_broken_off_and_no_other_is_asked() -> None:
    console = new_console()
    console.handle(0, Tick())

    effects = console.handle(DEADLINE_NS + 1, Tick())

    assert [one for one in effects if isinstance(one, Interrupt)] == [Interrupt(1)]
    assert not [one for one in effects if isinstance(one, Query)]


def test_a_root_that_cannot_be_read_ends_it_at_the_start_and_is_told_later() -> None:
    at_start, later = new_console(), new_console()
    shown(later)
    later.handle(3 * SECOND, Tick())
    at_start.handle(0, Tick())

    assert at_start.handle(0, Failed(1, "there is no root", hopeless=True)) == [Quit(1)]
    assert not [one for one in later.handle(0, Failed(2, "gone", hopeless=True)) if isinstance(one, Quit)]
    assert later.problem == "gone"


@pytest.mark.parametrize("interval_ms", [0, 499, 60_001])
def test_an_interval_out_of_bounds_is_refused(interval_ms: int) -> None:
    with pytest.raises(ValueError, match="interval"):
        Console(interval_ms=interval_ms, read_only=False, width=80, height=24)


KEYS = [*"jkgGqQyYnCRP?/ax", "tab", "backtab", "enter", "escape", "space", "backspace", "up", "down", "page_up"]
KEYS += ["page_down", "home", "end", "left", "right", "delete", "redraw", "interrupt"]


class Anything(RuleBasedStateMachine):
    """Any events in any order. Nothing is done that was not confirmed, and nothing is unbounded."""

    def __init__(self) -> None:
        super().__init__()
        self.now_ns = 0
        self.queries: list[int] = []
        self.looks: list[int] = []
        self.acting: list[Action] = []
        self.over = False
        self.console = new_console()

    def tell(self, event: object) -> None:
        asked = self.console.confirming
        frozen, before = self.console.frozen, self.console.shown
        effects = self.console.handle(self.now_ns, event)  # type: ignore[arg-type]
        if self.over:
            assert effects == []
        for effect in effects:
            match effect:
                case Query(version):
                    assert not self.queries
                    self.queries.append(version)
                case Look(version):
                    self.looks = [version]
                case Act(action):
                    assert event == Key("y") and action == asked
                    assert not self.acting
                    assert not self.console.read_only
                    self.acting.append(action)
                case Interrupt(version):
                    assert [version] == self.queries
                case Quit():
                    self.over = True
        if frozen and self.console.frozen:
            assert self.console.shown is before

    @rule(read_only=st.booleans())
    @precondition(lambda self: self.now_ns == 0 and self.console.shown is None)
    def may_be_read_only(self, read_only: bool) -> None:
        if not self.queries and not self.over:
            self.console = new_console(read_only=read_only)

    @rule(keys=st.lists(st.sampled_from(KEYS[:-1]), min_size=1, max_size=6))
    def type(self, keys: list[str]) -> None:
        for key in keys:
            if key != "q" or self.console.mode is not Mode.LIST:  # else most runs would end at once
                self.tell(Key(key))

    @rule(key=st.sampled_from(["q", "interrupt"]))
    @precondition(lambda self: self.now_ns > 60 * SECOND)
    def leave(self, key: str) -> None:
        self.tell(Key(key))

    @rule(ns=st.integers(1, 20 * SECOND))
    def wait(self, ns: int) -> None:
        self.now_ns += ns
        self.tell(Tick())

    @rule(running=st.integers(0, 40), dead=st.integers(0, 5), paused=st.sets(st.sampled_from(["", "LOW"])))
    @precondition(lambda self: bool(self.queries))
    def answer(self, running: int, dead: int, paused: set[str]) -> None:
        version = self.queries.pop()
        self.tell(seen(version, running=running, dead=dead, paused=frozenset(paused), at=self.now_ns))

    @rule(hopeless=st.booleans())
    @precondition(lambda self: bool(self.queries))
    def fail(self, hopeless: bool) -> None:
        self.tell(Failed(self.queries.pop(), "did not work", hopeless))

    @rule(version=st.integers(0, 50))
    def answer_nobody(self, version: int) -> None:
        if version not in self.queries:
            before = self.console.shown
            self.tell(seen(version))
            assert self.console.shown is before

    @rule()
    @precondition(lambda self: bool(self.acting))
    def acted(self) -> None:
        self.acting.pop()
        self.tell(Acted("done", done=True))

    @rule(lines=st.integers(0, 5_000))
    @precondition(lambda self: bool(self.looks))
    def told(self, lines: int) -> None:
        self.tell(Told(self.looks.pop(), ("x",) * lines))

    @rule(width=st.integers(-1, 300), height=st.integers(-1, 100))
    def resize(self, width: int, height: int) -> None:
        self.tell(Resize(width, height))

    @invariant()
    def everything_is_in_bounds(self) -> None:
        console = self.console
        assert (console.mode is Mode.CONFIRM) == (console.confirming is not None)
        assert len(console.filter) <= FILTER_CHARS_MAX
        assert 0 <= console.detail_top <= max(0, len(console.detail) - 1)
        assert console.next_at_ns(self.now_ns) > self.now_ns
        for pane in Pane:
            rows = console.rows(pane)
            assert console.selected(pane) in (range(len(rows)) if rows else (0,))


TestAnything = Anything.TestCase
TestAnything.settings = settings(max_examples=25, stateful_step_count=30, deadline=None)
