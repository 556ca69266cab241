"""JSON that people write: a member that stands twice in one object is refused, instead of the last one being taken.

json.loads(text, object_pairs_hook=members_once)   where the json module reads it
refuse_repeated(data)                               behind a decoder that takes the last one
"""

from __future__ import annotations

import json
import re
from typing import Any, Final, TypeVar

from relaymesh.core.nearest import quoted

__all__ = ["RepeatedMemberError", "members_once", "refuse_repeated"]

V = TypeVar("V")

_NAME: Final = rb'"([^"\\]*)"[ \t\r\n]*:'  # compiled when it is needed: every submit loads this module


class RepeatedMemberError(ValueError):
    """name: of the member that stands twice."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        return f"the member {quoted(self.name)} stands there twice in one object: keep one of them"


def members_once(pairs: list[tuple[str, V]]) -> dict[str, V]:
    """Return the members of an object; for ``json.loads(..., object_pairs_hook=members_once)``.

    Raises:
        RepeatedMemberError
    """
    members = dict(pairs)
    if len(members) != len(pairs):
        seen = set[str]()
        for name, _ in pairs:
            if name in seen:
                raise RepeatedMemberError(name)
            seen.add(name)
    return members


def _look(pairs: list[tuple[str, Any]]) -> None:
    members_once(pairs)


_DECODER = json.JSONDecoder(object_pairs_hook=_look, parse_int=str, parse_float=str)


def refuse_repeated(data: bytes) -> None:
    """Refuse valid JSON in UTF-8 in which an object has a member twice.

    Costs a fraction of reading it where all names of a document differ, as in a line of a batch.

    Raises:
        RepeatedMemberError
        RecursionError: it is nested too deep to be read.
    """
    if b"\\" not in data:  # else a name may be spelled in two ways
        names = re.findall(_NAME, data)
        if len(set(names)) == len(names):
            return
    _DECODER.decode(data.decode("utf-8-sig"))
