"""How a reference is written, as an object and inside a text: text or JSON in, sources out; nothing is rendered."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from relaymesh.core.nearest import quoted
from relaymesh.core.workflow_json import parse_pointer

__all__ = ["Index", "Item", "Literal", "Output", "Source", "TemplateError", "directive", "member_path", "pieces"]


@dataclass(frozen=True, slots=True)
class Output:
    """The output of a step, or the piece of it that ``tokens`` lead to (none: the whole)."""

    step_id: str
    tokens: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Item:
    """The item of a map step's child, or a piece of it."""

    tokens: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Index:
    """The number of the item, from 0."""


@dataclass(frozen=True, slots=True)
class Literal:
    """A value in which nothing is a reference."""

    value: object


Source = Output | Item | Index


class TemplateError(ValueError):
    """A reference that cannot be understood.

    path: where in the input, as the end of a path such as ``.a[0]``; "" for the input itself.
    """

    def __init__(self, sentence: str, path: str) -> None:
        super().__init__(sentence)
        self.path = path


_DIRECTIVES: Final = ("$from", "$item", "$literal")
_PLAIN_NAME = re.compile(r"[A-Za-z_$][A-Za-z0-9_$-]*", re.ASCII)

# After "{{" and a quoted text or anything without braces, "}}". Both ways stop at the next brace or quote, so that a
# long text full of openings is still read in linear time.
_PLACEHOLDER = re.compile(r"\{\{(?:[ \t\r\n]*'([^']*)'[ \t\r\n]*|([^{}]*))\}\}")
# The id ends at the first ".output" that a "." or the end follows.
_STEP_OUTPUT = re.compile(r"steps\.([A-Za-z0-9_.-]{1,128}?)\.output((?:\.[^.]+)*)", re.ASCII)
_ITEM = re.compile(r"item((?:\.[^.]+)*)")
_EXPRESSION_CHARS_MAX: Final = 1_000
_SHOWABLE = re.compile(r"[\w.$ -]{1,60}")
_HELP: Final = (
    "write {{steps.ID.output}}, {{item}} or {{index}}; {{'{{'}} stands for two braces, $literal for a whole text"
)


def pieces(text: str, path: str) -> Iterator[str | Source]:
    """Split a text into literal pieces and the sources that stand between them.

    An opening is ``{{`` that no third brace follows; it must belong to a well-formed reference or quoted text.

    Raises:
        TemplateError: it does not.
    """
    at = 0
    while (start := text.find("{{", at)) >= 0:
        while text.startswith("{", start + 2):
            start += 1
        match = _PLACEHOLDER.match(text, start)
        if match is None:
            raise TemplateError(
                f"the {{{{ at character {start + 1} opens nothing that is closed by }}}}; {_HELP}", path
            )
        if start > at:
            yield text[at:start]
        literal, expression = match.groups()
        yield literal if literal is not None else _source(expression, start, path)
        at = match.end()
    if at < len(text):
        yield text[at:]


def directive(value: Mapping[str, object], path: str) -> Source | Literal | None:
    """Return what an object stands for, or None when it is an ordinary one.

    Raises:
        TemplateError: it has a member of ours and is not well-formed.
    """
    name = next((name for name in _DIRECTIVES if name in value), None)
    if name is None:
        return None
    allowed = {"$from", "path"} if name == "$from" else {name}
    for other in value:
        if other not in allowed:
            also = ' besides "path"' if name == "$from" else ""
            raise TemplateError(
                f'"{name}" stands alone in its object{also}, but there is {quoted(other)} too; '
                "take it out, or wrap the object in $literal",
                path,
            )
    argument = value[name]
    if name == "$literal":
        return Literal(argument)
    if name == "$item":
        return Item(_tokens(argument, path + member_path(name)))
    if not isinstance(argument, str) or not argument:
        raise TemplateError('"$from" takes the id of a step, as text', path + member_path(name))
    pointer = value.get("path")
    return Output(argument, _tokens(pointer, path + ".path") if pointer is not None else ())


def member_path(name: str) -> str:
    """Return how a member is written at the end of a path: ``.name``, or ``["any name"]``."""
    return f".{name}" if _PLAIN_NAME.fullmatch(name) else f"[{quoted(name)}]"


def _source(expression: str, start: int, path: str) -> Source:
    stripped = expression.strip(" \t\r\n")
    if len(stripped) <= _EXPRESSION_CHARS_MAX:
        if stripped == "index":
            return Index()
        if found := _ITEM.fullmatch(stripped):
            return Item(_dotted(found[1]))
        if found := _STEP_OUTPUT.fullmatch(stripped):
            return Output(found[1], _dotted(found[2]))
    # Shown only when it reads like a name: the rest of a text is the user's, and may be secret.
    shown = f'"{{{{{stripped}}}}}"' if _SHOWABLE.fullmatch(stripped) else "what {{ }} holds"
    raise TemplateError(f"{shown} at character {start + 1} is no reference; {_HELP}", path)


def _dotted(path: str) -> tuple[str, ...]:
    return tuple(path[1:].split(".")) if path else ()


def _tokens(pointer: object, path: str) -> tuple[str, ...]:
    try:
        return parse_pointer(pointer if isinstance(pointer, str) else "?")
    except ValueError:
        raise TemplateError('a path is a JSON pointer: "" or text such as "/name/0"', path) from None
