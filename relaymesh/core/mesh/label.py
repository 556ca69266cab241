"""Which mesh a node belongs to: nodes of another label are not heard, whatever their key.

    a label was set                ──▶ that one
    a secret, or open on purpose   ──▶ the namespace: all who have the secret, or hear us, are meant
    neither: this machine only     ──▶ the namespace of this root alone

The last keeps roots of one machine apart. Ports are used again: without it, a node that asks after a dead member of its
own would meet whoever has its port now, and take the two for one mesh.
"""

from __future__ import annotations

__all__ = ["mesh_label"]


def mesh_label(namespace: str, *, label: str, signed: bool, insecure: bool, place: str) -> str:
    """Return the label. place: a text that is the same for all nodes of a root on this machine, and for no others."""
    if label:
        return f"label:{label}"
    if signed or insecure:
        return f"namespace:{namespace}"
    return f"root:{place}:{namespace}"
