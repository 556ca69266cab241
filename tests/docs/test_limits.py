"""The tables of limits in docs/architecture.md say what the constants say, and leave none out."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import sys

import pytest

from tests.docs.facts import REPO, import_everything, trees
from tests.docs.page import rows, section

PAGE = REPO / "docs" / "architecture.md"
TEXT = PAGE.read_text(encoding="utf-8")

_UNITS = {
    "ms": 1e6,
    "s": 1e9,
    "min": 60e9,
    "h": 3600e9,
    "days": 86400e9,
    "KiB": 1024,
    "MiB": 1024**2,
    "GiB": 1024**3,
}
_SUFFIXES = {"NS": 1, "MS": 1e6, "S": 1e9, "MIB": 1024**2, "mib": 1024**2, "ms": 1e6, "ns": 1}

# Not limits that anybody meets: how much is shown to a person, and bounds inside one computation.
NOT_LIMITS = {
    "relaymesh.core.workflow:_CYCLE_SHOWN_MAX",
    "relaymesh.core.mesh.key_seen:_KEYS_MAX",
    "relaymesh.core.mesh.seed:_HOST_CHARS_MAX",
    "relaymesh.wire.mesh_event:_NUMBER_MAX",
    "relaymesh.wire.mesh_event:_INSTANT_MS_MAX",
    "relaymesh.store.key_seen_row:_MEMBERS_MAX",
    "relaymesh.net.zeroconf_discovery:_NODE_CHARS_MAX",
    "relaymesh.cli.gossip:_SECRET_BYTES_MAX",
    "relaymesh.core.workflow:_AGENTS_SHOWN_MAX",
    "relaymesh.core.nearest:_CANDIDATES_MAX",
    "relaymesh.core.nearest:_SHOWN_CHARS_MAX",
    "relaymesh.core.limit:INSTANT_MS_MAX",
    "relaymesh.core.lease_change:_RECENT_MAX",
    "relaymesh.wire.sealed:KID_BYTES_MAX",
    "relaymesh.settings.record:_BYTES_MAX",
    "relaymesh.store.count_cache:_BYTES_MAX",
    "relaymesh.core.setting:INT_MAX",
    "relaymesh.core.setting:_PATH_CHARS_MAX",
    "relaymesh.core.setting:LONG_MAX",
    "relaymesh.core.setting_table:_BACKOFF_MS_MAX",
    "relaymesh.core.credit:_SLOW_NS_MAX",
    "relaymesh.core.ident:_LOW_MAX",
    "relaymesh.core.workflow_file:_MAPPING_DEPTH_MAX",
    "relaymesh.wire.typed:_TYPES_MAX",
    "relaymesh.agents.agent_file:_NUMBER_MAX",
    "relaymesh.agents.tree_linux:_FREEZE_ROUNDS_MAX",
    "relaymesh.watch:_PAUSE_MAX",
    "relaymesh.testing:_STEPS_MAX",
    "actors.base:LINE_CHARS_MAX",
    "relaymesh.demo.flow:_ID_CHARS_MAX",
    "relaymesh.demo.chart:_LABEL_CHARS_MAX",
    "relaymesh.demo.tool:TOOLS_MAX",
}


def constants_on_page() -> dict[str, str]:
    """Return each constant that a table names, with the value beside it."""
    found = {}
    for columns in (3, 4):
        for cells in rows(TEXT, columns):
            match = re.fullmatch(r"`([\w.]+:[\w.]+)`", cells[2])
            if match:
                found[match[1]] = cells[1]
    return found


def value_of(name: str) -> float:
    """Return a constant, or the default of a field, in ns, bytes or as it is."""
    module, _, path = name.partition(":")
    owner, _, field = path.rpartition(".")
    holder = importlib.import_module(module)
    if owner and isinstance(getattr(holder, owner), type):
        value = inspect.signature(getattr(holder, owner)).parameters[field].default
    elif owner:
        value = getattr(getattr(holder, owner), field)
    else:
        value = getattr(holder, path)
    unit = re.search(r"_([A-Za-z]+?)(?:_MAX|_MIN)?$", path)  # what a name ends with, before _MAX
    return float(value) * (_SUFFIXES.get(unit[1], 1) if unit else 1)


def said(text: str) -> float:
    """Return what a value of the page says, in ns, bytes or as it is."""
    number, _, unit = text.partition(" ")
    return float(number.replace(",", "")) * _UNITS.get(unit, 1)


@pytest.mark.parametrize(("name", "text"), constants_on_page().items(), ids=constants_on_page().keys())
def test_a_limit_on_the_page_is_the_one_in_the_code(name: str, text: str) -> None:
    if name == "actors.node:GRACE_MS" and sys.platform == "win32":
        pytest.skip("the page says that Windows has another")

    assert said(text) == value_of(name)


def test_every_constant_that_is_called_a_maximum_is_on_the_page() -> None:
    import_everything()
    listed = constants_on_page()
    missing = []
    for tree, path in zip(trees(), sources(), strict=True):
        module = ".".join(path.relative_to(REPO).with_suffix("").parts)
        for node in tree.body:
            target = node.target if isinstance(node, ast.AnnAssign) else getattr(node, "targets", [None])[0]
            if isinstance(target, ast.Name) and re.search(r"_MAX$", target.id) and is_number(node):
                name = f"{module}:{target.id}"
                if name not in listed and name not in NOT_LIMITS:
                    missing.append(name)

    assert missing == []


def sources():  # type: ignore[no-untyped-def]
    return [path for package in ("relaymesh", "actors", "chaos") for path in sorted((REPO / package).rglob("*.py"))]


def is_number(node: ast.AST) -> bool:
    value = getattr(node, "value", None)
    return isinstance(value, ast.Constant | ast.BinOp)


def test_the_mailboxes_on_the_page_are_those_of_a_node() -> None:
    tree = ast.parse((REPO / "actors" / "system.py").read_text(encoding="utf-8"))
    made = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Address":
            name = node.args[0].value if isinstance(node.args[0], ast.Constant) else "(each worker)"
            given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            overflow = given.get("overflow", "Overflow.REFUSE").removeprefix("Overflow.")
            waits = f"{float(given['block_s']):g} s" if "block_s" in given else ""
            made.append([str(name), f"{int(given['capacity']):,}", overflow, waits])

    assert sorted(rows(section(PAGE, "Mailboxes"), 4)) == sorted(made)
