"""Answers as JSON: UTF-8, absent values as ``null``, one pretty document per answer, one line per item of a stream."""

from __future__ import annotations

from collections.abc import Sequence

import click
import msgspec

from relaymesh.view import View

__all__ = ["document", "line"]


def document(answer: View | Sequence[View] | Sequence[str]) -> None:
    """Print one answer with two-space indentation."""
    # Bytes, because the encoding of the terminal or the pipe must not change what is printed.
    click.echo(msgspec.json.format(msgspec.json.encode(answer), indent=2))


def line(item: View) -> None:
    """Print one item on a line of its own; ``click.echo`` flushes."""
    click.echo(msgspec.json.encode(item))
