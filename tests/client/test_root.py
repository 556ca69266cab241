"""A data root that cannot be one, and a node id that cannot be one."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from relaymesh.client import Client
from relaymesh.errors import RootError, UsageError

ASKS: dict[str, Callable[[Client], object]] = {
    "init": lambda client: client.init(),
    "agents": lambda client: client.agents(),
    "submit": lambda client: client.submit("echo", "x"),
    "tasks": lambda client: client.tasks(),
    "cancel": lambda client: client.cancel("tsk_1"),
    "maintenance": lambda client: client.maintenance(),
}


@pytest.mark.parametrize("ask", ASKS)
@pytest.mark.parametrize("below", [".", "sub/folder"])
def test_a_root_that_is_a_file_is_called_one_whatever_is_asked(tmp_path: Path, ask: str, below: str) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("kept")

    with Client(file / below) as client, pytest.raises(RootError) as caught:
        ASKS[ask](client)

    assert caught.value.code == "root_is_file"
    assert str(caught.value) == f"{file} is a file, and a data root is a folder: choose another --root"
    assert file.read_text() == "kept"


def test_health_of_a_root_that_is_a_file_says_so(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("kept")

    with Client(file) as client:
        outcome = client.health()

    assert not outcome.ok
    assert outcome.problems[0] == f"{file} is a file, and a data root is a folder: choose another --root"


@pytest.mark.skipif(os.name == "nt", reason="SQLite has another bound there")
@pytest.mark.parametrize("ask", ["init", "submit"])
def test_a_root_whose_database_would_have_too_long_a_path_is_refused_before_anything_is_made(
    tmp_path: Path, ask: str
) -> None:
    def root(bytes_of_database: int) -> Path:
        left = bytes_of_database - len(os.fsencode(tmp_path / "relaymesh.db")) - 1
        parts = ["d" * 200] * (left // 201)
        return tmp_path.joinpath(*parts, "d" * (left - 201 * len(parts)))

    with Client(root(505)) as client, pytest.raises(RootError) as caught:
        ASKS[ask](client)

    assert caught.value.code == "root_path_too_long"
    assert "has 505 bytes, and SQLite takes 504 at most" in str(caught.value)
    assert not any(tmp_path.iterdir())
    with Client(root(504)) as client:
        ASKS[ask](client)


@pytest.mark.parametrize("node_id", ["", " ", "a b", "a/b", "x" * 65])
def test_maintenance_takes_no_node_id_that_a_node_does_not(client: Client, node_id: str) -> None:
    with pytest.raises(UsageError) as caught:
        client.maintenance(node_id)

    assert caught.value.code == "bad_node_id"
    assert client.maintenance("node-1").node_id == "node-1"
