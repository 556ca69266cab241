"""The auth file: refused at the start, kept as it was later."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from relaymesh.audit import AuditTrail
from relaymesh.auth.file import ALERT, AuthFile, AuthFileError, auth_problem, read_auth_file

SECRET = "s3cret-of-nobody"
LATER_MS = 4_000_000_000_000  # long after any change in these tests: a stamp is settled


def write(path: Path, content: Any, mode: int = 0o600) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    path.chmod(mode)
    return path


def principals(*tokens: str) -> dict[str, Any]:
    return {"principals": [{"id": "p", "tokens": list(tokens)}]}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for folder in ("audit", "security", "alerts", "run"):
        (tmp_path / folder).mkdir()
    return tmp_path


def records(root: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (root / "audit" / "audit.log").read_text(encoding="utf-8").splitlines()]


@pytest.mark.skipif(os.name == "nt", reason="modes say nothing there")
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_a_file_that_others_may_use_is_refused(root: Path, mode: int) -> None:
    path = write(root / "auth.json", principals(SECRET), mode)

    with pytest.raises(AuthFileError, match=f"its mode is {mode:o}: chmod 600 it"):
        read_auth_file(path)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (f'{{"principals": [{{"id": "p", "tokens": ["{SECRET}"', "not valid JSON at line 1"),
        ('{"principals": [], "principals": []}', "a member stands there twice"),
        ("[" * 100_000, "no JSON that can be read"),
        (json.dumps(principals(SECRET)).ljust(1_048_577), "larger than 1048576 bytes"),
        (json.dumps({"principals": [{"id": "p", "role": SECRET}]}), "unknown role"),
    ],
)
def test_a_wrong_file_is_refused_without_a_word_of_its_content(root: Path, content: str, says: str) -> None:
    path = write(root / "auth.json", content)

    with pytest.raises(AuthFileError, match=says) as refused:
        read_auth_file(path)

    assert SECRET not in str(refused.value)
    assert refused.value.__cause__ is None


@pytest.mark.skipif(os.name == "nt", reason="no FIFO there")
def test_what_is_no_file_is_refused_and_not_waited_for(root: Path) -> None:
    os.mkfifo(root / "fifo", 0o600)

    for path, says in ((root / "fifo", "it is no file"), (root / "none", "No such file"), (root / "run", "it is no")):
        with pytest.raises(AuthFileError, match=says):
            read_auth_file(path)


def test_a_changed_file_is_taken_with_the_next_request(root: Path) -> None:
    path = write(root / "auth.json", principals("old"))
    file = AuthFile(path, root, AuditTrail(root))

    write(path, principals("new", "newer"))
    known = file.principals(LATER_MS)

    assert known.whose("old") is None
    assert known.whose("new") is not None
    assert [row["result"] for row in records(root)] == ["ok", "reloaded"]


def test_a_bad_file_changes_nothing_is_told_once_and_makes_health_red_until_it_is_mended(root: Path) -> None:
    path = write(root / "auth.json", principals(SECRET))
    file = AuthFile(path, root, AuditTrail(root))

    write(path, '{"principals": []}')
    kept = [file.principals(LATER_MS).whose(SECRET) for _ in range(3)]
    problem = auth_problem(root)
    write(path, principals(SECRET))
    mended = auth_problem(root)
    file.principals(LATER_MS)

    assert all(kept)
    assert problem is not None and "it names no token, so nobody could enter" in problem
    assert mended is None
    assert not (root / ALERT).exists()
    assert [row["result"] for row in records(root)] == ["ok", "error", "reloaded"]
    assert SECRET not in (root / "audit" / "audit.log").read_text(encoding="utf-8")


def test_a_removed_file_lets_nobody_in_who_was_not_known(root: Path) -> None:
    path = write(root / "auth.json", principals("t"))
    file = AuthFile(path, root, AuditTrail(root))

    path.unlink()

    assert file.principals(LATER_MS).whose("t") is not None
    assert file.principals(LATER_MS).whose("x") is None
    assert "No such file" in (auth_problem(root) or "")
