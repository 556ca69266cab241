"""The command line. ``main`` is the console script; everything else is loaded when a command needs it.

    main ──▶ group.py: global options, finds the command by name
                │ call.py: what this invocation knows (root, namespace, output, how to reach a client or a node)
                ▼
             submit.py, look.py, observe.py, change.py, run.py, operate.py, …: one function per command
                │                                │
                ▼                                ▼
             relaymesh.client, relaymesh.node    output.py (JSON), table.py (terminal), fault.py (errors),
                                                 printer.py (what a running worker says)

No rule is decided here. A command returns its exit status, or None for 0.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from relaymesh.cli.call import Doors

__all__ = ["main"]


def main(argv: Sequence[str] | None = None, *, doors: Doors | None = None) -> int:
    """Run one command; return its exit status: 0 done, 1 a negative answer or an error, 2 usage.

    argv: the words after the program's name; by default those of this process.
    doors: how to reach a client and a node; tests hand in their own.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        from relaymesh.cli.group import relaymesh

        # The words are handed over so that nothing expands wildcards in an --input on Windows.
        status = relaymesh.main(words, prog_name="relaymesh", standalone_mode=False, obj=doors)
    except (Exception, KeyboardInterrupt) as error:
        from relaymesh.cli import fault

        return fault.report(error, words)
    return status if isinstance(status, int) else 0
