"""Actor: the base class of all our actors.

    bytes ──▶ decode ──▶ is it in ``takes``? ──▶ receive(message) ──▶ answer, if somebody asked
                 │ no           │ no                  │ raises
                 └── refused, counted, kept ──┘       ├── asked: the error goes to the asker, the actor lives on
                                                      └── told: the actor crashes, its supervisor is told

What Pykka does not do, and this class does: report an error in ``started`` to the supervisor, bound the mailbox, keep
mail over a restart, answer later, count.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from types import UnionType
from typing import Any, ClassVar, get_args

import pykka

from actors.address import Address
from actors.mailbox import ActorGoneError, Inbox
from actors.metrics import ActorMetrics, Undeliverable
from actors.reply import Asked, Reply
from relaymesh.core.plural import counted
from relaymesh.errors import MessageError, RelayMeshError
from relaymesh.wire import codec
from relaymesh.wire.kernel import ChildEnded, Crash, Ping

__all__ = ["Actor", "NotTakenError", "OnEnd", "Takes"]

log = logging.getLogger("relaymesh.actors")

Takes = type[codec.Message] | UnionType | tuple[type[codec.Message], ...]
OnEnd = Callable[[ChildEnded], object]

HEAD_BYTES_MAX = 32
LINE_CHARS_MAX = 500


class NotTakenError(MessageError):
    """A message of the catalogue that this actor does not take."""

    code = "not_taken"

    def __init__(self, actor: str, tag: str) -> None:
        super().__init__(actor, tag)
        self.actor, self.tag = actor, tag

    def __str__(self) -> str:
        return f"{self.actor} does not take the message {self.tag!r}: send it to the actor that lists it"


class _OrderedCrashError(Exception):
    """Raised on request of the kernel message Crash."""


class Actor(pykka.ThreadingActor):
    """One thread, one mailbox, one message at a time.

    A subclass names the messages it takes in ``takes`` (a class, a union or a tuple of classes) and implements
    ``receive``; the other hooks may stay as they are. All hooks run in the actor's own thread, ``__init__`` in the
    starter's. An actor is started by its supervisor, or in a test by ``launch``.
    """

    use_daemon_thread: ClassVar[bool] = True
    takes: ClassVar[Takes] = ()

    _taken: ClassVar[frozenset[type[codec.Message]]] = frozenset()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        takes = cls.takes
        cls._taken = frozenset(takes if isinstance(takes, tuple) else get_args(takes) or (takes,))

    def __init__(self) -> None:
        super().__init__()
        assert isinstance(self.actor_inbox, Inbox)
        self._inbox = self.actor_inbox
        self.launch_number = 0  # counts over all incarnations at this address
        self._address: Address | None = None
        self._on_end: OnEnd | None = None
        self._thread: threading.Thread | None = None
        self._up = threading.Event()  # started, or ended without having started
        self._asked: Reply | None = None  # who waits for the message in hand
        self._later = False  # the message in hand will be answered later
        self._open_replies: set[Reply] = set()
        self._metrics = ActorMetrics()
        self.stop_deadline: float | None = None
        self.stop_ordered = False
        self.ended = False
        self._abandoned = False
        self.closing_since: float | None = None  # time.monotonic()

    # Hooks, in the order of an actor's life.

    def started(self) -> None:
        """Open what the actor needs (connections, sockets). An error here is a crash."""

    def receive(self, message: Any) -> object:
        """Handle one message of ``takes``. What is returned answers an ``ask``; ``reply_later`` answers it later."""
        raise NotImplementedError

    def went_idle(self) -> None:
        """The mailbox has just become empty: the moment to commit what was collected. An error here is a crash.

        Called before each wait, so also once after ``started``. Not called when the order to stop comes first:
        ``stopping`` has to look after what was collected as well.
        """

    def stopping(self) -> None:
        """End in order: finish what is in hand, close what ``started`` opened."""

    def crashed(self) -> None:
        """Close what ``started`` opened, as far as it did; finish nothing. Runs before the supervisor is told.

        Also runs when an actor that hung and was abandoned comes back after all; its successor may be at work by then.
        """

    # What a subclass may use.

    @property
    def address(self) -> Address:
        """This actor's own address; known once it is launched, so not in ``__init__``."""
        assert self._address is not None, "an actor has its address from launch on"
        return self._address

    def mailbox_empty(self) -> bool:
        """Nothing waits. False may be wrong (a mark of the kernel waits): to act on idleness use ``went_idle``."""
        return self.actor_inbox.empty()

    def reply_later(self) -> Reply:
        """Return where the answer to the message in hand goes; ``receive``'s own result is then ignored.

        If the message was told, nobody waits and the answer goes nowhere. If the actor ends first, who asked gets
        ActorGoneError.
        """
        if self._asked is None:
            return Reply()
        self._later = True
        reply = self._asked
        reply.on_settled(self._open_replies.discard)
        self._open_replies.add(reply)
        return reply

    # What the supervisor (or a test) calls, from its own thread.

    def launch(self, address: Address, *, on_end: OnEnd | None = None) -> Address:
        """Start the actor as the reader of ``address``; returns before ``started`` has run (see ``wait_up``).

        on_end: called once in the actor's thread when it ended, whatever the way, unless it was abandoned.
        """
        inbox = self._inbox
        self.launch_number = address.begin_incarnation()
        inbox.attach(address.mailbox, self.launch_number)
        inbox.on_stop_mark = self.stop
        if type(self).went_idle is not Actor.went_idle:
            inbox.on_idle = self._go_idle
        self._address, self._metrics, self._on_end = address, address.metrics, on_end or _nobody
        pykka.ActorRegistry.register(self.actor_ref)
        try:
            self._start_actor_loop()
        except RuntimeError:  # no more threads
            pykka.ActorRegistry.unregister(self.actor_ref)
            self._metrics.alive = False
            raise
        return address

    def wait_up(self, timeout_s: float) -> bool:
        """Wait until ``started`` is done; return whether the actor is up."""
        return self._up.wait(timeout_s) and not self.ended

    def halt(self) -> None:
        """Order an end after the message in hand; the rest of the mail stays for the next incarnation."""
        self.stop_ordered = True
        with contextlib.suppress(pykka.ActorDeadError):
            self.stop()

    def finish(self, deadline: float | None = None) -> None:
        """Order an end after the mail that waits now.

        deadline: ``time.monotonic()`` at which the caller will stop waiting, for actors that wait for others in turn.
        """
        self.stop_deadline, self.stop_ordered = deadline, True
        self._inbox.stop_after_mail()

    def wait_ended(self, timeout_s: float) -> bool:
        """Wait until the actor's thread is over; return whether it is."""
        if self._thread is None or self._thread is threading.current_thread():
            return True
        self._thread.join(max(0.0, timeout_s))
        return not self._thread.is_alive()

    def abandon(self) -> None:
        """Leave a thread behind that does not end: it reads no more mail and reports to nobody."""
        self._on_end = None
        self.ended = self._inbox.ended = self._abandoned = True
        self.actor_stopped.set()
        pykka.ActorRegistry.unregister(self.actor_ref)
        self._metrics.abandoned += 1
        self._metrics.alive = False
        self._fail_open_replies("hangs and was abandoned")

    @property
    def thread_alive(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    @property
    def reported(self) -> bool:
        """The actor has told how it ended, or was abandoned."""
        return self._on_end is None

    # What Pykka calls.

    @staticmethod
    def _create_actor_inbox() -> Inbox:
        return Inbox()

    def _start_actor_loop(self) -> None:
        self._thread = threading.Thread(target=self._run, name=self._name, daemon=self.use_daemon_thread)
        self._thread.start()

    def _run(self) -> None:
        """Be the actor's thread: Pykka's loop, and what Pykka leaves open."""
        try:
            self._actor_loop()
        except BaseException as error:
            self._crash("reading its mailbox", error)
        if self._abandoned:
            self._close("long after it was abandoned")

    def on_start(self) -> None:
        self._inbox.mailbox.reader_ident = threading.get_ident()
        try:
            self.started()
        except BaseException as error:
            self._crash("starting", error)
        self._up.set()

    def on_stop(self) -> None:
        self.closing_since = time.monotonic()
        reason = "stopped"
        try:
            self.stopping()
        except BaseException as error:
            self._metrics.failed += 1
            reason = f"stopped, with an error while closing: {_line(error)}"
            log.error("%s: error while stopping", self._name, exc_info=error)
        self._end("has stopped", crashed=False, reason=reason)

    def on_receive(self, message: Any) -> None:
        """Decode one item of the mailbox and handle it. Raises nothing: Pykka would end more than this actor."""
        began = time.perf_counter_ns()
        reply: Reply | None = None
        if message.__class__ is Asked:
            message, reply = message.data, message.reply
        try:
            decoded = self._decode(message)
        except MessageError as error:
            self._refuse(message, error, reply)
            return
        self._asked = reply
        answer: object = None
        failure: BaseException | None = None
        try:
            answer = self.receive(decoded) if decoded.__class__ in self._taken else self._obey(decoded)
        except BaseException as error:
            failure = error
        # Counted first: who has the answer finds it counted.
        spent = time.perf_counter_ns() - began
        metrics = self._metrics
        metrics.handled += 1
        metrics.handling_ns_total += spent
        if spent > metrics.handling_ns_max:
            metrics.handling_ns_max = spent
        if failure is not None:
            self._fail(decoded, failure, reply)
            failure = None  # it holds this frame
        elif reply is not None and not self._later:
            reply.answer(answer)
        if reply is not None:
            self._asked, self._later = None, False

    def _decode(self, data: Any) -> codec.Message:
        if data.__class__ is not bytes:
            raise codec.MalformedMessageError(f"{type(data).__name__} instead of bytes")
        decoded = codec.decode(data)
        if decoded.__class__ not in self._taken and not isinstance(decoded, Crash | Ping):
            raise NotTakenError(self._name, decoded.TAG)
        return decoded

    def _obey(self, message: codec.Message) -> object:
        """Handle what every actor takes."""
        if isinstance(message, Crash):
            raise _OrderedCrashError(message.reason)
        return True

    def _go_idle(self) -> None:
        try:
            self.went_idle()
        except BaseException as error:
            self._crash("going idle", error)

    # How it ends.

    def _refuse(self, data: Any, error: MessageError, reply: Reply | None) -> None:
        if data is None:
            return  # the inbox of an actor that has ended
        metrics = self._metrics
        metrics.refused += 1
        size = len(data) if isinstance(data, bytes) else 0
        metrics.undeliverable.append(
            Undeliverable(
                actor=self._name,
                tag=getattr(error, "tag", ""),
                reason=str(error),
                size_bytes=size,
                head=data[:HEAD_BYTES_MAX] if isinstance(data, bytes) else b"",
                at_ms=time.time_ns() // 1_000_000,
            )
        )
        if metrics.refused & (metrics.refused - 1) == 0:  # 1, 2, 4, 8, ...: a flood of them must not flood the log
            refused = counted(metrics.refused, "message")
            log.warning("%s refused %s so far, the last: %s", self._name, refused, error)
        if reply is not None:
            reply.fail(error)

    def _fail(self, message: codec.Message, error: BaseException, reply: Reply | None) -> None:
        if reply is not None and isinstance(error, Exception):
            self._metrics.failed += 1
            if not isinstance(error, RelayMeshError):
                log.info("%s: error while answering %s", self._name, message.TAG, exc_info=error)
            reply.fail(error)
            return
        if reply is not None:
            reply.fail(ActorGoneError(self._name, f"crashed ({type(error).__name__})"))
        self._crash(f"handling {message.TAG}", error)

    def _crash(self, while_: str, error: BaseException) -> None:
        self._metrics.failed += 1
        reason = f"{_line(error)} (while {while_})"
        log.error("%s crashed while %s", self._name, while_, exc_info=error)
        self.closing_since = time.monotonic()
        self._close("after the crash")
        self._end("crashed", crashed=True, reason=reason)

    def _close(self, when: str) -> None:
        try:
            self.crashed()
        except BaseException as error:
            log.error("%s: error while closing %s", self._name, when, exc_info=error)

    def _end(self, why: str, *, crashed: bool, reason: str) -> None:
        self.ended = self._inbox.ended = True
        self.actor_stopped.set()
        pykka.ActorRegistry.unregister(self.actor_ref)
        self._fail_open_replies(why)
        self._up.set()
        on_end, self._on_end = self._on_end, None
        if on_end is not None:
            self._metrics.alive = False
            try:
                on_end(ChildEnded(self._name, self.launch_number, crashed, reason))
            except Exception:
                log.exception("%s: nobody could be told of its end", self._name)

    def _fail_open_replies(self, why: str) -> None:
        for reply in list(self._open_replies):
            reply.fail(ActorGoneError(self._name, why))

    @property
    def _name(self) -> str:
        return self._address.name if self._address is not None else type(self).__name__


def _nobody(_: ChildEnded) -> None:
    """Told of the end of an actor that has no supervisor."""


def _line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".replace("\n", " ")[:LINE_CHARS_MAX]
