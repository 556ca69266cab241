"""What a program handed in, checked before anything is opened: a value of a wrong kind is one sentence.

The types say it too, but many programs are run that no type checker has seen. Without these checks a wrong value goes
on until it fails somewhere inside, which reads like a defect of RelayMesh, or it quietly means something else.

The sentences name the kind of a value, never the value: it may be a payload.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from relaymesh.errors import InputError

__all__ = [
    "NAME_CHARS_MAX",
    "PATH_CHARS_MAX",
    "TEXT_CHARS_MAX",
    "TextTooLongError",
    "UnknownStatusError",
    "agent_id_of",
    "budget_of",
    "check_length",
    "check_name",
    "check_note",
    "check_task_id",
    "check_text",
    "check_text_or_none",
    "check_time",
    "check_whole_number",
    "label_pair_of",
    "labels_of",
    "root_of",
    "sources_of",
    "status_of",
]


TEXT_CHARS_MAX: Final = 1_000
"""A reason, an idempotency key, a filter, and every other text of an option that has no shorter limit of its own."""
NAME_CHARS_MAX: Final = 256
"""Who does it, for the audit log."""
PATH_CHARS_MAX: Final = 4_096
"""The name of a file or folder on the command line."""


class TextTooLongError(InputError):
    """A text that would be kept, or looked for, is longer than anybody reads."""

    code = "text_too_long"
    exit_status = 2

    def __init__(self, what: str, chars: int, chars_max: int) -> None:
        super().__init__(what, chars, chars_max)
        self.what, self.chars, self.chars_max = what, chars, chars_max

    def __str__(self) -> str:
        return (
            f"{self.what} has {self.chars:,} characters, and takes {self.chars_max:,} at most: shorten it; nothing was"
            " changed"
        )


class UnknownStatusError(InputError):
    """No task is ever in a state of this name."""

    code = "unknown_status"

    def __init__(self, status: str) -> None:
        super().__init__(status)
        self.status = status

    def __str__(self) -> str:
        from relaymesh.core.nearest import did_you_mean, quoted
        from relaymesh.core.status import TaskStatus

        known = [str(known) for known in TaskStatus]
        near = did_you_mean(self.status.strip(), known)
        return f"there is no status {quoted(self.status)}{near or ':'} use {', '.join(known)}"


def check_task_id(value: object) -> None:
    """Refuse what is no id of a task.

    Raises:
        InputError: it is no text, such as what ``submit`` returned as a whole.
    """
    if not isinstance(value, str):
        what_next = "write its .task_id" if isinstance(getattr(value, "task_id", None), str) else "write that"
        raise InputError(f"a task is named by the text of its id, and this is of type {_kind(value)}: {what_next}")


def agent_id_of(value: object) -> str:
    """Return the id of an agent.

    Raises:
        InputError: it is no text, such as the function itself.
    """
    if isinstance(value, str):
        return value
    agent_id = getattr(getattr(value, "__relaymesh_agent__", None), "agent_id", None)
    what_next = f"write {agent_id!r}" if agent_id is not None else 'write that, such as "echo"'
    raise InputError(f"an agent is named by the text of its id, and this is of type {_kind(value)}: {what_next}")


def budget_of(value: object) -> dict[str, int | float | str]:
    """Return the budget of a task: kinds and amounts.

    Raises:
        InputError: it is no mapping of texts to numbers.
    """
    if value is None:
        return {}
    if isinstance(value, Mapping) and all(
        isinstance(kind, str) and isinstance(amount, int | float | str) for kind, amount in value.items()
    ):
        return dict(value)
    raise InputError(
        f"a budget is a mapping of kinds to amounts, and this is of type {_kind(value)}:"
        ' write it such as {"units:tokens": 50000}'
    )


def root_of(value: object) -> Path:
    """Return the folder of a data root.

    Raises:
        InputError: it is no path, or empty.
    """
    path = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(path, str):
        raise InputError(
            f'root is the path of a folder, and this is of type {_kind(value)}: write text, such as "data"'
        )
    if not path.strip():
        # Taken for the current directory, a variable that is not set would strew files there.
        raise InputError('root is empty: name a folder, such as "data"')
    return Path(path)


def sources_of(value: object) -> tuple[str, ...]:
    """Return where agents come from.

    Raises:
        InputError: it is no list of texts; a single text would be taken apart into its letters.
    """
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        if all(isinstance(source, str) for source in value):
            return tuple(value)
        wrong = next(source for source in value if not isinstance(source, str))
        what = f"one of them is of type {_kind(wrong)}"
    else:
        what = f"this is of type {_kind(value)}"
    raise InputError(f'agents is a list of modules or files, and {what}: write agents=["my_agents.py"]')


def check_text(name: str, value: object) -> None:
    """Refuse what is no text.

    Raises:
        InputError
    """
    if not isinstance(value, str):
        raise InputError(f"{name} is text, and this is of type {_kind(value)}: write it in quotes, or leave it out")


def check_length(what: str, text: str, chars_max: int = TEXT_CHARS_MAX) -> None:
    """Refuse a text that is too long. what: how it is called where it was handed in.

    Raises:
        TextTooLongError
    """
    if len(text) > chars_max:
        raise TextTooLongError(what, len(text), chars_max)


def check_note(name: str, value: object) -> None:
    """Refuse what is no text of up to ``TEXT_CHARS_MAX`` characters: it is kept for people to read.

    Raises:
        InputError
    """
    check_text(name, value)
    check_length(name, str(value))


def check_name(name: str, value: object) -> None:
    """Refuse what is no text of up to ``NAME_CHARS_MAX`` characters.

    Raises:
        InputError
    """
    check_text(name, value)
    check_length(name, str(value), NAME_CHARS_MAX)


def check_text_or_none(name: str, value: object) -> None:
    """Refuse what is neither text nor None.

    Raises:
        InputError
    """
    if value is not None:
        check_text(name, value)


def check_whole_number(name: str, value: object, least: int = 0) -> None:
    """Refuse what is no whole number, or below the least.

    Raises:
        InputError
    """
    if not isinstance(value, int) or isinstance(value, bool):
        raise InputError(f"{name} is a whole number, and this is of type {_kind(value)}: write it such as {name}=10")
    if value < least:
        raise InputError(f"{name} is {value}: write {least} or more")


def check_time(name: str, value: object) -> None:
    """Refuse what is neither a number nor None.

    Raises:
        InputError
    """
    if value is not None and (not isinstance(value, int | float) or isinstance(value, bool)):
        raise InputError(
            f"{name} is a number of milliseconds, and this is of type {_kind(value)}: write it such as {name}=5000"
        )


def labels_of(value: object) -> dict[str, str]:
    """Return labels as a dict; what they may hold is checked elsewhere.

    Raises:
        LabelError: they are not a mapping of texts to texts.
    """
    if value is None:
        return {}
    example = 'write a name and a text for each, such as labels={"team": "blue"}'
    if not isinstance(value, Mapping):
        raise _label_error(f"labels is a mapping, and this is of type {_kind(value)}: {example}")
    for name, text in value.items():
        if not isinstance(name, str):
            raise _label_error(f"the name of a label is text, and this is of type {_kind(name)}: {example}")
        if not isinstance(text, str):
            from relaymesh.core.nearest import quoted

            raise _label_error(f"the value of label {quoted(name)} is of type {_kind(text)}, not text: {example}", name)
    return dict(value)


def label_pair_of(value: object) -> tuple[str, str]:
    """Return the name and the value of a label to look for.

    Raises:
        LabelError: it is no pair of texts; of a text with two letters they would be the two.
    """
    if isinstance(value, Sequence) and not isinstance(value, str) and len(value) == 2:
        name, text = value
        if isinstance(name, str) and isinstance(text, str):
            return name, text
    raise _label_error('label is a pair of texts, a name and its value: write label=("team", "blue")')


def _label_error(sentence: str, name: str | None = None) -> InputError:
    from relaymesh.core.label import LabelError

    return LabelError(sentence, name=name)


def _kind(value: object) -> str:
    return type(value).__name__


def status_of(value: object) -> str | None:
    """Return the state of tasks that is meant, in any case; None where none is.

    Raises:
        InputError: it is no text.
        UnknownStatusError: there is no such state, so that an answer without rows means that there are none.
    """
    check_text_or_none("status", value)
    if value is None:
        return None
    from relaymesh.core.status import TaskStatus

    assert isinstance(value, str)
    wanted = value.strip().upper()
    if wanted not in TaskStatus.__members__:
        raise UnknownStatusError(value)
    return wanted
