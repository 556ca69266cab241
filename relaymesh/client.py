"""Client: everything that can be asked of a data root, with or without a node running on it.

A client opens the database itself, commits what it submits, and then tells running nodes to look. So an answer means
the same whether a node is up or not: it is on disk.

    with Client("data") as client:
        task = client.submit("echo", "hello")
        print(client.result(task.task_id))  # waits for a node to run it: `relaymesh up`

What can be asked stands here, with what it promises and raises, and how the root is opened for it. How it is done
stands in other modules, loaded when they are first needed: every command of the CLI pays for what is imported here.

    check      argument.py            what is handed in, before anything is opened
    submit     submission.py          what is refused and filled in, groups of many tasks
               handing.py             how tasks get to the disk: gate, node or own commit, then their records
    look       watch.py result.py     follow a task, the output of a task; single rows come from store/read.py
    operate    operation.py           explain, conflicts, query, cancel, replay
               observation.py         counts, metrics, service levels, alerts, health, the cluster epoch
               store/                 maintenance, exports
    settings   configure.py reload.py  change one, read them again, what each load changed
    schedule   scheduling.py          create, list, pause, resume, trigger, backfill, next runs
    limits     limits.py              limits, pauses, drained nodes
    audit      evidence.py            tail, query, verify and export the audit log

Whatever changes the root is recorded in the audit log once it is on disk. A record that cannot be written fails no call
(``relaymesh.audit.trail``). What only looks is recorded by the command that was typed, not here.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar, overload

from relaymesh.argument import (
    check_task_id,
    check_text,
    check_text_or_none,
    check_time,
    check_whole_number,
    root_of,
    sources_of,
)
from relaymesh.errors import (
    InputError,
    RootError,
    TaskFailedError,
    TaskNotFoundError,
    UnknownAgentError,
)
from relaymesh.store import read
from relaymesh.store.database import Database
from relaymesh.store.root import normalize_namespace, scoped_root
from relaymesh.store.task_page import task_page
from relaymesh.view import (
    AuditIntegrityOutcome,
    BatchLine,
    CancelResult,
    DeadLetterView,
    DiscardOutcome,
    Event,
    Explanation,
    LeaseConflict,
    LogEntry,
    ReplayBatchOutcome,
    ReplayOutcome,
    SiemExportOutcome,
    StatsOutcome,
    SubmitOutcome,
    TaskPage,
    TaskRequest,
    TaskSummary,
    TaskView,
    WorkflowDetail,
)

if TYPE_CHECKING:
    from relaymesh.admission import Gate
    from relaymesh.agents.registry import Registry
    from relaymesh.audit import AuditTrail
    from relaymesh.core.ident import Ids
    from relaymesh.errors import InputError
    from relaymesh.handing import SubmitDesk
    from relaymesh.limits import Pause
    from relaymesh.net.wake import WakeSender
    from relaymesh.outcome import (
        CompactOutcome,
        DisasterReport,
        PurgeOutcome,
        RollbackOutcome,
        SchemaMigrationRow,
        SnapshotExportOutcome,
        SnapshotImportOutcome,
    )
    from relaymesh.scheduling import Schedules
    from relaymesh.settings import Loaded, Settings
    from relaymesh.settings.record import Alert
    from relaymesh.store.admin import CancelMode
    from relaymesh.store.dead_letter import DeadFilter
    from relaymesh.store.schedule_fire import Fired
    from relaymesh.store.store import Store
    from relaymesh.submission import BadPayloadError, BadTimeError, PayloadTooLargeError, default_key
    from relaymesh.view import (
        AlertsOutcome,
        ClusterEpochBumpOutcome,
        ClusterStateOutcome,
        DeadExportOutcome,
        HealthOutcome,
        LimitOutcome,
        LimitView,
        MaintenanceOutcome,
        PauseOutcome,
        QueueStatus,
        SettingSetOutcome,
        SettingsHistoryEntry,
        SettingsReloadOutcome,
        SettingView,
        SloAlertOutcome,
        TaskExportOutcome,
    )
    from relaymesh.wire.store import NewTask, StoreAnswer, SubmitTasks
    from relaymesh.workflow import Step, Workflow

T = TypeVar("T")

__all__ = ["BadPayloadError", "BadTimeError", "Client", "PayloadTooLargeError", "default_key"]

_DEFAULT_REASON = "cancelled by request"
_REASON_CHARS_MAX = 1_000


def __getattr__(name: str) -> object:
    """Bring the names of ``relaymesh.submission`` that are imported from here."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from relaymesh import submission

    value: object = getattr(submission, name)
    globals()[name] = value
    return value


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000


class Client:
    """A door to one data root. Cheap to make: nothing is opened before the first call. Not thread-safe.

    root: the data root folder. agents: modules or files whose agents may be submitted to although no node runs them
    yet.
    actor: who the audit log says did it. now_ms: wall clock, for tests.
    submitter: how tasks are stored; a program that runs a node hands in the node's own group commit, everybody else
        commits on a connection of its own.
    gate: which bounds of the admission gate hold: those that somebody ``set``, or ``always`` the defaults too, as for
        the commands ``submit`` and ``submit-workflow``.

    A value of a wrong kind, here or in a method, is an InputError that says what to write.
    """

    def __init__(
        self,
        root: str | Path = "data",
        *,
        namespace: str = "default",
        agents: Sequence[str] = (),
        actor: str = "cli",
        now_ms: Callable[[], int] = _wall_ms,
        submitter: Callable[[SubmitTasks], StoreAnswer] | None = None,
        gate: Gate = "set",
    ) -> None:
        check_text("namespace", namespace)
        self.namespace = normalize_namespace(namespace)
        self.root = scoped_root(root_of(root), self.namespace)
        self._agents = sources_of(agents)
        check_text("actor", actor)
        self._actor = actor
        self._trail: AuditTrail | None = None
        self._schedules: Schedules | None = None
        self._now_ms = now_ms
        self._fresh_ids: Ids | None = None
        self._submitter = submitter
        self._gate = gate
        self._store: Database | None = None
        self._registry: Registry | None = None
        self._loaded: Loaded | None = None
        self._waker: WakeSender | None = None
        self._submit_desk: SubmitDesk | None = None

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
        if self._submit_desk is not None:
            self._submit_desk.close()
            self._submit_desk = None

    # -- the root ----------------------------------------------------------------------------------------------------

    def init(self) -> Path:
        """Make the root's folders and tables, if they are not there; return the scoped root."""
        from relaymesh.store.root import create_layout

        self._writable()
        create_layout(self.root)  # one that is there may have lost a folder
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
        concurrency_key: str | None = None,
        unique: str | None = None,
        on_duplicate: str | None = None,
        unique_key: str | None = None,
    ) -> SubmitOutcome:
        """Store one task; returns when it is on disk.

        input: text, or any value that JSON can hold, dataclasses included, which is stored as its JSON text.
        idempotency_key: a second submit with a key that is still held returns the first task. Default: a hash of agent
            and input.
        concurrency_key: steps with the same key share its limits, by default one at a time; a text that begins with a
            slash is a JSON pointer to the key in the input.
        unique: ``waiting``, ``running`` or ``period=MS``: as long as another task with the same unique_key (by default
            a hash of agent and input) waits, has not ended, or is younger, this one is a duplicate.
        on_duplicate: ``return`` the other (the default), ``refuse``, ``replace`` it if it has not started, or
            ``debounce``: replace it and wait ``delay_ms`` again.

        Raises:
            UnknownAgentError, PayloadTooLargeError, InputError: nothing was stored.
            DuplicateTaskError: another task stands in the way, and on_duplicate says so.
            AdmissionError: the root carries too much already; nothing was stored.
            StoreError, RootError: nothing was stored.
        """
        from relaymesh.argument import agent_id_of, labels_of
        from relaymesh.submission import outcome_of, text_of

        request = TaskRequest(
            agent=agent_id_of(agent),
            input=text_of(input),
            priority=priority,
            idempotency_key=idempotency_key,
            delay_ms=delay_ms,
            at_ms=at_ms,
            expires_in_ms=expires_in_ms,
            labels=labels_of(labels),
            traceparent=traceparent,
            concurrency_key=concurrency_key,
            unique=unique,
            on_duplicate=on_duplicate,
            unique_key=unique_key,
        )
        (result,) = self._commit([self._draft(request)])
        return outcome_of(result)

    def submit_many(self, requests: Iterable[TaskRequest]) -> Iterator[BatchLine]:
        """Store many tasks in groups; yields one line per request, in order, after its group is on disk.

        A request that is wrong is told as rejected and does not keep the others from being stored. An error of the
        store ends the iteration; all lines yielded before it stand.
        """
        from relaymesh.submission import store_in_groups

        return store_in_groups(requests, self._draft, self._commit)

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
        unique: str | None = None,
        on_duplicate: str | None = None,
        unique_key: str | None = None,
    ) -> SubmitOutcome:
        """Store a workflow: bytes or text of a workflow file, the same as values, or a ``Workflow``.

        unique, on_duplicate, unique_key: as for ``submit``; the key is by default that of the steps.

        Raises:
            WorkflowError: what is wrong, and where; nothing was stored.
            DuplicateTaskError: another task stands in the way, and on_duplicate says so.
            AdmissionError: the root carries too much already; nothing was stored.
            StoreError, RootError: nothing was stored.
        """
        from relaymesh.core.workflow import check_agents, parse
        from relaymesh.submission import new_workflow, outcome_of, workflow_text_of

        check_text_or_none("priority", priority)
        document = workflow_text_of(workflow)
        plan = parse(document, priority=priority)
        names = {step.agent for step in plan.steps}
        if not names <= set(self._local_agents().specs):
            check_agents(plan, self.agents())
        task = new_workflow(
            plan,
            now_ms=self._now_ms(),
            ids=self._ids,
            files=self._writable().payloads,
            idempotency_key=idempotency_key,
            delay_ms=delay_ms,
            at_ms=at_ms,
            expires_in_ms=expires_in_ms,
            labels=labels,
            traceparent=traceparent,
            unique=unique,
            on_duplicate=on_duplicate,
            unique_key=unique_key,
        )
        (result,) = self._commit([task])
        return outcome_of(result)

    def _draft(self, request: TaskRequest) -> NewTask:
        from relaymesh.submission import check_request, new_task, payload_of

        check_request(request)
        self._require_agent(request.agent)
        payload = payload_of(request)
        return new_task(request, payload, now_ms=self._now_ms(), ids=self._ids, files=self._writable().payloads)

    def _commit(self, tasks: Sequence[NewTask]) -> Sequence[tuple[str, bool] | InputError]:
        """Store tasks; return ``(task id, deduplicated)`` of each, or why it was not stored, once that is recorded."""
        return self._desk.store(tasks)

    @property
    def _desk(self) -> SubmitDesk:
        if self._submit_desk is None:
            from relaymesh.handing import SubmitDesk

            self._submit_desk = SubmitDesk(self, self._submitter, self._gate)
        return self._submit_desk

    # -- look --------------------------------------------------------------------------------------------------------

    def task(self, task_id: str) -> TaskView:
        """Return one task.

        Raises:
            TaskNotFoundError: there is none of this id.
        """
        check_task_id(task_id)
        store = self._readable()
        with store.reading():
            view = read.task_view(store.conn, task_id, store.payloads.read)
        if view is None:
            raise TaskNotFoundError(task_id)
        return view

    def tasks(
        self,
        *,
        status: str | None = None,
        limit: int = 50,
        offset: int = 0,
        label: tuple[str, str] | None = None,
        after: str | None = None,
    ) -> list[TaskSummary]:
        """Return tasks, newest change first: those of ``tasks_page``."""
        return list(self.tasks_page(status=status, limit=limit, offset=offset, label=label, after=after).tasks)

    def tasks_page(
        self,
        *,
        status: str | None = None,
        limit: int = 50,
        offset: int = 0,
        label: tuple[str, str] | None = None,
        after: str | None = None,
    ) -> TaskPage:
        """Return tasks, newest change first, and the cursor of the next page.

        A page looks at the next 5,000 tasks, or ``limit`` and ``offset`` together: with ``label``, or among many that
        failed, it may end before it is full.

        offset: at most 5,000.
        label: name and value of a label that they have.
        after: the cursor of the page before.

        Raises:
            InputError: the offset is too large, or ``after`` is no cursor.
        """
        check_text_or_none("status", status)
        check_text_or_none("after", after)
        check_whole_number("limit", limit)
        check_whole_number("offset", offset)
        if label is not None:
            from relaymesh.argument import label_pair_of
            from relaymesh.core.label import normalize_labels

            label = label_pair_of(label)
            normalize_labels(dict([label]))
        store = self._readable()
        with store.reading():
            return task_page(store.conn, status=status, limit=limit, offset=offset, label=label, after=after)

    def workflow(self, task_id: str) -> WorkflowDetail:
        """Return a task with its steps.

        Raises:
            TaskNotFoundError: there is none of this id.
        """
        check_task_id(task_id)
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
        check_task_id(task_id)
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

        check_task_id(task_id)
        check_time("timeout_ms", timeout_ms)
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

        check_task_id(task_id)
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

        check_task_id(task_id)
        check_time("timeout_ms", timeout_ms)
        return watch(self._readable(), task_id, timeout_ms)

    def logs(self, task_id: str, *, follow: bool = False) -> Iterator[LogEntry]:
        """Yield the log lines of a task's attempts, oldest first; follow: until the task has ended.

        Raises:
            TaskNotFoundError: there is none of this id.
        """
        from relaymesh.watch import read_logs

        check_task_id(task_id)
        return read_logs(self._readable(), task_id, follow=follow)

    # -- operate -----------------------------------------------------------------------------------------------------

    def explain(self, task_id: str) -> list[Explanation]:
        """Return, for each step that has not ended, the first reason why.

        Raises:
            TaskNotFoundError: there is none of this id.
        """
        from relaymesh.operation import explain

        check_task_id(task_id)
        return explain(self._readable(), task_id, settings=self._config, now_ms=self._now_ms)

    def stats(self) -> StatsOutcome:
        """Return counts and ages of the root."""
        from relaymesh.observation import stats

        return stats(self._readable(), self._config(), now_ms=self._now_ms)

    def metrics(self) -> str:
        """Return the metrics of the root and its running nodes, as Prometheus text."""
        from relaymesh.observation import metrics

        return metrics(self._readable(), self._config(), now_ms=self._now_ms)

    def render_metrics(self) -> str:
        """Like ``metrics``, for a scraper: the audit log does not grow by it. From any thread, one at a time."""
        from relaymesh.errors import RootError
        from relaymesh.observation import render_metrics
        from relaymesh.settings import load

        store = self._readable()
        try:
            self._loaded = load(self.root)  # a server runs for long, and takes what was changed
        except RootError:
            self._config()  # of before, when there is one
        return render_metrics(store, self._config(), now_ms=self._now_ms)

    def slo_evaluate(self, out: str | Path | None = None) -> SloAlertOutcome:
        """Compare the service levels with their targets, and write the answer to a file.

        out: by default ``alerts/slo-alerts-latest.json`` in the root.

        Raises:
            ReportFileError: the file cannot be written.
        """
        from relaymesh.observation import slo_evaluate

        path = Path(out) if out is not None else self.root / "alerts" / "slo-alerts-latest.json"
        return slo_evaluate(self._writable(create=False), self._config(), path, now_ms=self._now_ms)

    def alerts(self, limit: int = 20) -> AlertsOutcome:
        """Return the alerts that running nodes watch for, and at most ``limit`` of their last changes."""
        from relaymesh.observation import alerts

        check_whole_number("limit", limit)
        return alerts(self._readable(), limit=limit)

    def health(self) -> HealthOutcome:
        """Return whether the root can be used; does not raise for what it is there to find."""
        from relaymesh.observation import health

        return health(self.root, settings=self._config, now_ms=self._now_ms())

    def cluster_state(self) -> ClusterStateOutcome:
        """Return the fencing counter of the root."""
        from relaymesh.observation import cluster_state

        return cluster_state(self._readable())

    def cluster_epoch_bump(self, *, reason: str = "manual", actor: str = "cli") -> ClusterEpochBumpOutcome:
        """Raise the fencing counter: what is in flight fails its commit once, and runs again after its lease."""
        from relaymesh.observation import bump_epoch

        check_text("reason", reason)
        check_text("actor", actor)
        outcome = bump_epoch(self._writable(create=False), reason=reason, actor=actor, now_ms=self._now_ms)
        self._wake()
        return outcome

    def lease_conflicts(self, limit: int = 100, since_hours: int = 24) -> list[LeaseConflict]:
        """Return refused writes of fenced owners, newest first."""
        from relaymesh.operation import lease_conflicts

        check_whole_number("limit", limit)
        check_whole_number("since_hours", since_hours)
        return lease_conflicts(self._readable(), limit=limit, since_hours=since_hours, now_ms=self._now_ms)

    def query(self, sql: str, values: Sequence[object] = ()) -> list[Any]:
        """Return the rows of a read-only query, for reports that no method gives. Column names are the reference's."""
        from relaymesh.operation import query

        return query(self._readable(), sql, values)

    def cancel(self, task_id: str, *, reason: str = _DEFAULT_REASON) -> CancelResult:
        """Cancel a task and stop what runs of it."""
        from relaymesh.store.admin import CancelMode

        return self._cancel(task_id, CancelMode.HARD, reason)

    def cancel_soft(self, task_id: str, *, reason: str = _DEFAULT_REASON) -> CancelResult:
        """Cancel a task and let what runs of it end."""
        from relaymesh.store.admin import CancelMode

        return self._cancel(task_id, CancelMode.SOFT, reason)

    def _cancel(self, task_id: str, mode: CancelMode, reason: str) -> CancelResult:
        from relaymesh.operation import cancel

        check_task_id(task_id)
        check_text("reason", reason)
        outcome, epoch = cancel(self._writable(create=False), task_id, mode=mode, reason=reason, now_ms=self._now_ms)
        self._wake()
        self.audit.record(
            "task.cancel",
            actor=self._actor,
            resource=f"task/{task_id}",
            result=outcome.message,
            details={
                "mode": outcome.mode,
                "step_rows": outcome.step_rows,
                "message_rows": outcome.message_rows,
                "cluster_epoch": epoch,
            },
            task_id=task_id,
        )
        return outcome

    def replay(
        self,
        task_id: str,
        *,
        edit: str | Mapping[str, str] | None = None,
        from_step: str | None = None,
    ) -> ReplayOutcome:
        """Give the dead-lettered steps of a task a new start.

        edit: a new input for the dead step, or by name of the step where there are several; it is taken as it stands.
        from_step: the step of this name, and all that depends on it, run again too; what does not is kept.

        Raises:
            NoSuchDeadStepError, NotEditableError, PayloadTooLargeError, InputError: nothing was changed.
        """
        from relaymesh.operation import replay

        check_task_id(task_id)
        check_text_or_none("from_step", from_step)
        edits: dict[str | None, str] = {}
        if edit is not None:
            from relaymesh.submission import payload_of

            for name, text in ({None: edit} if isinstance(edit, str) else edit).items():
                check_text_or_none("the name of a step", name)
                check_text("edit", text)
                edits[name] = payload_of(TaskRequest(agent="", input=text))
        outcome, details = replay(
            self._writable(create=False), task_id, edits=edits, from_step=from_step, now_ms=self._now_ms
        )
        self._wake()
        self.audit.record(
            "dead.replay",
            actor=self._actor,
            resource=f"task/{task_id}",
            result=outcome.message,
            details=details,
            task_id=task_id,
        )
        return outcome

    def replay_batch(
        self,
        status: str = "DEAD_LETTER",
        limit: int = 100,
        *,
        agent: str | None = None,
        error_class: str | None = None,
        text: str | None = None,
        older_than_ms: int | None = None,
        newer_than_ms: int | None = None,
    ) -> ReplayBatchOutcome:
        """Replay the tasks of a status that changed last; those that cannot be replayed count as failed.

        The filters, which are those of ``dead_letters``, narrow DEAD_LETTER to tasks that have such a step.

        Raises:
            InputError: a filter with another status; nothing was changed.
        """
        wanted = self._dead_filter(agent, error_class, text, older_than_ms, newer_than_ms)
        check_text("status", status)
        check_whole_number("limit", limit)
        if wanted.narrows:
            from relaymesh.operation import dead_task_ids

            if status != "DEAD_LETTER":
                raise InputError("the filters are for dead letters: leave the status out; nothing was changed")
            task_ids = dead_task_ids(self._readable(), wanted, limit=limit)
        else:
            task_ids = [task.task_id for task in self.tasks(status=status, limit=limit)]
        details = tuple(self.replay(task_id) for task_id in task_ids)
        replayed = sum(outcome.replayed for outcome in details)
        filters = {
            name: value
            for name, value in (
                ("agent", agent),
                ("error_class", error_class),
                ("text", text),
                ("older_than_ms", older_than_ms),
                ("newer_than_ms", newer_than_ms),
            )
            if value is not None
        }
        self.audit.record(
            "dead.replay.batch",
            actor=self._actor,
            resource="runtime/dead-letter",
            result="ok" if replayed == len(details) else "partial",
            details={
                "status": status,
                "limit": limit,
                "candidates": len(details),
                "replayed": replayed,
                "failed": len(details) - replayed,
                **filters,
            },
        )
        return ReplayBatchOutcome(
            status=status, total=len(details), replayed=replayed, failed=len(details) - replayed, details=details
        )

    def dead_letters(
        self,
        *,
        agent: str | None = None,
        error_class: str | None = None,
        text: str | None = None,
        older_than_ms: int | None = None,
        newer_than_ms: int | None = None,
        limit: int = 100,
    ) -> list[DeadLetterView]:
        """Return dead-lettered steps, the latest death first.

        error_class: the code of the failure, or the exception with which its text begins. text: part of that text.
        older_than_ms, newer_than_ms: how long ago the step died, at least and at most.
        """
        from relaymesh.operation import dead_letters

        check_whole_number("limit", limit)
        wanted = self._dead_filter(agent, error_class, text, older_than_ms, newer_than_ms)
        return dead_letters(self._readable(), wanted, limit=limit)

    def _dead_filter(
        self,
        agent: str | None,
        error_class: str | None,
        text: str | None,
        older_than_ms: int | None,
        newer_than_ms: int | None,
    ) -> DeadFilter:
        from relaymesh.store.dead_letter import DeadFilter

        for name, value in (("agent", agent), ("error_class", error_class), ("text", text)):
            check_text_or_none(name, value)
        for name, age_ms in (("older_than_ms", older_than_ms), ("newer_than_ms", newer_than_ms)):
            check_time(name, age_ms)
        now_ms = self._now_ms()
        return DeadFilter(
            agent=agent,
            error_class=error_class,
            text=text,
            before_ms=None if older_than_ms is None else now_ms - older_than_ms,
            after_ms=None if newer_than_ms is None else now_ms - newer_than_ms,
        )

    def discard(self, task_id: str, *, reason: str) -> DiscardOutcome:
        """Take a task off the dead letters for good: it is CANCELLED, and stays readable.

        Raises:
            InputError: the reason is blank, or longer than 1,000 characters; nothing was changed.
        """
        from relaymesh.operation import discard

        check_task_id(task_id)
        check_text("reason", reason)
        if not reason.strip() or len(reason) > _REASON_CHARS_MAX:
            raise InputError(
                f"a discard needs a reason of 1 to {_REASON_CHARS_MAX:,} characters, which is kept with the task;"
                " nothing was changed"
            )
        outcome, details = discard(
            self._writable(create=False), task_id, reason=reason.strip(), actor=self._actor, now_ms=self._now_ms
        )
        self._wake()
        self.audit.record(
            "dead.discard",
            actor=self._actor,
            resource=f"task/{task_id}",
            result=outcome.message,
            details=details,
            task_id=task_id,
        )
        return outcome

    def maintenance(self, node_id: str = "node-local") -> MaintenanceOutcome:
        """Do one round of what a running node does by itself: take back lost steps, start what is due, take in files.

        Raises:
            BadNodeIdError: the id is blank.
            AgentLoadError: the agents, whose retry policies count, cannot be read.
        """
        from relaymesh.inbox.by_hand import inbox_round
        from relaymesh.store.tick import maintenance_tick

        check_text("node_id", node_id)
        if not node_id.strip():
            from relaymesh.store.presence import BadNodeIdError

            raise BadNodeIdError(node_id)
        store, specs = self._writable(), self._local_agents().specs
        policies = {agent_id: spec.retry for agent_id, spec in specs.items() if spec.retry is not None}
        outcome = maintenance_tick(
            store,
            node_id,
            self._config(),
            now_ms=self._now_ms(),
            policies=policies,
            on_fired=self._record_fired,
        )
        inbox_round(
            store,
            ids=self._ids,
            now_ms=self._now_ms,
            known_agents=self.agents,
            audit=self.audit,
            keeps_messages=self._config().bus_mode == "files",
        )
        self._wake()
        from relaymesh.audit.event import maintenance_records

        self.audit.record_many(maintenance_records(outcome, actor=self._actor))
        return outcome

    def dead_export(self, out: str | Path, limit: int = 1000) -> DeadExportOutcome:
        """Write the dead letters to a JSON file."""
        from relaymesh.store.export import export_dead

        check_whole_number("limit", limit)
        outcome = export_dead(self._readable(), Path(out), limit)
        details = {"exported": outcome.exported, "output": outcome.output_path}
        self.audit.record("dead.export", actor=self._actor, resource="runtime/dead", result="ok", details=details)
        return outcome

    def task_export(self, task_id: str, out: str | Path) -> TaskExportOutcome:
        """Write one task with its steps and its audit rows to a JSON file."""
        from relaymesh.evidence import rows_of_task
        from relaymesh.store.export import export_task

        check_task_id(task_id)
        outcome = export_task(
            self._readable(),
            task_id,
            Path(out),
            audit_rows=lambda: rows_of_task(self.audit, task_id),
            now_ms=self._now_ms(),
        )
        if outcome.exported:
            self.audit.record(
                "task.export",
                actor=self._actor,
                resource=f"task/{task_id}",
                result="ok",
                details={"output": outcome.output, "audit_rows": outcome.audit_events},
                task_id=task_id,
            )
        return outcome

    # -- limits ------------------------------------------------------------------------------------------------------

    def set_limit(
        self,
        scope: str,
        name: str = "",
        *,
        max_concurrency: int | None = None,
        rate: str | None = None,
        burst: int | None = None,
    ) -> LimitOutcome:
        """Set a limit that holds for all processes of the root from their next claim on; what is not given stays.

        scope: ``overall``, ``agent``, ``key``, or ``each-key`` for keys that have none of their own. name: of the agent
        or key. rate: starts and time, such as ``100/m``; burst: starts at once after a pause, by default those of one
        period.

        Raises:
            BadLimitError, TooManyRulesError: nothing was changed.
        """
        from relaymesh.limits import set_limit

        check_text("scope", scope)
        check_text("name", name)
        check_text_or_none("rate", rate)
        for number, value in (("max_concurrency", max_concurrency), ("burst", burst)):
            if value is not None:
                check_whole_number(number, value)
        outcome = set_limit(
            self._writable(),
            scope,
            name,
            max_concurrency=max_concurrency,
            rate=rate,
            burst=burst,
            now_ms=self._now_ms,
        )
        self._changed_limit("limit.set", outcome)
        return outcome

    def remove_limit(self, scope: str, name: str = "") -> LimitOutcome:
        """Remove a limit; what holds without it is in the answer.

        Raises:
            BadLimitError: nothing was changed.
        """
        from relaymesh.limits import remove_limit

        check_text("scope", scope)
        check_text("name", name)
        outcome = remove_limit(self._writable(create=False), scope, name, now_ms=self._now_ms)
        self._changed_limit("limit.remove", outcome)
        return outcome

    def limits(self) -> list[LimitView]:
        """Return all limits, and how far each is used up."""
        from relaymesh.limits import limits

        return limits(self._readable(), now_ms=self._now_ms)

    def pause_queue(self, *, agent: str | None = None, priority: str | None = None, reason: str = "") -> PauseOutcome:
        """Let nothing new be taken: overall, of one agent, or of one priority. What runs goes on to its end.

        Raises:
            InputError, TooManyRulesError: nothing was changed.
        """
        from relaymesh.limits import pause_of

        check_text_or_none("agent", agent)
        check_text_or_none("priority", priority)
        return self._change_pause("queue.pause", pause_of(agent=agent, priority=priority), True, reason)

    def resume_queue(
        self, *, agent: str | None = None, priority: str | None = None, node: str | None = None
    ) -> PauseOutcome:
        """End the pause of just that: the whole queue, one agent, one priority, or a drained node.

        Raises:
            InputError: nothing was changed.
        """
        from relaymesh.limits import pause_of

        for name, value in (("agent", agent), ("priority", priority), ("node", node)):
            check_text_or_none(name, value)
        return self._change_pause("queue.resume", pause_of(agent=agent, priority=priority, node=node), False, "")

    def drain_node(self, node: str, *, reason: str = "") -> PauseOutcome:
        """Let a node take nothing new, also after a restart, until ``resume_queue(node=...)``.

        Raises:
            UnknownNodeError, InputError, TooManyRulesError: nothing was changed.
        """
        from relaymesh.limits import pause_of

        check_text("node", node)
        return self._change_pause("queue.drain", pause_of(node=node), True, reason)

    def queue_status(self) -> QueueStatus:
        """Return what is paused, and what waits and runs now."""
        from relaymesh.limits import queue_status

        return queue_status(self._readable(), now_ms=self._now_ms)

    def _change_pause(self, action: str, what: Pause, paused: bool, reason: str) -> PauseOutcome:
        from relaymesh.limits import change_pause

        check_text("reason", reason)
        store = self._writable(create=paused)
        outcome = change_pause(store, what, paused=paused, reason=reason, now_ms=self._now_ms)
        self._wake()
        details = {"scope": outcome.scope, "name": outcome.name, "changed": outcome.changed, "reason": reason}
        self.audit.record(action, actor=self._actor, resource="runtime/queue", result=outcome.message, details=details)
        return outcome

    def _changed_limit(self, action: str, outcome: LimitOutcome) -> None:
        self._wake()
        details = {
            "scope": outcome.scope,
            "name": outcome.name,
            "max_concurrency": outcome.max_concurrency,
            "rate": outcome.rate,
            "burst": outcome.burst,
        }
        self.audit.record(action, actor=self._actor, resource="runtime/limits", result=outcome.message, details=details)

    # -- settings ----------------------------------------------------------------------------------------------------

    def settings(self) -> list[SettingView]:
        """Return each setting as it holds for a process that starts now with this environment, and where it came from.

        Raises:
            SettingsError, EnvironmentSettingError: the file, or a variable, cannot be used.
        """
        from relaymesh.settings import load
        from relaymesh.settings.shown import shown

        return shown(load(self.root))

    def settings_alert(self) -> Alert | None:
        """Return since when and why what runs keeps its former settings, or None when it does not."""
        from relaymesh.settings.record import read_alert

        return read_alert(self.root)

    def set_setting(self, key: str, text: str) -> SettingSetOutcome:
        """Change one key of the settings file; ``text`` as it is typed: a number, ``true``, a word, names with commas.

        Raises:
            BadSettingError: there is no such key, or it cannot have this value.
            SettingsError, EnvironmentSettingError: the file has another fault, or a variable has. It is as it was.
        """
        from relaymesh.configure import set_setting

        check_text("key", key)
        check_text("text", text)
        self._loaded = None
        return set_setting(self.root, key, text, audit=self.audit, actor=self._actor)

    def reload_settings(self) -> SettingsReloadOutcome:
        """Read settings and retry policies again; return what differs from what was last recorded for the root.

        Raises:
            SettingsError, EnvironmentSettingError, AgentLoadError: a file cannot be used; nodes keep what they have.
        """
        from relaymesh.reload import reload_settings

        self._loaded = None
        return reload_settings(self.root, audit=self.audit, now_ms=self._now_ms(), actor=self._actor)

    def settings_history(self, limit: int = 20) -> list[SettingsHistoryEntry]:
        """Return the loads of settings that the audit log knows, newest first.

        Raises:
            RootMissingError, AuditUnreadableError
        """
        from relaymesh.configure import settings_history

        check_whole_number("limit", limit)
        return settings_history(limit, audit=self.audit)

    # -- schedules ---------------------------------------------------------------------------------------------------

    @property
    def schedules(self) -> Schedules:
        """The schedules of the root: ``client.schedules.create("nightly", cron="30 2 * * *", agent="backup")``."""
        if self._schedules is None:
            from relaymesh.scheduling import Schedules

            self._schedules = Schedules(self)
        return self._schedules

    def _record_fired(self, ticks: Sequence[Fired]) -> None:
        if ticks:
            from relaymesh.audit.event import fired_bodies

            now_ms = self._now_ms()
            self.audit.append(fired_bodies(ticks, namespace=self.namespace, actor=self._actor, now_ms=now_ms))

    # -- audit -------------------------------------------------------------------------------------------------------

    @property
    def audit(self) -> AuditTrail:
        """The audit log of the root, to add records to. Whoever does names who did it."""
        if self._trail is None:
            from relaymesh.audit import AuditTrail

            masked: tuple[str, ...] = ()
            with contextlib.suppress(RootError):  # what needs the settings says so; a look at the log does not
                masked = self._config().audit_masked_fields
            self._trail = AuditTrail(self.root, self.namespace, masked_fields=masked, now_ms=self._now_ms)
        return self._trail

    def audit_tail(self, lines: int = 50) -> list[str]:
        """Return the last records of the audit log as they stand, oldest first.

        Raises:
            RootMissingError, AuditUnreadableError
        """
        from relaymesh.evidence import last_rows

        check_whole_number("lines", lines)
        return last_rows(self.audit, lines, actor=self._actor)

    def audit_query(
        self,
        *,
        task: str | None = None,
        action: str | None = None,
        from_ms: int | None = None,
        to_ms: int | None = None,
        limit: int = 100,
    ) -> list[str]:
        """Return records that match everything given, newest first. task: its id. from_ms, to_ms: wall time, inclusive.

        Raises:
            SpanOfTimeError: it ends before it begins.
            RootMissingError, AuditUnreadableError
        """
        from relaymesh.audit.read import Filter
        from relaymesh.evidence import query

        _check_task(task)
        check_text_or_none("action", action)
        check_time("from_ms", from_ms)
        check_time("to_ms", to_ms)
        check_whole_number("limit", limit)
        return query(self.audit, Filter(task, action, from_ms, to_ms), limit, actor=self._actor)

    def audit_verify(
        self, limit: int = 0, *, on_fault: Callable[[str], None] = lambda _: None
    ) -> AuditIntegrityOutcome:
        """Check the chain of the audit log, or its last ``limit`` records; ``on_fault`` is told in words.

        Raises:
            RootMissingError, AuditUnreadableError, AuditBusyError, AuditKeyError: it could not be checked.
        """
        from relaymesh.evidence import verify

        check_whole_number("limit", limit)
        return verify(self.audit, limit, actor=self._actor, on_fault=on_fault)

    def audit_siem_export(
        self, out: str | Path, limit: int = 200, *, action: str | None = None, task: str | None = None
    ) -> SiemExportOutcome:
        """Write records to a file, newest first, one JSON object with field names of a SIEM per line.

        Raises:
            OutputFileError, RootMissingError, AuditUnreadableError
        """
        from relaymesh.audit.read import Filter
        from relaymesh.evidence import export_siem

        check_text_or_none("action", action)
        _check_task(task)
        check_whole_number("limit", limit)
        return export_siem(self.audit, Path(out), Filter(task, action), limit, actor=self._actor)

    # -- the whole root ----------------------------------------------------------------------------------------------

    def snapshot_export(self, out: str | Path) -> SnapshotExportOutcome:
        """Copy the root to a folder while nodes work on it; an older snapshot there is replaced.

        Raises:
            SnapshotPlaceError, SnapshotBusyError, SnapshotOutputError, StoreError: there is no new snapshot.
        """
        from relaymesh.store.snapshot import export_snapshot

        return export_snapshot(self._readable(), Path(out), now_ms=self._now_ms())

    def snapshot_import(self, source: str | Path) -> SnapshotImportOutcome:
        """Put a snapshot in the place of the root; what was there is kept below ``replaced/``, the newest three.

        Raises:
            SnapshotMissingError, SnapshotDamagedError, SnapshotPlaceError: the snapshot cannot be used.
            SchemaTooNewError: a later release wrote it.
            RootInUseError: a node or another program works on the root; close this client's iterators, too.
            StoreError, RootError: the disk refused; the root is as it was, or the next to open it finishes the import.
        """
        from relaymesh.store.restore import import_snapshot

        self.close()
        return import_snapshot(self.root, Path(source), namespace=self.namespace, now_ms=self._now_ms())

    def dr_automation(
        self,
        *,
        snapshot_root: str | Path | None = None,
        offsite_root: str | Path | None = None,
        report_out: str | Path | None = None,
        drill: bool = False,
        keep: int = 7,
    ) -> DisasterReport:
        """Take a snapshot, copy it to a second place, verify the copy; drill: make a root of it and check its health.

        The folders and the report are below ``dr/`` of the root, unless others are named. keep: snapshots that stay.

        Raises:
            SnapshotBusyError, SnapshotOutputError, StoreError, RootError: there is no new copy; older ones stay.
        """
        from relaymesh.disaster import Places, run

        base = self.root if self.namespace == "default" else self.root.parents[1]
        places = Places(
            base=base,
            namespace=self.namespace,
            snapshots=None if snapshot_root is None else Path(snapshot_root).absolute(),
            offsite=None if offsite_root is None else Path(offsite_root).absolute(),
            report=None if report_out is None else Path(report_out).absolute(),
        )
        return run(self.root, places, drill=drill, keep=keep, now_ms=self._now_ms)

    def purge(
        self,
        *,
        done_retention_days: int = 7,
        dead_retention_days: int = 7,
        idempotency_ttl_days: int = 7,
        dry_run: bool = False,
    ) -> PurgeOutcome:
        """Remove what is older, in pieces that hold the writer for a moment each; dry_run: only count it.

        A task whose idempotency key is still held stays. What a crash interrupts is finished by the next purge.
        """
        from relaymesh.store import cleanup

        check_whole_number("done_retention_days", done_retention_days)
        check_whole_number("dead_retention_days", dead_retention_days)
        check_whole_number("idempotency_ttl_days", idempotency_ttl_days)
        return (cleanup.preview if dry_run else cleanup.purge)(
            self._writable(create=False),
            done_days=done_retention_days,
            dead_days=dead_retention_days,
            key_days=idempotency_ttl_days,
            now_ms=self._now_ms(),
            files_are_messages=self._config().bus_mode == "files",
        )

    def compact(self) -> CompactOutcome:
        """Give free pages, the log and payload files that no row names back to the file system."""
        from relaymesh.store.cleanup import compact

        return compact(self._writable(create=False), now_ms=self._now_ms())

    def schema_migrations(self, limit: int = 50) -> list[SchemaMigrationRow]:
        """Return the migrations that were applied to the database, newest first; applies none."""
        from relaymesh.store.rollback import applied_migrations

        check_whole_number("limit", limit)
        return applied_migrations(self.root, limit)

    def schema_rollback(self, version: str) -> RollbackOutcome:
        """Take the newest migration back, for a return to the release before; the next start applies it again.

        Raises:
            UnknownMigrationError, NotReversibleError, RootInUseError: nothing was changed.
        """
        from relaymesh.store.rollback import roll_back

        check_text("version", version)
        self.close()
        return roll_back(self.root, version)

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
        return self._load().settings

    def _load(self) -> Loaded:
        if self._loaded is None:
            from relaymesh.settings import load

            self._loaded = load(self.root)
        return self._loaded

    def _local_agents(self) -> Registry:
        if self._registry is None:
            from relaymesh.agents.registry import load_registry
            from relaymesh.store.root import refuse_file

            refuse_file(self.root)  # else the agents' own files would be what cannot be read
            self._registry = load_registry(self.root, self._agents)
        return self._registry

    def _require_agent(self, name: str) -> None:
        """Raise UnknownAgentError for a name that neither this process nor a running node knows."""
        if name not in self._local_agents().specs and name not in self._node_agents():
            from relaymesh.core.nearest import did_you_mean

            raise UnknownAgentError(name, did_you_mean(name, sorted(self._node_agents())))

    def _node_agents(self) -> frozenset[str]:
        now = time.monotonic()
        if now >= self._node_agents_until:
            self._node_agents_known = frozenset(self.agents())
            self._node_agents_until = now + 1.0
        return self._node_agents_known

    _node_agents_known: frozenset[str] = frozenset()
    _node_agents_until: float = 0.0


def _check_task(task_id: str | None) -> None:
    if task_id is not None:
        check_task_id(task_id)
