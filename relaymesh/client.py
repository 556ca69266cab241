"""Client: everything that can be asked of a data root, with or without a node running on it.

A client opens the database itself, commits what it submits, and then tells running nodes to look. So an answer means
the same whether a node is up or not: it is on disk.

    with Client("data") as client:
        task = client.submit("echo", "hello")
        print(client.result(task.task_id))  # waits for a node to run it: `relaymesh up`
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar, overload

from relaymesh.core.limit import INSTANT_MS_MAX, PAYLOAD_BYTES_MAX
from relaymesh.errors import InputError, TaskFailedError, TaskNotFoundError, UnknownAgentError
from relaymesh.store import read
from relaymesh.store.database import Database
from relaymesh.store.root import normalize_namespace, scoped_root
from relaymesh.view import (
    BatchLine,
    CancelResult,
    Event,
    Explanation,
    LeaseConflict,
    LogEntry,
    ReplayBatchOutcome,
    ReplayOutcome,
    StatsOutcome,
    SubmitOutcome,
    TaskRequest,
    TaskSummary,
    TaskView,
    WorkflowDetail,
)

if TYPE_CHECKING:
    from relaymesh.agents.registry import Registry
    from relaymesh.core.ident import Ids
    from relaymesh.core.workflow import WorkflowPlan
    from relaymesh.net.wake import WakeSender
    from relaymesh.settings import Settings
    from relaymesh.store.admin import CancelMode
    from relaymesh.store.store import Store
    from relaymesh.view import DeadExportOutcome, HealthOutcome, MaintenanceOutcome, TaskExportOutcome
    from relaymesh.wire.store import NewTask
    from relaymesh.workflow import Step, Workflow

T = TypeVar("T")

__all__ = ["BadPayloadError", "BadTimeError", "Client", "PayloadTooLargeError", "default_key"]

BATCH_TASKS = 500
"""Tasks per commit of ``submit_many``."""
BATCH_BYTES = 8 * 1024 * 1024
"""A batch is also committed when its payloads reach this, so that memory stays bounded."""
_DEFAULT_REASON = "cancelled by request"


class PayloadTooLargeError(InputError):
    """The payload is above the limit; nothing was stored."""

    code = "payload_too_large"

    def __init__(self, size_bytes: int) -> None:
        super().__init__(size_bytes)
        self.size_bytes = size_bytes

    def __str__(self) -> str:
        return (
            f"the payload has {self.size_bytes:,} bytes, the limit is {PAYLOAD_BYTES_MAX:,}: "
            "put the data into a file and submit its name"
        )


class BadPayloadError(InputError):
    """The payload is not text that can be stored as UTF-8."""

    code = "bad_payload"

    def __str__(self) -> str:
        return "the payload is not valid Unicode text: encode binary data, for example as base64"


class BadTimeError(InputError):
    """A delay, start or expiry that makes no sense."""

    code = "bad_time"

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence)


def default_key(agent_id: str, payload: str) -> str:
    """Return the idempotency key of a single task that was submitted without one."""
    import hashlib

    return hashlib.sha256(f"{agent_id}\n{payload}".encode()).hexdigest()


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000


class Client:
    """A door to one data root. Cheap to make: nothing is opened before the first call. Not thread-safe.

    root: the data root folder. agents: modules or files whose agents may be submitted to although no node runs them
    yet.
    now_ms: wall clock, for tests. submitter: how tasks are stored; a program that runs a node hands in the node's own
        group commit, everybody else commits on a connection of its own.
    """

    def __init__(
        self,
        root: str | Path = "data",
        *,
        namespace: str = "default",
        agents: Sequence[str] = (),
        now_ms: Callable[[], int] = _wall_ms,
        submitter: Callable[[Sequence[NewTask]], list[tuple[str, bool]]] | None = None,
    ) -> None:
        self.namespace = normalize_namespace(namespace)
        self.root = scoped_root(Path(root), self.namespace)
        self._agents = tuple(agents)
        self._now_ms = now_ms
        self._fresh_ids: Ids | None = None
        self._submitter = submitter
        self._store: Database | None = None
        self._registry: Registry | None = None
        self._settings: Settings | None = None
        self._waker: WakeSender | None = None

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the database; the client may be used again and opens it anew."""
        if self._store is not None:
            self._store.close()
            self._store = None
        if self._waker is not None:
            self._waker.close()
            self._waker = None

    # -- the root ----------------------------------------------------------------------------------------------------

    def init(self) -> Path:
        """Make the root's folders and tables, if they are not there; return the scoped root."""
        self._writable()
        return self.root

    def agents(self) -> list[str]:
        """Return the ids of the agents that can be submitted to: those known here, and those of running nodes."""
        known = set(self._local_agents().specs)
        store = self._existing()
        if store is not None:
            from relaymesh.store.node_row import live_nodes

            with store.reading():
                for node in live_nodes(store.conn, self.root / "run", now_ms=self._now_ms()):
                    known.update(node.capabilities.pools)
        return sorted(known)

    # -- submit ------------------------------------------------------------------------------------------------------

    def submit(
        self,
        agent: str,
        input: str | object = "",
        *,
        priority: str = "normal",
        idempotency_key: str | None = None,
        delay_ms: int = 0,
        at_ms: int | None = None,
        expires_in_ms: int | None = None,
        labels: Mapping[str, str] | None = None,
        traceparent: str | None = None,
    ) -> SubmitOutcome:
        """Store one task; returns when it is on disk.

        input: text, or any value that JSON can hold, dataclasses included, which is stored as its JSON text.
        idempotency_key: a second submit with a key that is still held returns the first task. Default: a hash of agent
            and input.

        Raises:
            UnknownAgentError, PayloadTooLargeError, InputError: nothing was stored.
            StoreError, RootError: nothing was stored.
        """
        request = TaskRequest(
            agent=agent,
            input=_text_of(input),
            priority=priority,
            idempotency_key=idempotency_key,
            delay_ms=delay_ms,
            at_ms=at_ms,
            expires_in_ms=expires_in_ms,
            labels=dict(labels or {}),
            traceparent=traceparent,
        )
        self._require_agents((agent,))
        ((task_id, deduplicated),) = self._commit([self._draft(request)])
        return _submitted(task_id, deduplicated)

    def submit_many(self, requests: Iterable[TaskRequest]) -> Iterator[BatchLine]:
        """Store many tasks in groups; yields one line per request, in order, after its group is on disk.

        A request that is wrong is told as rejected and does not keep the others from being stored. An error of the
        store ends the iteration; all lines yielded before it stand.
        """
        group: list[tuple[int, NewTask | BatchLine]] = []
        size = 0
        for number, request in enumerate(requests, 1):
            line = request.line or number
            try:
                self._require_agents((request.agent,))
                task = self._draft(request)
            except InputError as error:
                group.append((line, _rejected(line, error)))
            else:
                group.append((line, task))
                size += len(task.steps[0].payload or "")
            if len(group) >= BATCH_TASKS or size >= BATCH_BYTES:
                yield from self._commit_group(group)
                group, size = [], 0
        yield from self._commit_group(group)

    def submit_workflow(
        self,
        workflow: Workflow | bytes | str | Mapping[str, object],
        *,
        idempotency_key: str | None = None,
        labels: Mapping[str, str] | None = None,
        priority: str | None = None,
        delay_ms: int = 0,
        at_ms: int | None = None,
        expires_in_ms: int | None = None,
        traceparent: str | None = None,
    ) -> SubmitOutcome:
        """Store a workflow: bytes or text of a workflow file, the same as values, or a ``Workflow``.

        Raises:
            WorkflowError: what is wrong, and where; nothing was stored.
            StoreError, RootError: nothing was stored.
        """
        from relaymesh.core.label import normalize_labels
        from relaymesh.core.workflow import check_agents, derived_key, parse
        from relaymesh.store.draft import draft_workflow

        document = workflow if isinstance(workflow, bytes | str | Mapping) else workflow.to_json()
        plan: WorkflowPlan = parse(document, priority=priority)
        names = {step.agent for step in plan.steps}
        if not names <= set(self._local_agents().specs):
            check_agents(plan, self.agents())
        now_ms = self._now_ms()
        task = draft_workflow(
            self._ids,
            self._writable().payloads,
            plan,
            key=_key(idempotency_key) or derived_key(plan),
            not_before_ms=_not_before(now_ms, delay_ms, at_ms),
            expires_at_ms=_expires_at(now_ms, expires_in_ms),
            labels=normalize_labels(labels or {}),
            traceparent=_traceparent(traceparent),
        )
        ((task_id, deduplicated),) = self._commit([task])
        return _submitted(task_id, deduplicated)

    def _draft(self, request: TaskRequest) -> NewTask:
        from relaymesh.core.label import normalize_labels
        from relaymesh.core.priority import normalize_priority
        from relaymesh.store.draft import draft_task

        payload = _text_of(request.input)
        if len(payload) * 4 > PAYLOAD_BYTES_MAX or not payload.isascii():
            try:
                size = len(payload.encode())
            except UnicodeEncodeError as error:
                raise BadPayloadError from error
            if size > PAYLOAD_BYTES_MAX:
                raise PayloadTooLargeError(size)
        now_ms = self._now_ms()
        return draft_task(
            self._ids,
            self._writable().payloads,
            request.agent,
            payload,
            priority=normalize_priority(request.priority),
            key=_key(request.idempotency_key) or default_key(request.agent, payload),
            not_before_ms=_not_before(now_ms, request.delay_ms, request.at_ms),
            expires_at_ms=_expires_at(now_ms, request.expires_in_ms),
            labels=normalize_labels(request.labels) if request.labels else None,
            traceparent=_traceparent(request.traceparent),
        )

    def _commit(self, tasks: Sequence[NewTask]) -> list[tuple[str, bool]]:
        if self._submitter is not None:
            return self._submitter(tasks)
        store = self._writable()
        with store.write():
            results = store.submit(tasks, now_ms=self._now_ms())
        self._wake()
        return results

    def _commit_group(self, group: Sequence[tuple[int, NewTask | BatchLine]]) -> Iterator[BatchLine]:
        tasks = [task for _, task in group if not isinstance(task, BatchLine)]
        results = iter(self._commit(tasks) if tasks else ())
        for line, entry in group:
            if isinstance(entry, BatchLine):
                yield entry
                continue
            task_id, deduplicated = next(results)
            yield BatchLine(line=line, result="duplicate" if deduplicated else "accepted", task_id=task_id)

    # -- look --------------------------------------------------------------------------------------------------------

    def task(self, task_id: str) -> TaskView:
        """Return one task.

        Raises:
            TaskNotFoundError: there is none of this id.
        """
        store = self._readable()
        with store.reading():
            view = read.task_view(store.conn, task_id, store.payloads.read)
        if view is None:
            raise TaskNotFoundError(task_id)
        return view

    def tasks(
        self, *, status: str | None = None, limit: int = 50, offset: int = 0, label: tuple[str, str] | None = None
    ) -> list[TaskSummary]:
        """Return tasks, newest change first. label: name and value of a label that they have."""
        if label is not None:
            from relaymesh.core.label import normalize_labels

            normalize_labels(dict([label]))
        store = self._readable()
        with store.reading():
            return read.task_summaries(store.conn, status=status, limit=limit, offset=offset, label=label)

    def workflow(self, task_id: str) -> WorkflowDetail:
        """Return a task with its steps.

        Raises:
            TaskNotFoundError: there is none of this id.
        """
        store = self._readable()
        with store.snapshot():
            detail = read.workflow_detail(store.conn, task_id)
        if detail is None:
            raise TaskNotFoundError(task_id)
        return detail

    def outputs(self, task_id: str) -> Iterator[tuple[str, str | None]]:
        """Yield ``(step id, output)`` of a task, one step at a time, however large all of them are together.

        Raises:
            TaskNotFoundError: there is none of this id.
        """
        store = self._readable()
        with store.reading():
            if read.task_status(store.conn, task_id) is None:
                raise TaskNotFoundError(task_id)
            yield from read.outputs(store.conn, task_id, store.payloads.read)

    def wait(self, task_id: str, *, timeout_ms: int | None = None) -> TaskView:
        """Return the task once it has ended, whatever it came to.

        Raises:
            TaskNotFoundError: there is none of this id.
            WaitTimeoutError: it has not ended in time.
        """
        from relaymesh.watch import wait_for_end

        wait_for_end(self._readable(), task_id, timeout_ms)
        return self.task(task_id)

    def wait_success(self, task_id: str, *, timeout_ms: int | None = None) -> TaskView:
        """Return the task once it has succeeded.

        Raises:
            TaskFailedError: it has ended in another way.
            TaskNotFoundError, WaitTimeoutError: as for ``wait``.
        """
        task = self.wait(task_id, timeout_ms=timeout_ms)
        if task.status != "SUCCESS":
            raise TaskFailedError(task_id, task.status, task.last_error)
        return task

    def output(self, task_id: str, step: str | Step | None = None) -> str | None:
        """Return the output of one step as text, None as long as there is none.

        step: its id in the workflow, ``count[0]`` for a run of a map step. Default: the step that no other depends on,
            which is the only one of a task that is no workflow.

        Raises:
            TaskNotFoundError: there is none of this id.
            StepNotFoundError, StepNotNamedError: there is no such step; several steps end the workflow.
        """
        from relaymesh.result import output_of

        store = self._readable()
        with store.reading():
            if read.task_status(store.conn, task_id) is None:
                raise TaskNotFoundError(task_id)
            name = step if step is None or isinstance(step, str) else step.id
            return output_of(store.conn, task_id, name, store.payloads.read)

    @overload
    def result(self, task_id: str, step: str | Step | None = None, *, timeout_ms: int | None = None) -> str: ...

    @overload
    def result(
        self, task_id: str, step: str | Step | None = None, *, type: type[T], timeout_ms: int | None = None
    ) -> T: ...

    @overload  # a union is no ``type`` for a type checker
    def result(
        self, task_id: str, step: str | Step | None = None, *, type: Any, timeout_ms: int | None = None
    ) -> Any: ...

    def result(
        self, task_id: str, step: str | Step | None = None, *, type: Any = str, timeout_ms: int | None = None
    ) -> Any:
        """Wait until the task has succeeded, and return the output of one step, chosen as by ``output``.

        type: ``str`` is the output as it stands; for anything else, such as ``dict[str, int]`` or a dataclass, it is
            read as JSON and checked, as the input of an agent is.

        Raises:
            TaskFailedError: the task has ended in another way.
            BadResultError: the output is not of this type.
            TaskNotFoundError, WaitTimeoutError, StepNotFoundError, StepNotNamedError: as for ``wait`` and ``output``.
        """
        from relaymesh.result import decoded

        self.wait_success(task_id, timeout_ms=timeout_ms)
        return decoded(task_id, self.output(task_id, step), type)

    def events(self, task_id: str, *, timeout_ms: int | None = None) -> Iterator[Event]:
        """Yield what happens to a task and its steps, from its present state to its end.

        Raises:
            TaskNotFoundError: there is none of this id.
        """
        from relaymesh.watch import watch

        return watch(self._readable(), task_id, timeout_ms)

    def logs(self, task_id: str, *, follow: bool = False) -> Iterator[LogEntry]:
        """Yield the log lines of a task's attempts, oldest first; follow: until the task has ended.

        Raises:
            TaskNotFoundError: there is none of this id.
        """
        from relaymesh.watch import read_logs

        return read_logs(self._readable(), task_id, follow=follow)

    def explain(self, task_id: str) -> list[Explanation]:
        """Return, for each step that has not ended, the first reason why.

        Raises:
            TaskNotFoundError: there is none of this id.
        """
        from relaymesh.store.why import explanations

        store = self._readable()
        with store.snapshot():
            if read.task_status(store.conn, task_id) is None:
                raise TaskNotFoundError(task_id)
            return explanations(
                store.conn,
                self.root / "run",
                task_id,
                lease_timeout_ms=self._config().lease_timeout_ms,
                now_ms=self._now_ms(),
            )

    def stats(self) -> StatsOutcome:
        """Return counts and ages of the root."""
        from relaymesh.store.stats import stats

        store = self._readable()
        with store.snapshot():
            return stats(store.conn, self.root, namespace=self.namespace, now_ms=self._now_ms())

    def health(self) -> HealthOutcome:
        """Return whether the root can be used; does not raise for what it is there to find."""
        from relaymesh.store.health import check

        return check(self.root, now_ms=self._now_ms())

    def lease_conflicts(self, limit: int = 100, since_hours: int = 24) -> list[LeaseConflict]:
        """Return refused writes of fenced owners, newest first."""
        store = self._readable()
        with store.reading():
            return read.lease_conflicts(store.conn, since_ms=self._now_ms() - since_hours * 3_600_000, limit=limit)

    def query(self, sql: str, values: Sequence[object] = ()) -> list[Any]:
        """Return the rows of a read-only query, for reports that no method gives. Column names are the reference's."""
        store = self._readable()
        with store.reading():
            store.conn.execute("PRAGMA query_only=1")
            try:
                return store.conn.execute(sql, tuple(values)).fetchall()
            finally:
                store.conn.execute("PRAGMA query_only=0")

    # -- change ------------------------------------------------------------------------------------------------------

    def cancel(self, task_id: str, *, reason: str = _DEFAULT_REASON) -> CancelResult:
        """Cancel a task and stop what runs of it."""
        from relaymesh.store.admin import CancelMode

        return self._cancel(task_id, CancelMode.HARD, reason)

    def cancel_soft(self, task_id: str, *, reason: str = _DEFAULT_REASON) -> CancelResult:
        """Cancel a task and let what runs of it end."""
        from relaymesh.store.admin import CancelMode

        return self._cancel(task_id, CancelMode.SOFT, reason)

    def _cancel(self, task_id: str, mode: CancelMode, reason: str) -> CancelResult:
        store = self._writable(create=False)
        with store.write():
            cancelled = store.cancel(task_id, mode=mode, reason=reason, now_ms=self._now_ms())
        self._wake()
        return CancelResult(
            task_id=task_id,
            cancelled=cancelled.code == "cancelled",
            mode=mode.value,
            message=cancelled.code,
            step_rows=cancelled.step_rows,
            message_rows=cancelled.message_rows,
        )

    def replay(self, task_id: str) -> ReplayOutcome:
        """Give the dead-lettered steps of a task a new start."""
        store = self._writable(create=False)
        with store.write():
            code = store.replay(task_id, now_ms=self._now_ms())
        self._wake()
        return ReplayOutcome(task_id=task_id, replayed=code == "replayed", message=code)

    def replay_batch(self, status: str = "DEAD_LETTER", limit: int = 100) -> ReplayBatchOutcome:
        """Replay the tasks of a status that changed last; those that cannot be replayed count as failed."""
        details = tuple(self.replay(task.task_id) for task in self.tasks(status=status, limit=limit))
        replayed = sum(outcome.replayed for outcome in details)
        return ReplayBatchOutcome(
            status=status, total=len(details), replayed=replayed, failed=len(details) - replayed, details=details
        )

    def maintenance(self, node_id: str = "node-local") -> MaintenanceOutcome:
        """Do one round of what a running node does by itself: take back lost steps, start what is due."""
        from relaymesh.store.tick import maintenance_tick

        outcome = maintenance_tick(self._writable(), node_id, self._config(), now_ms=self._now_ms())
        self._wake()
        return outcome

    def dead_export(self, out: str | Path, limit: int = 1000) -> DeadExportOutcome:
        """Write the dead letters to a JSON file."""
        from relaymesh.store.export import export_dead

        return export_dead(self._readable(), Path(out), limit)

    def task_export(self, task_id: str, out: str | Path) -> TaskExportOutcome:
        """Write one task with its steps to a JSON file."""
        from relaymesh.store.export import export_task

        return export_task(self._readable(), task_id, Path(out), now_ms=self._now_ms())

    # -- opening -----------------------------------------------------------------------------------------------------

    def _writable(self, *, create: bool = True) -> Store:
        from relaymesh.store.connection import Durability
        from relaymesh.store.store import Store

        if not isinstance(self._store, Store):
            durability = Durability(self._config().durability)
            if self._store is not None:
                # On the same connection: an iterator that this client gave out may still be reading from it.
                self._store = Store(self._store.conn, self.root, self.namespace, None)
            else:
                self._store = Store.open(
                    self.root,
                    namespace=self.namespace,
                    now_ms=self._now_ms(),
                    create=create,
                    durability=durability,
                )
        return self._store

    def _readable(self) -> Database:
        """Open a root that must be there: asking about tasks must not make an empty one by a mistyped --root."""
        if self._store is None:
            self._store = Database.open(self.root, namespace=self.namespace, now_ms=self._now_ms(), create=False)
        return self._store

    @property
    def _ids(self) -> Ids:
        if self._fresh_ids is None:
            from random import Random, SystemRandom

            from relaymesh.core.ident import Ids

            self._fresh_ids = Ids(self._now_ms, Random(SystemRandom().getrandbits(128)))
        return self._fresh_ids

    def _wake(self) -> None:
        """Tell the nodes of this machine that there is something new."""
        if self._waker is None:
            from relaymesh.net.wake import WakeSender

            self._waker = WakeSender(self.root / "run")
        self._waker.wake()

    def _existing(self) -> Database | None:
        from relaymesh.store.root import has_database

        return self._readable() if has_database(self.root) else None

    def _config(self) -> Settings:
        if self._settings is None:
            from relaymesh.settings import load_settings

            self._settings = load_settings(self.root)
        return self._settings

    def _local_agents(self) -> Registry:
        if self._registry is None:
            from relaymesh.agents.registry import load_registry

            self._registry = load_registry(self.root, self._agents)
        return self._registry

    def _require_agents(self, names: Sequence[str]) -> None:
        """Raise UnknownAgentError for a name that neither this process nor a running node knows."""
        specs = self._local_agents().specs
        missing = [name for name in names if name not in specs and name not in self._node_agents()]
        if missing:
            from relaymesh.core.nearest import did_you_mean

            raise UnknownAgentError(missing[0], did_you_mean(missing[0], sorted(self._node_agents())))

    def _node_agents(self) -> frozenset[str]:
        now = time.monotonic()
        if now >= self._node_agents_until:
            self._node_agents_known = frozenset(self.agents())
            self._node_agents_until = now + 1.0
        return self._node_agents_known

    _node_agents_known: frozenset[str] = frozenset()
    _node_agents_until: float = 0.0


def _text_of(value: str | object) -> str:
    if isinstance(value, str):
        return value
    import msgspec

    try:
        return msgspec.json.encode(value).decode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"the input cannot be written as JSON ({error}): hand in text, or plain values") from error


def _key(key: str | None) -> str | None:
    return key if key is not None and key.strip() else None


def _not_before(now_ms: int, delay_ms: int, at_ms: int | None) -> int | None:
    if delay_ms < 0:
        raise BadTimeError(f"a delay of {delay_ms} ms lies in the past: use 0 or more")
    if at_ms is not None:
        return _instant(at_ms) if at_ms > now_ms else None
    return _instant(now_ms + delay_ms) if delay_ms else None


def _expires_at(now_ms: int, expires_in_ms: int | None) -> int | None:
    if expires_in_ms is None:
        return None
    if expires_in_ms < 1:
        raise BadTimeError(f"an expiry of {expires_in_ms} ms would end the task before it starts: use 1 or more")
    return _instant(now_ms + expires_in_ms)


def _instant(at_ms: int) -> int:
    if at_ms > INSTANT_MS_MAX:
        raise BadTimeError("the time lies behind the year 9999: use an earlier one")
    return at_ms


def _traceparent(text: str | None) -> str:
    """Return a W3C trace context as it is, or nothing when it is none: a bad one must not fail a submit."""
    if not text:
        return ""
    parts = text.split("-")
    sizes = (2, 32, 16, 2)
    if len(parts) != 4 or any(
        len(part) != size or not all(c in "0123456789abcdef" for c in part)
        for part, size in zip(parts, sizes, strict=True)
    ):
        return ""
    return "" if parts[1].strip("0") == "" or parts[2].strip("0") == "" or parts[0] == "ff" else text


def _submitted(task_id: str, deduplicated: bool) -> SubmitOutcome:
    message = "this idempotency key is held by an earlier task" if deduplicated else "stored"
    return SubmitOutcome(task_id=task_id, deduplicated=deduplicated, message=message)


def _rejected(line: int, error: InputError) -> BatchLine:
    return BatchLine(line=line, result="rejected", code=error.code, message=str(error))
