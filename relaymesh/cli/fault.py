"""How a command that failed ends: one sentence on stderr, with a code that never changes, and an exit status.

    expected error     error[task_not_found]: there is no task ...          its exit status
    wrong usage        error[usage]: no such option --colour ...            2
    our own bug        error[internal]: ... the traceback is in FILE        1
    Ctrl-C             nothing printed                                      130

A reader that closes its end of the pipe is no error to talk about: click ends with 1, and ``_say`` gives up.

``--output json`` turns the sentence into one JSON object: ``{"code": ..., "message": ...}``.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Sequence
from itertools import pairwise
from typing import IO

import click

from relaymesh.cli.call import GLOBAL_OPTIONS, at_terminal
from relaymesh.errors import RelayMeshError, TaskNotFoundError

__all__ = ["report"]

INTERRUPTED = 130
_SENTENCE_CHARS_MAX = 4_000
"""Of a longer sentence the middle is left out: nobody reads it, and it would fill the screen."""


def report(error: BaseException, words: Sequence[str]) -> int:
    """Say what went wrong with the call ``words``; return the exit status."""
    asked_for = _output(words)
    as_json = asked_for == "json"
    match error:
        case KeyboardInterrupt() | click.Abort():
            return INTERRUPTED
        case TaskNotFoundError() if as_json or (asked_for is None and not at_terminal(sys.stdout)):
            return not_found("task")
        case RelayMeshError():
            _print(error.code, _of_this_root(str(error), words), as_json)
            return error.exit_status
        case click.UsageError():
            _print("usage", _usage_sentence(error), as_json)
            return 2
        case click.ClickException():
            _print("usage", error.format_message(), as_json)
            return 1
        case OSError() if error.strerror:
            _print("io", _os_sentence(error), as_json)
            return 1
    _print("internal", _crash_sentence(error), as_json)
    return 1


def not_found(what: str) -> int:
    """Print the compact answer that programs look for; return the exit status."""
    _say('{"error":"' + what + ' not found"}', sys.stdout)
    return 1


def _output(words: Sequence[str]) -> str | None:
    """The value of ``--output``. Looked up in the words, because parsing them may be what failed."""
    for word, following in pairwise([*words, ""]):
        if word == "--output":
            return following.lower()
        if word.startswith("--output="):
            return word.removeprefix("--output=").lower()
    return None


def _of_this_root(sentence: str, words: Sequence[str]) -> str:
    """Return the sentence with the --root and the --namespace of this call in the commands that it names.

    Without them a command that is pasted would look at another root.
    """
    from relaymesh.cli.paste import shell_words

    given: list[str] = []
    rest = iter(words)
    for word in rest:
        name, equals, value = word.partition("=")
        if name not in GLOBAL_OPTIONS:
            break  # the command; what follows is its own
        if name != "--output":
            given += [name, value if equals else next(rest, "")]
        elif not equals:
            next(rest, None)
    if not given:
        return sentence
    # One that names its root already is left as it is.
    return re.sub(r"`relaymesh (?!--root )", lambda _: f"`relaymesh {shell_words(given)} ", sentence)


def _print(code: str, sentence: str, as_json: bool) -> None:
    sentence = _cut(" ".join(sentence.split()))
    text = f"error[{code}]: {sentence}"
    if as_json:
        import json  # here: most commands fail for nobody

        text = json.dumps({"code": code, "message": sentence})
    _say(text, sys.stderr)


def _cut(sentence: str) -> str:
    """Return it without its middle when it is very long, because what was wrong with the call stands in it."""
    if len(sentence) <= _SENTENCE_CHARS_MAX:
        return sentence
    half = _SENTENCE_CHARS_MAX // 2
    return f"{sentence[:half]} [...] {sentence[-half:]}"


def _usage_sentence(error: click.UsageError) -> str:
    sentence = error.format_message().rstrip(".")
    if isinstance(error, click.exceptions.NoArgsIsHelpError) and isinstance(error.ctx.command, click.Group):
        # What it says by itself is its whole help page.
        sentence = f"say what to do, one of: {', '.join(error.ctx.command.commands)}"
    command = error.ctx.command_path if error.ctx else "relaymesh"
    # What click adds as sentences of its own becomes part of this one.
    sentence = sentence.replace(". (Did you mean", "; did you mean").replace(". Did you mean", "; did you mean")
    sentence = sentence.replace("?)", "?").replace(". Choose from:", ", choose from:")
    return f"{sentence[:1].lower()}{sentence[1:]}; see `{command} --help`"


def _os_sentence(error: OSError) -> str:
    if error.filename:
        return f"{error.filename}: {error.strerror}: check the path and its permissions"
    # No name: it was a stream that was open already, or the folder that relative paths begin at.
    try:
        os.getcwd()
    except OSError:
        return f"the current folder cannot be used ({error.strerror}): change to another one and try again"
    _give_up(sys.stdout)
    return f"the answer cannot be written ({error.strerror}): what was done stands, see where stdout goes"


def _crash_sentence(error: BaseException) -> str:
    import tempfile
    import traceback

    lines = "".join(traceback.format_exception(error))
    if os.environ.get("RELAYMESH_DEBUG"):
        click.echo(lines, err=True)
        return f"a bug in RelayMesh ({type(error).__name__}), traceback above"
    try:
        handle, path = tempfile.mkstemp(prefix="relaymesh-crash-", suffix=".txt", text=True)
        with open(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(lines)
    except OSError:
        return f"a bug in RelayMesh ({type(error).__name__}): set RELAYMESH_DEBUG=1 to see the traceback"
    return f"a bug in RelayMesh ({type(error).__name__}): the traceback is in {path}, please report it"


def _say(text: str, stream: IO[str]) -> None:
    try:
        click.echo(text, stream)
    except OSError:
        _give_up(stream)  # nobody reads any more


def _give_up(stream: IO[str]) -> None:
    """Keep the interpreter from trying again when it flushes at exit: it would complain, and end with 120."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
