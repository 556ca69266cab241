"""The loop of the live console: it waits for keys, answers, signals, a new size or the time; effects are done here."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any, Final, assert_never

from relaymesh.console.asker import Asker
from relaymesh.console.draw import Look, screen
from relaymesh.console.keyboard import Keyboard, open_keyboard
from relaymesh.console.screen import Screen
from relaymesh.core.console import Console
from relaymesh.core.console_event import (
    Act,
    Event,
    Interrupt,
    Key,
    Query,
    Quit,
    Redraw,
    Resize,
    Tick,
)
from relaymesh.core.console_event import Look as LookAt

if TYPE_CHECKING:
    from relaymesh.client import Client

__all__ = ["run"]

_WAIT_S: Final = 1.0
_S: Final = 1_000_000_000


def run(open_client: Callable[[], Client], *, interval_ms: int, read_only: bool) -> int:
    """Show the console until somebody leaves it; return the exit status: 0, or 128 and the signal that ended it.

    Raises:
        RelayMeshError: the root cannot be looked at, as the first query found out.
    """
    keyboard = open_keyboard()
    asker = Asker(open_client, keyboard.wake)
    shown = Screen()
    try:
        width, height = shown.size()
        rules = Console(interval_ms=interval_ms, read_only=read_only, width=width, height=height)
        with _signals(keyboard) as caught:
            try:
                keyboard.take()
                shown.take()
                quit_effect = _Loop(rules, keyboard, asker, shown, caught).until_quit()
            finally:
                shown.give_back()
                keyboard.give_back()
        if quit_effect.because is not None and (error := asker.errors.get(quit_effect.because)) is not None:
            raise error
        return 128 + caught[0] if caught else 0
    finally:
        asker.close()
        keyboard.close()


class _Loop:
    def __init__(self, rules: Console, keyboard: Keyboard, asker: Asker, shown: Screen, caught: list[int]) -> None:
        self._rules, self._keyboard, self._asker, self._shown = rules, keyboard, asker, shown
        self._caught = caught
        self._dirty = True
        self._quit: Quit | None = None

    def until_quit(self) -> Quit:
        self._tell(Tick())
        while self._quit is None:
            if self._dirty:
                self._draw()
            for event in self._wait():
                self._tell(event)
        return self._quit

    def _wait(self) -> list[Event]:
        """Return what has happened; a Tick when it was only the time."""
        now_ns = time.monotonic_ns()
        timeout_s = min(_WAIT_S, (self._rules.next_at_ns(now_ns) - now_ns) / _S)
        try:
            keys = self._keyboard.wait(timeout_s)
        except EOFError:
            return [Key("interrupt")]  # the terminal is gone
        events: list[Event] = [Key(name) for name in keys]
        events += self._asker.take()
        if signal_number := self._caught[0] if self._caught else 0:
            if signal_number != getattr(signal, "SIGTSTP", None):
                return [Key("interrupt")]
            self._caught.clear()
            self._step_aside()
        width, height = self._shown.size()
        if (width, height) != (self._rules.width, self._rules.height):
            events.append(Resize(width, height))
        if time.monotonic_ns() >= self._rules.next_at_ns(now_ns):
            events.append(Tick())
        return events

    def _step_aside(self) -> None:
        """Stop, as Ctrl-Z asks, with the terminal given back; go on where we were."""
        self._shown.give_back()
        self._keyboard.give_back()
        os.kill(os.getpid(), getattr(signal, "SIGSTOP", signal.SIGTERM))
        self._keyboard.take()
        self._shown.take()
        self._dirty = True

    def _tell(self, event: Event) -> None:
        for effect in self._rules.handle(time.monotonic_ns(), event):
            match effect:
                case Query() | LookAt() | Act():
                    self._asker.put(effect)
                case Interrupt(version):
                    self._asker.interrupt(version)
                case Redraw():
                    self._dirty = True
                case Quit():
                    self._quit = effect
                case _:
                    assert_never(effect)

    def _draw(self) -> None:
        self._dirty = False
        rules = self._rules
        look = Look(plain=self._shown.plain, clock=time.strftime("%H:%M:%S"))
        self._shown.draw(screen(rules, time.monotonic_ns(), look), rules.width, rules.height)


@contextmanager
def _signals(keyboard: Keyboard) -> Iterator[list[int]]:
    """Collect the signals that end the console, or stop it for a while, and wake it; put back what was there before."""
    caught: list[int] = []

    def on_signal(number: int, _frame: FrameType | None) -> None:
        if number != getattr(signal, "SIGWINCH", None):
            caught.append(number)
        keyboard.wake()

    names = ["SIGINT", "SIGTERM", "SIGHUP", "SIGWINCH", "SIGTSTP"]
    if sys.platform == "win32":
        names = ["SIGINT", "SIGTERM", "SIGBREAK"]
    before: dict[int, Any] = {}
    try:
        for name in names:
            number = getattr(signal, name)
            before[number] = signal.signal(number, on_signal)
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
