"""From what a caller hands in to the rows that are committed: what is refused, what is filled in, and in which groups.

    TaskRequest ─▶ text, size ─▶ priority, key, times, labels, trace ─▶ NewTask ─▶ commit ─▶ SubmitOutcome, BatchLine
                      └──────────────┴─▶ InputError: nothing was stored

``relaymesh.client`` brings the open root: ids, payload files, the commit. It loads this module with the first submit,
so a command that only looks does without.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from relaymesh.argument import agent_id_of, check_length, check_text_or_none, labels_of
from relaymesh.core.label import normalize_labels
from relaymesh.core.limit import INSTANT_MS_MAX, PAYLOAD_BYTES_MAX
from relaymesh.core.priority import normalize_priority
from relaymesh.core.workflow import derived_key
from relaymesh.errors import InputError
from relaymesh.store.draft import TaskIds, draft_task, draft_workflow
from relaymesh.uniqueness import unique_of
from relaymesh.view import BatchLine, SubmitOutcome, TaskRequest

if TYPE_CHECKING:
    from relaymesh.core.workflow import WorkflowPlan
    from relaymesh.store.payload import PayloadFiles
    from relaymesh.wire.store import NewTask
    from relaymesh.workflow import Workflow

__all__ = [
    "BATCH_BYTES",
    "BATCH_TASKS",
    "BadBudgetError",
    "BadConcurrencyKeyError",
    "BadPayloadError",
    "BadTimeError",
    "PayloadTooLargeError",
    "check_request",
    "default_key",
    "new_task",
    "new_workflow",
    "outcome_of",
    "payload_of",
    "store_in_groups",
    "text_of",
    "workflow_text_of",
]

BATCH_TASKS = 500
"""Tasks per commit of ``submit_many``."""
BATCH_BYTES = 8 * 1024 * 1024
"""A batch is also committed when its payloads reach this, so that memory stays bounded."""


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


class BadBudgetError(InputError):
    """A budget that makes no sense; nothing was changed."""

    code = "bad_budget"

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence)


class BadConcurrencyKeyError(InputError):
    """A concurrency key that is too long, or that points at nothing in the input."""

    code = "bad_concurrency_key"

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence)


# -- one task --------------------------------------------------------------------------------------------------------


def text_of(value: str | object) -> str:
    """Return an input as the text that is stored: text as it is, anything else as JSON.

    Raises:
        InputError: JSON cannot hold it.
    """
    if isinstance(value, str):
        return value
    try:
        text = msgspec.json.encode(value).decode()
        if "null" in text and _has_no_json(msgspec.to_builtins(value)):
            raise ValueError("NaN and infinity are no JSON, and would be null")
        return text
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"the input cannot be written as JSON ({error}): hand in text, or plain values") from error


def _has_no_json(value: object) -> bool:
    """Whether there is a number in it that JSON has no word for."""
    match value:
        case float():
            return value - value != 0
        case dict():
            return any(map(_has_no_json, value.values()))
        case list() | tuple() | set() | frozenset():
            return any(map(_has_no_json, value))
    return False


def check_request(request: TaskRequest) -> None:
    """Refuse a request whose members are of a wrong kind: a program makes one without anybody looking at the types.

    Raises:
        InputError
    """
    if not isinstance(request, TaskRequest):
        raise InputError(
            f"a task to submit is a TaskRequest, and this is of type {type(request).__name__}: "
            'write TaskRequest(agent="echo", input="hello")'
        )
    agent_id_of(request.agent)
    labels_of(request.labels)
    for name in (
        "priority",
        "idempotency_key",
        "traceparent",
        "concurrency_key",
        "unique",
        "on_duplicate",
        "unique_key",
    ):
        check_text_or_none(name, getattr(request, name))


def payload_of(request: TaskRequest) -> str:
    """Return the payload, once it is known that it can be stored. To be asked before the root is opened.

    Raises:
        BadPayloadError, PayloadTooLargeError, InputError
    """
    payload = text_of(request.input)
    # Counting bytes costs a copy; no character takes more than four.
    if len(payload) * 4 > PAYLOAD_BYTES_MAX or not payload.isascii():
        try:
            size = len(payload.encode())
        except UnicodeEncodeError as error:
            raise BadPayloadError from error
        if size > PAYLOAD_BYTES_MAX:
            raise PayloadTooLargeError(size)
    return payload


def new_task(request: TaskRequest, payload: str, *, now_ms: int, ids: TaskIds, files: PayloadFiles) -> NewTask:
    """Return the rows of a request whose payload was checked.

    Raises:
        BadTimeError, InputError: the times, the priority, the labels, the concurrency key or the budget are wrong.
    """
    derived = default_key(request.agent, payload)
    unique = None
    if request.unique is not None or request.on_duplicate is not None or request.unique_key is not None:
        unique = unique_of(
            request.unique,
            request.on_duplicate,
            request.unique_key,
            default_key=derived,
            delay_ms=request.delay_ms,
        )
    return draft_task(
        ids,
        files,
        request.agent,
        payload,
        priority=normalize_priority(request.priority),
        # What is unique in its own way is not also held to its content.
        key=_key(request.idempotency_key) or (derived if unique is None else ""),
        unique=unique,
        not_before_ms=_not_before(now_ms, request.delay_ms, request.at_ms),
        expires_at_ms=_expires_at(now_ms, request.expires_in_ms),
        labels=normalize_labels(request.labels) if request.labels else None,
        traceparent=_traceparent(request.traceparent),
        concurrency_key=_concurrency_key(request, payload) if request.concurrency_key else None,
        budget=_budget(request.budget) if request.budget else (),
    )


def default_key(agent_id: str, payload: str) -> str:
    """Return the idempotency key of a single task that was submitted without one."""
    return hashlib.sha256(f"{agent_id}\n{payload}".encode()).hexdigest()


def outcome_of(result: tuple[str, bool] | InputError) -> SubmitOutcome:
    """Return what the store's answer about one task means to who submitted it.

    Raises:
        AdmissionError: it was not let in.
        DuplicateTaskError: another stands in its way.
    """
    if isinstance(result, Exception):
        raise result
    task_id, deduplicated = result
    message = "this idempotency key is held by an earlier task" if deduplicated else "stored"
    return SubmitOutcome(task_id=task_id, deduplicated=deduplicated, message=message)


# -- a workflow ------------------------------------------------------------------------------------------------------


def workflow_text_of(workflow: Workflow | bytes | str | Mapping[str, object]) -> bytes | str | Mapping[str, object]:
    """Return a workflow as text or values that can be parsed.

    Raises:
        InputError: it is of another kind, such as the path of a file.
    """
    if isinstance(workflow, bytes | str | Mapping):
        return workflow
    if hasattr(workflow, "to_json"):
        return workflow.to_json()
    raise InputError(
        f"a workflow is a Workflow, values, or the text of a file, and this is of type {type(workflow).__name__}:"
        " hand in Path(...).read_bytes() for a file"
    )


def new_workflow(
    plan: WorkflowPlan,
    *,
    now_ms: int,
    ids: TaskIds,
    files: PayloadFiles,
    idempotency_key: str | None,
    delay_ms: int,
    at_ms: int | None,
    expires_in_ms: int | None,
    labels: Mapping[str, str] | None,
    traceparent: str | None,
    unique: str | None = None,
    on_duplicate: str | None = None,
    unique_key: str | None = None,
    budget: Mapping[str, object] | None = None,
) -> NewTask:
    """Return the rows of a workflow whose plan was checked. budget: beats that of the file, kind by kind.

    Raises:
        BadTimeError, InputError: the times, the labels or the budget are wrong.
    """
    check_text_or_none("idempotency_key", idempotency_key)
    check_text_or_none("traceparent", traceparent)
    for name, text in (("unique", unique), ("on_duplicate", on_duplicate), ("unique_key", unique_key)):
        check_text_or_none(name, text)
    derived = derived_key(plan)
    its = unique_of(unique, on_duplicate, unique_key, default_key=derived, delay_ms=delay_ms)
    return draft_workflow(
        ids,
        files,
        plan,
        key=_key(idempotency_key) or (derived if its is None else ""),
        unique=its,
        not_before_ms=_not_before(now_ms, delay_ms, at_ms),
        expires_at_ms=_expires_at(now_ms, expires_in_ms),
        labels=normalize_labels(labels_of(labels)),
        traceparent=_traceparent(traceparent),
        budget=tuple(sorted({**dict(plan.budget), **dict(_budget(budget))}.items())) if budget else None,
    )


# -- many tasks ------------------------------------------------------------------------------------------------------


def store_in_groups(
    requests: Iterable[TaskRequest],
    draft: Callable[[TaskRequest], NewTask],
    commit: Callable[[Sequence[NewTask]], Sequence[tuple[str, bool] | InputError]],
) -> Iterator[BatchLine]:
    """Commit requests in groups; yield one line per request, in order, after its group is on disk.

    draft: raises InputError for a request that is to be rejected. commit: ``(task id, deduplicated)`` of each task, or
    why it was not let in.
    """
    group: list[tuple[int, NewTask | BatchLine]] = []
    size = 0
    for number, request in enumerate(requests, 1):
        line = getattr(request, "line", 0) or number
        try:
            task = draft(request)
        except InputError as error:
            group.append((line, BatchLine(line=line, result="rejected", code=error.code, message=str(error))))
        else:
            group.append((line, task))
            size += len(task.steps[0].stored or "")
        if len(group) >= BATCH_TASKS or size >= BATCH_BYTES:
            yield from _store_group(group, commit)
            group, size = [], 0
    yield from _store_group(group, commit)


def _store_group(
    group: Sequence[tuple[int, NewTask | BatchLine]],
    commit: Callable[[Sequence[NewTask]], Sequence[tuple[str, bool] | InputError]],
) -> Iterator[BatchLine]:
    tasks = [task for _, task in group if not isinstance(task, BatchLine)]
    results = iter(commit(tasks) if tasks else ())
    for line, entry in group:
        if isinstance(entry, BatchLine):
            yield entry
            continue
        result = next(results)
        if isinstance(result, Exception):
            yield BatchLine(line=line, result="rejected", code=result.code, message=str(result))
            continue
        task_id, deduplicated = result
        yield BatchLine(line=line, result="duplicate" if deduplicated else "accepted", task_id=task_id)


# -- what is checked or filled in ------------------------------------------------------------------------------------


def _key(key: str | None) -> str | None:
    if key is None or not key.strip():
        return None
    check_length("idempotency_key", key)
    return key


def _budget(amounts: object) -> tuple[tuple[str, int], ...]:
    from relaymesh.core.budget_text import BudgetTextError, budgets_of

    try:
        return budgets_of(amounts)
    except BudgetTextError as error:
        raise BadBudgetError(str(error)) from None


def _concurrency_key(request: TaskRequest, payload: str) -> str | None:
    from relaymesh.core.concurrency_key import KeyTextError, key_of

    try:
        return key_of(request.concurrency_key, payload)
    except KeyTextError as error:
        raise BadConcurrencyKeyError(str(error)) from None


def _not_before(now_ms: int, delay_ms: int, at_ms: int | None) -> int | None:
    _check_time("delay_ms", delay_ms)
    _check_time("at_ms", at_ms)
    if delay_ms < 0:
        raise BadTimeError(f"a delay of {delay_ms} ms lies in the past: use 0 or more")
    if at_ms is not None:
        return _instant(at_ms) if at_ms > now_ms else None
    return _instant(now_ms + delay_ms) if delay_ms else None


def _expires_at(now_ms: int, expires_in_ms: int | None) -> int | None:
    _check_time("expires_in_ms", expires_in_ms)
    if expires_in_ms is None:
        return None
    if expires_in_ms < 1:
        raise BadTimeError(f"an expiry of {expires_in_ms} ms would end the task before it starts: use 1 or more")
    return _instant(now_ms + expires_in_ms)


def _check_time(name: str, value: object) -> None:
    if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
        raise BadTimeError(
            f"{name} is a whole number of milliseconds, and this is of type {type(value).__name__}:"
            f" write it such as {name}=5000"
        )


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
