"""Every message of the catalogue survives the wire, and damaged ones are refused."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import inspect

import relaymesh.wire
from relaymesh.errors import MessageError
from relaymesh.wire.codec import CATALOGUE, Message, decode, encode

for module in pkgutil.iter_modules(relaymesh.wire.__path__):
    importlib.import_module(f"relaymesh.wire.{module.name}")

# Tests declare messages of their own.
OURS = {tag: kind for tag, kind in CATALOGUE.items() if kind.__module__.startswith("relaymesh.")}


def values(kind: inspect.Type) -> st.SearchStrategy[Any]:
    """Return a strategy for the values of one field's type."""
    match kind:
        case inspect.NoneType():
            return st.none()
        case inspect.BoolType():
            return st.booleans()
        case inspect.IntType():
            low = kind.ge if kind.ge is not None else (-(2**63) if kind.gt is None else kind.gt + 1)
            high = kind.le if kind.le is not None else (2**63 - 1 if kind.lt is None else kind.lt - 1)
            return st.integers(low, high)
        case inspect.FloatType():
            return st.floats(allow_nan=False)
        case inspect.StrType():
            return st.text(min_size=kind.min_length or 0, max_size=kind.max_length or 20)
        case inspect.BytesType():
            return st.binary(max_size=20)
        case inspect.LiteralType():
            return st.sampled_from(sorted(kind.values))
        case inspect.EnumType():
            return st.sampled_from(list(kind.cls))
        case inspect.UnionType():
            return st.one_of([values(member) for member in kind.types])
        case inspect.VarTupleType():
            return st.lists(values(kind.item_type), max_size=3).map(tuple)
        case inspect.TupleType():
            return st.tuples(*[values(item) for item in kind.item_types])
        case inspect.ListType():
            return st.lists(values(kind.item_type), max_size=3)
        case inspect.DictType():
            return st.dictionaries(values(kind.key_type), values(kind.value_type), max_size=3)
        case inspect.StructType():
            return structs(kind.cls)
        case inspect.DataclassType():
            return st.builds(kind.cls, **{field.name: values(field.type) for field in kind.fields})
    raise NotImplementedError(f"teach this test what a {type(kind).__name__} may be")


def structs(kind: type[msgspec.Struct]) -> st.SearchStrategy[Any]:
    info = inspect.type_info(kind)
    assert isinstance(info, inspect.StructType)
    return st.deferred(lambda: st.builds(kind, **{field.name: values(field.type) for field in info.fields}))


kinds = pytest.mark.parametrize("kind", OURS.values(), ids=OURS.keys())


@kinds
@settings(deadline=None, max_examples=15)
@given(data=st.data())
def test_a_message_survives_the_wire(kind: type[Message], data: st.DataObject) -> None:
    message = data.draw(structs(kind))

    back = decode(encode(message))

    assert type(back) is kind
    assert back == message


@kinds
def test_a_message_is_frozen_positional_and_holds_no_mutable_collection(kind: type[Message]) -> None:
    def check(type_: inspect.Type) -> None:
        assert not isinstance(type_, inspect.ListType | inspect.SetType | inspect.AnyType), f"{kind.__name__}: {type_}"
        for inner in (getattr(type_, "item_type", None), *getattr(type_, "types", ())):
            if inner is not None:
                check(inner)

    assert kind.__struct_config__.frozen
    assert kind.__struct_config__.array_like
    assert kind.VERSION >= 1
    info = inspect.type_info(kind)
    assert isinstance(info, inspect.StructType)
    for field in info.fields:
        check(field.type)


@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_a_damaged_message_is_refused_or_still_a_message(data: st.DataObject) -> None:
    whole = encode(data.draw(structs(data.draw(st.sampled_from(list(OURS.values()))))))
    damaged = bytearray(whole)
    for at in data.draw(st.lists(st.integers(0, len(whole) - 1), max_size=3)):
        damaged[at] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(whole)))

    for bytes_ in (bytes(damaged), bytes(damaged[:cut])):
        try:
            assert isinstance(decode(bytes_), Message)
        except MessageError as error:
            assert str(error)


@settings(deadline=None, max_examples=200)
@given(data=st.binary(max_size=300))
def test_arbitrary_bytes_are_refused_or_a_message(data: bytes) -> None:
    try:
        assert isinstance(decode(data), Message)
    except MessageError as error:
        assert str(error)


def test_deep_nesting_is_refused() -> None:
    with pytest.raises(MessageError):
        decode(b"\x93\xa1a\x01" + b"\x91" * 100_000 + b"\x90")
