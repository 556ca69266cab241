"""Whether the node builder that setup.cfg registers can be found, or hides behind another package of the same name."""

from __future__ import annotations

from importlib.metadata import entry_points
from importlib.util import find_spec

__all__ = ["shadowed_by"]


def shadowed_by() -> str | None:
    """Return a sentence naming what is in the way of the node builder, or None when nothing is."""
    found = entry_points(group="relaymesh.node", name="default")
    if not found:
        return "RelayMesh is not installed here, so no node can be started: pip install it into this environment"
    module = next(iter(found)).module
    package = module.partition(".")[0]
    try:
        if find_spec(module) is not None:
            return None
        spec = find_spec(package)
    except ImportError:
        spec = None
    where = spec.origin if spec is not None and spec.origin else "an unknown place"
    return (
        f"a package {package!r} from {where} hides RelayMesh's own, so no node can be started: "
        "uninstall it, or use an environment of its own for RelayMesh"
    )
