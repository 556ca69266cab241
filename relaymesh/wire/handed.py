"""The content of a file that a program hands in: one task, or one workflow, as JSON or msgpack.

    {"agent": "echo", "input": "hello"}                           a task
    {"steps": [...]}                                              a workflow file as it is
    {"workflow": {"steps": [...]}, "idempotencyKey": "night-7"}   a workflow, and what else a submit may say

The ending of the name says which format it is; without ``.json`` or ``.msgpack`` the first byte does. What the members
may hold is checked by who submits; here, that they are there and of the right type.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from relaymesh.core.json_object import RepeatedMemberError, refuse_repeated
from relaymesh.errors import InputError

__all__ = ["BadFileError", "HandedTask", "HandedWorkflow", "read_handed"]

_BOM = b"\xef\xbb\xbf"


class BadFileError(InputError):
    """The content of a file is no task and no workflow."""

    code = "bad_file"

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence)


class _Handed(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    priority: str | None = None
    idempotency_key: str | None = None
    delay_ms: int = 0
    at_ms: int | None = None
    expires_in_ms: int | None = None
    labels: dict[str, str] = {}
    traceparent: str | None = None
    budget: dict[str, int | float | str] = {}


class HandedTask(_Handed, frozen=True, kw_only=True):
    """One task. input: text, or any value that JSON can hold."""

    agent: str
    input: Any


class HandedWorkflow(_Handed, frozen=True, kw_only=True):
    """One workflow. workflow: the bytes of a workflow file, or the same as values."""

    workflow: Any


def read_handed(name: str, data: bytes) -> HandedTask | HandedWorkflow:
    """Return what a file holds.

    Raises:
        BadFileError: it is cut off, in another format, or lacks or misnames a member.
    """
    as_json = _is_json(name, data)
    what = "JSON" if as_json else "msgpack"
    try:
        values = msgspec.json.decode(data.removeprefix(_BOM)) if as_json else msgspec.msgpack.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError) as error:
        sentence = f"the file is not whole {what} ({_said(error)}): write it anew, whole, and rename it into the lane"
        raise BadFileError(sentence) from None
    if not isinstance(values, dict) or not all(isinstance(name, str) for name in values):
        raise BadFileError(f'the file holds no object: write {{"agent": ..., "input": ...}} as {what}')
    if "steps" in values:
        # The bytes themselves: the reader of workflow files names the line of what is wrong.
        return HandedWorkflow(workflow=data if as_json else values, priority=_priority_in(values))
    try:
        if as_json:
            refuse_repeated(data)
        if "workflow" in values:
            handed = msgspec.convert(values, HandedWorkflow)
            if not isinstance(handed.workflow, Mapping):
                raise BadFileError('"workflow" is no object: write the content of a workflow file there')
            if handed.priority is None:
                handed = msgspec.structs.replace(handed, priority=_priority_in(handed.workflow))
            return handed
        return msgspec.convert(values, HandedTask)
    except (msgspec.ValidationError, RecursionError, RepeatedMemberError) as error:
        raise BadFileError(f"the file is no task: {_said(error)}; mend it and hand it in again") from None


def _priority_in(workflow: Mapping[str, object]) -> str | None:
    """Return the priority that a workflow asks for; one of another type is refused by who parses it."""
    priority = workflow.get("priority")
    return priority if isinstance(priority, str) else None


def _is_json(name: str, data: bytes) -> bool:
    ending = name.rpartition(".")[2].lower()
    if ending in ("json", "msgpack"):
        return ending == "json"
    # An object in JSON begins with a brace; as a msgpack map it would be a number, and a map begins with another byte.
    return data.removeprefix(_BOM).lstrip(b" \t\r\n")[:1] in (b"{", b"")


def _said(error: BaseException) -> str:
    return str(error)[:200] or type(error).__name__
