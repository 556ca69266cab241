"""Looking at tasks: rows, results, logs, and waiting for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, overload

from relaymesh.argument import check_task_id, check_text_or_none, check_time, check_whole_number, status_of
from relaymesh.door.base import Door
from relaymesh.errors import TaskFailedError, TaskNotFoundError
from relaymesh.store import read
from relaymesh.store.task_page import task_page

if TYPE_CHECKING:
    from collections.abc import Iterator

    from relaymesh.view import Event, LogEntry, TaskPage, TaskSummary, TaskView, WorkflowDetail
    from relaymesh.workflow import Step

T = TypeVar("T")

__all__ = ["Looks"]


class Looks(Door):
    """What there is to see of tasks."""

    def task(self, task_id: str) -> TaskView:
        """Return one task.

        Raises:
            TaskNotFoundError: there is none of this id.
        """
        check_task_id(task_id)
        store = self._readable()
        with store.reading():
            view = read.task_view(store.conn, task_id, store.payloads.text)
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
            UnknownStatusError: there is no such status.
            InputError: the offset is too large, or ``after`` is no cursor.
        """
        status = status_of(status)
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
            yield from read.outputs(store.conn, task_id, store.payloads.text)

    def wait(self, task_id: str, *, timeout_ms: int | None = None) -> TaskView:
        """Return the task once it has ended, whatever it came to.

        Raises:
            TaskNotFoundError: there is none of this id.
            WaitTimeoutError: it has not ended in time.
        """
        from relaymesh.watch import wait_for_end

        check_task_id(task_id)
        check_time("timeout_ms", timeout_ms)
        return wait_for_end(self._readable(), task_id, timeout_ms)

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
            return output_of(store.conn, task_id, name, store.payloads.text)

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
