"""JSON as text: tell it from other text, and cut pieces out of it as they stand.

Outputs travel between steps as text. What is passed on is cut out, never read and written again, so numbers keep
every digit, members keep their order, and nothing is lost that Python has no type for.

A slice is a piece of valid JSON text without blanks around it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Final, NoReturn

from relaymesh.core.limit import DEPTH_MAX

__all__ = ["TooDeepError", "depth", "elements", "find", "json_slice", "parse_pointer", "slice_text", "written"]


class TooDeepError(ValueError):
    """The text is JSON, or might be, but is nested deeper than DEPTH_MAX levels."""


_BLANKS: Final = " \t\n\r"
_BLANK_RUN = re.compile(rf"[{_BLANKS}]*")
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_NO_BRACKET = re.compile(r"[^\[\]{}]+")
_BRACES_AS_BRACKETS = str.maketrans("{}", "[]")
_INDEX = re.compile(r"0|[1-9][0-9]{0,17}", re.ASCII)  # no array is longer, and int() refuses thousands of digits


_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


# Numbers stay text: no digit limit, no overflow to infinity, no time spent.
_DECODER = json.JSONDecoder(parse_float=str, parse_int=str, parse_constant=_refuse)


def written(value: object) -> str:
    """Return ``value`` as compact JSON text; ValueError for what JSON has no spelling for."""
    return _ENCODER.encode(value)


def json_slice(text: str) -> str | None:
    """Return ``text`` without the blanks around it when it is JSON, else None.

    Raises:
        TooDeepError: it is nested deeper than DEPTH_MAX levels.
    """
    try:
        _DECODER.decode(text)
    except ValueError:
        return None
    except RecursionError:
        raise TooDeepError from None
    if depth(text) > DEPTH_MAX:
        raise TooDeepError
    return text.strip(_BLANKS)


def depth(text: str) -> int:
    """Return how deep the arrays and objects of a valid JSON text nest; counts no further than DEPTH_MAX + 1."""
    if text.count("[") + text.count("{") <= 1:
        return 1 if text.lstrip(_BLANKS)[:1] in ("[", "{") else 0
    brackets = _NO_BRACKET.sub("", _STRING.sub("", text)).translate(_BRACES_AS_BRACKETS)
    levels = 0
    while brackets and levels <= DEPTH_MAX:
        brackets = brackets.replace("[]", "")  # takes exactly the innermost level away
        levels += 1
    return levels


def parse_pointer(pointer: str) -> tuple[str, ...]:
    """Return the tokens of a JSON pointer (RFC 6901); ValueError when it is not one."""
    if pointer == "":
        return ()
    if not pointer.startswith("/") or re.search("~(?![01])", pointer):
        raise ValueError("not a JSON pointer")
    return tuple(token.replace("~1", "/").replace("~0", "~") for token in pointer[1:].split("/"))


def find(text: str, tokens: Sequence[str]) -> str | None:
    """Return the slice of valid JSON ``text`` that ``tokens`` lead to, or None when there is no such place.

    In an object a token is a member name (of two alike the last counts), in an array an index from 0.
    """
    start = _skip_blanks(text, 0)
    end = len(text)
    for token in tokens:
        found: tuple[int, int] | None = None
        if text[start] == "{":
            for name, span in _member_spans(text, start):
                if name == token:
                    found = span
        elif text[start] == "[" and _INDEX.fullmatch(token):
            found = _element_span(text, start, token)
        if found is None:
            return None
        start, end = found
    return text[start:end].rstrip(_BLANKS)


def elements(text: str) -> Iterator[str]:
    """Yield the slices of the elements of ``text``, a valid JSON array."""
    for start, end in _element_spans(text, _skip_blanks(text, 0)):
        yield text[start:end]


def slice_text(piece: str) -> str:
    """Return what a slice is inside a text: a JSON string gives its characters, all else its JSON text."""
    return str(json.loads(piece)) if piece.startswith('"') else piece


def _skip_blanks(text: str, at: int) -> int:
    match = _BLANK_RUN.match(text, at)
    assert match is not None
    return match.end()


def _element_span(text: str, start: int, token: str) -> tuple[int, int] | None:
    wanted = int(token)
    for index, span in enumerate(_element_spans(text, start)):
        if index == wanted:
            return span
    return None


def _element_spans(text: str, start: int) -> Iterator[tuple[int, int]]:
    at = _skip_blanks(text, start + 1)
    while text[at] != "]":
        end = _DECODER.raw_decode(text, at)[1]
        yield at, end
        at = _skip_blanks(text, end)
        if text[at] == ",":
            at = _skip_blanks(text, at + 1)


def _member_spans(text: str, start: int) -> Iterator[tuple[str, tuple[int, int]]]:
    at = _skip_blanks(text, start + 1)
    while text[at] != "}":
        name, end = _DECODER.raw_decode(text, at)
        at = _skip_blanks(text, _skip_blanks(text, end) + 1)  # past the colon
        end = _DECODER.raw_decode(text, at)[1]
        yield str(name), (at, end)
        at = _skip_blanks(text, end)
        if text[at] == ",":
            at = _skip_blanks(text, at + 1)
