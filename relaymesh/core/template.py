"""Inputs that name outputs of other steps: compiled when a workflow is submitted, rendered when a step is dispatched.

    {"$from": "s1"}, {"$from": "s1", "path": "/a/0"}       the output of a step, or a piece of it
    {"$item": ""}, {"$item": "/a"}                         the item of a map step's child, or a piece of it
    {"$literal": ...}                                      the value as it stands, nothing in it is looked at
    {{steps.s1.output}}, {{steps.s1.output.a.0}}           the same inside any text
    {{item}}, {{item.a}}, {{index}}
    {{'...'}}                                              the text between the quotes

A compiled template is flat: literal pieces of payload text, and holes between them. docs/workflows.md is the exact
definition for users; this module and that page must agree.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final, assert_never

from relaymesh.core import template_syntax
from relaymesh.core.limit import DEPTH_MAX, PAYLOAD_BYTES_MAX, STEPS_MAX
from relaymesh.core.nearest import quoted
from relaymesh.core.template_syntax import Index, Item, Literal, Output, Source, TemplateError
from relaymesh.core.workflow_error import (
    InputTooLarge,
    InputUnresolvable,
    JsonTooDeep,
    MapNotAList,
    MapTooMany,
    OutputTooLarge,
)
from relaymesh.core.workflow_json import TooDeepError, depth, elements, find, json_slice, slice_text, written

__all__ = [
    "Template",
    "TemplateError",
    "child_id",
    "compile_input",
    "compile_map",
    "compile_stored",
    "expand_map",
    "join_outputs",
    "render_stored",
]


class Fill(Enum):
    """What a hole is filled with."""

    TEXT = "text"
    """The text itself; a JSON value that is no string as its JSON text."""
    QUOTED = "quoted"
    """The same, escaped to stand inside a JSON string."""
    JSON = "json"
    """A JSON value: text that is JSON as it stands, other text as a JSON string."""


@dataclass(frozen=True, slots=True)
class Hole:
    source: Source
    fill: Fill


@dataclass(frozen=True, slots=True)
class Template:
    """An input, ready to be rendered any number of times.

    places: for each step whose output is needed, where the input first names it (path inside the input), in that order.
    """

    parts: tuple[str | Hole, ...]
    places: Mapping[str, str]

    @property
    def references(self) -> frozenset[str]:
        return frozenset(self.places)

    @property
    def is_static(self) -> bool:
        """True when there is no hole: ``static_text`` is the payload, whatever any step gives."""
        return all(isinstance(part, str) for part in self.parts)

    @property
    def static_text(self) -> str:
        return "".join(part for part in self.parts if isinstance(part, str))

    def render(self, outputs: Mapping[str, str], item_json: str | None = None, index: int | None = None) -> str:
        """Return the payload text.

        outputs: step id to output text, at least of ``references``; each is looked up once.
        item_json, index: JSON text and number (from 0) of the item, for a child of a map step.

        Raises:
            InputUnresolvable: a path points at nothing, a step has no output, or the result is not valid Unicode.
            InputTooLarge: the payload would be larger than PAYLOAD_BYTES_MAX.
            JsonTooDeep: an output that must be read as JSON nests deeper than DEPTH_MAX.
        """
        filling = _Filling(outputs, item_json, index)
        pieces: list[str] = []
        room = PAYLOAD_BYTES_MAX
        for part in self.parts:
            piece = part if isinstance(part, str) else filling.fill(part)
            room -= len(piece)  # characters: never more than bytes, and enough to stop before memory is gone
            if room < 0:
                raise _input_too_large()
            pieces.append(piece)
        payload = "".join(pieces)
        try:
            if not payload.isascii() and len(payload.encode()) > PAYLOAD_BYTES_MAX:
                raise _input_too_large()
        except UnicodeEncodeError:
            raise InputUnresolvable(
                "the input would hold half of a surrogate pair, which is no text; "
                "mend what the dependencies put out, then replay the task"
            ) from None
        return payload


def compile_input(value: object, *, mapped: bool) -> Template:
    """Compile the value of an ``input`` member, as read from JSON.

    mapped: whether the step has ``map``, and so an item.

    Raises:
        TemplateError: something in it cannot be understood.
        TooDeepError: it nests deeper than DEPTH_MAX.
        ValueError: it holds a number that JSON has no spelling for.
    """
    return _Compiler(mapped=mapped).compile(value, Fill.TEXT)


def compile_map(value: object) -> Template:
    """Compile the value of a ``map`` member; renders to JSON text. Raises as ``compile_input`` does."""
    return _Compiler(mapped=False).compile(value, Fill.JSON)


def compile_stored(template_text: str) -> Template:
    """Compile the JSON text of an input that was accepted before."""
    return compile_input(json.loads(template_text), mapped=True)


def render_stored(
    template_text: str, outputs: Mapping[str, str], item_json: str | None = None, index: int | None = None
) -> str:
    """Return the payload text for the stored JSON text of an input. Raises as ``Template.render`` does."""
    return compile_stored(template_text).render(outputs, item_json, index)


def expand_map(map_template: str, outputs: Mapping[str, str], *, limit: int = STEPS_MAX) -> list[str]:
    """Return the JSON text of each item that a map step runs over, in order; may be empty.

    map_template: the stored JSON text of the ``map`` member.
    limit: how many children there is room for.

    Raises:
        MapNotAList: what the step maps over is not a JSON array.
        MapTooMany: it has more items than ``limit``.
        InputUnresolvable, InputTooLarge, JsonTooDeep: as for ``Template.render``.
    """
    text = compile_map(json.loads(map_template)).render(outputs)
    if not text.startswith("["):
        raise MapNotAList(
            f"the step maps over {_kind(text)}, not over a JSON array; let the dependency put out an array"
        )
    items: list[str] = []
    for item in elements(text):
        if len(items) >= limit:
            raise MapTooMany(f"the step maps over more than {limit:,} items, and a task has room for no more; split it")
        items.append(item)
    return items


def join_outputs(outputs: Iterable[str | None]) -> str:
    """Return the output of a map step: the JSON array of its children's outputs, given in item order.

    An output that is JSON is inserted as it stands, other text as a JSON string, None as ``null``.

    Raises:
        OutputTooLarge: the array would be larger than PAYLOAD_BYTES_MAX.
        JsonTooDeep: an output nests deeper than DEPTH_MAX.
    """
    pieces: list[str] = []
    room = PAYLOAD_BYTES_MAX - 1
    for number, output in enumerate(outputs):
        piece = "null" if output is None else _as_json(output, f"item {number}")
        room -= 1 + (len(piece) if piece.isascii() else len(piece.encode()))
        if room < 0:
            raise OutputTooLarge(
                f"the outputs of all items together exceed {PAYLOAD_BYTES_MAX:,} bytes; "
                "let each put out less, or write files and put out their names"
            )
        pieces.append(piece)
    return f"[{','.join(pieces)}]"


def child_id(step_id: str, index: int) -> str:
    """Return the id of one run of a map step; brackets keep it apart from every id that a file may use."""
    return f"{step_id}[{index}]"


# Compiling -----------------------------------------------------------------------------------------------------------

_DIRECTIVE_MARKS: Final = ("{{", '"$from"', '"$item"', '"$literal"')


class _Compiler:
    def __init__(self, *, mapped: bool) -> None:
        self._mapped = mapped
        self._parts: list[str | Hole] = []
        self._places: dict[str, str] = {}

    def compile(self, value: object, fill: Fill) -> Template:
        """fill: TEXT for an input (a text is the payload itself), JSON for what must render to JSON."""
        if isinstance(value, str) and fill is Fill.TEXT:
            self._text(value, fill, "")
        elif isinstance(value, (dict, list)) and (plain := _plain_json(value)) is not None:
            self._parts.append(plain)
        else:
            self._value(value, fill, "")  # _plain_json has measured the depth, so it is safe to recurse
        return Template(tuple(_merged(self._parts)), self._places)

    def _value(self, value: object, fill: Fill, path: str) -> None:
        if isinstance(value, str):
            self._parts.append('"')
            self._text(value, Fill.QUOTED, path)
            self._parts.append('"')
            return
        if not isinstance(value, (dict, list)):
            self._parts.append(written(value))
            return
        if isinstance(value, list):
            for number, element in enumerate(value):
                self._parts.append("," if number else "[")
                self._value(element, Fill.JSON, f"{path}[{number}]")
            self._parts.append("]" if value else "[]")
            return
        source = template_syntax.directive(value, path)
        if source is None:
            for number, (name, member) in enumerate(value.items()):
                self._parts.append(f"{',' if number else '{'}{written(name)}:")
                self._value(member, Fill.JSON, path + template_syntax.member_path(name))
            self._parts.append("}" if value else "{}")
        elif isinstance(source, Literal):
            is_payload = isinstance(source.value, str) and fill is Fill.TEXT
            self._parts.append(str(source.value) if is_payload else written(source.value))
        else:
            self._hole(source, fill, path)

    def _text(self, text: str, fill: Fill, path: str) -> None:
        for piece in template_syntax.pieces(text, path):
            if not isinstance(piece, str):
                self._hole(piece, fill, path)
            elif fill is Fill.QUOTED:
                self._parts.append(_escaped(piece))
            else:
                self._parts.append(piece)

    def _hole(self, source: Source, fill: Fill, path: str) -> None:
        if isinstance(source, Output):
            self._places.setdefault(source.step_id, path)
        elif not self._mapped:
            raise TemplateError('only a step with "map" has an item and an index; add "map", or write $literal', path)
        self._parts.append(Hole(source, fill))


def _plain_json(value: object) -> str | None:
    """Return the JSON text of a value that certainly holds no reference, else None; TooDeepError if it is too deep.

    Most inputs hold none, and the C writer is many times faster than we are.
    """
    try:
        text = written(value)
    except RecursionError:
        raise TooDeepError from None
    if depth(text) > DEPTH_MAX:
        raise TooDeepError
    return None if any(mark in text for mark in _DIRECTIVE_MARKS) else text


def _merged(parts: Iterable[str | Hole]) -> Iterator[str | Hole]:
    literal: list[str] = []
    for part in parts:
        if isinstance(part, str):
            literal.append(part)
            continue
        if literal:
            yield "".join(literal)
            literal.clear()
        yield part
    if literal:
        yield "".join(literal)


# Rendering -----------------------------------------------------------------------------------------------------------


class _Filling:
    """What fills the holes of one rendering; each output is fetched and checked once, however often it is named."""

    def __init__(self, outputs: Mapping[str, str], item_json: str | None, index: int | None) -> None:
        self._outputs = outputs
        self._item_json = item_json
        self._index = index
        self._texts: dict[str, str] = {}
        self._slices: dict[str, str | None] = {}

    def fill(self, hole: Hole) -> str:
        match hole.source:
            case Index():
                assert self._index is not None, "an index outside a map step passed validation"
                text = str(self._index)
            case Item(tokens=tokens):
                assert self._item_json is not None, "an item outside a map step passed validation"
                piece = find(self._item_json, tokens)
                if piece is None:
                    raise _nothing_at(tokens, "the item")
                if hole.fill is Fill.JSON:
                    return piece
                text = slice_text(piece)
            case Output(step_id=step_id, tokens=tokens):
                if hole.fill is Fill.JSON:
                    return self._output_json(step_id, tokens)
                text = slice_text(self._piece(step_id, tokens)) if tokens else self._output(step_id)
            case _:
                assert_never(hole.source)
        return _escaped(text) if hole.fill is Fill.QUOTED else text

    def _output(self, step_id: str) -> str:
        if step_id not in self._texts:
            text = self._outputs.get(step_id)
            if text is None:
                raise InputUnresolvable(f"step {quoted(step_id)} has no output to put into the input")
            self._texts[step_id] = text
        return self._texts[step_id]

    def _output_json(self, step_id: str, tokens: tuple[str, ...]) -> str:
        if tokens:
            return self._piece(step_id, tokens)
        piece = self._slice(step_id)
        return piece if piece is not None else written(self._output(step_id))

    def _piece(self, step_id: str, tokens: tuple[str, ...]) -> str:
        whole = self._slice(step_id)
        if whole is None:
            raise InputUnresolvable(
                f"the output of step {quoted(step_id)} is not JSON, so no path leads into it; "
                "leave the path out, or let the step put out JSON"
            )
        piece = find(whole, tokens)
        if piece is None:
            raise _nothing_at(tokens, f"the output of step {quoted(step_id)}")
        return piece

    def _slice(self, step_id: str) -> str | None:
        if step_id not in self._slices:
            self._slices[step_id] = _json_slice(self._output(step_id), f"step {quoted(step_id)}")
        return self._slices[step_id]


def _json_slice(output: str, whose: str) -> str | None:
    try:
        return json_slice(output)
    except TooDeepError:
        raise JsonTooDeep(
            f"the output of {whose} nests deeper than {DEPTH_MAX} levels; let it put out flatter JSON"
        ) from None


def _as_json(output: str, whose: str) -> str:
    piece = _json_slice(output, whose)
    return piece if piece is not None else written(output)


def _escaped(text: str) -> str:
    return written(text)[1:-1]


def _kind(json_text: str) -> str:
    kinds = {"{": "a JSON object", '"': "a text", "t": "true", "f": "false", "n": "null"}
    return kinds.get(json_text[:1], "a number")


def _nothing_at(tokens: tuple[str, ...], where: str) -> InputUnresolvable:
    pointer = "".join("/" + token.replace("~", "~0").replace("/", "~1") for token in tokens)
    return InputUnresolvable(
        f"there is nothing at {quoted(pointer)} in {where}; mend the path or what the step puts out"
    )


def _input_too_large() -> InputTooLarge:
    return InputTooLarge(
        f"the rendered input exceeds {PAYLOAD_BYTES_MAX:,} bytes; "
        "let the dependencies put out less, or write files and put out their names"
    )
