"""From what was handed in (the bytes of a file, a text, or values of a program) to plain JSON values.

JSON here is that of RFC 8259: no NaN, and a member named twice in one object is an error, since one would be lost.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Final

from relaymesh.core.limit import DEPTH_MAX, WORKFLOW_BYTES_MAX
from relaymesh.core.nearest import quoted
from relaymesh.core.template_syntax import member_path
from relaymesh.core.workflow_error import (
    BadNumber,
    BadType,
    DuplicateMember,
    TooDeep,
    WorkflowNotJson,
    WorkflowNotUtf8,
    WorkflowTooLarge,
)

__all__ = ["read_workflow"]

_BOM: Final = "\ufeff"
_STRING_OR_CONSTANT = re.compile(r'"(?:[^"\\]|\\.)*"|(-?Infinity|NaN)', re.DOTALL)
_LONG_INTEGER = re.compile(r'"(?:[^"\\]|\\.)*"|(-?[0-9]{1000,})', re.DOTALL)
_INTEGER_BITS_MAX: Final = 14_000  # Python turns integers of more than 4,300 digits into text only when told to
_MAPPING_DEPTH_MAX: Final = DEPTH_MAX + 4  # an input stands inside workflow, steps and step


def read_workflow(data: bytes | str | Mapping[str, object]) -> object:
    """Return ``data`` as values of type dict, list, str, int, float, bool and None.

    A byte order mark in front is ignored.

    Raises:
        WorkflowTooLarge: above WORKFLOW_BYTES_MAX (not checked for a mapping).
        WorkflowNotUtf8, WorkflowNotJson: with the place.
        TooDeep, DuplicateMember, BadNumber: as their names say.
        BadType: a mapping holds a value that JSON has no type for.
    """
    if isinstance(data, str):
        return _parsed(_checked_text(data))
    if isinstance(data, Mapping):
        return _plain(data, "", 1)
    return _parsed(_decoded(data))


def _decoded(data: bytes) -> str:
    if len(data) > WORKFLOW_BYTES_MAX:
        raise _too_large()
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        utf16 = "; it looks like UTF-16" if data.startswith((b"\xff\xfe", b"\xfe\xff")) else ""
        raise WorkflowNotUtf8(
            f"the workflow is not UTF-8: byte 0x{data[error.start]:02x} at offset {error.start} (line {line}){utf16}; "
            "save the file as UTF-8",
            offset=error.start,
        ) from None


def _checked_text(text: str) -> str:
    try:
        if len(text) > WORKFLOW_BYTES_MAX or (not text.isascii() and len(text.encode()) > WORKFLOW_BYTES_MAX):
            raise _too_large()
    except UnicodeEncodeError as error:
        raise WorkflowNotUtf8(
            f"the workflow is not text: half of a surrogate pair at character {error.start}; read the file as UTF-8",
            offset=error.start,
        ) from None
    return text


def _too_large() -> WorkflowTooLarge:
    return WorkflowTooLarge(
        f"the workflow exceeds {WORKFLOW_BYTES_MAX:,} bytes; put large inputs into files and hand in their names"
    )


def _parsed(text: str) -> object:
    repeated = False

    def make(members: list[tuple[str, object]]) -> dict[str, object]:
        nonlocal repeated
        made = dict(members)
        if len(made) != len(members):
            repeated = True
            return _Repeated(members)
        return made

    text = text.removeprefix(_BOM)
    try:
        value: object = json.loads(text, object_pairs_hook=make, parse_constant=_constant)
    except json.JSONDecodeError as error:
        what = "it is empty" if not text.strip(" \t\r\n") else _lower_first(error.msg)
        raise _not_json(text, error.pos, what) from None
    except _ConstantFoundError as error:
        at = next(found.start() for found in _STRING_OR_CONSTANT.finditer(text) if found[1])
        raise _not_json(text, at, f"{error} is no JSON number") from None
    except RecursionError:
        raise _too_deep() from None
    except ValueError:  # the digits of an integer
        at = next((found.start() for found in _LONG_INTEGER.finditer(text) if found[1]), 0)
        raise BadNumber(f"the integer at line {_line(text, at)} has too many digits; write it as text") from None
    if repeated:
        try:
            _refuse_repeated(value, "")
        except RecursionError:
            raise _too_deep() from None
    return value


def _too_deep() -> TooDeep:
    return TooDeep(f"the workflow is nested far deeper than the {DEPTH_MAX} levels that an input may have; flatten it")


class _Repeated(dict[str, object]):
    """An object with a member named twice: kept until the place of it in the file is known."""

    def __init__(self, members: list[tuple[str, object]]) -> None:
        super().__init__(members)
        seen: set[str] = set()
        for name, _ in members:
            if name in seen:
                self.name = name
                break
            seen.add(name)


class _ConstantFoundError(ValueError):
    pass


def _constant(name: str) -> object:
    raise _ConstantFoundError(name)


def _refuse_repeated(value: object, path: str) -> None:
    """Raise for the first object with a member named twice."""
    if isinstance(value, _Repeated):
        raise DuplicateMember(f"the member {quoted(value.name)} is given twice; keep one of them", path=path)
    if isinstance(value, dict):
        for name, member in value.items():
            _refuse_repeated(member, (path + member_path(name)).removeprefix("."))
    elif isinstance(value, list):
        for number, element in enumerate(value):
            _refuse_repeated(element, f"{path}[{number}]")


def _plain(value: object, path: str, level: int) -> object:
    """Copy values of a program, so that later changes by it do not reach the plan."""
    if isinstance(value, str):
        return str.__str__(value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        if value.bit_length() > _INTEGER_BITS_MAX:
            raise BadNumber("the integer has too many digits; hand it in as text", path=path)
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise BadNumber("JSON has no NaN and no infinity; hand in null or a text", path=path)
        return float(value)
    if level > _MAPPING_DEPTH_MAX:
        raise TooDeep(f"nested deeper than {DEPTH_MAX} levels, or a value that contains itself", path=path)
    if isinstance(value, Mapping):
        made: dict[str, object] = {}
        for name, member in value.items():
            if not isinstance(name, str):
                raise BadType(f"the name of a member must be text, not {type(name).__name__}", path=path)
            made[str.__str__(name)] = _plain(member, (path + member_path(name)).removeprefix("."), level + 1)
        return made
    if isinstance(value, (list, tuple)):
        return [_plain(element, f"{path}[{number}]", level + 1) for number, element in enumerate(value)]
    raise BadType(f"JSON has no type for {type(value).__name__}; hand in text, numbers, lists and mappings", path=path)


def _not_json(text: str, at: int, what: str) -> WorkflowNotJson:
    line = _line(text, at)
    column = at - text.rfind("\n", 0, at)
    return WorkflowNotJson(
        f"the workflow is not JSON: {what}, at line {line}, column {column}; mend the file there or just before",
        line=line,
        column=column,
    )


def _line(text: str, at: int) -> int:
    return text.count("\n", 0, at) + 1


def _lower_first(message: str) -> str:
    return message[:1].lower() + message[1:]
