"""A report is never written over what a data root lives from, whatever path somebody types."""

from __future__ import annotations

import contextlib
import io
import sys
from pathlib import Path

import pytest

from relaymesh.cli import main
from relaymesh.client import Client
from relaymesh.store.output_place import root_of_own_file

WRITERS = (
    ("dead-export", "--out"),
    ("task-export", "TASK", "--out"),
    ("audit-siem-export", "--out"),
    ("lease-report", "--out"),
    ("slo-evaluate", "--out"),
    ("dr-automation", "--report-out"),
    ("benchmark-run", "--tasks", "1", "--report-out"),
)
OWN = (
    "relaymesh.db",
    "relaymesh.db-wal",
    "relaymesh-settings.json",
    "audit/audit.log",
    "security/audit-signing.key",
    "inbox/high/new.json",
    "payload/ab/new",
    "agents/scripts.json",
    "namespaces/blue/relaymesh-settings.json",
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    with Client(tmp_path / "root") as client:
        client.submit("echo", "x")
    return tmp_path / "root"


def typed(root: Path, *words: str) -> tuple[int, str]:
    out, err = io.TextIOWrapper(io.BytesIO(), encoding="utf-8"), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main(["--root", str(root), *words])
    return status, err.getvalue()


@pytest.mark.parametrize("words", WRITERS, ids=[words[0] for words in WRITERS])
def test_no_command_writes_its_file_over_the_database(root: Path, words: tuple[str, ...]) -> None:
    with Client(root) as client:
        (task,) = client.tasks()
    given = [task.task_id if word == "TASK" else word for word in words]

    status, said = typed(root, *given, str(root / "relaymesh.db"))

    assert status in (1, 2)
    assert f"a place of the data root {root} itself" in said and "choose another" in said
    with Client(root) as client:
        assert [one.task_id for one in client.tasks()] == [task.task_id]


@pytest.mark.skipif(sys.platform == "win32", reason="links need a right there")
@pytest.mark.parametrize("place", OWN)
def test_what_a_root_lives_from_is_refused_also_through_a_link_and_before_it_is_there(root: Path, place: str) -> None:
    link = root.with_name("link")
    link.symlink_to(root, target_is_directory=True)

    assert root_of_own_file(root / place) == root
    assert root_of_own_file(link / place) == root
    assert typed(root, "dead-export", "--out", str(root / place))[0] == 1


def test_reports_may_lie_in_the_folders_for_them_beside_the_root_and_in_the_root_itself(root: Path) -> None:
    for place in ("reports/dead.json", "alerts/dead.json", "dr/dead.json", "dead.json", "../dead.json"):
        (root / place).parent.mkdir(exist_ok=True)
        assert typed(root, "dead-export", "--out", str(root / place)) == (0, "")


def test_the_log_of_a_root_whose_database_is_gone_is_no_place_for_a_report_either(root: Path) -> None:
    (root / "relaymesh.db").unlink()

    assert root_of_own_file(root / "audit" / "audit.log") == root
