"""The guard of a listener."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from relaymesh.audit import AuditTrail
from relaymesh.auth.guard import RECORDS_PER_MINUTE_MAX, Guard, Request, is_loopback
from relaymesh.core.attempt_limit import AttemptLimit
from relaymesh.core.principal import BYPASS, Access, Denied, Granted, Principals, parse_principals
from tests.auth.test_file import records

SECRET = "s3cret-of-nobody"
KNOWN = parse_principals({"principals": [{"id": "p", "tokens": ["right", "größe"], "namespaces": ["default"]}]})


class Known:
    def principals(self, now_ms: int) -> Principals:
        return KNOWN


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for folder in ("audit", "security"):
        (tmp_path / folder).mkdir()
    return tmp_path


def guard(root: Path, *, now_ms: int = 0, wrong_max: int = 3, open_to_all: bool = False) -> Guard:
    limit = AttemptLimit(wrong_max=wrong_max)
    knows = None if open_to_all else Known()
    return Guard(knows, AuditTrail(root), namespace="default", now_ms=lambda: now_ms, limit=limit)


def request(
    token: str | None = None, *, target: str = "/metrics", remote: str = "192.0.2.1", **headers: str
) -> Request:
    shown: dict[str, str] = {name.replace("_", "-"): value for name, value in headers.items()}
    if token is not None:
        shown["Authorization"] = f"Bearer {token}"
    return Request("GET", target, shown, remote)


def code(answer: Granted | Denied) -> Any:
    return answer.code if isinstance(answer, Denied) else answer.principal.id


def test_a_bearer_token_goes_before_the_parameter(root: Path) -> None:
    door = guard(root)

    assert code(door.judge(request("right"), Access.READ)) == "p"
    assert code(door.judge(request(target="/metrics?a=b&token=right"), Access.READ)) == "p"
    assert code(door.judge(request("wrong", target="/metrics?token=right"), Access.READ)) == "forbidden_token"
    assert code(door.judge(request("größe".encode().decode("latin-1")), Access.READ)) == "p"
    assert code(door.judge(request(Authorization="Basic right"), Access.READ)) == "missing_token"
    assert code(door.judge(request("right"), Access.READ, namespace="red")) == "forbidden_namespace"


def test_too_many_wrong_tokens_shut_one_source_out_also_with_the_right_one(root: Path) -> None:
    door = guard(root)

    answers = [code(door.judge(request(f"wrong{n}"), Access.READ)) for n in range(4)]

    assert answers == ["forbidden_token"] * 3 + ["rate_limited"]
    assert code(door.judge(request("right"), Access.READ)) == "rate_limited"
    assert code(door.judge(request("right", remote="192.0.2.2"), Access.READ)) == "p"


def test_who_shows_no_token_is_not_guessing(root: Path) -> None:
    door = guard(root)
    for _ in range(10):
        door.judge(request(), Access.READ)

    assert code(door.judge(request("right"), Access.READ)) == "p"


def test_without_tokens_everybody_is_the_bypass_and_nothing_is_recorded(root: Path) -> None:
    door = guard(root, open_to_all=True)

    assert door.judge(request("whatever"), Access.WRITE) == Granted(BYPASS)
    assert not (root / "audit" / "audit.log").exists()


def test_a_refusal_is_recorded_without_the_token(root: Path) -> None:
    door = guard(root)

    door.judge(request(SECRET, target=f"/metrics?token={SECRET}", Referer=f"http://x/?token={SECRET}"), Access.READ)

    (row,) = records(root)
    assert (row["action"], row["actor"], row["result"]) == ("access.refuse", "web", "forbidden_token")
    assert (row["details"]["route"], row["details"]["remote_addr"]) == ("/metrics", "192.0.2.1")
    assert SECRET not in str(row)


def test_a_principal_that_is_refused_is_named(root: Path) -> None:
    guard(root).judge(request("right"), Access.WRITE)

    (row,) = records(root)
    assert (row["actor"], row["result"]) == ("web:p", "forbidden_write")
    assert row["details"]["principal_role"] == "reader"


def test_many_refusals_fill_no_log(root: Path) -> None:
    now_ms = [0]
    door = Guard(Known(), AuditTrail(root), namespace="default", now_ms=lambda: now_ms[0])
    for n in range(RECORDS_PER_MINUTE_MAX + 50):
        door.judge(request(remote=f"10.0.0.{n}"), Access.READ)
        door.judge(request(remote="10.0.0.0"), Access.READ)

    now_ms[0] = 60_000
    door.judge(request(), Access.READ)

    rows = records(root)
    assert len(rows) == RECORDS_PER_MINUTE_MAX + 1
    left_out = sum(row["details"]["left_out_count"] for row in rows)
    assert len(rows) + left_out == 2 * (RECORDS_PER_MINUTE_MAX + 50) + 1
    assert rows[-1]["details"]["left_out_count"] == 101


@pytest.mark.parametrize(
    ("host", "own"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("", False),
        ("::", False),
        ("192.0.2.7", False),
        ("no-such-host.invalid", True),
    ],
)
def test_which_addresses_are_this_machines_own(host: str, own: bool) -> None:
    assert is_loopback(host) is own
