"""Kinds of options that several commands share, and how their text becomes a value. Wrong text is a usage error."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

import click

from relaymesh.cli.call import GLOBAL_OPTIONS
from relaymesh.core.limit import INSTANT_MS_MAX

__all__ = [
    "DURATION",
    "INSTANT",
    "LABEL",
    "Command",
    "Flag",
    "WholeNumber",
    "agents_option",
    "command",
    "dead_letter_filters",
    "given",
    "node_id_option",
    "split_budget",
    "split_labels",
    "split_list",
    "task_argument",
]

F = TypeVar("F", bound=Callable[..., object])

_DURATION = re.compile(r"(\d{1,12}(?:\.\d{1,6})?)(ms|s|m|h|d)")
_LONG_DURATION = re.compile(r"\d+(?:\.\d+)?(?:ms|s|m|h|d)")
_FIRST_MS = -62_135_596_800_000
"""The beginning of the year 1 in UTC."""
_UNIT_MS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


class Duration(click.ParamType[int]):
    """``1500ms``, ``10s``, ``5m``, ``2h``, ``1d``; the value is in milliseconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        found = _DURATION.fullmatch(value.strip())
        if found is None and _LONG_DURATION.fullmatch(value.strip()):
            self.fail(f"{value!r} is too long: write at most twelve digits", param, ctx)
        if found is None:
            self.fail(
                f"{value!r} is not a duration: write a number and its unit, such as 1500ms, 10s, 5m, 2h", param, ctx
            )
        return round(float(found[1]) * _UNIT_MS[found[2]])


class Instant(click.ParamType[int]):
    """An ISO-8601 instant such as ``2030-01-31T08:00:00Z``; the value is milliseconds since the epoch."""

    name = "instant"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        try:
            instant = datetime.fromisoformat(value.strip())
        except ValueError:
            self.fail(f"{value!r} is not an ISO instant: write it like 2030-01-31T08:00:00Z", param, ctx)
        if instant.tzinfo is None:
            self.fail(f"{value!r} has no offset: end it with Z for UTC, or with one like +02:00", param, ctx)
        since_epoch = instant - datetime(1970, 1, 1, tzinfo=UTC)
        at_ms = round(since_epoch.total_seconds() * 1000)
        if not _FIRST_MS <= at_ms <= INSTANT_MS_MAX:  # an offset can lead out of what has a year
            self.fail(f"{value!r} lies outside of the years 1 to 9999", param, ctx)
        return at_ms


class Label(click.ParamType[tuple[str, str]]):
    """``KEY=VALUE``; which keys and values can be stored is decided elsewhere."""

    name = "label"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        if isinstance(value, tuple):
            return value
        key, equals, text = value.partition("=")
        if not equals or not key.strip():
            self.fail(f"{value!r} is not a label: write KEY=VALUE", param, ctx)
        return key.strip(), text.strip()


class WholeNumber(click.IntRange):
    """A whole number, at least ``min``; the sentence about any other says so in plain words."""

    name = "n"  # what the help page shows, in capitals

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            number = int(value)
        except ValueError:
            self.fail(f"{value!r} is not a whole number", param, ctx)
        if self.min is not None and number < self.min:
            if self.clamp:
                return int(self.min)
            self.fail(f"{value} is too small: the least is {self.min}", param, ctx)
        if self.max is not None and number > self.max:
            self.fail(f"{value} is too large: the most is {self.max}", param, ctx)
        return number

    def _describe_range(self) -> str:
        return f"at least {self.min}" if self.min is not None and self.min > 1 else ""  # the others go without saying


DURATION = Duration()
INSTANT = Instant()
LABEL = Label()


class Flag(click.Option):
    """A boolean that reads ``--flag``, ``--flag=true`` and ``--flag=false``; bare it always means true."""

    def __init__(self, param_decls: Sequence[str], **attributes: Any) -> None:
        long = next(text for text in param_decls if text.startswith("--"))
        self.long = long
        super().__init__([f"{long}/{_negated(long)}"], **attributes)

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        default = "true" if self.default is True else "false"
        return f"{self.long}[=true|false]", f"{self.help}  [default: {default}]"


def _negated(long: str) -> str:
    return f"--no-{long[2:]}"


_SHORT_CHARS = 256
"""No text of an option has a limit below this, so shorter ones are not looked at."""
_NAMES = {"actor", "worker_id"}
_LIMITED_ELSEWHERE = {"VALUE", "TEXT"}
"""What the help page shows for a setting and for a payload."""
_LONG_PATHS = {"FILE", "DIR", "MODULE", "A", "B"}
"""The same for what is the name of a file, or may be."""
_PATHS = {"FILE": "file", "DIR": "folder"}
"""What the help page shows for the name of a file or folder."""


class Command(click.Command):
    """A command whose flags take ``=true`` and ``=false``, and whose help ends in an example."""

    def __init__(self, *args: Any, example: str = "", **attributes: Any) -> None:
        if example:
            attributes["epilog"] = "\b\nExample:\n" + "\n".join(f"  {line}" for line in example.splitlines())
        super().__init__(*args, **attributes)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            rest = super().parse_args(ctx, self._plain_flags(ctx, args))
        except click.NoSuchOption as error:
            command = ctx.command_path.partition(" ")[2]
            if error.option_name in GLOBAL_OPTIONS:
                sentence = f"{error.option_name} goes before the command: relaymesh {error.option_name} ... {command}"
                raise click.UsageError(sentence, ctx) from error
            if error.option_name == "--json":  # what other tools call it
                sentence = f"say relaymesh --output json {command}, or read from a pipe: that is JSON by itself"
                raise click.UsageError(f"there is no --json here; {sentence}", ctx) from error
            raise
        except click.UsageError as error:
            error.ctx = error.ctx or ctx  # whose help page the sentence names
            raise
        self._refuse_empty_paths(ctx)
        self._refuse_long_texts(ctx)
        return rest

    def _refuse_empty_paths(self, ctx: click.Context) -> None:
        """Refuse a file or folder without a name: taken for the current folder, a variable that is not set would
        strew files there."""
        for param in self.params:
            what = (param.metavar or "").partition("|")[0]
            value = ctx.params.get(param.name or "")
            if what in _PATHS and isinstance(value, str) and not value.strip():
                raise click.BadParameter(f"it is empty: name a {_PATHS[what]}", ctx, param)

    def _refuse_long_texts(self, ctx: click.Context) -> None:
        """Refuse a text longer than anybody reads. What is no text, or a payload, has a limit where it is taken."""
        for param in self.params:
            value = ctx.params.get(param.name or "")
            for text in value if isinstance(value, tuple) else (value,):
                if isinstance(text, str) and len(text) > _SHORT_CHARS:
                    _check_length(param, text)

    def _plain_flags(self, ctx: click.Context, words: list[str]) -> list[str]:
        """Rewrite ``--flag=false`` to what the parser knows, leaving everything after ``--`` alone."""
        flags = {param.long: param for param in self.params if isinstance(param, Flag)}
        plain: list[str] = []
        for index, word in enumerate(words):
            if word == "--":
                return [*plain, *words[index:]]
            name, equals, text = word.partition("=")
            if equals and name in flags:
                if text.lower() not in ("true", "false"):
                    raise click.BadParameter(f"{text!r} is neither true nor false", ctx, flags[name])
                word = name if text.lower() == "true" else _negated(name)
            plain.append(word)
        return plain


def _check_length(param: click.Parameter, text: str) -> None:
    from relaymesh.argument import NAME_CHARS_MAX, PATH_CHARS_MAX, TEXT_CHARS_MAX, check_length

    kind = (param.metavar or "").partition("|")[0]
    if kind in _LIMITED_ELSEWHERE:
        return
    chars_max = NAME_CHARS_MAX if param.name in _NAMES else PATH_CHARS_MAX if kind in _LONG_PATHS else TEXT_CHARS_MAX
    check_length(param.opts[0] if param.param_type_name == "option" else kind or str(param.name), text, chars_max)


def command(name: str, *, example: str) -> Callable[[Callable[..., Any]], Command]:
    """Declare a command; its one-sentence summary stands in the table of ``group.py``."""
    return click.command(name, cls=Command, example=example)


def split_list(_ctx: click.Context, _param: click.Parameter, values: Sequence[str]) -> tuple[str, ...]:
    """Callback of a list option: comma-separated, and repeated."""
    return tuple(part for value in values for part in (piece.strip() for piece in value.split(",")) if part)


def split_labels(ctx: click.Context, param: click.Parameter, values: Sequence[str]) -> dict[str, str]:
    """Callback of ``--label KEY=VALUE``."""
    return dict(LABEL.convert(entry, param, ctx) for entry in split_list(ctx, param, values))


def split_budget(ctx: click.Context, param: click.Parameter, values: Sequence[str]) -> dict[str, str]:
    """Callback of ``--budget KIND=AMOUNT``."""
    budget: dict[str, str] = {}
    for entry in split_list(ctx, param, values):
        kind, equals, amount = entry.partition("=")
        if not equals or kind in budget:
            raise click.BadParameter(f"{entry!r}: write each kind once, such as units:tokens=50000", ctx, param)
        budget[kind] = amount
    return budget


def agents_option(function: F) -> F:
    """``--agents``: where Python agents come from."""
    return click.option(
        "--agents",
        "agent_sources",
        metavar="MODULE|FILE",
        multiple=True,
        callback=split_list,
        help="Module or file with Python agents; comma-separated, may be repeated.",
    )(function)


def node_id_option(default: str) -> Callable[[F], F]:
    return click.option("--node-id", default=default, help="Id of the node, the owner of the steps that it runs.")


def task_argument(function: F) -> F:
    return click.argument("task_id", metavar="TASK")(function)


def dead_letter_filters(function: F) -> F:
    """The options that say which dead letters are meant."""
    options = [
        click.option("--agent", help="Of this agent only."),
        click.option("--error-class", help="With this code or exception, such as timeout or ValueError."),
        click.option("--text", help="With this text in the error, in any case."),
        click.option("--older-than", "older_than_ms", type=DURATION, help="That died at least this long ago: 10m, 2h."),
        click.option("--newer-than", "newer_than_ms", type=DURATION, help="That died at most this long ago."),
    ]
    for option in reversed(options):
        function = option(function)
    return function


def given(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that were written."""
    return {name: value for name, value in options.items() if value is not None}
