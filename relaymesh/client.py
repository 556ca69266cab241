"""Client: everything that can be asked of a data root, with or without a node running on it.

A client opens the database itself, commits what it submits, and then tells running nodes to look. So an answer means
the same whether a node is up or not: it is on disk.

    with Client("data") as client:
        task = client.submit("echo", "hello")
        print(client.result(task.task_id))  # waits for a node to run it: `relaymesh up`

What can be asked is in the rooms of ``relaymesh.door``. Whatever changes the root is recorded in the audit log once it
is on disk. A record that cannot be written fails no call (``relaymesh.audit.trail``). What only looks is recorded by
the command that was typed, not here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from relaymesh.door.audit import Audits
from relaymesh.door.change import Changes
from relaymesh.door.gossip import Gossips
from relaymesh.door.keep import Keeps
from relaymesh.door.limit import Limits
from relaymesh.door.mesh import Meshes
from relaymesh.door.observe import Observes
from relaymesh.door.setting import Configures
from relaymesh.door.submit import Submits

if TYPE_CHECKING:
    from relaymesh.submission import BadPayloadError, BadTimeError, PayloadTooLargeError, default_key

__all__ = ["BadPayloadError", "BadTimeError", "Client", "PayloadTooLargeError", "default_key"]


class Client(Submits, Changes, Observes, Limits, Configures, Audits, Keeps, Meshes, Gossips):
    """A door to one data root. Cheap to make: nothing is opened before the first call. Not thread-safe.

    root: the data root folder. agents: modules or files whose agents may be submitted to although no node runs them
    yet.
    actor: who the audit log says did it. now_ms: wall clock, for tests.
    submitter: how tasks are stored; a program that runs a node hands in the node's own group commit, everybody else
        commits on a connection of its own.
    gate: which bounds of the admission gate hold: those that somebody ``set``, or ``always`` the defaults too, as for
        the commands ``submit`` and ``submit-workflow``.

    A value of a wrong kind, here or in a method, is an InputError that says what to write.
    """


def __getattr__(name: str) -> object:
    """Bring the names of ``relaymesh.submission`` that are imported from here."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from relaymesh import submission

    value: object = getattr(submission, name)
    globals()[name] = value
    return value
