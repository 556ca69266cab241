"""Who may do what at a listener."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaymesh.core.namespace import NAMESPACE_CHARS_MAX, namespace_fault, normalize_namespace
from relaymesh.core.principal import (
    BYPASS,
    TOKENS_MAX,
    Access,
    Denied,
    Granted,
    Principal,
    Principals,
    Role,
    WrongPrincipalError,
    parse_principals,
)

SECRET = "s3cret-of-nobody"


def entry(**members: Any) -> dict[str, Any]:
    return {"id": "p", "tokens": ["t"]} | members


def parse(*entries: Any) -> Principals:
    return parse_principals({"principals": list(entries)})


def test_a_file_says_who_has_which_token_which_role_and_where() -> None:
    known = parse(
        entry(id="prometheus", tokens=["r1", "r2"], serviceAccount=True, namespaces=["Team Blue"]),
        entry(id="ops", role="operator", tokens=["w"]),
    )

    blue = Principal("prometheus", Role.READER, True, frozenset({"team-blue"}))
    assert (known.whose("r1"), known.whose("r2"), known.whose("x")) == (blue, blue, None)
    assert known.whose("w") == Principal("ops", Role.WRITER)
    assert len(known) == 2


@pytest.mark.parametrize(
    ("words", "role"),
    [
        (("read", "reader", "ro", "readonly", "READER", None), Role.READER),
        (("write", "writer", "rw", "operator"), Role.WRITER),
        (("admin", "owner"), Role.ADMIN),
    ],
)
def test_roles_have_several_words(words: tuple[str | None, ...], role: Role) -> None:
    found = {parse(entry(role=word)).whose("t") for word in words}

    assert found == {Principal("p", role)}


def test_a_token_given_twice_belongs_to_the_last_entry_and_entries_without_id_are_skipped() -> None:
    known = parse(entry(id="first"), entry(id="last"), {"tokens": ["lost"]}, entry(id=" ", tokens=["lost"]))

    assert known.whose("t") == Principal("last")
    assert known.whose("lost") is None


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ([], "$: expected an object"),
        ({"principal": []}, "$: 1 unknown member(s); known: principals"),
        ({"principals": {}}, "$.principals: expected an array"),
        ({"principals": [entry(scope=SECRET)]}, "$.principals[0]: 1 unknown member(s)"),
        ({"principals": [entry(role=SECRET)]}, "$.principals[0].role: unknown role"),
        ({"principals": [entry(), entry(tokens=SECRET)]}, "$.principals[1].tokens: expected an array"),
        ({"principals": [entry(tokens=["a", ""])]}, "$.principals[0].tokens[1]: expected text without blanks"),
        ({"principals": [entry(tokens=[f"{SECRET} "])]}, "$.principals[0].tokens[0]: expected text without blanks"),
        ({"principals": [entry(tokens=[7])]}, "$.principals[0].tokens[0]: expected text"),
        ({"principals": [entry(serviceAccount="yes")]}, "$.principals[0].serviceAccount: expected true or false"),
        ({"principals": [entry(namespaces=[1])]}, "$.principals[0].namespaces[0]: expected text"),
        ({"principals": [entry(tokens=[str(n) for n in range(TOKENS_MAX + 1)])]}, "more than 1000 entries"),
        ({"principals": [entry(tokens=[f"{k}-{n}" for n in range(600)]) for k in (1, 2)]}, "more than 1000 tokens"),
        ({"principals": []}, "it names no token"),
        ({"principals": [{"tokens": [SECRET]}]}, "it names no token"),
    ],
)
def test_a_wrong_file_is_refused_with_the_place_and_without_its_secrets(content: object, says: str) -> None:
    with pytest.raises(WrongPrincipalError) as refused:
        parse_principals(content)

    assert says in str(refused.value)
    assert SECRET not in str(refused.value)


def test_each_refusal_has_its_status_and_its_members() -> None:
    known = parse(entry(), entry(id="blue", role="rw", tokens=["b"], namespaces=["blue"]))

    assert known.decide(None, Access.READ, "default") == Denied(401, "missing_token")
    assert known.decide("", Access.READ, "default") == Denied(401, "missing_token")
    assert known.decide("x", Access.READ, "default") == Denied(403, "forbidden_token")
    assert known.decide("t", Access.WRITE, "default") == Denied(403, "forbidden_write", None, Principal("p"))
    outside = known.decide("b", Access.READ, "blue", "red")
    assert isinstance(outside, Denied)
    assert (outside.status, outside.members()) == (403, {"error": "forbidden_namespace", "namespace": "red"})
    assert known.decide("t", Access.READ, "default", "red") == Granted(Principal("p"))
    assert isinstance(known.decide("b", Access.WRITE, "blue"), Granted)


def test_without_any_token_every_caller_is_the_bypass() -> None:
    assert Principals().decide("whatever", Access.WRITE, "default") == Granted(BYPASS)
    assert BYPASS.role is Role.ADMIN


def test_no_text_of_the_principals_shows_a_token() -> None:
    known = parse(entry(tokens=[SECRET]))

    assert SECRET not in repr(known) + repr(known.decide(SECRET, Access.WRITE)) + repr(known.by_digest)


@given(st.text())
def test_a_namespace_is_a_fixed_point_and_never_a_path(name: str) -> None:
    normal = normalize_namespace(name)

    assert normalize_namespace(normal) == normal
    assert normal and not normal.startswith(".") and not set(normal) & set("/\\:\0")


@pytest.mark.parametrize(
    ("name", "fault"),
    [("CON", "device"), ("nul.txt", "device"), ("x" * (NAMESPACE_CHARS_MAX + 1), "101 characters"), ("conn", None)],
)
def test_a_name_that_no_folder_can_have_everywhere_is_told(name: str, fault: str | None) -> None:
    found = namespace_fault(normalize_namespace(name))

    assert (found is None) if fault is None else (found is not None and fault in found)
