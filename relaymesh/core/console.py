"""The status console: what a key does, what must be confirmed, when to ask again, what is stale.

               ?                    any other key
    LIST ──────────▶ HELP ────────────────────────▶ LIST
      │    /              enter, escape
      ├────▶ FILTER ──────────────────────────────▶ LIST
      │    enter            q, escape
      ├────▶ DETAIL ──────────────────────────────▶ LIST
      │    C R P           y: Act     any other key: nothing
      └────▶ CONFIRM ─────────────────────────────▶ LIST

What is confirmed is what was selected when the key was pressed, whatever has moved meanwhile. One query, look and
action are under way at a time. A query that takes longer than its deadline is broken off; the screen goes on with what
it has, and says how old that is. ``handle`` after a Quit returns nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final, assert_never

from relaymesh.core.console_event import (
    Act,
    Acted,
    Action,
    Effect,
    Event,
    Failed,
    Interrupt,
    Key,
    Look,
    Query,
    Quit,
    Redraw,
    Resize,
    Row,
    Seen,
    Tick,
    Told,
    Verb,
)
from relaymesh.core.console_history import History
from relaymesh.core.console_layout import FRAME_LINES, Pane

__all__ = [
    "DEADLINE_NS",
    "DETAIL_LINES_MAX",
    "FILTER_CHARS_MAX",
    "INTERVAL_MS_MAX",
    "INTERVAL_MS_MIN",
    "Console",
    "Mode",
]

_MS: Final = 1_000_000
_S: Final = 1_000 * _MS
INTERVAL_MS_MIN: Final = 500
INTERVAL_MS_MAX: Final = 60_000
DEADLINE_NS: Final = 3 * _S
"""A query that takes longer is broken off."""
FILTER_CHARS_MAX: Final = 64
"""Longer ones are cut."""
DETAIL_LINES_MAX: Final = 2_000
_MESSAGE_NS: Final = 8 * _S
_STALE_LEAST_NS: Final = 5 * _S
_READ_ONLY: Final = "this console was started with --read-only: it changes nothing"


class Mode(Enum):
    """What keys are about at the moment."""

    LIST = "list"
    FILTER = "filter"
    CONFIRM = "confirm"
    DETAIL = "detail"
    HELP = "help"


@dataclass(frozen=True, slots=True)
class _Asked:
    version: int
    at_ns: int


class Console:
    """One console. interval_ms: from one query to the next, 500 to 60,000. read_only: nothing can be changed from it.

    Raises ValueError for an interval outside of that.
    """

    def __init__(self, *, interval_ms: int, read_only: bool, width: int, height: int) -> None:
        if not INTERVAL_MS_MIN <= interval_ms <= INTERVAL_MS_MAX:
            raise ValueError(f"the interval must be within {INTERVAL_MS_MIN}..{INTERVAL_MS_MAX} ms, not {interval_ms}")
        self._interval_ns = interval_ms * _MS
        self._stale_after_ns = max(_STALE_LEAST_NS, 3 * self._interval_ns)
        self.read_only = read_only
        self.width, self.height = width, height
        self.mode = Mode.LIST
        self.focus = Pane.MEMBERS
        self.filter = ""
        self.frozen = False
        self.history = History()
        self.shown: Seen | None = None
        self.problem = ""
        self.message = ""
        self.confirming: Action | None = None
        self.detail: tuple[str, ...] = ()
        self.detail_of = ""
        self.detail_top = 0
        self._shown_at_ns = 0
        self._latest: tuple[Seen, int] | None = None
        self._selected: dict[Pane, tuple[str, int]] = {}
        self._versions = 0
        self._query: _Asked | None = None
        self._look: int | None = None
        self._acting: Action | None = None
        self._next_query_ns = 0
        self._message_until_ns = 0
        self._over = False

    # -- what is drawn -----------------------------------------------------------------------------------------------

    def age_ns(self, now_ns: int) -> int:
        """Return how old what is shown is, counted from when it was asked for; 0 before there is anything."""
        return max(0, now_ns - self._shown_at_ns) if self.shown is not None else 0

    def stale(self, now_ns: int) -> bool:
        """Whether what is shown is too old to be taken for the present."""
        return self.shown is not None and self.age_ns(now_ns) > self._stale_after_ns

    def slow(self, now_ns: int) -> bool:
        """Whether a query is under way for longer than it should be."""
        return self._query is not None and now_ns - self._query.at_ns > DEADLINE_NS

    @property
    def acting(self) -> Action | None:
        """What is being done at the moment."""
        return self._acting

    def rows(self, pane: Pane) -> tuple[Row, ...]:
        """Return the rows of a pane that pass the filter."""
        if self.shown is None:
            return ()
        rows = self.shown.rows.get(pane, ())
        wanted = self.filter.casefold()
        # The queue is three rows and the frame of everything else: a filter is not about it.
        return (
            rows if not wanted or pane is Pane.QUEUE else tuple(row for row in rows if wanted in row.words.casefold())
        )

    def selected(self, pane: Pane) -> int:
        """Return the place of the selected row among ``rows(pane)``, 0 when there are none."""
        rows = self.rows(pane)
        key, place = self._selected.get(pane, ("", 0))
        for at, row in enumerate(rows):
            if row.key == key:
                return at
        return max(0, min(place, len(rows) - 1))

    def next_at_ns(self, now_ns: int) -> int:
        """Return when a Tick is wanted at the latest."""
        wanted = [self._next_query_ns] if self._query is None else [self._query.at_ns + DEADLINE_NS + 1]
        if self.message:
            wanted.append(self._message_until_ns)
        if self.frozen or self.problem or self.stale(now_ns) or self.slow(now_ns):
            wanted.append(now_ns + _S)  # an age on the screen grows
        elif self.shown is not None:
            wanted.append(self._shown_at_ns + self._stale_after_ns + 1)
        return max(min(wanted), now_ns + 50 * _MS)

    # -- what happens ------------------------------------------------------------------------------------------------

    def handle(self, now_ns: int, event: Event) -> list[Effect]:
        """Take one event; return what to do about it, in order."""
        if self._over:
            return []
        match event:
            case Key(name):
                return self._key(now_ns, name)
            case Seen():
                return self._seen(now_ns, event)
            case Failed():
                return self._failed(now_ns, event)
            case Told(version, lines):
                if version != self._look:
                    return []  # of a look that was left meanwhile
                self._look = None
                self.detail = lines[:DETAIL_LINES_MAX]
                return [Redraw()]
            case Acted(sentence):
                self._acting = None
                self._say(now_ns, sentence)
                self._next_query_ns = now_ns  # to see what came of it
                return [*self._ask(now_ns), Redraw()]
            case Tick():
                return self._tick(now_ns)
            case Resize(width, height):
                self.width, self.height = max(1, width), max(1, height)
                self._scroll_detail(0)
                return [Redraw()]
        assert_never(event)

    def _tick(self, now_ns: int) -> list[Effect]:
        if self.message and now_ns >= self._message_until_ns:
            self.message = ""
        interrupt: list[Effect] = [Interrupt(self._query.version)] if self._query and self.slow(now_ns) else []
        return [*self._ask(now_ns), *interrupt, Redraw()]

    def _ask(self, now_ns: int) -> list[Effect]:
        if self._query is not None or now_ns < self._next_query_ns:
            return []
        self._versions += 1
        self._query = _Asked(self._versions, now_ns)
        return [Query(self._versions)]

    def _answered(self, now_ns: int, version: int) -> _Asked | None:
        asked = self._query
        if asked is None or asked.version != version:
            return None
        self._query = None
        # From when it was asked, so that a slow store is not asked less and less; at least a moment from now, so that
        # it is not asked without a pause.
        self._next_query_ns = max(asked.at_ns + self._interval_ns, now_ns + self._interval_ns // 4)
        return asked

    def _seen(self, now_ns: int, event: Seen) -> list[Effect]:
        asked = self._answered(now_ns, event.version)
        if asked is None:
            return []
        self.problem = ""
        self.history.add(event.sample)
        self._latest = (event, asked.at_ns)
        if not self.frozen:
            self._show_latest()
        return [Redraw()]

    def _show_latest(self) -> None:
        if self._latest is not None:
            for pane in Pane:  # the selection stays with its row, and with its place when the row is gone
                rows, place = self.rows(pane), self.selected(pane)
                if pane is Pane.NEWS and place == 0:
                    self._selected.pop(pane, None)  # who reads the latest wants what comes next
                elif rows:
                    self._selected[pane] = (rows[place].key, place)
            self.shown, self._shown_at_ns = self._latest

    def _failed(self, now_ns: int, event: Failed) -> list[Effect]:
        if self._answered(now_ns, event.version) is None:
            return []
        if event.hopeless and self._latest is None:
            self._over = True
            return [Quit(event.version)]
        self.problem = event.sentence
        return [Redraw()]

    # -- keys --------------------------------------------------------------------------------------------------------

    def _key(self, now_ns: int, name: str) -> list[Effect]:
        if name == "interrupt":
            return self._quit()
        if name == "redraw":
            return [Redraw()]
        match self.mode:
            case Mode.HELP:
                self.mode = Mode.LIST
                return [Redraw()]
            case Mode.CONFIRM:
                return self._key_of_confirm(now_ns, name)
            case Mode.FILTER:
                return self._key_of_filter(name)
            case Mode.DETAIL:
                return self._key_of_detail(name)
            case Mode.LIST:
                self.message = ""
                return self._key_of_list(now_ns, name)
        assert_never(self.mode)

    def _key_of_list(self, now_ns: int, name: str) -> list[Effect]:
        match name:
            case "q":
                return self._quit()
            case "?":
                self.mode = Mode.HELP
            case "/":
                self.mode = Mode.FILTER
            case "escape":
                self.filter = ""
            case "tab" | "backtab" | "right" | "left":
                panes = list(Pane)
                step = 1 if name in ("tab", "right") else -1
                self.focus = panes[(panes.index(self.focus) + step) % len(panes)]
            case "space":
                self.frozen = not self.frozen
                if not self.frozen:
                    self._show_latest()
            case "enter":
                return [*self._open(), Redraw()]
            case "C" | "R" | "P":
                self._ask_to_confirm(now_ns, name)
            case _:
                self._move(name)
        return [Redraw()]

    def _move(self, name: str) -> None:
        rows = self.rows(self.focus)
        if not rows:
            return
        page = max(1, self.height // 3)
        at = self.selected(self.focus)
        moves = {"up": at - 1, "k": at - 1, "down": at + 1, "j": at + 1, "page_up": at - page, "page_down": at + page}
        ends = {"home": 0, "g": 0, "end": len(rows) - 1, "G": len(rows) - 1}
        place = max(0, min(len(rows) - 1, moves.get(name, ends.get(name, at))))
        self._selected[self.focus] = (rows[place].key, place)

    def _row(self) -> Row | None:
        rows = self.rows(self.focus)
        return rows[self.selected(self.focus)] if rows else None

    def _open(self) -> list[Effect]:
        row = self._row()
        if row is None:
            return []
        self.mode, self.detail_top, self.detail_of = Mode.DETAIL, 0, row.task_id or row.key
        self.detail = row.lines[:DETAIL_LINES_MAX]
        if row.task_id is None:
            return []
        self._versions += 1
        self._look = self._versions
        return [Look(self._versions, row.task_id)]

    def _ask_to_confirm(self, now_ns: int, name: str) -> None:
        if self.read_only:
            return self._say(now_ns, _READ_ONLY)
        if self._acting is not None:
            return self._say(now_ns, f"the last {self._acting.verb.value} is not done yet: wait for its answer")
        row = self._row()
        action = None
        if name == "P":
            target = row.pauses if row is not None else ""
            paused = self.shown is not None and target in self.shown.paused
            action = Action(Verb.RESUME if paused else Verb.PAUSE, target)
        elif row is not None and row.task_id is not None:
            if name == "C" and row.cancels:
                action = Action(Verb.CANCEL, row.task_id)
            if name == "R" and row.replays:
                action = Action(Verb.REPLAY, row.task_id)
        if self.shown is None or action is None:
            wanted = {
                "C": "a step that runs or is retried: C cancels its task",
                "R": "a dead letter: R replays its task",
            }
            return self._say(now_ns, f"select {wanted[name]}" if name in wanted else "there is nothing to pause yet")
        self.mode, self.confirming = Mode.CONFIRM, action
        return None

    def _key_of_confirm(self, now_ns: int, name: str) -> list[Effect]:
        action, self.confirming, self.mode = self.confirming, None, Mode.LIST
        assert action is not None
        if name != "y":
            self._say(now_ns, f"no {action.verb.value}: nothing was changed")
            return [Redraw()]
        self._acting = action
        return [Act(action), Redraw()]

    def _key_of_filter(self, name: str) -> list[Effect]:
        match name:
            case "enter":
                self.mode = Mode.LIST
            case "escape":
                self.mode, self.filter = Mode.LIST, ""
            case "backspace":
                self.filter = self.filter[:-1]
            case "space":
                self.filter = (self.filter + " ")[:FILTER_CHARS_MAX]
            case _ if len(name) == 1:
                self.filter = (self.filter + name)[:FILTER_CHARS_MAX]
        return [Redraw()]

    def _key_of_detail(self, name: str) -> list[Effect]:
        page = max(1, self.height - FRAME_LINES)
        match name:
            case "q" | "escape" | "enter" | "left":
                self.mode, self._look = Mode.LIST, None
            case "up" | "k":
                self._scroll_detail(-1)
            case "down" | "j":
                self._scroll_detail(1)
            case "page_up":
                self._scroll_detail(-page)
            case "page_down" | "space":
                self._scroll_detail(page)
            case "home" | "g":
                self._scroll_detail(-DETAIL_LINES_MAX)
            case "end" | "G":
                self._scroll_detail(DETAIL_LINES_MAX)
        return [Redraw()]

    def _scroll_detail(self, by: int) -> None:
        room = max(1, self.height - FRAME_LINES)
        self.detail_top = max(0, min(self.detail_top + by, len(self.detail) - room))

    def _say(self, now_ns: int, sentence: str) -> None:
        self.message, self._message_until_ns = sentence, now_ns + _MESSAGE_NS

    def _quit(self) -> list[Effect]:
        self._over = True
        return [Quit()]
