"""How a client's tasks get to the disk, and who records that they did.

    gate set?  ──▶ our own transaction, with the admission gate in it
    else       ──▶ the node that this process runs
               ──▶ the one node of this machine, by its control socket     from the second submit on
               ──▶ our own transaction; then nodes are woken               whenever nobody answered

Each way ends with the same answer: it is on disk. The audit row is written by whoever stored the task, here before the
answer is given, in a node with its next rows.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from relaymesh.errors import InputError, MessageError
from relaymesh.wire.codec import decode, encode
from relaymesh.wire.store import NewTask, StoreAnswer, SubmitTasks

if TYPE_CHECKING:
    from relaymesh.admission import Gate
    from relaymesh.core.admission import Bounds
    from relaymesh.door.base import Door
    from relaymesh.net.control import ControlClient
    from relaymesh.otel import Tracing

__all__ = ["HANDED_OVER_MAX", "SubmitDesk"]

HANDED_OVER_MAX = 32
"""Tasks of one submit that a node is asked to store; more are committed here."""
Stored = list[tuple[str, bool]]
"""``(task id, deduplicated)`` of each task."""


class SubmitDesk:
    """Where one client hands in tasks.

    submitter: the node of this process, if it runs one. gate: see ``Client``.
    """

    def __init__(self, client: Door, submitter: Callable[[SubmitTasks], StoreAnswer] | None, gate: Gate) -> None:
        self._client = client
        self._submitter = submitter
        self._gate = gate
        self._control: ControlClient | None = None
        self._commits = 0
        self._tracing: Tracing | None = None
        self._tracing_tried = False

    def close(self) -> None:
        """End connections; traces that wait are sent."""
        if self._control is not None:
            self._control.close()
        if self._tracing is not None:
            self._tracing.stop()

    def store(self, tasks: Sequence[NewTask]) -> Sequence[tuple[str, bool] | InputError]:
        """Store tasks; return what became of each, or why it was not stored, once it is on disk."""
        results = self._let_in(tasks)
        if any(task.unique is not None for task in tasks):
            from relaymesh.uniqueness import refuse_duplicates

            return refuse_duplicates(tasks, results)
        return results

    def _let_in(self, tasks: Sequence[NewTask]) -> Sequence[tuple[str, bool] | InputError]:
        from relaymesh.admission import bounds_of

        bounds = bounds_of(self._client._load(), self._gate)
        if bounds:
            return self._store_through(bounds, tasks)
        began_ns = time.time_ns()
        message = SubmitTasks(tuple(tasks), self._client._actor)
        answer = self._hand_over(message) if self._submitter is None else self._submitter(message)
        results = self._store(tasks) if answer is None else _ours_are_new(tasks, answer.results)
        self._trace(tasks, results, began_ns)
        if answer is None or not answer.recorded:
            self._record(tasks, results)
        return results

    def _store_through(self, bounds: Bounds, tasks: Sequence[NewTask]) -> Sequence[tuple[str, bool] | InputError]:
        """The same through the admission gate, which stands in our own transaction: no node is asked."""
        from relaymesh.admission import error_of, record_of

        client = self._client
        store = client._writable()
        began_ns = time.time_ns()
        with store.write():
            refusals = store.admit(tasks, bounds, now_ms=client._now_ms())
            admitted = [task for task, refusal in zip(tasks, refusals, strict=True) if refusal is None]
            results = store.submit(admitted, now_ms=client._now_ms())
        self._commits += 1
        client._wake()
        self._trace(admitted, results, began_ns)
        self._record(admitted, results)
        client.audit.record_many(
            record_of(refusal, task, client._load(), actor=client._actor)
            for task, refusal in zip(tasks, refusals, strict=True)
            if refusal is not None
        )
        left = iter(results)
        return [next(left) if refusal is None else error_of(refusal, bounds) for refusal in refusals]

    def _store(self, tasks: Sequence[NewTask]) -> Stored:
        client = self._client
        store = client._writable()
        with store.write():
            results = store.submit(tasks, now_ms=client._now_ms())
        self._commits += 1
        client._wake()
        return _ours_are_new(tasks, results)

    def _hand_over(self, message: SubmitTasks) -> StoreAnswer | None:
        """Have a node of this machine store the tasks with what else it commits; None when none has answered.

        A node that stored them without being able to say so does no harm: ids and keys are the same when we do it.
        The first submit of a client always is a commit of its own, which is less work than to connect. So is a large
        batch: it costs one commit however long it is, and the client's processor is better spent on its rows than the
        node's, whose threads share one interpreter.
        """
        if not self._commits or len(message.tasks) > HANDED_OVER_MAX:
            return None
        if self._control is None:
            from relaymesh.net.control import ControlClient

            self._control = ControlClient(self._client.root / "run")
        answer = self._control.ask(encode(message))
        if answer is None:
            return None
        try:
            stored = decode(answer)
        except MessageError:
            return None  # another release
        if not isinstance(stored, StoreAnswer) or len(stored.results) != len(message.tasks):
            return None
        return stored

    def stored(self, tasks: Sequence[NewTask], results: Stored) -> None:
        """Trace and record tasks that the caller has stored himself."""
        self._trace(tasks, results, time.time_ns())
        self._record(tasks, results)

    def _record(self, tasks: Sequence[NewTask], results: Stored) -> None:
        from relaymesh.audit.event import submit_bodies

        client = self._client
        client.audit.append(
            submit_bodies(tasks, results, namespace=client.namespace, actor=client._actor, now_ms=client._now_ms())
        )

    def _trace(self, tasks: Sequence[NewTask], results: Stored, began_ns: int) -> None:
        tracing = self._traces()
        if tracing is not None:
            fresh = [task for task, (_, deduplicated) in zip(tasks, results, strict=True) if not deduplicated]
            tracing.submitted(fresh, began_ns=began_ns, ended_ns=time.time_ns())

    def _traces(self) -> Tracing | None:
        """Return what makes spans, None unless an endpoint is configured; what is wrong with it fails no submit."""
        endpoint = os.environ.get("RELAYMESH_OTLP_ENDPOINT")
        if endpoint and not self._tracing_tried:
            self._tracing_tried = True
            from relaymesh.errors import UsageError
            from relaymesh.otel import log, start_tracing

            try:
                self._tracing = start_tracing(endpoint, service="relaymesh-client")
            except UsageError as error:
                log.warning("no traces are sent (%s): %s", error.code, error)
        return self._tracing


def _ours_are_new(tasks: Sequence[NewTask], results: Sequence[tuple[str, bool]]) -> Stored:
    """Return the results with tasks that are held by themselves called new: a node was asked twice, or before us."""
    return [
        (holder, deduplicated and holder != task.task_id)
        for task, (holder, deduplicated) in zip(tasks, results, strict=True)
    ]
