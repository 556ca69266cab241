from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from relaymesh.cli.paste import shell_words
from relaymesh.errors import InputError, RootError, TaskNotFoundError, UsageError
from relaymesh.store.error import RootMissingError
from relaymesh.watch import WaitTimeoutError


@pytest.mark.parametrize(
    ("error", "status"), [(InputError("the id is wrong"), 1), (RootError("no root"), 1), (UsageError("not so"), 2)]
)
def test_an_expected_error_is_a_sentence_with_its_code_and_its_exit_status(terminal, error, status) -> None:
    terminal.answers(stats=error)

    ended = terminal.run("stats")

    assert (ended.status, ended.out, ended.err) == (status, "", f"error[{error.code}]: {error}\n")


@pytest.mark.parametrize(
    ("before", "there"),
    [
        ([], "`relaymesh explain tsk_1`"),
        (["--output", "table"], "`relaymesh explain tsk_1`"),
        (["--root", "/srv/a b"], f"`relaymesh {shell_words(['--root', '/srv/a b'])} explain tsk_1`"),
        (
            ["--output=json", "--root=/srv", "--namespace", "blue"],
            "`relaymesh --root /srv --namespace blue explain tsk_1`",
        ),
    ],
)
def test_a_command_that_a_sentence_names_is_about_the_same_root(terminal, before: list[str], there: str) -> None:
    terminal.answers(stats=WaitTimeoutError("tsk_1", "PENDING"))

    assert f"it goes on, {there} says why it waits" in terminal.run(*before, "stats").err


def test_words_of_the_command_itself_name_no_root(terminal) -> None:
    terminal.answers(submit=WaitTimeoutError("tsk_1", "PENDING"))

    ended = terminal.run("submit", "--agent", "echo", "--input", "--root", "--idempotency-key", "k")

    assert "`relaymesh explain tsk_1`" in ended.err


def test_a_sentence_that_names_its_root_is_left_as_it_is(terminal) -> None:
    terminal.answers(stats=RootMissingError("/srv"))

    assert "`relaymesh --root /srv init`" in terminal.run("--root", "/srv", "stats").err


@pytest.mark.parametrize("words", [("--output", "json"), ("--output=json",)])
def test_with_json_output_an_error_is_one_object(terminal, words) -> None:
    terminal.answers(stats=InputError("the id\nis wrong"))

    ended = terminal.run(*words, "stats")

    assert ended.out == ""
    assert json.loads(ended.err) == {"code": "bad_input", "message": "the id is wrong"}


def test_wrong_usage_with_json_output_is_one_object_too(terminal) -> None:
    ended = terminal.run("--output", "json", "sumbit")

    assert ended.status == 2
    assert json.loads(ended.err)["code"] == "usage"


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["task", "tsk_1"], '{"error":"task not found"}\n'),
        (["workflow", "tsk_1"], '{"error":"workflow not found"}\n'),
        (["logs", "tsk_1"], '{"error":"task not found"}\n'),
        (["explain", "tsk_1"], '{"error":"task not found"}\n'),
    ],
)
def test_a_task_that_does_not_exist_is_the_compact_document(terminal, words: list[str], text: str) -> None:
    terminal.answers(**{words[0]: TaskNotFoundError("tsk_1")})

    ended = terminal.run(*words)

    assert (ended.status, ended.out, ended.err) == (1, text, "")


def test_a_bug_of_ours_is_one_sentence_that_says_where_the_traceback_is(terminal, monkeypatch) -> None:
    monkeypatch.delenv("RELAYMESH_DEBUG", raising=False)
    terminal.answers(stats=ZeroDivisionError("division by nought"))

    ended = terminal.run("stats")

    path = Path(ended.err.split("traceback is in ")[1].split(", please")[0])
    try:
        assert ended.status == 1
        assert ended.err.startswith("error[internal]: ") and ended.err.count("\n") == 1
        assert "division by nought" in path.read_text(encoding="utf-8")
    finally:
        path.unlink()


def test_a_bug_of_ours_shows_its_traceback_when_asked_to(terminal, monkeypatch) -> None:
    monkeypatch.setenv("RELAYMESH_DEBUG", "1")
    terminal.answers(stats=ZeroDivisionError("division by nought"))

    assert "Traceback (most recent call last)" in terminal.run("stats").err


def test_a_path_that_cannot_be_used_is_an_expected_error(terminal) -> None:
    terminal.answers(dead_export=PermissionError(13, "Permission denied", "/secret/out.json"))

    ended = terminal.run("dead-export", "--out", "/secret/out.json")

    assert ended.status == 1
    assert ended.err == "error[io]: /secret/out.json: Permission denied: check the path and its permissions\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_an_answer_that_cannot_be_written_is_told_apart_from_what_was_done(tmp_path) -> None:
    with open("/dev/full", "w") as full:
        ended = _relaymesh("--root", str(tmp_path), "init", stdout=full)

    assert ended.returncode == 1
    said = "the answer cannot be written (No space left on device): what was done stands, see where stdout goes"
    assert ended.stderr == f"error[io]: {said}\n"
    assert (tmp_path / "relaymesh.db").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="a folder that is in use cannot be removed there")
def test_a_current_folder_that_was_removed_is_named_as_the_fault(tmp_path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()

    ended = _relaymesh("init", stdout=subprocess.PIPE, cwd=gone, preexec_fn=gone.rmdir)

    assert ended.returncode == 1
    assert "the current folder cannot be used" in ended.stderr


def _relaymesh(*words: str, **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "import sys; from relaymesh.cli import main; sys.exit(main())", *words]
    source = {"PYTHONPATH": str(Path(__file__).parents[2]), "PATH": ""}
    return subprocess.run(command, stderr=subprocess.PIPE, text=True, env=source, timeout=60, **options)  # type: ignore[call-overload,no-any-return]


def test_ctrl_c_prints_nothing_and_ends_with_130(terminal) -> None:
    terminal.answers(stats=KeyboardInterrupt())

    ended = terminal.run("stats")

    assert (ended.status, ended.out, ended.err.strip()) == (130, "", "")


@pytest.mark.skipif(sys.platform == "win32", reason="a pipe closes in another way there")
@pytest.mark.parametrize("words", [["completion", "zsh"], ["--root", "ROOT", "task", "tsk_none"]])
def test_a_reader_that_leaves_is_no_reason_to_complain(words: list[str], tmp_path: Path) -> None:
    words = [str(tmp_path) if word == "ROOT" else word for word in words]
    subprocess.run(
        [sys.executable, "-m", "relaymesh", "--root", str(tmp_path), "init"], check=True, capture_output=True
    )
    program = "import sys; from relaymesh.cli import main; sys.stdin.read(); sys.exit(main(sys.argv[1:]))"
    child = subprocess.Popen(
        [sys.executable, "-c", program, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert child.stdin and child.stdout and child.stderr

    child.stdout.close()
    child.stdin.close()

    assert child.stderr.read() == b""
    child.stderr.close()
    assert child.wait() == 1


@pytest.mark.skipif(sys.platform == "win32", reason="a shell closes a stream in another way there")
@pytest.mark.parametrize(
    ("command", "status", "sentence"),
    [
        ("tasks >&-", 0, ""),
        ("task nope >&-", 1, ""),
        ("submit --agent echo --input - <&-", 1, "error[not_readable]: stdin cannot be read (it is closed)"),
        ("submit --batch - <&-", 1, "error[not_readable]: stdin cannot be read (it is closed)"),
        ("submit-workflow --file - <&-", 1, "error[not_readable]: stdin cannot be read (it is closed)"),
        ("tasks --colour 2>&-", 2, ""),
        ("demo >&-", 0, ""),
    ],
)
def test_a_stream_that_was_closed_before_the_start_is_no_bug(
    command: str, status: int, sentence: str, tmp_path: Path
) -> None:
    relaymesh = f"{shlex.quote(sys.executable)} -m relaymesh --root {shlex.quote(str(tmp_path / 'root'))}"
    subprocess.run(f"{relaymesh} init", shell=True, check=True, capture_output=True)

    done = subprocess.run(f"{relaymesh} {command}", shell=True, cwd=tmp_path, capture_output=True, text=True)

    assert done.returncode == status
    assert done.stderr.startswith(sentence)
    assert "internal" not in done.stderr


@pytest.mark.parametrize(("name", "words"), [("settings", "show, set, schema"), ("snapshot", "verify, diff")])
def test_a_command_that_lacks_its_second_word_lists_them(terminal, name: str, words: str) -> None:
    ended = terminal.run(name)

    assert (ended.status, ended.out) == (2, "")
    assert ended.err == f"error[usage]: say what to do, one of: {words}; see `relaymesh {name} --help`\n"


def test_an_option_without_its_value_is_told_with_the_help_page_of_its_command(terminal) -> None:
    ended = terminal.run("submit", "--agent")

    assert (ended.status, ended.err) == (
        2,
        "error[usage]: option '--agent' requires an argument; see `relaymesh submit --help`\n",
    )


@pytest.mark.parametrize(
    "call",
    [
        ("snapshot-export", "--out", ""),
        ("snapshot-import", "--in", " "),
        ("task-export", "tsk_1", "--out="),
        ("audit-siem-export", "--out", ""),
        ("lease-report", "--out", ""),
        ("submit", "--batch", ""),
        ("submit-workflow", "--file", ""),
        ("snapshot", "verify", ""),
    ],
)
def test_the_empty_name_of_a_file_or_folder_is_a_usage_error_and_does_nothing(terminal, call) -> None:
    ended = terminal.run(*call)

    assert (ended.status, ended.out) == (2, "")
    assert ": it is empty: name a f" in ended.err
    assert terminal.client.calls == []


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("99999999999999d", "'99999999999999d' is too long: write at most twelve digits"),
        ("5", "'5' is not a duration: write a number and its unit, such as 1500ms, 10s, 5m, 2h"),
        ("-5s", "'-5s' is not a duration: write a number and its unit, such as 1500ms, 10s, 5m, 2h"),
    ],
)
def test_a_duration_that_cannot_be_used_is_told_why(terminal, text: str, why: str) -> None:
    ended = terminal.run("submit", "--agent", "echo", "--input", "x", "--delay", text)

    assert (ended.status, ended.err) == (
        2,
        f"error[usage]: invalid value for '--delay': {why}; see `relaymesh submit --help`\n",
    )
