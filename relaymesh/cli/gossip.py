"""The commands about gossip by hand, and about the keys of the mesh."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click

from relaymesh.cli.call import Call, at_terminal, pass_call
from relaymesh.cli.option import Command, Flag, WholeNumber, command, node_id_option, split_list
from relaymesh.errors import RelayMeshError

__all__ = ["gossip", "gossip_keys", "gossip_sync"]

F = TypeVar("F", bound=Callable[..., object])

_SECRET_BYTES_MAX = 65_536
_PORT = WholeNumber(min=1, max=65_535)
_WINDOW = WholeNumber(min=100, max=3_600_000)
_PAUSE = WholeNumber(min=0, max=86_400_000)
_FANOUT = _HOPS = WholeNumber(max=10_000)  # not positive: as the settings say
_ROUNDS = WholeNumber(min=1, max=10_000)


def _shared(window_ms: int) -> Callable[[F], F]:
    """The options of both commands."""
    options = [
        node_id_option("node-local"),
        click.option("--bind-port", type=_PORT, default=17_888, help="UDP port to listen at."),
        click.option("--bind", default="127.0.0.1", metavar="HOST", help="Address to listen at."),
        click.option(
            "--seeds",
            metavar="HOST:PORT",
            multiple=True,
            callback=split_list,
            help="Whom to tell; IPv6 in brackets; comma-separated, may be repeated.",
        ),
        click.option("--seeds-file", metavar="FILE", help="More of them, one or more a line; # begins a comment."),
        click.option(
            "--window-ms",
            type=_WINDOW,
            default=window_ms,
            help="How long to listen in each tick, up to an hour.",
        ),
        click.option("--fanout", type=_FANOUT, default=-1, help="Seeds told at a time; -1: gossipFanout."),
        click.option("--ttl", type=_HOPS, default=-1, help="Hops of a packet; -1: gossipPacketTtl."),
    ]

    def add(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return add


@command(
    "gossip",
    example="""relaymesh gossip --node-id a --bind-port 17888 --seeds 127.0.0.1:17889
relaymesh gossip --seeds-file seeds.txt --once=false --interval-ms 2000""",
)
@_shared(300)
@click.option("--interval-ms", type=_PAUSE, default=1_000, help="Pause between two ticks of a loop.")
@click.option("--once", cls=Flag, default=True, help="One tick; =false goes on until it is stopped.")
@pass_call
def gossip(call: Call, /, interval_ms: int, once: bool, **options: Any) -> None:
    """A tick answers nobody: a node hears only from those that have it among their seeds, or through them, while both
    listen. Nodes that run (`relaymesh up`) need it not. Bad seeds are told on stderr and left out.
    """
    if once:
        with call.client() as client:
            tick = client.gossip(**_told(options))
            call.show(tick)
        _say_why_nobody(call, tick.sent, tick.received)
        return
    import signal
    import threading

    over = threading.Event()
    signal.signal(signal.SIGINT, lambda *_: over.set())
    signal.signal(signal.SIGTERM, lambda *_: over.set())
    if sys.platform == "win32":
        signal.signal(signal.SIGBREAK, lambda *_: over.set())
    with call.client() as client:
        ticks = client.gossip_ticks(**_told(options), pause=lambda: over.wait(interval_ms / 1000), over=over.is_set)
        for outcome in ticks:
            call.stream(outcome)


@command(
    "gossip-sync",
    example="relaymesh gossip-sync --node-id a --seeds 127.0.0.1:17889 --rounds 6",
)
@_shared(1_200)
@click.option("--interval-ms", type=_PAUSE, default=250, help="Pause between two rounds.")
@click.option("--rounds", type=_ROUNDS, default=3, help="How many ticks; up to 10,000.")
@pass_call
def gossip_sync(call: Call, /, rounds: int, interval_ms: int, **options: Any) -> None:
    """As `gossip`, with the sums of all rounds."""
    with call.client() as client:
        sync = client.gossip_sync(**_told(options), rounds=rounds, interval_ms=interval_ms)
        call.show(sync)
    _say_why_nobody(call, sync.sent, sync.received)


def _say_why_nobody(call: Call, sent: int, received: int) -> None:
    if sent and not received:
        call.note(
            "Nothing was heard. Ticks hear each other while both listen and each has the other among its seeds; a node"
            " that runs answers when both have the same gossipSharedSecret or meshLabel."
        )


def _told(options: dict[str, Any]) -> dict[str, Any]:
    return {**options, "say": lambda sentence: click.echo(sentence, err=True)}


# -- keys ------------------------------------------------------------------------------------------------------------

_EXAMPLES = """\
relaymesh gossip-keys install --generate /media/stick/mesh-key
relaymesh gossip-keys status
relaymesh gossip-keys use 0a1b2c3d
relaymesh gossip-keys remove 9f8e7d6c"""


@click.group("gossip-keys", epilog="\b\nExample:\n" + "\n".join(f"  {line}" for line in _EXAMPLES.splitlines()))
def gossip_keys() -> None:
    """A key is changed in three steps, each on every root before the next: install it, use it, remove the old one. Each
    may be repeated. What would cut members off is refused; --force does it all the same and is recorded. Secrets are
    never shown.
    """


def _command(name: str, *, example: str) -> Callable[[Callable[..., Any]], click.Command]:
    return gossip_keys.command(name, cls=Command, example=example)


_key_id = click.argument("key_id", metavar="KEY")
_force = click.option("--force", is_flag=True, help="Also when members would be cut off.")


@_command("status", example="relaymesh gossip-keys status")
@pass_call
def status(call: Call) -> None:
    """Show the keys by their ids, and how many ALIVE members hold and use each.

    What members hold is heard in their gossip.
    """
    with call.client() as client:
        call.show(client.gossip_keys.status())


@_command(
    "install",
    example="""relaymesh gossip-keys install --generate /media/stick/mesh-key
relaymesh gossip-keys install --from /media/stick/mesh-key
relaymesh gossip-keys install --from - < mesh-key""",
)
@click.option("--from", "source", metavar="FILE|-", help="Read the secret from a file, or - for the standard input.")
@click.option("--generate", metavar="FILE", help="Make a secret and write it to a new file, for the other roots.")
@pass_call
def install(call: Call, source: str | None, generate: str | None) -> None:
    """Also open packets that are sealed with another key.

    The secret is never taken from the command line, which others can read.
    """
    if (source is None) == (generate is None):
        raise click.UsageError("say where the secret is: --from FILE, --from - or --generate FILE")
    made = None if generate is None else os.path.abspath(generate)
    secret = _read(str(source)) if made is None else _made(made)
    try:
        with call.client() as client:
            call.show(client.gossip_keys.install(secret))
    except RelayMeshError:
        if made is not None:
            os.unlink(made)  # a secret that opens nothing
        raise


@_command("use", example="relaymesh gossip-keys use 0a1b2c3d")
@_key_id
@_force
@pass_call
def use(call: Call, key_id: str, force: bool) -> None:
    """Seal packets with an installed key from now on.

    Where gossipSharedSecret is set in the settings file, it is changed as well.
    """
    with call.client() as client:
        call.show(client.gossip_keys.use(key_id, force=force))


@_command("remove", example="relaymesh gossip-keys remove 9f8e7d6c")
@_key_id
@_force
@pass_call
def remove(call: Call, key_id: str, force: bool) -> None:
    """No longer open packets that are sealed with an old key.

    Refused within ten minutes of its last use, and while a member that was not pruned has not confirmed the key that is
    used instead.
    """
    with call.client() as client:
        call.show(client.gossip_keys.remove(key_id, force=force))


def _made(path: str) -> str:
    """Write a fresh secret to a new file that only its owner reads; return it."""
    import secrets

    secret = secrets.token_urlsafe(32)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise click.UsageError(f"{path} is there already: name a new file, or take it with --from") from None
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(f"{secret}\n")
    return secret


def _read(source: str) -> str:
    if source == "-":
        if at_terminal(sys.stdin):
            return str(click.prompt("secret: ", hide_input=True, prompt_suffix=""))
        try:
            return sys.stdin.read(_SECRET_BYTES_MAX)
        except UnicodeDecodeError:
            raise click.UsageError("the standard input is not UTF-8 text: hand in the secret as such") from None
    with open(source, "rb") as file:
        data = file.read(_SECRET_BYTES_MAX)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise click.UsageError(f"{source} is not UTF-8 text: name the file with the secret") from None
