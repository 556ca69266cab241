"""``completion``: the script that makes a shell complete commands and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from relaymesh.cli.option import command

__all__ = ["completion"]

SHELLS = ("bash", "zsh", "fish", "powershell")


@command(
    "completion",
    example="""relaymesh completion bash >> ~/.bashrc
relaymesh completion zsh >> ~/.zshrc
relaymesh completion fish > ~/.config/fish/completions/relaymesh.fish""",
)
@click.argument("shell", metavar="SHELL", type=click.Choice(SHELLS))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """SHELL is bash, zsh, fish or powershell."""
    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(ctx.find_root().command, {}, "relaymesh", "_RELAYMESH_COMPLETE").source())
