"""An export is written aside and renamed: what it may take the place of, and what is left when it cannot."""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from relaymesh.client import Client
from relaymesh.errors import InputError
from relaymesh.store.export import OutputFileError

Export = Callable[[Client, "str | Path"], object]


def _dead(client: Client, out: str | Path) -> object:
    return client.dead_export(out)


def _task(client: Client, out: str | Path) -> object:
    return client.task_export(client.submit("echo", "x").task_id, out)


@pytest.fixture(params=[_dead, _task])
def export(request: pytest.FixtureRequest, client: Client) -> Export:
    client.init()
    chosen: Export = request.param
    return chosen


@pytest.mark.skipif(sys.platform == "win32", reason="pipes have no place in a folder there")
def test_an_export_leaves_a_pipe_and_a_link_to_one_where_they_are(
    client: Client, export: Export, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "pipe")

    for name in ("pipe", "link"):
        with pytest.raises(OutputFileError, match="it is a device or a pipe"):
            export(client, tmp_path / name)

    assert stat.S_ISFIFO(os.lstat(tmp_path / "pipe").st_mode)
    assert (tmp_path / "link").is_symlink()


@pytest.mark.skipif(sys.platform == "win32", reason="links need a right of their own there")
def test_an_export_through_a_link_writes_what_it_points_to(client: Client, export: Export, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "file")

    export(client, str(tmp_path / "link"))

    assert (tmp_path / "link").is_symlink()
    assert json.loads((tmp_path / "file").read_text("utf-8")) is not None


@pytest.mark.skipif(sys.platform == "win32", reason="links need a right of their own there")
def test_an_export_leaves_a_link_that_points_to_itself(client: Client, export: Export, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")

    with pytest.raises(OutputFileError):
        export(client, tmp_path / "loop")

    assert (tmp_path / "loop").is_symlink()


@pytest.mark.parametrize("name", ["", "file/below", "no/folder", "a\0b", "x" * 300])
def test_a_place_that_no_file_can_have_is_one_sentence(
    client: Client, export: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("kept")
    before = sorted(os.listdir())

    with pytest.raises(InputError, match="cannot be written") as caught:
        export(client, name)

    assert caught.value.code == "output_file"
    assert sorted(os.listdir()) == before
    assert (tmp_path / "file").read_text() == "kept"
