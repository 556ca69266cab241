from __future__ import annotations

import stat
import sys
from pathlib import Path

import pytest

from relaymesh.run_file import put_run_file


def test_a_run_file_is_replaced_whole_and_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.wake"
    path.write_text("a longer former content")

    put_run_file(path, b"1\n\r\n")

    assert path.read_bytes() == b"1\n\r\n"
    assert list(tmp_path.iterdir()) == [path]
    if sys.platform != "win32":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_run_file_that_cannot_be_put_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "a.wake"
    (path / "in the way").mkdir(parents=True)

    with pytest.raises(OSError):
        put_run_file(path, b"x")

    assert list(tmp_path.iterdir()) == [path]
