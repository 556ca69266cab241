"""What JSON has no word for is refused, and not stored as something else."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from relaymesh.client import Client
from relaymesh.errors import InputError

ABSENT: tuple[object, ...] = (
    float("nan"),
    {"a": [1, {"b": float("inf")}]},
    {"null": None, "list": (float("-inf"),)},
)


@pytest.mark.parametrize("value", ABSENT, ids=str)
def test_a_number_that_json_has_no_word_for_is_not_stored_as_null(tmp_path: Path, value: object) -> None:
    with Client(tmp_path) as client, pytest.raises(InputError, match="NaN and infinity"):
        client.submit("echo", value)


def test_null_itself_and_the_word_are_stored(tmp_path: Path) -> None:
    with Client(tmp_path) as client:
        assert client.submit("echo", {"a": None, "b": "null", "c": 1.5}).message == "stored"


def test_a_msgpack_file_of_the_inbox_with_such_a_number_is_refused_with_its_reason(tmp_path: Path) -> None:
    with Client(tmp_path) as client:
        client.submit("echo", "x")  # makes the root
        (tmp_path / "inbox" / "normal" / "n.msgpack").write_bytes(
            msgspec.msgpack.encode({"agent": "echo", "input": {"n": float("nan")}})
        )
        client.maintenance()

    assert "NaN and infinity" in (tmp_path / "dead" / "n.msgpack.reason.json").read_text()
