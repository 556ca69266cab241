"""The commands about settings: show, set, schema, reload and history."""

from __future__ import annotations

import os
import sys

import click

from relaymesh.cli.call import Call, at_terminal, pass_call
from relaymesh.cli.option import Command, WholeNumber, command

__all__ = ["reload_settings", "settings", "settings_history"]

_EXAMPLES = """\
relaymesh settings show
relaymesh settings set leaseTimeoutMs 20000
relaymesh settings schema"""


@click.group("settings", epilog="\b\nExample:\n" + "\n".join(f"  {line}" for line in _EXAMPLES.splitlines()))
def settings() -> None:
    """The file beats the defaults, and the environment beats the file: RELAYMESH_MAX_ATTEMPTS=5 overrides maxAttempts
    for the process that has it. Which settings there are is in docs/settings.md.
    """


@settings.command("show", cls=Command, example="relaymesh settings show\nrelaymesh settings show leaseTimeoutMs")
@click.argument("keys", metavar="[KEY]...", nargs=-1)
@pass_call
def show(call: Call, keys: tuple[str, ...]) -> None:
    """Print each setting, or those that are named, its value, and where that came from.

    The environment beats the file, the file beats the default, and what is below its floor is raised to it. Values are
    those of a process that starts now with this environment. A secret is shown as ***.
    """
    from relaymesh.core.nearest import did_you_mean, quoted
    from relaymesh.core.setting_table import by_name
    from relaymesh.settings.stray import misspelled

    known = by_name()
    for key in keys:
        if key not in known:
            raise click.UsageError(f"there is no setting {quoted(key)}{did_you_mean(key, known)}")
    with call.client() as client:
        views, alert = client.settings(), client.settings_alert()
    if alert is not None:
        since = _instant(alert.since_ms)
        click.echo(f"alert since {since}: nodes keep their former settings, because {alert.message}", err=True)
    for sentence in misspelled(os.environ):
        click.echo(sentence, err=True)
    call.show([view for view in views if not keys or view.key in keys])


@settings.command(
    "set",
    cls=Command,
    example="relaymesh settings set leaseTimeoutMs 20000",
    context_settings={"ignore_unknown_options": True},  # a negative number is a value
)
@click.argument("key", metavar="KEY")
@click.argument("value", metavar="VALUE")
@pass_call
def set_(call: Call, key: str, value: str) -> None:
    """Change one setting in the file of the root.

    The file is replaced as a whole or not at all. VALUE is what the key takes: a number, true or false, a word, or
    names separated by commas; - reads it from the standard input, which is the only way for a secret, because others
    can read a command line. Running nodes take the change at their next look at the file, unless the answer says
    otherwise.
    """
    from relaymesh.core.setting_table import by_name

    setting = by_name().get(key)
    if value == "-":
        value = _typed(f"{key}: ", hidden=setting is not None and setting.secret)
    elif setting is not None and setting.secret:
        raise click.UsageError(f"{key} is a secret: write - as VALUE and hand it in on the standard input")
    with call.client() as client:
        call.show(client.set_setting(key, value))


@settings.command("schema", cls=Command, example="relaymesh settings schema > relaymesh-settings.schema.json")
def schema() -> None:
    """Print the JSON Schema of the file, for editors."""
    import msgspec

    from relaymesh.settings.shown import schema as schema_of

    click.echo(msgspec.json.format(msgspec.json.encode(schema_of()), indent=2))


@command("reload-settings", example="relaymesh reload-settings")
@pass_call
def reload_settings(call: Call) -> None:
    """What changed is measured against the settings last recorded for the root. Running nodes look at the files by
    themselves. The exit status is 1 when a file cannot be used; nodes then keep what they have.
    """
    with call.client() as client:
        call.show(client.reload_settings())


@command("settings-history", example="relaymesh settings-history --limit 5")
@click.option("--limit", type=WholeNumber(min=1), default=20, help="At most this many loads.")
@pass_call
def settings_history(call: Call, limit: int) -> None:
    """Newest first, from the audit log. A load that was refused has the result error."""
    with call.client() as client:
        entries = client.settings_history(limit)
        details = {"limit": limit, "returned": len(entries)}
        call.looked(client, "settings.history", "runtime/settings", details)
    call.show(entries, empty="no load of settings was recorded")


def _typed(prompt: str, *, hidden: bool) -> str:
    """Return a line from the standard input; at a terminal it is asked for, a secret without an echo."""
    if at_terminal(sys.stdin):
        return str(click.prompt(prompt, hide_input=hidden, prompt_suffix=""))
    try:
        text = sys.stdin.read(65_536)
    except UnicodeDecodeError:
        raise click.UsageError("what came on the standard input is not UTF-8 text: hand the value in as such") from None
    if not text:  # the command in front of the pipe failed, most likely
        raise click.UsageError("nothing came on the standard input: hand the value in there; an empty line clears it")
    return text.rstrip("\r\n")


def _instant(at_ms: int) -> str:
    from datetime import datetime

    return datetime.fromtimestamp(at_ms / 1000).strftime("%Y-%m-%d %H:%M:%S")
