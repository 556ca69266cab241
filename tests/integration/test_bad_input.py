"""Every command on every bad root, and with bad input: one sentence on stderr, the right exit status, no traceback."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from relaymesh.cli import main
from relaymesh.client import Client
from relaymesh.store.error import RootReadOnlyError
from relaymesh.store.root import DATABASE
from tests.integration.harness import REPO, Site

MISSING_ID = "tsk_00000000-0000-7000-8000-000000000000"
FLOW = {"steps": [{"id": "a", "agent": "echo", "input": "x"}]}

# Commands that make a root where there is none.
MAKES = ("init", "submit", "submit-workflow", "maintenance", "worker", "benchmark-run", "up")
# What a command that found nothing answers to programs.
COMPACT = '{"error":"task not found"}'


def _commands(folder: Path) -> dict[str, list[str]]:
    """Return one call of each command that touches a root, by name."""
    flow = folder / "flow.json"
    flow.write_text(json.dumps(FLOW))
    return {
        "init": ["init"],
        "agents": ["agents"],
        "submit": ["submit", "--agent", "echo", "--input", "x"],
        "submit-workflow": ["submit-workflow", "--file", str(flow)],
        "worker": ["worker", "--once"],
        "task": ["task", MISSING_ID],
        "tasks": ["tasks"],
        "workflow": ["workflow", MISSING_ID],
        "cancel": ["cancel", MISSING_ID],
        "logs": ["logs", MISSING_ID],
        "explain": ["explain", MISSING_ID],
        "replay": ["replay", MISSING_ID],
        "replay-batch": ["replay-batch"],
        "task-export": ["task-export", MISSING_ID, "--out", str(folder / "task.json")],
        "dead-export": ["dead-export", "--out", str(folder / "dead.json")],
        "stats": ["stats"],
        "health": ["health"],
        "lease-conflicts": ["lease-conflicts"],
        "maintenance": ["maintenance"],
        "benchmark-run": ["benchmark-run", "--tasks", "1", "--max-seconds", "5"],
        "up": ["up"],
    }


class Answer:
    """What a command came to."""

    def __init__(self, status: int, out: str, err: str) -> None:
        self.status, self.out, self.err = status, out, err

    @property
    def code(self) -> str:
        return self.err.partition("[")[2].partition("]")[0] if self.err.startswith("error[") else ""

    def fault(self) -> str:
        """Say what is wrong with the way in which it failed; empty when nothing is."""
        if "Traceback" in self.out + self.err:
            return "a traceback"
        if self.code in ("internal", "store_defect"):
            return f"an internal error: {self.err}"
        if self.status == 0:
            return "" if not self.err.startswith("error") else f"status 0 and yet {self.err}"
        if not self.err and (self.out.strip() == COMPACT or self.out.startswith('{\n  "ok": false')):
            return ""  # a negative answer is an answer
        if self.err.count("\n") != 1 or not self.code:
            return f"not one sentence: {self.err!r}"
        return ""


@pytest.fixture
def call(capfd: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    """Return what runs a command in this process: fifty processes would take a minute."""

    def run(root: Path, *words: str) -> Answer:
        capfd.readouterr()
        status = main(["--root", str(root), *words])
        out, err = capfd.readouterr()
        return Answer(status, out, err)

    return run


def _real(root: Path, *words: str, input: bytes = b"") -> Answer:
    done = subprocess.run(
        [sys.executable, "-m", "relaymesh", "--root", str(root), *words],
        input=input,
        capture_output=True,
        cwd=REPO,
        timeout=60,
    )
    return Answer(done.returncode, done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace"))


@pytest.fixture
def good_root(tmp_path: Path) -> Path:
    """A root with a few tasks in it, large enough that half of it is not nothing."""
    root = tmp_path / "root"
    with Client(root) as client:
        for number in range(200):
            client.submit("echo", f"{number} " + "x" * 500)
    return root


def _every_command_refuses(
    call: Callable[..., Answer], root: Path, folder: Path, code: str | tuple[str, ...], *, but: tuple[str, ...] = ()
) -> None:
    codes = (code,) if isinstance(code, str) else code
    wrong = []
    for name, words in _commands(folder).items():
        if name in but:
            continue
        answer = call(root, *words)
        if answer.fault() or answer.status != 1 or (answer.code not in codes and name != "health"):
            wrong.append(
                f"{name}: {answer.status} {answer.code} {answer.fault()}\n{answer.err[-600:]}{answer.out[-200:]}"
            )
    assert not wrong, "\n".join(wrong)


def test_a_missing_root_is_named_by_every_command_that_would_not_make_it(
    call: Callable[..., Answer], tmp_path: Path
) -> None:
    root = tmp_path / "nowhere"

    _every_command_refuses(call, root, tmp_path, "root_missing", but=(*MAKES, "agents"))

    assert not root.exists(), "a command that only looks has made the root"


def test_a_root_that_is_a_file_is_refused_by_every_command(call: Callable[..., Answer], tmp_path: Path) -> None:
    root = tmp_path / "file"
    root.write_text("not a folder")

    _every_command_refuses(call, root, tmp_path, "root_is_file")

    assert root.read_text() == "not a folder"


def test_a_database_of_garbage_is_refused_by_every_command_and_left_as_it_is(
    call: Callable[..., Answer], good_root: Path, tmp_path: Path
) -> None:
    garbage = bytes(range(256)) * 400
    (good_root / DATABASE).write_bytes(garbage)

    _every_command_refuses(call, good_root, tmp_path, "root_corrupt")

    assert (good_root / DATABASE).read_bytes() == garbage


@pytest.mark.parametrize("keep", [100, 4_096, 20_000, 100_000])
def test_a_truncated_database_never_shows_a_traceback(
    call: Callable[..., Answer], good_root: Path, tmp_path: Path, keep: int
) -> None:
    data = (good_root / DATABASE).read_bytes()
    assert len(data) > keep
    (good_root / DATABASE).write_bytes(data[:keep])

    for name, words in _commands(tmp_path).items():
        if name in ("up", "benchmark-run", "worker"):
            continue  # they would run on what is left of it
        answer = call(good_root, *words)
        assert not answer.fault(), f"{name}: {answer.fault()}"
        assert answer.code in ("", "root_corrupt"), f"{name}: {answer.err}"


def test_a_node_does_not_start_on_a_truncated_database(good_root: Path) -> None:
    data = (good_root / DATABASE).read_bytes()
    (good_root / DATABASE).write_bytes(data[:20_000])

    answer = _real(good_root, "up")

    assert answer.status != 0
    assert "Traceback" not in answer.err
    assert "root_corrupt" in answer.err or "damaged" in answer.err


def test_a_schema_of_a_later_release_is_refused_by_every_command_and_left_as_it_is(
    call: Callable[..., Answer], good_root: Path, tmp_path: Path
) -> None:
    conn = sqlite3.connect(good_root / DATABASE)
    conn.execute("PRAGMA user_version=999")
    conn.close()

    _every_command_refuses(call, good_root, tmp_path, "schema_too_new")

    conn = sqlite3.connect(good_root / DATABASE)
    assert conn.execute("PRAGMA user_version").fetchone() == (999,)
    conn.close()


def test_the_database_of_another_program_is_refused_by_every_command(
    call: Callable[..., Answer], tmp_path: Path
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    conn = sqlite3.connect(root / DATABASE)
    conn.execute("CREATE TABLE songs(title TEXT)")
    conn.commit()
    conn.close()

    _every_command_refuses(call, root, tmp_path, "root_corrupt")


def test_a_folder_in_place_of_the_database_is_refused_by_every_command(
    call: Callable[..., Answer], tmp_path: Path
) -> None:
    (tmp_path / "root" / DATABASE).mkdir(parents=True)

    _every_command_refuses(call, tmp_path / "root", tmp_path, ("root_read_only", "root_corrupt"))


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b'{"leaseTimeoutMs": "soon"}', b'{"leaseTimeout": 5}', b"[]"])
def test_bad_settings_are_refused_by_every_command_that_needs_them(
    call: Callable[..., Answer], good_root: Path, tmp_path: Path, content: bytes
) -> None:
    (good_root / "relaymesh-settings.json").write_bytes(content)

    for name in ("init", "submit", "submit-workflow", "maintenance", "worker", "benchmark-run", "up"):
        answer = call(good_root, *_commands(tmp_path)[name])
        assert answer.status == 1 and answer.code == "bad_settings" and not answer.fault(), f"{name}: {answer.err}"


@pytest.mark.parametrize("content", [b"{", b"\xff", b"[]", b'{"agents": 3}'])
def test_a_bad_file_of_scripts_is_refused_in_one_sentence(
    call: Callable[..., Answer], good_root: Path, tmp_path: Path, content: bytes
) -> None:
    (good_root / "agents" / "scripts.json").write_bytes(content)

    for name in ("agents", "submit", "submit-workflow", "worker", "up"):
        answer = call(good_root, *_commands(tmp_path)[name])
        assert answer.status == 1 and answer.code == "agent_load" and not answer.fault(), f"{name}: {answer.err}"


@pytest.fixture
def read_only_root(good_root: Path, tmp_path: Path) -> Iterator[Path]:
    """The same root where nothing can be written; permissions would not stop the superuser."""
    mount = tmp_path / "mounted"
    mount.mkdir()
    bound = subprocess.run(["mount", "--bind", str(good_root), str(mount)], capture_output=True, text=True)
    if bound.returncode != 0:
        pytest.skip(f"a read-only bind mount cannot be made here: {bound.stderr.strip()}")
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", str(mount)], check=True)
        yield mount
    finally:
        subprocess.run(["umount", "-l", str(mount)], check=True)


@pytest.mark.skipif(sys.platform != "linux", reason="bind mounts")
def test_a_root_on_a_read_only_disk_is_named_by_every_command_that_cannot_do_without_writing(
    call: Callable[..., Answer], read_only_root: Path, tmp_path: Path
) -> None:
    wrong = []
    for name, words in _commands(tmp_path).items():
        answer = call(read_only_root, *words)
        writes = name in (*MAKES, "cancel", "replay") and name != "init"
        negative = name in ("workflow", "task-export") and answer.status == 1 and answer.out and not answer.err
        if (answer.fault() and not negative) or (writes and (answer.status != 1 or answer.code != "root_read_only")):
            wrong.append(f"{name}: {answer.status} {answer.code} {answer.fault()}\n{answer.err[-400:]}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.skipif(sys.platform != "linux", reason="bind mounts")
def test_a_root_on_a_read_only_disk_can_be_looked_at(
    call: Callable[..., Answer], good_root: Path, read_only_root: Path
) -> None:
    with Client(good_root) as writer:
        task_id = writer.submit("echo", "x", idempotency_key="still").task_id
    assert not (good_root / f"{DATABASE}-wal").exists()

    for words in (
        ("tasks",),
        ("status", "--once"),
        ("members",),
        ("mesh-summary",),
        ("cluster-state",),
        ("lease-conflicts",),
        ("ownership-events",),
        ("explain", task_id),
        ("stats",),
        ("metrics",),
    ):
        answer = call(read_only_root, *words)
        assert answer.status == 0 and not answer.fault(), f"{words}: {answer.err}"
    with Client(read_only_root) as looking:
        assert looking.task(task_id).status == "PENDING"
        with Client(good_root) as writer:
            late = writer.submit("echo", "y", idempotency_key="late").task_id
            assert looking.task(late).status == "PENDING", "who opens it to write is noticed"
        with pytest.raises(RootReadOnlyError):
            looking.cancel(task_id)
    with Client(good_root) as writer:
        assert writer.task(task_id).status == "PENDING"


def test_an_id_that_does_not_exist_is_a_negative_answer_of_every_command_that_takes_one(
    call: Callable[..., Answer], good_root: Path, tmp_path: Path
) -> None:
    commands = _commands(tmp_path)
    for bad_id in (MISSING_ID, "", "x" * 500, "tsk_'; DROP TABLE tasks; --", "täsk\u2603"):
        for name in ("task", "workflow", "cancel", "logs", "explain", "replay", "task-export"):
            words = [bad_id if word == MISSING_ID else word for word in commands[name]]
            answer = call(good_root, *words)
            assert answer.status in (1, 2) and "Traceback" not in answer.err, f"{name} {bad_id!r}: {answer.err}"
            assert answer.err.count("\n") <= 1, f"{name} {bad_id!r}: {answer.err}"
    assert call(good_root, "stats").status == 0


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("submit", "--agent", "echo", "--input", "-"), "not_utf8"),
        (("submit-workflow", "--file", "-"), "workflow_not_utf8"),
    ],
)
def test_stdin_that_is_not_utf8_is_refused_and_nothing_is_stored(
    good_root: Path, words: tuple[str, ...], code: str
) -> None:
    answer = _real(good_root, *words, input=b'{"steps": "\xff\xfe"}')

    assert (answer.status, answer.code) == (1, code), answer.err
    assert not answer.fault()
    with Client(good_root) as client:
        assert client.query("SELECT count(*) FROM tasks") == [(200,)]


def test_a_batch_rejects_the_lines_that_are_not_utf8_and_takes_the_others(good_root: Path) -> None:
    good = b'{"agent": "echo", "input": "good %d"}\n'

    answer = _real(good_root, "submit", "--batch", "-", input=good % 1 + b'{"agent": "\xff"}\n\x00\n' + good % 2)

    assert answer.status == 1
    lines = [json.loads(line) for line in answer.out.splitlines()]
    results = {line["line"]: line["result"] for line in lines if "line" in line}
    assert results == {1: "accepted", 2: "rejected", 3: "rejected", 4: "accepted"}
    assert "Traceback" not in answer.err
    with Client(good_root) as client:
        assert client.query("SELECT count(*) FROM tasks") == [(202,)]


def test_agents_that_cannot_be_loaded_are_named_in_one_sentence(call: Callable[..., Answer], site: Site) -> None:
    broken = site.folder / "broken.py"
    broken.write_text("raise RuntimeError('at import')\n")
    for source in (str(broken), str(site.folder / "absent.py"), "no_such_module_here"):
        for words in (["up", "--agents", source], ["submit", "--agent", "echo", "--input", "x", "--agents", source]):
            answer = call(site.root, *words)
            assert (answer.status, answer.code) == (1, "agent_load"), f"{words}: {answer.err}"
            assert not answer.fault()


def test_a_node_id_that_is_taken_or_no_id_is_refused_in_one_sentence(call: Callable[..., Answer], site: Site) -> None:
    site.node("taken").wait_up()

    taken = call(site.root, "up", "--node-id", "taken")
    bad = call(site.root, "up", "--node-id", "../escape")

    assert (taken.status, taken.code) == (1, "node_id_taken"), taken.err
    assert (bad.status, bad.code) == (2, "bad_node_id"), bad.err
    assert not taken.fault() and not bad.fault()
