"""Masking: secrets are hidden at any depth; ids, counts, names and paths stay readable."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaymesh.core.mask import DEPTH_MAX, ITEMS_MAX, MASK, TEXT_CHARS_MAX, field_names, mask

SECRET = "hunter2-" + "Zq81" * 3
SECRET_NAMES = st.sampled_from(
    [
        "password",
        "dbPassword",
        "PASSWD",
        "clientSecret",
        "gossipSharedSecret",
        "api_token",
        "Authorization",
        "apiKey",
        "API_KEY",
        "credential",
        "key",
        "idempotency_key",
        "key_material",
    ]
)
PLAIN_NAMES = st.sampled_from(["n", "msg_id", "reason", "mode", "error", "items", "config", "output"])
UUIDS = st.uuids(version=4).map(str)


def nested(secret: object) -> st.SearchStrategy[object]:
    inside = st.dictionaries(SECRET_NAMES, st.just(secret), min_size=1, max_size=1)
    return st.recursive(
        inside,
        lambda inner: st.lists(inner, min_size=1, max_size=2) | st.dictionaries(PLAIN_NAMES, inner, min_size=1),
        max_leaves=5,
    )


@given(nested(SECRET))
def test_a_secret_is_masked_at_any_depth(value: object) -> None:
    written = json.dumps(mask({"details": value}))

    assert SECRET not in written
    assert MASK in written


@given(SECRET_NAMES, st.text(min_size=1, max_size=60) | st.binary(min_size=1) | st.lists(st.text(min_size=1)))
def test_whatever_stands_under_the_name_of_a_secret_is_masked(name: str, value: object) -> None:
    assert mask({name: value}) == {name: MASK}


@given(UUIDS, st.sampled_from(["tsk_", "stp_", "msg_", "lease_", "gsp_", ""]), st.sampled_from(["", "_step-1", ".7"]))
def test_ids_are_readable_wherever_they_stand(digits: str, prefix: str, behind: str) -> None:
    text = f"{prefix}{digits}{behind}"

    assert mask({"anything": text}) == {"anything": text}


@given(
    st.dictionaries(
        st.sampled_from(["tokens", "total_tokens", "token_count", "total_keys", "max_secrets"]), st.integers(0, 10**9)
    )
)
def test_counts_are_readable(counts: dict[str, int]) -> None:
    assert mask(counts) == counts


@pytest.mark.parametrize(
    "details",
    [
        {"config": "/srv/relaymesh/data-2026/agents/scripts.json"},
        {"output": "C:\\Users\\Me\\Documents\\export-2026.json"},
        {"key_file": "/srv/relaymesh/security/payload-keys.json"},
        {"active_kid": "k1795874197423"},
        {"changed_fields": ["gossipSharedSecret", "maxIngressQueueDepthPerNamespace", "payloadKeyRotationIntervalMs"]},
        {"reason": "membership.recovery.suppressed"},
        {"msg_id": "msg_stp_tsk_0190a1b2-0000-7000-8000-000000000000_my-step.1"},
        {"since": "2026-11-28T13:56:33.358+00:00"},
        {"trace_id": "01a222717f9971fd845a9d34e2884664"},
        {"node_id": "worker-eu-west-1a-00000000017.internal"},
        {"has_token": True, "token": None},
        {"error": "the agent fail always fails and there is nothing anybody can do about that"},
    ],
)
def test_what_people_need_to_work_with_is_readable(details: dict[str, object]) -> None:
    assert mask(details) == details


@pytest.mark.parametrize(
    "text",
    ["AKIAIOSFODNN7EXAMPLEwJalrXUtn", "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIx.abcDEF123", "A1b2" * 8],
)
def test_a_text_that_looks_like_a_credential_is_masked_under_any_name(text: str) -> None:
    assert mask({"note": text, "list": [text]}) == {"note": MASK, "list": [MASK]}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("login failed: password=hunter2 for ann", f"login failed: password={MASK} for ann"),
        ("Authorization: Bearer abcdefgh12345678", f"Authorization: Bearer {MASK}"),
        ('{"api_key": "abc"}', f'{{"api_key": "{MASK}"}}'),
    ],
)
def test_a_secret_that_is_written_out_in_a_text_is_masked_there(text: str, shown: str) -> None:
    assert mask({"error": text}) == {"error": shown}


def test_configured_fields_are_masked_however_they_are_written() -> None:
    extra = field_names(["customerName"])

    assert mask({"a": {"customer_name": "Ann", "CUSTOMERNAME": 7}}, extra) == {
        "a": {"customer_name": MASK, "CUSTOMERNAME": MASK}
    }


def test_what_is_too_large_is_cut_and_says_so() -> None:
    details = mask({"text": "x y" * TEXT_CHARS_MAX, "list": list(range(ITEMS_MAX + 5))})

    assert str(details["text"]).endswith("more characters")
    assert details["list"][-1] == "… 5 more"  # type: ignore[index]
    deep: object = 1
    for _ in range(DEPTH_MAX + 3):
        deep = [deep]
    assert "…" in json.dumps(mask({"deep": deep}), ensure_ascii=False)


@given(
    st.dictionaries(
        st.text(max_size=5),
        st.recursive(st.floats() | st.integers() | st.text() | st.binary() | st.uuids(), st.lists, max_leaves=5),
    )
)
def test_any_details_become_json(details: dict[str, object]) -> None:
    json.dumps(mask(details), allow_nan=False)


def test_a_value_of_an_unknown_kind_is_written_as_its_text() -> None:
    value = uuid.UUID(int=7)

    assert mask({"x": value}) == {"x": str(value)}


COMMAND = "hunter2pass"


@pytest.mark.parametrize(
    "value",
    [
        f"postgres://user:{COMMAND}@db:5432/x",
        f"see https://me:{COMMAND}@h/ and redis://:{COMMAND}@h",
        f"prog --password {COMMAND} --x",
        f'prog --api-key "{COMMAND}"',
        ["prog", "--password", COMMAND],
        ["--api-key", COMMAND, "--max-tokens", "12"],
        json.dumps({"a": json.dumps({"token": COMMAND})}),
        f"GET / HTTP/1.1 Cookie: session={COMMAND}; b=1",
        [{"Set-Cookie": COMMAND}, [[{"passphrase": COMMAND}]]],
    ],
)
def test_a_secret_of_a_url_a_command_line_or_a_header_is_masked(value: object) -> None:
    masked = json.dumps(mask({"said": value}))

    assert COMMAND not in masked and MASK in masked


@pytest.mark.parametrize(
    "value",
    [
        "use --token-limit 5 or --secret-file /a/b.json or --password-stdin --x",
        ["--max-tokens", "12", "--token-file", "/a/b.txt"],
        "http://127.0.0.1:8080/path and https://h/a@b",
        "at 12:30 a well-known token",
    ],
)
def test_counts_paths_and_plain_addresses_of_a_command_line_stay_readable(value: object) -> None:
    assert mask({"said": value}) == {"said": value}


_HARD = """
from relaymesh.core.mask import mask

words = ("a-", "password-", "--", "http://", "a:", "basic ", "authorization: ", "api_key", "a1", "a/", "\\\\")
for word in words:
    for end in ("", " =", "!", "@"):
        text = word * (200_000 // len(word)) + end
        assert len(mask({"x": text, "words": [text, text]})["x"]) < 3_000
"""


def test_no_text_takes_long_whoever_wrote_it() -> None:
    # In a process of its own: a pattern that tries again and again would hold all others for hours.
    subprocess.run([sys.executable, "-c", _HARD], check=True, timeout=120)


def test_a_secret_at_the_place_where_a_long_text_is_cut_is_masked() -> None:
    for spared in range(1, 40):
        text = "x " * ((TEXT_CHARS_MAX - spared) // 2) + "Bearer abcdefghijklmnop" + " and so on" * 500

        assert "abc" not in str(mask({"error": text}))
